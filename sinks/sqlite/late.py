# SPDX-License-Identifier: MIT
"""Points that come late, or again: each is looked for, and what a new one changes is merged into the aggregates.

What is near the points of a metric is read once, whole minutes of it, and tells which points are new, for how long
they and those after them speak, and whether they are the first or the last of their buckets.
"""

from __future__ import annotations

import sqlite3
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from itertools import pairwise
from math import isclose, isinf

from bus.aggregates import NS_PER_S, Buckets
from bus.archive import MIN_NS
from bus.chunk import MAX_NS
from sinks.sqlite import rollups
from sinks.sqlite.reading import stored_points, time_before
from sinks.sqlite.series import delete_orphans, overlapping
from sinks.sqlite.tiers import COARSER, FINEST, ROLLUPS, Tier

_MINUTE = COARSER[0]

RUN_NS = 3600 * NS_PER_S
"""Points further apart are stored one after the other: all that lies between those of a run is read."""


def insert(
    connection: sqlite3.Connection,
    metric: int,
    times: Sequence[int],
    values: Sequence[float],
    hold_ns: int,
    rolled: Mapping[int, int],
) -> int:
    """Store those points of a metric, in any order, that are not there yet; how many these are."""
    given: dict[int, float] = {}
    for time_ns, value in zip(times, values, strict=True):
        given.setdefault(time_ns, value)
    (raw_from,) = connection.execute(
        "SELECT coalesce(raw_from, ?) FROM metric WHERE id = ?", (MIN_NS, metric)
    ).fetchone()
    stored = 0
    for run in _runs(sorted(given)):
        place = _Place.around(connection, metric, run[0], run[-1], hold_ns)
        fresh = _not_expired(connection, metric, [t for t in run if t not in place.old], place.old, raw_from)
        if fresh:
            connection.executemany(
                "INSERT INTO point (metric, time, value) VALUES (?,?,?)", [(metric, t, given[t]) for t in fresh]
            )
            place.merge({t: given[t] for t in fresh}, rolled, raw_from)
            stored += len(fresh)
    return stored


def _runs(times: Sequence[int]) -> Iterator[Sequence[int]]:
    begin = 0
    for place, (one, following) in enumerate(pairwise(times), 1):
        if following - one > RUN_NS:
            yield times[begin:place]
            begin = place
    yield times[begin:]


def _not_expired(
    connection: sqlite3.Connection, metric: int, times: list[int], there: Mapping[int, float], raw_from: int
) -> list[int]:
    """Without points from before those that are kept, in a minute whose aggregate has long counted them.

    They come again when an old file is imported twice. A minute of which points are there was not there before.
    """
    if not times or times[0] >= raw_from:
        return times
    old = {_MINUTE.start(time_ns) for time_ns in times if time_ns < raw_from}
    gone = old - {_MINUTE.start(time_ns) for time_ns in there}
    counted = {start for start in gone if _is_counted(connection, metric, start)}
    return [time_ns for time_ns in times if time_ns >= raw_from or _MINUTE.start(time_ns) not in counted]


def _is_counted(connection: sqlite3.Connection, metric: int, minute: int) -> bool:
    """Whether a minute without points is in aggregates: in the finest of them that have not expired."""
    if _has(connection, metric, _MINUTE, minute, minute + 1):
        return True
    for finer, tier in pairwise(COARSER):
        start = tier.start(minute)
        if _has(connection, metric, finer, start, start + tier.span_ns):
            return False  # they have not expired, and do not have it
        if _has(connection, metric, tier, start, start + 1):
            return True
    return False


def _has(connection: sqlite3.Connection, metric: int, tier: Tier, start: int, end: int) -> bool:
    """Whether a tier has a row that begins at start <= t < end."""
    found = connection.execute(
        "SELECT 1 FROM rollup WHERE tier = ? AND metric = ? AND time >= ? AND time < ? LIMIT 1",
        (tier.id, metric, start, min(end, MAX_NS)),
    )
    return found.fetchone() is not None


