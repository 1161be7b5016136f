# SPDX-License-Identifier: MIT
"""Points in time and spans of time, in whole nanoseconds.

Floating-point seconds lose nanoseconds from 1970 on, so both classes hold one int and convert at the edges.
"""

import contextlib
import datetime as dt
import re
import time
from functools import total_ordering
from operator import index
from typing import Self, overload

NS_PER_S = 1_000_000_000

_UNITS_NS = {
    **dict.fromkeys(("ns", "nanosecond", "nanoseconds"), 1),
    **dict.fromkeys(("us", "µs", "μs", "microsecond", "microseconds"), 1_000),
    **dict.fromkeys(("ms", "millisecond", "milliseconds"), 1_000_000),
    **dict.fromkeys(("", "s", "sec", "second", "seconds"), NS_PER_S),
    **dict.fromkeys(("m", "min", "minute", "minutes"), 60 * NS_PER_S),
    **dict.fromkeys(("h", "hour", "hours"), 3600 * NS_PER_S),
    **dict.fromkeys(("d", "day", "days"), 86400 * NS_PER_S),
}
_DURATION = re.compile(r"\s*([+-]?)(\d*)(?:[.,](\d*))?\s*([a-zµμ]*)\s*", re.IGNORECASE)
_ISO_FRACTION = re.compile(r"(.*?\d{2}:?\d{2}:?\d{2})[.,](\d{1,9})\d*(.*)")
_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)


