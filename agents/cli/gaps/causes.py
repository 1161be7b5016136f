# SPDX-License-Identifier: MIT
"""Why points are missing: holes, and what the archive knows of frames that never came.

A source numbers its frames per routing key, from 0 at each start; its start is the epoch. An archive that sees a jump
in the numbers notes which frames are missing, and when it noticed: that is all there is to tell causes by. In turn:

dropped       Missing frames of the metric's source and key belong to the hole: the source ran, and had to let go of
              its oldest frames (its outbox was full), or the broker lost them. The hole is the newest one that
              - ended before they were noticed (the frame that showed the jump carries the point that ends it),
              - began after their epoch (another start of the source counts anew), unless they are the first ones,
              - is long enough for them: frames are at least an interval apart,
              - and belongs to no later frames.
              If they are the first of their epoch, it was down before that.
late          Missing frames that no hole belongs to: they came after newer ones, and their points are there.
sparse        Points came, but much less often than declared: the source was too busy, or told otherwise then.
not measured  Other metrics of the same source have points in the hole: it ran, but did not measure this one (a device
              was unplugged, a program ended).
down          None of these: neither points nor frames came from the source. If all sources are silent at once, it may
              be the archive itself or the broker that was away.

Clocks of hosts may differ by `SKEW_NS`.
"""

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from agents.cli.gaps.holes import Hole
from bus.aggregates import NS_PER_S
from bus.archive import MissingFrames

SKEW_NS = 5 * NS_PER_S
ROOM = 0.5
"""A hole for n frames is at least so many of n intervals long: ticks may come a little early."""


class Cause(StrEnum):
    """See the head of this file."""

    down = "agent down"
    dropped = "dropped by cap"
    late = "late"
    sparse = "sparse"
    not_measured = "not measured"


@dataclass(frozen=True, slots=True, kw_only=True)
class Lack:
    """What is missing of one metric, and why; `frames` where they are known. A late one lacks nothing (any more)."""

    metric: str
    start: int
    end: int
    cause: Cause
    is_open: bool = False
    frames: int = 0
    points: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """A metric, as far as it matters here. `source` is its owner's token, "" if nobody said."""

    name: str
    source: str
    interval_ns: int

    def comes_with(self, frames: MissingFrames) -> bool:
        """True if its points travel in frames of that source and key."""
        return self.source in ("", frames.source) and f"{self.name}.".startswith(f"{frames.key}.")


def dropped(series: Series, holes: Sequence[Hole], missing: Iterable[MissingFrames]) -> dict[Hole, MissingFrames]:
    """Which holes of a metric are due to which missing frames."""
    found: dict[Hole, MissingFrames] = {}
    left = sorted(holes, key=lambda hole: hole.end)
    # From the newest back: after an outage all jumps are noticed at once, and only their order tells them apart.
    for frames in sorted(missing, key=lambda one: (one.epoch, one.first), reverse=True):
        if not series.comes_with(frames):
            continue
        fitting = [hole for hole in left if _fits(hole, frames, series.interval_ns)]
        if fitting:
            found[fitting[-1]] = frames
            left = left[: left.index(fitting[-1])]
    return found


def _fits(hole: Hole, frames: MissingFrames, interval_ns: int) -> bool:
    begins_in_time = hole.start >= frames.epoch - SKEW_NS or (frames.first == 0 and hole.end > frames.epoch)
    count = frames.last - frames.first + 1
    is_long_enough = hole.end - max(hole.start, frames.epoch) >= ROOM * count * interval_ns
    return not hole.is_open and hole.end <= frames.noticed + SKEW_NS and begins_in_time and is_long_enough


def of_dropped(hole: Hole, frames: MissingFrames) -> list[Lack]:
    """The hole of missing frames: dropped; but before the source was started, it was down."""
    count = frames.last - frames.first + 1
    lack = Lack(metric=hole.metric, start=hole.start, end=hole.end, cause=Cause.dropped, frames=count)
    if frames.first == 0 and hole.start < frames.epoch - SKEW_NS:
        down = Lack(metric=hole.metric, start=hole.start, end=frames.epoch, cause=Cause.down)
        return [down, replace(lack, start=frames.epoch)]
    return [lack]


class Siblings:
    """Whether other metrics of the same source had points in a hole.

    Args:
        by_source: the metrics of each source
        covered_s: for how long a metric is covered in a range
    """

    MOST = 20
    """Of a source with more metrics so many are asked, spread over all its names."""

    def __init__(
        self, by_source: Mapping[str, Sequence[str]], covered_s: Callable[[str, int, int], Awaitable[float]]
    ) -> None:
        self._by_source = by_source
        self._covered_s = covered_s
        self._known: dict[tuple[str, int, int], bool] = {}

    async def ran_on(self, source: str, hole: Hole) -> bool:
        """True if one of them is covered for more than half of it."""
        key = (source, hole.start, hole.end)
        if key not in self._known:
            names = self._by_source.get(source, ())
            chosen = names[:: -(-len(names) // self.MOST) or 1]
            half_s = (hole.end - hole.start) / NS_PER_S / 2
            self._known[key] = False
            for name in chosen:
                if await self._covered_s(name, hole.start + 1, hole.end) > half_s:
                    self._known[key] = True
                    break
        return self._known[key]


async def of_silence(hole: Hole, source: str, siblings: Siblings) -> Lack:
    """A hole for which no missing frames are known."""
    cause = Cause.down
    if hole.points:
        cause = Cause.sparse
    elif source and await siblings.ran_on(source, hole):
        cause = Cause.not_measured
    return Lack(
        metric=hole.metric, start=hole.start, end=hole.end, cause=cause, is_open=hole.is_open, points=hole.points
    )
