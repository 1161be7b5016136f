# SPDX-License-Identifier: MIT
"""What a metric came to over a span of time: the numbers of `agent run` and `agent diff`.

A point speaks for the time since the point before it (bus/aggregates.py). Here what it says is cut at the ends
of the span: the first point counts only from the begin, and the first one after the end counts up to the end. So
the figures of a command that ran for half a period are those of that half period.
"""

from bisect import bisect_right
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import inf, nan
from typing import Any

from agents.cli.metadata import plain_text
from agents.cli.quantity import integral
from bus.aggregates import NS_PER_S, Aggregate, aggregate_points, hold_ns
from bus.archive import History, read_points

FEW = 10_000
"""Points that may be read for one metric and span."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """One metric over one span.

    count: points that speak for some of the span, NaN not counted · integral: value x s · covered_s: for how much of
    the span there is a point
    """

    metric: str
    unit: str
    count: int
    minimum: float
    maximum: float
    mean: float
    integral: float
    covered_s: float
    duration_s: float

    @property
    def coverage(self) -> float:
        """The part of the span that is covered, 0 to 1."""
        return min(1.0, self.covered_s / self.duration_s) if self.duration_s else 0.0

    def to_json(self) -> dict[str, Any]:
        """For programs: the integral in the unit that it has."""
        total, unit = integral(self.integral, self.unit)
        return {
            "metric": self.metric,
            "unit": self.unit,
            "count": self.count,
            "min": self.minimum,
            "mean": self.mean,
            "max": self.maximum,
            "integral": total,
            "integral_unit": unit,
            "coverage": self.coverage,
        }


class _Sums:
    """Values and the time for which each of them speaks, added up."""

    def __init__(self) -> None:
        self.count = 0
        self.plain = self.integral = self.covered_s = 0.0
        self.minimum, self.maximum = inf, -inf

    def take(self, count: int, plain: float, minimum: float, maximum: float) -> None:
        self.count += count
        self.plain += plain
        self.minimum, self.maximum = min(self.minimum, minimum), max(self.maximum, maximum)

    def cover(self, integral: float, seconds: float) -> None:
        self.integral += integral
        self.covered_s += seconds


async def figures(
    history: History, metric: str, about: Mapping[str, Any], start_ns: int, end_ns: int
) -> Figures | None:
    """One metric over start_ns <= time <= end_ns; None if no point speaks for any of it.

    Reads the aggregates of the span and the points at its two ends, however long it is; of a short one all points.
    """
    hold = hold_ns(about)
    sums = _Sums()
    for whole in await _whole(history, metric, start_ns, end_ns, hold):
        sums.take(whole.count, whole.sum, whole.minimum, whole.maximum)
        sums.cover(whole.integral, whole.covered)
    await _cut_begin(history, metric, start_ns, end_ns, hold, sums)
    await _add_end(history, metric, start_ns, end_ns, hold, sums)
    if not sums.count:
        return None
    return Figures(
        metric=metric,
        unit=plain_text(about, "unit"),
        count=sums.count,
        minimum=sums.minimum,
        maximum=sums.maximum,
        mean=sums.integral / sums.covered_s if sums.covered_s > 0 else sums.plain / sums.count,
        integral=sums.integral,
        covered_s=max(0.0, sums.covered_s),
        duration_s=(end_ns - start_ns) / NS_PER_S,
    )


async def all_figures(
    history: History, metrics: Mapping[str, Mapping[str, Any]], start_ns: int, end_ns: int
) -> dict[str, Figures]:
    """Those of all metrics that have points there, by name."""
    found = {name: await figures(history, name, about, start_ns, end_ns) for name, about in metrics.items()}
    return {name: figures for name, figures in found.items() if figures is not None}


async def chosen_metrics(history: History, patterns: Iterable[str]) -> dict[str, dict[str, Any]]:
    """The metrics that any of the patterns selects, sorted, with their metadata."""
    found: dict[str, dict[str, Any]] = {}
    for pattern in patterns:
        found.update(await history.metrics(pattern))
    return dict(sorted(found.items()))


async def _whole(history: History, metric: str, start_ns: int, end_ns: int, hold: int) -> list[Aggregate]:
    """One aggregate of start_ns < time <= end_ns, or none.

    An archive aggregates by what it knows of a metric when its points come, and of a new one that is nothing: where
    all points are still there, and they are few, they are what counts.
    """
    found = list((await history.aggregates(metric, start_ns + 1, end_ns + 1)).rows())
    if not found or found[0].count > FEW:
        return found
    near = await read_points(history, metric, start_ns - hold, end_ns + 1)
    first = bisect_right(near.times, start_ns)
    before = near.times[first - 1] if first else None
    exact = aggregate_points(near.times[first:], near.values[first:], previous_ns=before, hold_ns=hold)
    return exact if exact and exact[0].count == found[0].count else found


async def _cut_begin(history: History, metric: str, start_ns: int, end_ns: int, hold: int, sums: _Sums) -> None:
    """Take away what the first point of the span says about the time before it."""
    before, first, value = await _around(history, metric, start_ns, hold)
    if before is not None and first is not None and first <= end_ns and first - before <= hold and value == value:
        seconds = (start_ns - before) / NS_PER_S
        sums.cover(-value * seconds, -seconds)


async def _add_end(history: History, metric: str, start_ns: int, end_ns: int, hold: int, sums: _Sums) -> None:
    """Add what the first point after the span says about its end."""
    before, after, value = await _around(history, metric, end_ns, hold)
    if before is not None and after is not None and after - before <= hold and value == value and before < end_ns:
        seconds = (end_ns - max(before, start_ns)) / NS_PER_S
        sums.take(1, value, value, value)
        sums.cover(value * seconds, seconds)


async def _around(history: History, metric: str, time_ns: int, hold: int) -> tuple[int | None, int | None, float]:
    """The times of the last point up to `time_ns` and of the first one after it, and the value of that one."""
    near = await read_points(history, metric, time_ns - hold, time_ns + hold + 1)
    before: int | None = None
    for time, value in zip(near.times, near.values, strict=True):
        if time > time_ns:
            return before, time, value
        before = time
    return before, None, nan