@dataclass(frozen=True, slots=True)
class _Place:
    """What was stored around some times of a metric: the whole minutes, and the points next to them.

    old: the points by time, in order · hold_ns: for how long a point may speak
    """

    connection: sqlite3.Connection
    metric: int
    hold_ns: int
    old: dict[int, float]

    @classmethod
    def around(cls, connection: sqlite3.Connection, metric: int, first: int, last: int, hold_ns: int) -> _Place:
        """What is stored around the times first to last."""
        reach = _MINUTE.span_ns
        begin = max(min(_MINUTE.start(first), FINEST.start(first) - reach), MIN_NS)
        end = max(_MINUTE.start(last) + _MINUTE.span_ns, FINEST.start(last + reach) + FINEST.span_ns)
        times, values = stored_points(connection, metric, begin, end)
        if hold_ns > reach:  # who speaks for longer may be further away; for another the point tells the time alone
            if not times or times[0] >= first:
                before = time_before(connection, metric, begin)
                if before is not None:
                    more, its_value = stored_points(connection, metric, before, before + 1)
                    times, values = more + times, its_value + values
            if not times or times[-1] <= last:
                more, its_value = stored_points(connection, metric, end, MAX_NS, 1)
                times, values = times + more, values + its_value
        return cls(connection, metric, hold_ns, dict(zip(times, values, strict=True)))

    def merge(self, fresh: Mapping[int, float], rolled: Mapping[int, int], raw_from: int) -> None:
        """Add new points to the aggregates, and take from the points after them the time that they spoke for."""
        neighbours = [(a, b) for a, b in pairwise(sorted((*fresh, *self.old))) if a in fresh or b in fresh]
        gaps = {**dict.fromkeys(fresh, 0.0), **{b: _gap_s(a, b, self.hold_ns) for a, b in neighbours}}
        buckets = Buckets(list(fresh), [gaps[t] for t in fresh], FINEST.span_ns)
        parts = list(buckets.aggregate(array("d", fresh.values())))
        followers = [b for _, b in neighbours if b not in fresh and self.old[b] == self.old[b]]
        _loosen(self.connection, self.metric, {part.time for part in parts} | set(map(FINEST.start, followers)))
        changes = self._changes(followers, gaps)
        ends = _Ends(
            self.connection,
            self.metric,
            [t for t, value in self.old.items() if value == value],
            [t for t, value in fresh.items() if value == value],
            raw_from,
        )
        rows = list(rollups.rows(self.metric, parts, rolled))
        self.connection.executemany(rollups.MERGE, [(*row, *ends.of(row)) for row in rows])
        self.connection.executemany(rollups.CORRECT, list(rollups.corrections(self.metric, changes, rolled)))

    def _changes(self, followers: Sequence[int], gaps: Mapping[int, float]) -> list[tuple[int, float, float]]:
        """(time, more value x s, more s) of old points which others now come before."""
        if not followers:
            return []
        covered = dict(
            self.connection.execute(
                "SELECT time, covered FROM rollup WHERE tier = ? AND metric = ? AND time >= ? AND time <= ?",
                (FINEST.id, self.metric, FINEST.start(followers[0]), followers[-1]),
            )
        )
        times = list(self.old)
        changes = []
        for time_ns in followers:
            start = FINEST.start(time_ns)
            spoke_s = self._spoke_s(times, time_ns, covered.get(start, 0.0))
            if gaps[time_ns] != spoke_s:
                value = self.old[time_ns]
                changes.append((time_ns, _change(value, gaps[time_ns], spoke_s), gaps[time_ns] - spoke_s))
        return changes

    def _spoke_s(self, times: Sequence[int], time_ns: int, covered_s: float) -> float:
        """For how long an old point spoke, in a bucket that covered so much.

        The hold may have been another one then: the metadata of a metric come later than its first points.
        """
        place = bisect_left(times, time_ns)
        if place == 0:
            return 0.0
        gap_s = (time_ns - times[place - 1]) / NS_PER_S
        start = FINEST.start(time_ns)
        inside = range(max(bisect_left(times, start), 1), bisect_left(times, start + FINEST.span_ns))
        bucket = [(times[i] - times[i - 1]) / NS_PER_S for i in inside if self.old[times[i]] == self.old[times[i]]]
        for hold_s in (self.hold_ns / NS_PER_S, *sorted(set(bucket)), 0.0):
            if isclose(sum(gap for gap in bucket if gap <= hold_s), covered_s, abs_tol=1e-6):
                return gap_s if gap_s <= hold_s else 0.0
        return min(_gap_s(times[place - 1], time_ns, self.hold_ns), covered_s)