@total_ordering
class Timedelta:
    """A span of time, in whole nanoseconds, possibly negative."""

    __slots__ = ("_ns",)

    def __init__(self, nanoseconds: int) -> None:
        self._ns = index(nanoseconds)

    @classmethod
    def from_timedelta(cls, delta: dt.timedelta) -> Self:
        """From the standard library's timedelta, exactly."""
        return cls(((delta.days * 86400 + delta.seconds) * 1_000_000 + delta.microseconds) * 1000)

    @classmethod
    def from_s(cls, seconds: float) -> Self:
        """From seconds."""
        return cls(round(seconds * NS_PER_S))

    @classmethod
    def from_ms(cls, milliseconds: float) -> Self:
        """From milliseconds."""
        return cls(round(milliseconds * 1e6))

    @classmethod
    def from_us(cls, microseconds: float) -> Self:
        """From microseconds."""
        return cls(round(microseconds * 1e3))

    @classmethod
    def from_string(cls, text: str) -> Self:
        """From a number and a unit: ``"10s"``, ``"1.5 min"``, ``"200ms"``, ``"7 days"``; no unit means seconds.

        Units: ns, us, ms, s, min (or m), h, d, and their long names. Raises ValueError for anything else.
        """
        match = _DURATION.fullmatch(text)
        if match is None or not (match[2] or match[3]):
            raise ValueError(f"{text!r} is not a duration: a number and a unit, like '10s', '1.5min' or '7d'")
        sign, whole, fraction, unit = match.groups(default="")
        scale = _UNITS_NS.get(unit.lower())
        if scale is None:
            raise ValueError(f"{unit!r} in {text!r} is not a unit of time: ns, us, ms, s, min, h or d")
        nanoseconds = int(whole or "0") * scale + int(fraction or "0") * scale // 10 ** len(fraction)
        return cls(-nanoseconds if sign == "-" else nanoseconds)

    @property
    def ns(self) -> int:
        """Nanoseconds."""
        return self._ns

    @property
    def us(self) -> float:
        """Microseconds."""
        return self._ns / 1e3

    @property
    def ms(self) -> float:
        """Milliseconds."""
        return self._ns / 1e6

    @property
    def s(self) -> float:
        """Seconds."""
        return self._ns / NS_PER_S

    @property
    def timedelta(self) -> dt.timedelta:
        """The standard library's timedelta, in whole microseconds, rounded down."""
        return dt.timedelta(microseconds=self._ns // 1000)

    @property
    def precise_string(self) -> str:
        """The shortest text that `from_string` turns back into exactly this span."""
        for unit in ("d", "h", "min", "s", "ms", "us"):
            if self._ns % _UNITS_NS[unit] == 0 and self._ns:
                return f"{self._ns // _UNITS_NS[unit]}{unit}"
        return f"{self._ns}ns"

    @overload
    def __add__(self, other: "Timedelta | dt.timedelta") -> "Timedelta": ...
    @overload
    def __add__(self, other: "Timestamp") -> "Timestamp": ...
    def __add__(self, other: "Timedelta | dt.timedelta | Timestamp") -> "Timedelta | Timestamp":
        if isinstance(other, Timestamp):
            return other + self
        ns = _span_ns(other)
        return NotImplemented if ns is None else Timedelta(self._ns + ns)

    def __sub__(self, other: "Timedelta | dt.timedelta") -> "Timedelta":
        ns = _span_ns(other)
        return NotImplemented if ns is None else Timedelta(self._ns - ns)

    def __neg__(self) -> "Timedelta":
        return Timedelta(-self._ns)

    def __mul__(self, factor: float) -> "Timedelta":
        if not isinstance(factor, int | float):
            return NotImplemented
        return Timedelta(self._ns * factor if isinstance(factor, int) else round(self._ns * factor))

    __rmul__ = __mul__

    @overload
    def __truediv__(self, other: "Timedelta | dt.timedelta") -> float: ...
    @overload
    def __truediv__(self, other: float) -> "Timedelta": ...
    def __truediv__(self, other: "Timedelta | dt.timedelta | float") -> "float | Timedelta":
        if isinstance(other, int):
            return Timedelta((2 * self._ns + other) // (2 * other))
        if isinstance(other, float):
            return Timedelta(round(self._ns / other))
        ns = _span_ns(other)
        return NotImplemented if ns is None else self._ns / ns

    @overload
    def __floordiv__(self, other: "Timedelta | dt.timedelta") -> int: ...
    @overload
    def __floordiv__(self, other: int) -> "Timedelta": ...
    def __floordiv__(self, other: "Timedelta | dt.timedelta | int") -> "int | Timedelta":
        if isinstance(other, int):
            return Timedelta(self._ns // other)
        ns = _span_ns(other)
        return NotImplemented if ns is None else self._ns // ns

    def __mod__(self, other: "Timedelta | dt.timedelta") -> "Timedelta":
        ns = _span_ns(other)
        return NotImplemented if ns is None else Timedelta(self._ns % ns)

    def __bool__(self) -> bool:
        return self._ns != 0

    def __eq__(self, other: object) -> bool:
        ns = _span_ns(other)
        return NotImplemented if ns is None else self._ns == ns

    def __lt__(self, other: "Timedelta | dt.timedelta") -> bool:
        ns = _span_ns(other)
        return NotImplemented if ns is None else self._ns < ns

    def __hash__(self) -> int:
        # A span that a standard timedelta can hold equals it, so that it must hash like it.
        if self._ns % 1000 == 0:
            with contextlib.suppress(OverflowError):
                return hash(self.timedelta)
        return hash(self._ns)

    def __str__(self) -> str:
        return f"{self.s}s"

    def __repr__(self) -> str:
        return f"Timedelta({self._ns})"


@total_ordering
class Timestamp:
    """A point in time: nanoseconds since 1970-01-01T00:00:00Z, leap seconds not counted (POSIX time)."""

    __slots__ = ("_ns",)

    def __init__(self, nanoseconds: int) -> None:
        self._ns = index(nanoseconds)

    @classmethod
    def now(cls) -> Self:
        """The wall clock, with its full resolution."""
        return cls(time.time_ns())

    @classmethod
    def ago(cls, delta: Timedelta) -> Self:
        """`delta` before now."""
        return cls(time.time_ns() - delta.ns)

    @classmethod
    def from_now(cls, delta: Timedelta) -> Self:
        """`delta` after now."""
        return cls(time.time_ns() + delta.ns)

    @classmethod
    def from_posix_seconds(cls, seconds: float) -> Self:
        """From seconds since the epoch; a float holds about 200 ns of resolution today."""
        return cls(int(seconds * NS_PER_S))

    @classmethod
    def from_datetime(cls, when: dt.datetime) -> Self:
        """From an aware datetime, exactly. Raises TypeError for a naive one."""
        if when.tzinfo is None:
            raise TypeError(f"{when!r} has no time zone; use from_local_datetime if it is local time")
        return cls(Timedelta.from_timedelta(when - _EPOCH).ns)

    @classmethod
    def from_local_datetime(cls, when: dt.datetime) -> Self:
        """From a naive datetime in this machine's time zone. Raises TypeError for an aware one."""
        if when.tzinfo is not None:
            raise TypeError(f"{when!r} has a time zone; use from_datetime")
        return cls.from_datetime(when.astimezone())

    @classmethod
    def from_iso8601(cls, text: str) -> Self:
        """From ISO 8601 with a time zone, ``2026-11-21T10:00:00.123456789Z``: up to nine digits of a second count.

        Raises ValueError if it is not ISO 8601, TypeError if it lacks the time zone.
        """
        fraction_ns = 0
        whole = text.strip()
        match = _ISO_FRACTION.fullmatch(whole)
        if match:
            fraction_ns = int(match[2].ljust(9, "0"))
            whole = match[1] + match[3]
        try:
            when = dt.datetime.fromisoformat(whole)
        except ValueError:
            raise ValueError(f"{text!r} is not an ISO 8601 time, like '2026-11-21T10:00:00Z'") from None
        if when.tzinfo is None:
            raise TypeError(f"{text!r} has no time zone: add 'Z' for UTC or an offset like '+01:00'")
        return cls(cls.from_datetime(when).posix_ns + fraction_ns)

    @property
    def posix_ns(self) -> int:
        """Nanoseconds since the epoch."""
        return self._ns

    @property
    def posix_us(self) -> float:
        """Microseconds since the epoch."""
        return self._ns / 1e3

    @property
    def posix_ms(self) -> float:
        """Milliseconds since the epoch."""
        return self._ns / 1e6

    @property
    def posix(self) -> float:
        """Seconds since the epoch."""
        return self._ns / NS_PER_S

    @property
    def datetime(self) -> dt.datetime:
        """An aware datetime in UTC, in whole microseconds, rounded down."""
        return _EPOCH + dt.timedelta(microseconds=self._ns // 1000)

    def isoformat(self) -> str:
        """ISO 8601 in UTC with all nine digits, which `from_iso8601` reads back exactly."""
        seconds, fraction = divmod(self._ns, NS_PER_S)
        return f"{_EPOCH + dt.timedelta(seconds=seconds):%Y-%m-%dT%H:%M:%S}.{fraction:09d}Z"

    def __add__(self, delta: "Timedelta | dt.timedelta") -> "Timestamp":
        ns = _span_ns(delta)
        return NotImplemented if ns is None else Timestamp(self._ns + ns)

    @overload
    def __sub__(self, other: "Timestamp") -> Timedelta: ...
    @overload
    def __sub__(self, other: "Timedelta | dt.timedelta") -> "Timestamp": ...
    def __sub__(self, other: "Timestamp | Timedelta | dt.timedelta") -> "Timedelta | Timestamp":
        if isinstance(other, Timestamp):
            return Timedelta(self._ns - other._ns)
        ns = _span_ns(other)
        return NotImplemented if ns is None else Timestamp(self._ns - ns)

    def __mod__(self, other: Timedelta) -> Timedelta:
        return Timedelta(self._ns % other.ns)

    def __eq__(self, other: object) -> bool:
        return self._ns == other._ns if isinstance(other, Timestamp) else NotImplemented

    def __lt__(self, other: "Timestamp") -> bool:
        return self._ns < other._ns if isinstance(other, Timestamp) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._ns)

    def __str__(self) -> str:
        return self.isoformat()

    def __repr__(self) -> str:
        return f"Timestamp({self._ns})"


def _span_ns(other: object) -> int | None:
    """The nanoseconds of either kind of span; None for anything else."""
    if isinstance(other, Timedelta):
        return other.ns
    if isinstance(other, dt.timedelta):
        return Timedelta.from_timedelta(other).ns
    return None
