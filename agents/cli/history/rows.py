# SPDX-License-Identifier: MIT
"""History as text: a table for people, JSON lines or CSV for programs. Written page by page, in a thread.

Programs get times and values exactly as they are stored, and all that an aggregate holds.
"""

import asyncio
import csv
import datetime as dt
import io
import sys
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from functools import partial
from itertools import chain
from typing import Any, Protocol

import msgspec

from agents.cli.history.resolution import POINT_BY_POINT
from agents.cli.localtime import NS_PER_S, clock, digits_of, offset_s, zone
from agents.cli.metadata import plain_text, unit_of
from agents.cli.output import number
from bus.aggregates import Aggregate
from bus.archive import History

_EPOCH = dt.datetime(1970, 1, 1)  # noqa: DTZ001  # UTC; the Z is written behind it
_PAGE_STEPS = 10_000
_COLUMNS = 80
_MILLISECONDS = 3

AGGREGATE_FIELDS = ("count", "sum", "min", "max", "first", "last", "integral", "covered", "mean")

Points = Iterable[tuple[int, float]]


class Rows(Protocol):
    """How one format writes. What it returns is text that ends its last line."""

    def head(self) -> str:
        """What comes before everything."""

    def metric(self, name: str, unit: str, description: str) -> str:
        """What comes before the values of a metric."""

    def points(self, metric: str, points: Points) -> str:
        """Some points, oldest first."""

    def steps(self, metric: str, step_ns: int, steps: Iterable[Aggregate]) -> str:
        """Some steps, oldest first."""


class Json:
    """One object a line. NaN and infinities become null: JSON has none."""

    def head(self) -> str:
        """Nothing."""
        return ""

    def metric(self, name: str, unit: str, description: str) -> str:
        """Nothing: every line names its metric."""
        return ""

    def points(self, metric: str, points: Points) -> str:
        """``{"metric":...,"time":...,"value":...}``, as `agent spy` has it."""
        return self._lines({"metric": metric, "time": _iso(time), "value": value} for time, value in points)

    def steps(self, metric: str, step_ns: int, steps: Iterable[Aggregate]) -> str:
        """... with all fields of an aggregate."""
        return self._lines(
            {"metric": metric, "time": _iso(step.time), **dict(zip(AGGREGATE_FIELDS, _fields(step), strict=True))}
            for step in steps
        )

    def _lines(self, values: Iterator[object]) -> str:
        return b"".join(chain.from_iterable((msgspec.json.encode(value), b"\n") for value in values)).decode()


class Csv:
    """RFC 4180: a heading, lines that end in CR LF. NaN and infinities are ``nan``, ``inf`` and ``-inf``."""

    def __init__(self, *, stepped: bool) -> None:
        self._fields = AGGREGATE_FIELDS if stepped else ("value",)

    def head(self) -> str:
        """The names of the columns."""
        return self._lines([("metric", "time", *self._fields)])

    def metric(self, name: str, unit: str, description: str) -> str:
        """Nothing: every line names its metric."""
        return ""

    def points(self, metric: str, points: Points) -> str:
        """One point a line."""
        return self._lines((metric, _iso(time), value) for time, value in points)

    def steps(self, metric: str, step_ns: int, steps: Iterable[Aggregate]) -> str:
        """One step a line."""
        return self._lines((metric, _iso(step.time), *_fields(step)) for step in steps)

    def _lines(self, rows: Iterable[Iterable[object]]) -> str:
        text = io.StringIO(newline="")
        csv.writer(text).writerows(rows)
        return text.getvalue()


class Pretty:
    """A table for each metric, in 80 columns, with times of this machine's clock: a new heading where it changes."""

    def __init__(self) -> None:
        self._offset: int | None = None
        self._begun = False

    def head(self) -> str:
        """Nothing."""
        return ""

    def metric(self, name: str, unit: str, description: str) -> str:
        """Its name and what it is, cut to the width."""
        self._offset = None
        space, self._begun = ("\n" if self._begun else ""), True
        heading = f"{name}{f' [{unit}]' if unit else ''}"
        return f"{space}{f'{heading}  {description}'[: max(_COLUMNS, len(heading))].rstrip()}\n"

    def points(self, metric: str, points: Points) -> str:
        """Time and value."""
        return "".join(
            self._heading(time, f"{'time':<24}{'value':>14}")
            + f"{clock(time, offset_s(time), digits=_MILLISECONDS):<24}{number(value):>14}\n"
            for time, value in points
        )

    def steps(self, metric: str, step_ns: int, steps: Iterable[Aggregate]) -> str:
        """Time and the figures that people look at."""
        digits = digits_of(step_ns)
        layout = "%m-%d %H:%M:%S" if digits else "%Y-%m-%d %H:%M:%S"
        names = f"{'time':<19} {'count':>8} {'min':>12} {'mean':>12} {'max':>12} {'last':>12}"
        return "".join(
            self._heading(step.time, names)
            + f"{clock(step.time, offset_s(step.time), layout, digits):<19} {step.count:>8} {number(step.minimum):>12} "
            f"{number(step.mean):>12} {number(step.maximum):>12} {number(step.last):>12}\n"
            for step in steps
        )

    def _heading(self, time_ns: int, names: str) -> str:
        offset = offset_s(time_ns)
        if offset == self._offset:
            return ""
        self._offset = offset
        place = f"({zone(offset)})"
        return names.replace("time" + " " * (len(place) + 1), f"time {place}", 1) + "\n"


async def write(
    rows: Rows, history: History, metrics: Mapping[str, Mapping[str, Any]], span_ns: tuple[int, int], step_ns: int
) -> set[str]:
    """Write the history of metrics, given with their metadata, to stdout; which of them had any."""
    found: set[str] = set()
    await asyncio.to_thread(_put, rows.head)
    for metric, about in metrics.items():
        heading = partial(rows.metric, metric, unit_of(about), plain_text(about, "description"))
        async for page in _pages(rows, history, metric, span_ns, step_ns):
            if metric not in found:
                found.add(metric)
                await asyncio.to_thread(_put, heading)
            await asyncio.to_thread(_put, page)
    return found


async def _pages(
    rows: Rows, history: History, metric: str, span_ns: tuple[int, int], step_ns: int
) -> AsyncIterator[Callable[[], str]]:
    """What makes the text of each page."""
    start, end = span_ns
    if step_ns == POINT_BY_POINT:
        async for chunk in history.points(metric, start, end):
            yield partial(rows.points, metric, zip(chunk.times, chunk.values, strict=True))
        return
    while start < end:
        until = min(end, (start // step_ns + _PAGE_STEPS) * step_ns)
        steps = await history.aggregates(metric, start, until, step_ns)
        if len(steps):
            yield partial(rows.steps, metric, step_ns, steps.rows())
        start = until


def _put(text: Callable[[], str]) -> None:
    sys.stdout.write(text())
    sys.stdout.flush()


def _iso(time_ns: int) -> str:
    """What `Timestamp.isoformat` says, in a third of the time: 1 µs."""
    seconds, fraction = divmod(time_ns, NS_PER_S)
    return f"{(_EPOCH + dt.timedelta(0, seconds)).isoformat()}.{fraction:09d}Z"


def _fields(step: Aggregate) -> tuple[float, ...]:
    return (*step[1:], step.mean)
