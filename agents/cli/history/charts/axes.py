# SPDX-License-Identifier: MIT
"""Where an axis has its ticks and what stands beside them."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, floor, log10

from agents.cli.localtime import DAY_NS, NS_PER_S, clock, digits_of, nice_step_ns

WITH_PREFIXES = frozenset(("B", "B/s", "Bq", "Hz", "J", "V", "W", "bit", "bit/s", "s"))
"""Units that people put k, M, G, ... before."""
LABEL_COLUMNS = 9
"""How long a number beside an axis may be."""
_PREFIXES = ("", "k", "M", "G", "T", "P", "E")
_MOST, _LEAST = 1e300, 1e-280
"""Beyond, the length of an axis would not be a number, or nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ValueAxis:
    """From `low` to `high`, which are not equal; `ticks` are (value, label)."""

    low: float
    high: float
    ticks: Sequence[tuple[float, str]]
    unit: str

    def place(self, value: float) -> float:
        """0 at the low end, 1 at the high one, and never beyond."""
        return min(1.0, max(0.0, (value - self.low) / (self.high - self.low)))


def value_axis(low: float, high: float, unit: str, most_ticks: int) -> ValueAxis:
    """An axis that holds both, with two ticks or more."""
    low, high = (min(_MOST, max(-_MOST, end)) for end in (low, high))
    if high - low <= max(_LEAST, 1e-9 * max(abs(low), abs(high))):
        low, high = (0.0, 1.0) if abs(high) < _LEAST else (low - abs(high) / 2, high + abs(high) / 2)
    step, first, last = _indices(low, high, most_ticks)
    prefix = _prefix(max(abs(low), abs(high)), unit)
    scale = 1000.0**prefix
    ticks = [(index * step, _number(index * step / scale, step / scale)) for index in range(first, last + 1)]
    return ValueAxis(
        low=min(low, first * step), high=max(high, last * step), ticks=ticks, unit=_PREFIXES[prefix] + unit
    )


def _indices(low: float, high: float, most: int) -> tuple[float, int, int]:
    """A nice step, and which multiples of it are ticks: those in the range, or if need be the next beyond."""
    coarse = _nice((high - low) / most)
    for step in (coarse, _nice(coarse / 2.5)):
        first, last = ceil(low / step - 1e-9), floor(high / step + 1e-9)
        if first < last:
            return step, first, last
    return step, first - 1, last + 1


def time_ticks(start_ns: int, end_ns: int, offset: int, most: int) -> list[tuple[int, str]]:
    """Times that people like within a range, on a clock `offset` s ahead of UTC, with what stands beside them."""
    step = nice_step_ns(end_ns - start_ns, most)
    ahead = offset * NS_PER_S
    first = -(-(start_ns + ahead) // step) * step - ahead
    return [(time, _time(time, offset, step)) for time in range(first, end_ns, step)]


def _time(time_ns: int, offset: int, step_ns: int) -> str:
    if step_ns >= DAY_NS:
        return clock(time_ns, offset, "%Y-%m-%d")
    if (time_ns + offset * NS_PER_S) % DAY_NS == 0:
        return clock(time_ns, offset, "%m-%d")
    if step_ns % (60 * NS_PER_S) == 0:
        return clock(time_ns, offset, "%H:%M")
    return clock(time_ns, offset, "%H:%M:%S", digits_of(step_ns))


def _nice(step: float) -> float:
    """The least 1, 2 or 5 times a power of ten that is not less."""
    power = 10.0 ** floor(log10(step))
    return next(digit * power for digit in (1, 2, 5, 10) if digit * power >= step * (1 - 1e-9))


def _prefix(largest: float, unit: str) -> int:
    """How many times a thousand is taken out of the numbers."""
    if unit not in WITH_PREFIXES or largest < 1000:
        return 0
    return min(len(_PREFIXES) - 1, floor(log10(largest) / 3 + 1e-9))


def _number(value: float, step: float) -> str:
    """As many decimals as tell one tick from the next, where there is room for them."""
    text = f"{value:.{max(0, -floor(log10(step) + 1e-9))}f}"
    return text if len(text) <= LABEL_COLUMNS else f"{value:.{LABEL_COLUMNS - 6}g}"
