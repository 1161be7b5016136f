# SPDX-License-Identifier: MIT
"""How fine a command shows history: point by point, or over steps that fit whatever shows them."""

from collections.abc import Collection
from dataclasses import dataclass

import typer

from agents.cli import timespan
from agents.cli.localtime import nice_step_ns
from bus.archive import History
from bus.timestamp import Timedelta

POINTS = "points"
"""What --every takes besides a length of time."""
POINT_BY_POINT = 0
"""A step of no length: every point as it is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What can be shown of each metric, and by what (`name`).

    points: so many are shown one by one unless --every says otherwise · steps: into so many the range is cut else ·
    most_points, most_steps: what --every may ask for
    """

    name: str
    points: int
    steps: int
    most_points: int
    most_steps: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Extent:
    """A range, start_ns <= time < end_ns, and how many values it holds of each metric that has any."""

    start_ns: int
    end_ns: int
    counts: dict[str, int]

    @property
    def span_ns(self) -> int:
        """How long it lasts."""
        return self.end_ns - self.start_ns


def wanted_step_ns(every: str) -> int | None:
    """What --every says; None if nothing. Raises typer.BadParameter."""
    if not every:
        return None
    return POINT_BY_POINT if every == POINTS else timespan.step(every).ns


async def extent(history: History, metrics: Collection[str], start_ns: int, end_ns: int, now_ns: int) -> Extent:
    """The range without what lies before the first value, or after both the newest one and now."""
    counts: dict[str, int] = {}
    first, newest = end_ns, now_ns
    for metric in metrics:
        whole = await history.aggregates(metric, start_ns, end_ns)
        if len(whole):
            counts[metric] = whole.counts[0]
            first = min(first, max(start_ns, whole.times[0]))
            newest = max(newest, *(time_ns + 1 for time_ns, _ in (await history.last(metric)).values()))
    return Extent(start_ns=first, end_ns=max(first, min(end_ns, newest)), counts=counts)


def step_ns(wanted_ns: int | None, found: Extent, limits: Limits) -> int:
    """How long a step is to be, or `POINT_BY_POINT`. Raises typer.BadParameter for more than can be shown."""
    most = max(found.counts.values(), default=0)
    if wanted_ns is None:
        return POINT_BY_POINT if most <= limits.points else nice_step_ns(found.span_ns, limits.steps)
    if wanted_ns == POINT_BY_POINT:
        if most > limits.most_points:
            raise _too_fine(f"{POINTS}: there are {most}", limits.most_points, found, limits)
    elif (steps := -(-found.span_ns // wanted_ns)) > limits.most_steps:
        raise _too_fine(f"{Timedelta(wanted_ns).precise_string} makes {steps} steps", limits.most_steps, found, limits)
    return wanted_ns


def _too_fine(what: str, most: int, found: Extent, limits: Limits) -> typer.BadParameter:
    enough = Timedelta(nice_step_ns(found.span_ns, limits.most_steps)).precise_string
    return typer.BadParameter(f"--every {what}, but {limits.name} takes {most} a metric: --every {enough} will do")
