# SPDX-License-Identifier: MIT
"""Holes: where points of a metric should be, and none is.

Aggregates say how much of each hour is covered, then of each minute of the hours that are in part; points are read
only of the hours and minutes that are not. So a week without holes is 168 rows, and so is one of silence.
"""

from collections.abc import AsyncIterator, Iterable, Iterator
from dataclasses import dataclass, replace

from bus.aggregates import DEFAULT_HOLD_NS, INTERVALS_HELD, NS_PER_S
from bus.archive import MIN_NS, History

STEPS_NS = (3600 * NS_PER_S, 60 * NS_PER_S)

MANY = 4
"""So many holes with hardly a point between them are told as one, in which points come too seldom."""

Range = tuple[int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Hole:
    """No points of a metric after `start` and before `end`, ns.

    start: of the last point, or the begin of what was looked at · end: of the next point, or the end of that ·
    is_open: there is no next point · points: how many there are all the same, or a few more: they come too seldom
    """

    metric: str
    start: int
    end: int
    is_open: bool = False
    points: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Rhythm:
    """How often points of a metric should come. `is_declared`: its metadata says so, and the archive goes by that."""

    interval_ns: int
    is_declared: bool

    @property
    def hold_ns(self) -> int:
        """What is longer than that is a hole."""
        hold = INTERVALS_HELD * self.interval_ns
        return hold if self.is_declared else max(hold, DEFAULT_HOLD_NS)


async def holes(history: History, metric: str, rhythm: Rhythm, start_ns: int, end_ns: int) -> list[Hole]:
    """The holes of a metric in a range, oldest first. What was before its first point is none."""
    whole = await history.aggregates(metric, MIN_NS, end_ns)
    first_ns = whole.times[0] if len(whole) else end_ns
    begin_ns = max(start_ns, first_ns - 1) if len(whole) else start_ns
    hold = rhythm.hold_ns
    found: list[Hole] = []
    for start, end in _joined(await _suspects(history, metric, rhythm, begin_ns, end_ns), hold):
        found += await _between_points(
            history, metric, hold, (max(begin_ns, start - hold), min(end_ns, end + hold)), end_ns
        )
    if found and found[0].start == begin_ns and first_ns > start_ns:
        del found[0]
    return list(_without_islands(found, hold))


async def _suspects(history: History, metric: str, rhythm: Rhythm, start_ns: int, end_ns: int) -> list[Range]:
    """Where there may be holes, in order."""
    silent: list[Range] = []
    suspects: list[Range] = [(start_ns, end_ns)]
    for step in STEPS_NS:
        # Where the interval is longer than a step can tell, there are few points: they are read.
        if step < 2 * rhythm.hold_ns or not (rhythm.is_declared or rhythm.hold_ns == DEFAULT_HOLD_NS):
            continue
        coarse, suspects = suspects, []
        for start, end in coarse:
            async for found, covered_s in _not_covered(history, metric, rhythm.interval_ns, start, end, step):
                (suspects if covered_s else silent).append(found)
    return sorted(silent + suspects)


async def _not_covered(
    history: History, metric: str, interval_ns: int, start_ns: int, end_ns: int, step_ns: int
) -> AsyncIterator[tuple[Range, float]]:
    """The steps of a range that are covered for less than their length, by more than an interval, and how long."""
    rows = await history.aggregates(metric, start_ns, end_ns, step_ns)
    covered = dict(zip(rows.times, rows.covered, strict=True))
    for step in range(start_ns // step_ns * step_ns, end_ns, step_ns):
        start, end = max(step, start_ns), min(step + step_ns, end_ns)
        # Points and steps do not begin together, so that up to an interval may be counted in the next step.
        covered_s = covered.get(step, 0.0)
        if (end - start - 1.001 * interval_ns) / NS_PER_S > covered_s:
            yield (start, end), covered_s


def _joined(ranges: Iterable[Range], room: int) -> Iterator[Range]:
    """Ranges in order; those that are at most 2 x `room` apart as one."""
    whole: Range | None = None
    for start, end in ranges:
        if whole is None:
            whole = start, end
        elif start - whole[1] <= 2 * room:
            whole = whole[0], end
        else:
            yield whole
            whole = start, end
    if whole is not None:
        yield whole


async def _between_points(history: History, metric: str, hold: int, among: Range, end_ns: int) -> list[Hole]:
    """The holes between the points of a range, which ends at a point or at `end_ns`."""
    found = []
    before = among[0]
    async for page in history.points(metric, *among):
        for time in page.times:
            if time - before > hold:
                found.append(Hole(metric=metric, start=before, end=time))
            before = time
    if among[1] - before > hold:
        found.append(Hole(metric=metric, start=before, end=among[1], is_open=among[1] == end_ns))
    return found


def _without_islands(found: Iterable[Hole], hold: int) -> Iterator[Hole]:
    """Many holes in a row with hardly a point between them as one."""
    row: list[Hole] = []
    for hole in found:
        if row and hole.start - row[-1].end > hold:
            yield from _as_one(row)
            row = []
        row.append(hole)
    yield from _as_one(row)


def _as_one(row: list[Hole]) -> list[Hole]:
    if len(row) < MANY:
        return row
    return [replace(row[0], end=row[-1].end, is_open=row[-1].is_open, points=len(row) - 1)]
