# SPDX-License-Identifier: MIT
"""One run of a program, bounded in time and output, of which nothing is left behind.

It blocks, in a thread: starting a program may hang (its file is on a dead NFS server), which on the event loop
would stop all agents of the process. The program leads a session and process group of its own; what is left of the
group when the program has ended is killed before the program is reaped, so that its id cannot be another's by then.
"""

import contextlib
import os
import selectors
import signal
import socket
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import IO

TERM_S = 0.5
"""How long a program has to end after SIGTERM; then SIGKILL."""

LINGER_S = 0.5
"""How long the output of a program that has ended is read on, if something that it left behind holds it open."""

MAX_COMPLAINT = 4096
"""Bytes at the end of the standard error that are kept."""

LOOK_S = 0.02
"""Between looks whether it has ended, where the kernel cannot tell (Linux before 5.3)."""

_BLOCK = 65536


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """What to run, and its limits. timeout_s: then it is killed. max_output: bytes, likewise."""

    argv: tuple[str, ...]
    timeout_s: float
    max_output: int
    env: Mapping[str, str] = field(repr=False)
    cwd: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """How a run ended.

    failure: why its output is of no use; None if it ended with 0, in time. output: all of it, empty after a failure.
    complaint: the end of its standard error. exit_code: 128 + n if signal n ended it, not a number if it did not start.
    stopped: it was ended because it is no longer wanted.
    """

    failure: Exception | None
    output: bytes = b""
    complaint: str = ""
    exit_code: float = float("nan")
    duration_s: float = 0.0
    stopped: bool = False


def run(program: Program, stop: socket.socket) -> Ended:
    """Run a program to its end. It is ended early when the other end of `stop` is closed; this end is closed here."""
    with stop:
        began_s = time.monotonic()
        try:
            process = subprocess.Popen(  # noqa: S603  # whoever configures this host says what it runs
                program.argv,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                bufsize=0,
                cwd=program.cwd,
                env=program.env,
                start_new_session=True,
            )
        except OSError as error:
            return Ended(failure=_not_started(program, error), duration_s=time.monotonic() - began_s)
        with _Run(process, program, stop, began_s + program.timeout_s) as watched:
            watched.to_the_end()
        return watched.outcome(time.monotonic() - began_s)


def _not_started(program: Program, error: OSError) -> Exception:
    if isinstance(error, FileNotFoundError) and "/" not in program.argv[0] and error.filename != program.cwd:
        return FileNotFoundError(f"there is no program {program.argv[0]!r} in the directories of PATH")
    # The text, not the number: what is missing here is no feature of a kernel, so it is worth a warning.
    return type(error)(f"cannot start {error.filename or program.argv[0]!r}: {error.strerror}")


