# SPDX-License-Identifier: MIT
"""What a chart draws of one metric: its points, or the means of steps with their minima and maxima."""

from __future__ import annotations

from array import array
from collections.abc import Mapping
from dataclasses import dataclass
from math import isfinite
from typing import Any

from agents.cli.history.resolution import POINT_BY_POINT
from agents.cli.metadata import plain_text, unit_of
from bus.aggregates import hold_ns
from bus.archive import History, read_points


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """Columns of one metric, oldest first.

    step_ns: how long each value lasts, `POINT_BY_POINT` for points · hold_ns: so long a time without values is no
    hole · times: of the points, or when the steps begin · values: of the points, or means · minima, maxima, counts:
    of the steps
    """

    metric: str
    unit: str = ""
    description: str = ""
    step_ns: int
    hold_ns: int
    times: array[int]
    values: array[float]
    minima: array[float]
    maxima: array[float]
    counts: array[int]

    @property
    def stepped(self) -> bool:
        """True if its values are those of steps."""
        return self.step_ns != POINT_BY_POINT

    def runs(self) -> list[tuple[int, int]]:
        """Where it can be drawn without lifting the pen, as ranges of indices.

        NaN, infinities and times without values for longer than `hold_ns` leave holes.
        """
        found: list[tuple[int, int]] = []
        begin = None
        for index, value in enumerate(self.values):
            if begin is not None and self.times[index] - self.times[index - 1] > self.step_ns + self.hold_ns:
                found.append((begin, index))
                begin = None
            if isfinite(value):
                begin = index if begin is None else begin
            elif begin is not None:
                found.append((begin, index))
                begin = None
        return found if begin is None else [*found, (begin, len(self.values))]


async def load(history: History, metric: str, about: Mapping[str, Any], span_ns: tuple[int, int], step: int) -> Series:
    """The series of a metric with this metadata, from start_ns <= time < end_ns."""
    counts, minima, maxima = array("q"), array("d"), array("d")
    if step == POINT_BY_POINT:
        points = await read_points(history, metric, *span_ns)
        times, values = points.times, points.values
    else:
        steps = await history.aggregates(metric, *span_ns, step)
        times, counts, minima, maxima = steps.times, steps.counts, steps.minima, steps.maxima
        values = array("d", [row.mean for row in steps.rows()])
    return Series(
        metric=metric,
        unit=unit_of(about),
        description=plain_text(about, "description"),
        step_ns=step,
        hold_ns=hold_ns(about),
        times=times,
        values=values,
        minima=minima,
        maxima=maxima,
        counts=counts,
    )
