# SPDX-License-Identifier: MIT
"""Times as this machine's clock shows them: for people; programs get ISO 8601 in UTC."""

import datetime as dt
import time
from collections.abc import Sequence

NS_PER_S = 1_000_000_000
DAY_NS = 86400 * NS_PER_S

NICE_STEPS_NS: Sequence[int] = (
    *(digit * 10**power for power in range(9) for digit in (1, 2, 5)),
    *(seconds * NS_PER_S for seconds in (1, 2, 5, 10, 15, 30)),
    *(minutes * 60 * NS_PER_S for minutes in (1, 2, 5, 10, 15, 30)),
    *(hours * 3600 * NS_PER_S for hours in (1, 2, 3, 6, 12)),
    *(days * DAY_NS for days in (1, 2, 7, 14, 28, 70, 140, 350, 700, 1400, 3500, 7000, 14000, 35000, 70000)),
)
"""Lengths of time that people count in, from fine to coarse."""


def nice_step_ns(span_ns: int, most: int) -> int:
    """The finest of `NICE_STEPS_NS` of which at most `most` make up the span."""
    return next((step for step in NICE_STEPS_NS if span_ns <= step * most), NICE_STEPS_NS[-1])


def offset_s(time_ns: int) -> int:
    """How far local time is ahead of UTC at a time."""
    return time.localtime(time_ns // NS_PER_S).tm_gmtoff


def zone(offset: int) -> str:
    """An offset for people: ``UTC+01:00``."""
    hours, minutes = divmod(abs(offset) // 60, 60)
    return f"UTC{'-' if offset < 0 else '+'}{hours:02d}:{minutes:02d}"


def clock(time_ns: int, offset: int, layout: str = "%Y-%m-%d %H:%M:%S", digits: int = 0) -> str:
    """A time on a clock that is `offset` s ahead of UTC; `digits` of the second's fraction behind it."""
    seconds, fraction = divmod(time_ns, NS_PER_S)
    shown = dt.datetime(1970, 1, 1) + dt.timedelta(seconds=seconds + offset)  # noqa: DTZ001  # the zone is `offset`
    return f"{shown:{layout}}" + (f".{fraction:09d}"[: digits + 1] if digits else "")


def digits_of(step_ns: int) -> int:
    """How many digits of a second's fraction multiples of a step need: 0, 3, 6 or 9."""
    return next(digits for digits in (0, 3, 6, 9) if step_ns % 10 ** (9 - digits) == 0)
