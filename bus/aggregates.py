# SPDX-License-Identifier: MIT
"""Aggregates: what the points of equal spans of time come to, as columns.

A point speaks for the time since the point before it, as in MetricQ: rates and means are measured backwards.
It speaks for no more than the metric's *hold*, so that an agent that was away for an hour does not count as
an hour of its first value; what nobody speaks for is not covered. All of this belongs to the bucket in which
the point lies, so that aggregates of parts add up to that of the whole. NaN ("measured, no answer") counts for
nothing, but ends the time for which the next point speaks.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from math import nan
from operator import mul, sub
from typing import Any, NamedTuple

NS_PER_S = 1_000_000_000

TIERS_NS: Mapping[str, int] = {
    "10s": 10 * NS_PER_S,
    "1m": 60 * NS_PER_S,
    "10m": 600 * NS_PER_S,
    "1h": 3600 * NS_PER_S,
    "1d": 86400 * NS_PER_S,
}
"""The spans for which archives keep aggregates, from fine to coarse; each divides the next."""

DEFAULT_HOLD_NS = 60 * NS_PER_S
"""Of metrics that declare neither interval nor rate."""
INTERVALS_HELD = 3
"""A point may be missing, or two, before the time counts as not covered."""


class Aggregate(NamedTuple):
    """One bucket: `time` is its start in ns, `integral` is in value x s, `covered` in s; count is never 0."""

    time: int
    count: int  # type: ignore[assignment]  # hides tuple.count, which nobody needs
    sum: float
    minimum: float
    maximum: float
    first: float
    last: float
    integral: float
    covered: float

    @property
    def mean(self) -> float:
        """Weighted by time where time is covered, else the plain mean."""
        return self.integral / self.covered if self.covered else self.sum / self.count


@dataclass(frozen=True, slots=True)
class Aggregates:
    """The aggregates of one metric, oldest first; buckets without a value are left out.

    times: starts of the buckets, int64 ns · counts: values, NaN not counted · integrals: value x s ·
    covered: s of the bucket for which some point speaks
    """

    metric: str
    times: array[int]
    counts: array[int]
    sums: array[float]
    minima: array[float]
    maxima: array[float]
    firsts: array[float]
    lasts: array[float]
    integrals: array[float]
    covered: array[float]

    @classmethod
    def from_rows(cls, metric: str, rows: Iterable[Sequence[float]]) -> Aggregates:
        """From (time, count, sum, minimum, maximum, first, last, integral, covered); None stands for NaN."""
        columns = list(zip(*rows, strict=True)) or [()] * len(Aggregate._fields)
        whole, floats = columns[:2], columns[2:]
        return cls(
            metric,
            *(array("q", column) for column in whole),
            *map(_floats, floats),
        )

    def __len__(self) -> int:
        return len(self.times)

    def rows(self) -> Iterator[Aggregate]:
        """The buckets one by one."""
        return map(
            Aggregate,
            self.times,
            self.counts,
            self.sums,
            self.minima,
            self.maxima,
            self.firsts,
            self.lasts,
            self.integrals,
            self.covered,
        )


def _floats(column: Sequence[float | None]) -> array[float]:
    try:
        return array("d", column)  # type: ignore[arg-type]  # TypeError if there is None
    except TypeError:
        return array("d", [nan if number is None else number for number in column])


class Buckets:
    """How a column of times falls into buckets: made once for all metrics that share the times.

    Args:
        times: int64 ns, strictly increasing
        gaps_s: the seconds that each point speaks for (`gaps_before`)
        every_ns: the span of a bucket, which begins at a multiple of it; None for one that holds everything
    """

    __slots__ = ("_gaps", "_plan")

    def __init__(self, times: Sequence[int], gaps_s: list[float], every_ns: int | None) -> None:
        self._gaps = gaps = gaps_s
        self._plan: list[tuple[int, int, int, float | None, float]] = []
        begin = 0
        while begin < len(times):
            start = times[begin] // every_ns * every_ns if every_ns else times[begin]
            end = bisect_left(times, start + every_ns, begin) if every_ns else len(times)
            own = gaps[begin:end]
            step = own[0] if own.count(own[0]) == len(own) else None
            self._plan.append((start, begin, end, step, sum(own)))
            begin = end

    def aggregate(self, values: array[float]) -> Iterator[Aggregate]:
        """The aggregates of one metric's values at these times. 1.5 µs a bucket."""
        numbers = values.tolist()  # slices of a list make no new floats
        for start, begin, end, step, covered in self._plan:
            part = numbers[begin:end]
            total = sum(part)
            if total - total != 0.0:  # there is a NaN, or an infinity
                yield from self._without_nan(start, begin, part)
                continue
            integral = total * step if step is not None else sum(map(mul, part, self._gaps[begin:end]))
            yield Aggregate(start, end - begin, total, min(part), max(part), part[0], part[-1], integral, covered)

    def _without_nan(self, start: int, begin: int, part: list[float]) -> Iterator[Aggregate]:
        kept = [(value, self._gaps[begin + index]) for index, value in enumerate(part) if value == value]
        if kept:
            numbers = [value for value, _ in kept]
            yield Aggregate(
                start,
                len(numbers),
                sum(numbers),
                min(numbers),
                max(numbers),
                numbers[0],
                numbers[-1],
                sum(value * gap for value, gap in kept if gap),  # for no time, not even infinity counts
                sum(gap for _, gap in kept),
            )


