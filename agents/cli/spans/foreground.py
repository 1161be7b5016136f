# SPDX-License-Identifier: MIT
"""A command in the foreground: with this process's stdin, stdout and stderr, and the signals that come to it.

What the terminal sends (Ctrl-C) reaches the command without us, for it is in the same process group; what other
processes send to us is passed on. The kernel says which is which.
"""

import asyncio
import errno
import os
import shutil
import signal
import threading
from collections.abc import Sequence
from types import TracebackType
from typing import Self

NOT_FOUND = 127
NOT_EXECUTABLE = 126
SIGNALLED = 128
"""Plus the number of the signal: what shells make of a command's end."""

PASSED_ON = (signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
WAKE = signal.SIGRTMIN
"""Ends the wait for signals; nobody else uses it."""
# Python ignores these, and what is ignored stays so in a program that is started.
_IGNORED_BY_PYTHON = (signal.SIGPIPE, signal.SIGXFSZ)


class Foreground:
    """Runs a command, and takes the signals of this process for as long as it is entered.

    `interrupted` is set by a signal that comes while no command runs; `signal` is its number. Must be entered in
    the main thread, and before other threads are started: they must not take the signals.
    """

    def __init__(self) -> None:
        self.interrupted = asyncio.Event()
        self.signal = 0
        self._pid = 0
        self._loop = asyncio.get_running_loop()
        # What is ignored (nohup, a shell's background) is ignored by the command, too.
        self._taken = {number for number in PASSED_ON if signal.getsignal(number) is not signal.SIG_IGN}
        self._thread = threading.Thread(target=self._take_signals, name="signals", daemon=True)

    async def __aenter__(self) -> Self:
        self._mask = signal.pthread_sigmask(signal.SIG_BLOCK, {*self._taken, WAKE})
        self._thread.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._thread.ident is not None  # it was started
        signal.pthread_kill(self._thread.ident, WAKE)
        await asyncio.to_thread(self._thread.join)
        signal.pthread_sigmask(signal.SIG_SETMASK, self._mask)

    async def run(self, arguments: Sequence[str]) -> int:
        """Run a command to its end; its exit code, 128 + n if signal n ended it.

        Raises FileNotFoundError or another OSError if it cannot be started.
        """
        # Not subprocess: its child would begin with our signals blocked.
        self._pid = os.posix_spawnp(  # noqa: ASYNC221  # does not wait
            arguments[0], list(arguments), os.environ, setsigmask=self._mask, setsigdef=_IGNORED_BY_PYTHON
        )
        # It stays a zombie until we know of its end: its number must not become another process's meanwhile.
        await asyncio.to_thread(os.waitid, os.P_PID, self._pid, os.WEXITED | os.WNOWAIT)
        pid, self._pid = self._pid, 0
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])  # noqa: ASYNC222  # it has ended
        return code if code >= 0 else SIGNALLED - code

    def _take_signals(self) -> None:
        """Runs in a thread of its own, until `WAKE`."""
        while (info := signal.sigwaitinfo({*self._taken, WAKE})).si_signo != WAKE:
            self._loop.call_soon_threadsafe(self._on_signal, info.si_signo, info.si_code <= 0)

    def _on_signal(self, number: int, from_process: bool) -> None:
        """`from_process`: not from the kernel, that is, the terminal, which sends it to the command, too."""
        if self._pid:
            if from_process:
                os.kill(self._pid, number)
        elif not self.signal:
            self.signal = number
            self.interrupted.set()


def check_command(command: str) -> None:
    """Raises the OSError with which its start would fail, as far as that can be told before."""
    if shutil.which(command) is None:
        is_there = "/" in command and os.path.exists(command)
        number = errno.EACCES if is_there else errno.ENOENT
        raise OSError(number, os.strerror(number), command)


def start_failure(command: str, error: OSError) -> tuple[int, str]:
    """The exit code for a command that cannot be started, and why in words."""
    if isinstance(error, FileNotFoundError):
        if "/" not in command:
            return NOT_FOUND, f"{command}: command not found"
        if os.path.exists(command):
            return NOT_FOUND, f"{command}: the program that its first line (#!) names is not there"
        return NOT_FOUND, f"{command}: no such file"
    return NOT_EXECUTABLE, f"{command}: {error.strerror}"
