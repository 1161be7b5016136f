# SPDX-License-Identifier: MIT
"""A family's parts fail one by one: a broken file costs its own metrics and one line in the log."""

import errno
import logging
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import TypeVar

from bus.errors import gist

T = TypeVar("T")

logger = logging.getLogger(__name__)

FAILURES = (OSError, ValueError, LookupError, ArithmeticError)
"""What a file that is missing, unreadable or garbled leads to."""

MAX_FAILING = 10_000
"""Failing parts that are remembered: a device that failed and went for good never works again."""


class Parts:
    """Catches what goes wrong in parts of a family: ``with parts("tcp"): ...``.

    A cause is logged when it is new for its part, and so is its end. errors: how often parts have failed.
    """

    def __init__(self, family: str) -> None:
        self._family = family
        self._causes: dict[str, tuple[str, str]] = {}
        self.errors = 0

    def __call__(self, part: str) -> "_Guard":
        """A context in which `FAILURES` end the block and are noted."""
        return _Guard(self, part)

    def each(self, part: str, lines: Iterable[str], parse: Callable[[str], T]) -> list[T]:
        """`parse(line)` for each line that makes sense; the first that does not is noted."""
        parsed: list[T] = []
        bad: tuple[str, Exception] | None = None
        for line in lines:
            try:
                parsed.append(parse(line))
            except FAILURES as error:
                bad = bad or (line, error)
        if bad is None:
            self.well(part)
        else:
            failure = ValueError(f"cannot read the line {bad[0][:80]!r}: {bad[1]}")
            self.failed(part, failure, kind=gist(failure))  # its counters go on
        return parsed

    def failed(self, part: str, error: BaseException, *, kind: str = "") -> None:
        """Note that a part failed. A kernel without a feature, which lacks its file, is no warning.

        kind: by what a new cause is told from the last one; default: by all that the error says.
        """
        self.errors += 1
        cause = f"{type(error).__name__}: {error}"
        kind = kind or cause
        if self._causes.get(part, ("", ""))[0] != kind:
            if len(self._causes) >= MAX_FAILING:
                self._causes.pop(next(iter(self._causes)), None)
            self._causes[part] = (kind, cause)
            absent = isinstance(error, OSError) and error.errno in (errno.ENOENT, errno.EOPNOTSUPP)
            level = logging.INFO if absent else logging.WARNING
            logger.log(level, "%s: %s failed: %s", self._family, part, cause)

    def well(self, part: str) -> None:
        """Note that a part works."""
        if self._causes and self._causes.pop(part, None) is not None:
            logger.info("%s: %s works again", self._family, part)

    @property
    def causes(self) -> dict[str, str]:
        """The parts that fail now, and why."""
        return {part: cause for part, (_, cause) in self._causes.items()}


class _Guard:
    __slots__ = ("_part", "_parts")

    def __init__(self, parts: Parts, part: str) -> None:
        self._parts = parts
        self._part = part

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        if error is None:
            self._parts.well(self._part)
            return False
        if isinstance(error, FAILURES):
            self._parts.failed(self._part, error)
            return True
        return False