def aggregate_points(
    times: Sequence[int],
    values: array[float],
    every_ns: int | None = None,
    *,
    previous_ns: int | None = None,
    hold_ns: int = DEFAULT_HOLD_NS,
) -> list[Aggregate]:
    """The aggregates of points (see `Buckets`); none if there are no points or only NaN."""
    if not times:
        return []
    return list(Buckets(times, gaps_before(times, previous_ns, hold_ns), every_ns).aggregate(values))


def gaps_before(times: Sequence[int], previous_ns: int | None, hold_ns: int) -> list[float]:
    """The seconds that each of some points speaks for: since the one before it, 0.0 if that is more than `hold_ns`.

    `previous_ns` is the time of the point before the first; None if there is none.
    """
    before = chain((times[0] if previous_ns is None else previous_ns,), times)
    return [gap / NS_PER_S if gap <= hold_ns else 0.0 for gap in map(sub, times, before)]


def combine(parts: Iterable[Aggregate], every_ns: int | None = None) -> list[Aggregate]:
    """Aggregates of finer buckets, oldest first, as those of coarser ones; None: as one, at the time of the first."""
    found: list[Aggregate] = []
    for part in parts:
        start = part.time if every_ns is None else part.time // every_ns * every_ns
        if found and (every_ns is None or found[-1].time == start):
            found[-1] = _joined(found[-1], part)
        else:
            found.append(Aggregate(start, *part[1:]))
    return found


def _joined(a: Aggregate, b: Aggregate) -> Aggregate:
    """The aggregate of two parts, of which b is the later one."""
    time, count, total, minimum, maximum, first, _, integral, covered = a
    _, more, its_total, its_minimum, its_maximum, _, last, its_integral, its_covered = b
    return Aggregate(
        time,
        count + more,
        total + its_total,
        minimum if minimum <= its_minimum else its_minimum,
        maximum if maximum >= its_maximum else its_maximum,
        first,
        last,
        integral + its_integral,
        covered + its_covered,
    )


def hold_ns(metadata: Mapping[str, Any]) -> int:
    """How long a point of a metric may speak for, at most: `INTERVALS_HELD` declared intervals.

    `metadata` says ``interval`` in s, or ``rate`` in Hz, as MetricQ has it.
    """
    interval_s = declared_interval_s(metadata)
    return DEFAULT_HOLD_NS if interval_s is None else round(INTERVALS_HELD * interval_s * NS_PER_S)


def declared_interval_s(metadata: Mapping[str, Any]) -> float | None:
    """The seconds between points that a metric's metadata promises; None if it promises nothing."""
    for name, power in (("interval", 1), ("rate", -1)):
        value = metadata.get(name)
        if isinstance(value, int | float) and not isinstance(value, bool) and 1e-9 < value < 1e9:
            return float(value**power)
    return None
