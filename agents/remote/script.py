# SPDX-License-Identifier: MIT
"""Many commands in one round trip: the script for the shell of a remote host, and its answer taken apart.

After each command the shell prints a line with a mark that is random per session, the command's number and its
exit code. What a command prints is the bytes between two marks, unchanged.
"""

import re
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from bus.errors import HostbusError

MAX_OUTPUT_BYTES = 1 << 20
"""What a host may print in one round, marks included."""

SHELL = "env LC_ALL=C sh"
"""Without `exec`, which a restricted shell refuses."""


class SessionLost(HostbusError):
    """A session ended, or has to end because of what the host sent; says why."""


class TooLong(SessionLost):
    """A command printed more than may be; it is the one after those that were answered."""

    def __init__(self) -> None:
        super().__init__(f"more than {MAX_OUTPUT_BYTES >> 20} MiB of output in one round")


@dataclass(frozen=True, slots=True)
class Answer:
    """What a command printed, its exit code, and when it ended, by the source's clock."""

    output: str
    exit_code: int
    at_s: float


def compose(commands: Sequence[str], mark: str) -> bytes:
    """The script that runs some commands, each by itself: it can neither read the script nor end the shell.

    The first line of the answer comes at once, so that a host that hangs is told from a command that does.
    """
    lines = [f"printf '\\n{mark} begin 0\\n'"]
    for number, command in enumerate(commands):
        lines.append(f"(eval {shlex.quote(command)}) </dev/null 2>/dev/null; printf '\\n{mark} {number} %d\\n' $?")
    return ("\n".join(lines) + "\n").encode("utf-8", "surrogateescape")


def in_sh(command: str) -> str:
    """What has one command run by a POSIX shell, whichever shell reads this: sh, zsh, fish and csh quote it alike."""
    # fish takes a backslash for itself between quotes, csh an exclamation mark.
    quoted = re.sub(r"[\\'!]", lambda match: f"'\\{match[0]}'", command)
    return f"{SHELL} -c '{quoted}'"


class Answers:
    """Takes the answer of a host apart, as it comes.

    Args:
        count: how many commands there are
        mark: that of the script
        clock: seconds, for the time of each answer
        answers: where they go, in the order of the commands
    """

    def __init__(self, count: int, mark: str, clock: Callable[[], float], answers: list[Answer]) -> None:
        self._count = count
        self._clock = clock
        self._answers = answers
        self._buffer = bytearray()
        self._taken = 0
        self._mark = f"\n{mark} ".encode()
        self._line = re.compile(re.escape(self._mark) + rb"(begin|[0-9]{1,4}) ([0-9]{1,3})\n")
        self.begun = False
        """True once the shell has begun with the script."""

    @property
    def complete(self) -> bool:
        """True if every command has been answered."""
        return self.begun and len(self._answers) == self._count

    def feed(self, data: bytes) -> None:
        """Take what came. Raises SessionLost."""
        searched = max(0, len(self._buffer) - len(self._mark) - 16)
        self._buffer += data
        self._taken += len(data)
        if self._taken > MAX_OUTPUT_BYTES:
            raise TooLong
        while (match := self._line.search(self._buffer, searched)) is not None:
            self._on_mark(match)
            del self._buffer[: match.end()]
            searched = 0

    def _on_mark(self, match: re.Match[bytes]) -> None:
        expected = f"{len(self._answers)}".encode() if self.begun else b"begin"
        if match[1] != expected or self.complete:
            raise SessionLost(f"its shell answers out of turn: {match[1].decode()} where {expected.decode()} was due")
        if not self.begun:  # what stands before is what the host greets with
            self.begun = True
            return
        output = self._buffer[: match.start()].decode("utf-8", "surrogateescape")
        self._answers.append(Answer(output, int(match[2]), self._clock()))