class _Run:
    """A process, and what is known of it. As a context: at its end nothing of the process is left."""

    def __init__(
        self, process: "subprocess.Popen[bytes]", program: Program, stop: socket.socket, deadline_s: float
    ) -> None:
        self._process = process
        self._program = program
        self._deadline_s = deadline_s
        self._output = bytearray()
        self._complaint = bytearray()
        self._exit_code: float | None = None
        self._how = ""
        self._failure: Exception | None = None
        self._stopped = False
        self._kill_at_s: float | None = None
        self._selector = selectors.PollSelector()
        self._pidfd: int | None = None
        self._open_pipes = 0
        self._stop = stop

    def __enter__(self) -> "_Run":
        return self

    def __exit__(self, *_error: object) -> None:
        self._signal(signal.SIGKILL)
        self._process.wait()
        self._selector.close()
        if self._pidfd is not None:
            os.close(self._pidfd)
        for pipe in (self._process.stdout, self._process.stderr):
            assert pipe is not None
            pipe.close()

    def to_the_end(self) -> None:
        """Until the program has ended, one way or the other, and its output is read."""
        self._watch()
        linger_until_s = 0.0
        while True:
            now_s = time.monotonic()
            if self._pidfd is None:
                self._on_exit()
            ended = self._exit_code is not None
            self._judge(now_s)
            if ended:
                linger_until_s = linger_until_s or now_s + LINGER_S
                if self._is_to_end or not self._open_pipes or now_s >= linger_until_s:
                    return
                until_s = linger_until_s
            else:
                until_s = self._push(now_s)
            patience_s = max(0.0, until_s - now_s)
            for key, _ in self._selector.select(patience_s if self._pidfd is not None else min(patience_s, LOOK_S)):
                key.data()

    def outcome(self, duration_s: float) -> Ended:
        """What came of it."""
        failure = self._failure
        code = self._exit_code
        if failure is None and not self._stopped and code:
            failure = ChildProcessError(self._how)
        useful = failure is None and not self._stopped
        return Ended(
            failure=failure,
            output=bytes(self._output) if useful else b"",
            complaint=self._complaint.decode("utf-8", "replace"),
            exit_code=float("nan") if code is None else code,
            duration_s=duration_s,
            stopped=self._stopped,
        )

    @property
    def _is_to_end(self) -> bool:
        return self._stopped or self._failure is not None

    def _watch(self) -> None:
        self._selector.register(self._stop, selectors.EVENT_READ, self._on_stop)
        for pipe, take in ((self._process.stdout, self._output), (self._process.stderr, self._complaint)):
            assert pipe is not None
            os.set_blocking(pipe.fileno(), False)
            self._selector.register(pipe, selectors.EVENT_READ, lambda pipe=pipe, take=take: self._on_pipe(pipe, take))
            self._open_pipes += 1
        with contextlib.suppress(OSError):
            self._pidfd = os.pidfd_open(self._process.pid)
            self._selector.register(self._pidfd, selectors.EVENT_READ, self._on_exit)

    def _judge(self, now_s: float) -> None:
        """Whether there is a reason to end it."""
        if self._is_to_end:
            return
        if len(self._output) > self._program.max_output:
            self._failure = ValueError(f"its output is more than {self._program.max_output} bytes (max_output)")
        elif self._exit_code is None and now_s >= self._deadline_s:
            self._failure = TimeoutError(f"it did not end within {self._program.timeout_s:g} s, so it was killed")

    def _push(self, now_s: float) -> float:
        """End it if there is a reason, gently first. When to look again."""
        if not self._is_to_end:
            return self._deadline_s
        if self._kill_at_s is None:
            self._kill_at_s = now_s + TERM_S
            self._signal(signal.SIGTERM)
        elif now_s >= self._kill_at_s:
            self._kill_at_s = float("inf")  # nothing more can be done: a call in the kernel may never return
            self._signal(signal.SIGKILL)
        return min(self._kill_at_s, now_s + 3600)

    def _signal(self, number: int) -> None:
        """To the whole group. The process is not reaped yet, so the group's number is still its own."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, number)

    def _on_stop(self) -> None:
        self._stopped = True
        self._selector.unregister(self._stop)

    def _on_exit(self) -> None:
        """Ask how it ended, without reaping it."""
        if self._exit_code is not None:
            return
        try:
            how = os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:  # SIGCHLD is ignored in this process
            self._exit_code, self._how = float("nan"), "how it ended is not known, because SIGCHLD is ignored"
        else:
            if how is None:
                return
            if how.si_code == os.CLD_EXITED:
                self._exit_code, self._how = how.si_status, f"it ended with status {how.si_status}"
            else:
                self._exit_code, self._how = 128 + how.si_status, f"it was ended by {_signal_name(how.si_status)}"
        if self._pidfd is not None:
            self._selector.unregister(self._pidfd)

    def _on_pipe(self, pipe: IO[bytes], into: bytearray) -> None:
        try:
            data = os.read(pipe.fileno(), _BLOCK)
        except BlockingIOError:
            return
        if not data:
            self._selector.unregister(pipe)
            self._open_pipes -= 1
        elif into is self._complaint:
            into += data
            del into[:-MAX_COMPLAINT]
        elif len(into) <= self._program.max_output:  # the rest is thrown away until it has ended
            into += data


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # a real-time signal
        return f"signal {number}"
