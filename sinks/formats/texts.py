# SPDX-License-Identifier: MIT
"""Numbers and times as text, exactly: what is written is read back bit for bit.

Works on whole columns; the costs, measured, stand at each function.
"""

import datetime as dt
from array import array
from math import inf, isfinite, nan

import msgspec

from bus.chunk import MAX_NS
from bus.timestamp import NS_PER_S, Timedelta, Timestamp

NS_PER_MINUTE = 60 * NS_PER_S
SPECIAL = {"NaN": nan, "Infinity": inf, "-Infinity": -inf}
"""What JSON has no numbers for, in the words of JavaScript, Python's json and protobuf."""
QUOTED_SPECIAL = ('"NaN"', '"Infinity"', '"-Infinity"')

_MAX_MINUTES_KNOWN = 100_000


def value_texts(values: "array[float]", special: tuple[str, str, str] = ("NaN", "Infinity", "-Infinity")) -> list[str]:
    """The shortest texts that are read back as these values; `special` stands for NaN, +inf and -inf. 0.1 µs each."""
    texts = msgspec.json.encode(values.tolist())[1:-1].decode().split(",")
    if all(map(isfinite, values)):
        return texts
    is_nan, positive, negative = special
    return [
        text if isfinite(value) else is_nan if value != value else positive if value > 0 else negative
        for text, value in zip(texts, values, strict=True)
    ]


def iso_texts(times: "array[int]") -> list[str]:
    """ISO 8601 in UTC with nine digits. 0.5 µs each if there are several in a minute."""
    texts = []
    beginning, known = "", None
    for time in times:
        minute, in_minute = divmod(time, NS_PER_MINUTE)
        if minute != known:
            known = minute
            beginning = Timestamp(minute * NS_PER_MINUTE).isoformat()[:17]
        texts.append(f"{beginning}{in_minute // NS_PER_S:02d}.{in_minute % NS_PER_S:09d}Z")
    return texts


class SameTimes:
    """`iso_texts`, but what was asked last is not done again: metrics of one tick have the same times."""

    def __init__(self) -> None:
        self._times: array[int] = array("q")
        self._texts: list[str] = []

    def __call__(self, times: "array[int]") -> list[str]:
        """The texts of times."""
        if times != self._times:
            self._times, self._texts = times, iso_texts(times)
        return self._texts


class Clock:
    """Reads ISO 8601 times; those without a zone are in `zone`, or refused. 0.6 µs for each of several in a minute."""

    def __init__(self, zone: dt.tzinfo | None) -> None:
        self._zone = zone
        self._minutes: dict[str, int] = {}

    def ns(self, text: str) -> int:
        """The time in ns. Raises ValueError, which says what would be right."""
        # Mostly it is as we write it: all up to the seconds has come up before.
        numbers = text[17:19] + text[20:-1]
        if text[19:20] == "." and text[-1] == "Z" and len(numbers) <= 11 and numbers.isascii() and numbers.isdigit():
            minute = self._minutes.get(text[:17])
            if minute is None:
                if len(self._minutes) >= _MAX_MINUTES_KNOWN:
                    self._minutes.clear()
                self._minutes[text[:17]] = minute = self._slowly(f"{text[:17]}00Z")
            in_minute = int(numbers.ljust(11, "0"))
            if in_minute >= NS_PER_MINUTE:
                raise ValueError(f"{text!r} has more than 60 seconds in its minute")
            ns = minute + in_minute
        else:
            ns = self._slowly(text)
        if not -MAX_NS - 1 <= ns <= MAX_NS:
            raise ValueError(f"{text!r} is not between 1677-09-21 and 2262-04-11")
        return ns

    def _slowly(self, text: str) -> int:
        if not text.isprintable():  # datetime overlooks a NUL at the end
            raise ValueError(f"{text!r} is not an ISO 8601 time, like '2026-11-21T10:00:00Z'")
        try:
            return Timestamp.from_iso8601(text).posix_ns
        except TypeError:
            pass  # no time zone
        if self._zone is None:
            raise ValueError(f"{text!r} has no time zone: say which one is meant (--zone UTC, --zone local)")
        as_if_utc = Timestamp.from_iso8601(f"{text.strip()}{'Z' if len(text.strip()) > 10 else 'T00:00:00Z'}")
        offset = as_if_utc.datetime.replace(tzinfo=self._zone).utcoffset()
        return as_if_utc.posix_ns - (0 if offset is None else Timedelta.from_timedelta(offset).ns)


def to_float(text: str) -> float:
    """The number in a text, as JSON, C and SQL write it. Raises ValueError."""
    if "_" in text or not text.isascii():  # which Python would take
        raise ValueError(f"{text!r} is not a number")
    try:
        return float(text)
    except ValueError:
        raise ValueError(f"{text!r} is not a number") from None


def to_value(value: float | str | None) -> float:
    """A number, or what stands for one. Raises ValueError."""
    if isinstance(value, float):
        return value
    if value is None:
        return SPECIAL["NaN"]
    found = SPECIAL.get(value)
    if found is None:
        raise ValueError(f"the value {value[:100]!r} is not a number, 'NaN', 'Infinity' or '-Infinity'")
    return found