@dataclass(frozen=True, slots=True)
class _Ends:
    """Whether new values are the first or the last of their buckets; `old` and `new` are times of values, in order.

    What is old is known for whole minutes; for longer buckets the aggregates of the next finer tier tell.
    """

    connection: sqlite3.Connection
    metric: int
    old: Sequence[int]
    new: Sequence[int]
    raw_from: int

    def of(self, row: rollups.Row) -> tuple[bool, bool]:
        """For a bucket with new values."""
        tier, _, start = map(int, row[:3])
        if start < self.raw_from:  # what was there before has expired
            return False, False
        return self._is_first(ROLLUPS[tier - FINEST.id], start), self._is_last(ROLLUPS[tier - FINEST.id], start)

    def _is_first(self, tier: Tier, start: int) -> bool:
        first = self.new[bisect_left(self.new, start)]
        if tier.id <= _MINUTE.id:
            return bisect_left(self.old, start) == bisect_left(self.old, first)
        finer = ROLLUPS[tier.id - FINEST.id - 1]
        return self._is_first(finer, finer.start(first)) and not _has(
            self.connection, self.metric, finer, start, finer.start(first)
        )

    def _is_last(self, tier: Tier, start: int) -> bool:
        end = start + tier.span_ns
        last = self.new[bisect_left(self.new, end) - 1]
        if tier.id <= _MINUTE.id:
            return bisect_left(self.old, end) == bisect_right(self.old, last)
        finer = ROLLUPS[tier.id - FINEST.id - 1]
        after = finer.start(last) + finer.span_ns
        return self._is_last(finer, finer.start(last)) and not _has(self.connection, self.metric, finer, after, end)


def _loosen(connection: sqlite3.Connection, metric: int, starts: Set[int]) -> None:
    """Make rows of the packed aggregates of some buckets, and of all in their series: only rows can be merged into.

    The next compaction, which moves the late points too, packs them again.
    """
    newest = connection.execute(
        "SELECT end FROM series WHERE metric = ? AND tier = ? ORDER BY start DESC LIMIT 1", (metric, FINEST.id)
    ).fetchone()
    loosened_to = MIN_NS
    for start in sorted(starts):
        if newest is None or not loosened_to <= start < newest[0]:
            continue
        for one in overlapping(connection, metric, FINEST.id, start, start + 1):
            # A row of the same bucket has points that came later than the packed ones, at its end.
            buckets = zip(one.times, map(int, one.columns[0]), *one.columns[1:], strict=True)
            connection.executemany(rollups.MERGE, [(FINEST.id, metric, *bucket, True, False) for bucket in buckets])
            connection.execute("DELETE FROM series WHERE id = ?", (one.id,))
            delete_orphans(connection, (one.block,))
            loosened_to = one.times[-1] + 1


def _change(value: float, speaks_s: float, spoke_s: float) -> float:
    """What an integral gets more when a point speaks for another time. Infinity is the same for any."""
    return 0.0 if isinf(value) and speaks_s and spoke_s else value * (speaks_s - spoke_s)


def _gap_s(earlier_ns: int, later_ns: int, hold_ns: int) -> float:
    gap_ns = later_ns - earlier_ns
    return gap_ns / NS_PER_S if gap_ns <= hold_ns else 0.0
