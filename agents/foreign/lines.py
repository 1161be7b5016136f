# SPDX-License-Identifier: MIT
"""Lines ``name value [time]``, as a script prints them with one echo, become samples.

A name is words joined by dots; other bytes become ``_``. A line that is only a number is called ``value``. A value is a
decimal number or ``nan``; infinity is refused, because no mean or sum survives it. A time is seconds since 1970,
up to nine digits behind the dot, or ISO 8601 with a time zone; without one the value holds now. Empty lines and
those that begin with ``#`` are comments.
"""

import math
import re
from dataclasses import dataclass
from functools import lru_cache

from agents.foreign.samples import Sample
from bus.names import clean_word
from bus.timestamp import NS_PER_S, Timestamp

MAX_LINE = 1000
MAX_NAME = 160
"""Characters of a name; the host, the family and the word of the command or file come before it."""

MAX_LINES = 50_000
SHOWN = 80
"""Characters of a bad line that get into the log."""

LONE = "value"
"""What a number without a name is called."""

LATEST_S = 100_000_000_000
"""The year 5138. What is later are milliseconds."""

_NUMBER = re.compile(r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?|[+-]?[nN][aA][nN]")
_SECONDS = re.compile(r"([0-9]{1,18})(?:\.([0-9]*))?")


@dataclass(frozen=True, slots=True, kw_only=True)
class Parsed:
    """What a text says. bad: how many of its lines make no sense. cause: the first of them, and why."""

    samples: tuple[Sample, ...] = ()
    bad: int = 0
    cause: str = ""


def parse_lines(text: str, *, may_be_cut: bool = False) -> Parsed:
    """The samples of all lines; one that makes no sense costs itself only. Measured: 2.1 µs a line.

    may_be_cut: a last line without a newline may be half written, so it makes no sense.
    Raises ValueError for more than `MAX_LINES`.
    """
    lines = text.split("\n", MAX_LINES + 1)
    if len(lines) > MAX_LINES + 1 or (len(lines) > MAX_LINES and lines[-1]):
        raise ValueError(f"it has more than {MAX_LINES} lines")
    samples: list[Sample] = []
    bad, cause = 0, ""
    last = lines.pop()
    if last.strip():
        if may_be_cut:
            bad, cause = 1, f"{_shown(last)}: the last line ends without a newline, as if it were half written"
        else:
            lines.append(last)
    for line in lines:
        stripped = line.strip()
        if not stripped or stripped[0] == "#":
            continue
        try:
            samples.append(parse_line(stripped))
        except ValueError as error:
            cause = f"{_shown(stripped)}: {error}" if not bad else cause
            bad += 1
    return Parsed(samples=tuple(samples), bad=bad, cause=cause)


def parse_line(line: str) -> Sample:
    """One line. Raises ValueError that says what is wrong, without the line."""
    if len(line) > MAX_LINE:
        raise ValueError(f"it is longer than {MAX_LINE} characters")
    words = line.split()
    if len(words) == 1:
        return Sample(name=LONE, value=parse_value(words[0]))
    if len(words) == 2:
        return Sample(name=clean_name(words[0]), value=parse_value(words[1]))
    if len(words) == 3:
        return Sample(name=clean_name(words[0]), value=parse_value(words[1]), time=parse_time(words[2]))
    raise ValueError(f"a line is NAME VALUE or NAME VALUE TIME, not {len(words)} words")


@lru_cache(maxsize=8192)
def clean_name(text: str) -> str:
    """Words joined by dots; every byte that names may not have is ``_``. Raises ValueError if it is too long."""
    name = ".".join(map(clean_word, text.split(".")))
    if len(name) > MAX_NAME:
        raise ValueError(f"the name is longer than {MAX_NAME} characters")
    return name


def parse_value(word: str) -> float:
    """A decimal number or nan. Raises ValueError."""
    if _NUMBER.fullmatch(word) is None:
        raise ValueError(f"{_shown(word)} is not a number")
    value = float(word)
    if math.isinf(value):
        raise ValueError(f"{_shown(word)} is more than a number can hold")
    return value


def parse_time(word: str) -> Timestamp:
    """Seconds since 1970, or ISO 8601 with a time zone. Raises ValueError."""
    seconds = _SECONDS.fullmatch(word)
    if seconds is not None:
        whole = int(seconds[1])
        if whole >= LATEST_S:
            raise ValueError(f"the time {_shown(word)} is too large: it is in seconds since 1970, not milliseconds")
        return Timestamp(whole * NS_PER_S + int((seconds[2] or "")[:9].ljust(9, "0")))
    try:
        time = Timestamp.from_iso8601(word)
    except (ValueError, TypeError, OverflowError):
        raise ValueError(
            f"{_shown(word)} is no time: seconds since 1970, or ISO 8601 with a time zone, like 2026-11-21T10:00:00Z"
        ) from None
    if time.posix_ns < 0:
        raise ValueError(f"the time {_shown(word)} is before 1970")
    return time


def _shown(text: str) -> str:
    """For a log: short, and in quotes."""
    return repr(text if len(text) <= SHOWN else text[:SHOWN] + "...")
