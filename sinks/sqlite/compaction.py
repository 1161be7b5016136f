# SPDX-License-Identifier: MIT
"""Compaction: what is old moves from rows into blocks, a tenth of the size.

Works through one metric after the other, window by window, region by region: a region is as much of a window
as has about `MOST_POINTS` points. Each region is moved whole within the caller's transaction: its points are
read, wherever they lie, and written as one series, its aggregates of the finest tier as another, and the rows
go. A window with few points of a metric stays as it is.
"""

from __future__ import annotations

import sqlite3
import time
from array import array
from bisect import bisect_left
from collections.abc import Iterable
from dataclasses import dataclass

from bus.aggregates import NS_PER_S
from bus.archive import MIN_NS
from bus.chunk import MAX_NS
from sinks.sqlite.buckets import stored_buckets
from sinks.sqlite.reading import stored_points
from sinks.sqlite.series import Packer, start_of_first
from sinks.sqlite.tiers import COARSER, FINEST, RAW

WINDOW_NS = 6 * 3600 * NS_PER_S
HOT_NS = 48 * 3600 * NS_PER_S
"""How old a window is at least, unless something else was configured: plain SQL of others reads the rows."""

MOST_POINTS = 4000
"""In a series: 1 h of points every second. More pack no better, and whoever wants a few unpacks them all."""
FEWEST_POINTS = 50
"""In a window: below that, the rows of a metric are hardly larger than a series would be."""

BUDGET_POINTS = 50_000
BUDGET_S = 0.05
"""A step begins nothing else after that, because inserts wait for its end."""

_REGIONS_NS = [seconds * NS_PER_S for seconds in (3600, 600, 60)] + [FINEST.span_ns]
_NOTHING = MAX_NS

_OLDEST = (
    "min(coalesce((SELECT min(time) FROM point WHERE metric = {id} AND time >= :start AND time < :end), {nothing}), "
    "coalesce((SELECT min(time) FROM rollup WHERE tier = {finest} AND metric = {id} "
    "AND time >= :start AND time < :end), {nothing}))"
)
_OLDEST_OF = f"SELECT {_OLDEST.format(id=':metric', nothing=_NOTHING, finest=FINEST.id)}"
_NEXT_METRICS = "FROM metric WHERE id > :metric ORDER BY id LIMIT 200"
_NEXT_WITH_SOMETHING = (
    f"SELECT id, oldest FROM (SELECT id, {_OLDEST.format(id='metric.id', nothing=_NOTHING, finest=FINEST.id)} "
    f"AS oldest {_NEXT_METRICS}) WHERE oldest < {_NOTHING} LIMIT 1"
)


@dataclass(slots=True)
class _Round:
    """A way through the metrics: all that is between `begin` and `end`, and where it has got to."""

    metric: int
    time: int
    begin: int
    end: int
    only_one: bool = False


class Compaction:
    """Remembers what was looked at, so that what stays in rows is not looked at again and again.

    It belongs to one who alone writes the archive, and tells it with `late` what came for times that are behind
    it. After an error it must be replaced: what it remembers may have been rolled back.
    """

    def __init__(self) -> None:
        self.settled_ns = MIN_NS
        self._round: _Round | None = None
        self._late: dict[str, int] = {}
        self._packer = Packer()

    @property
    def horizon_ns(self) -> int:
        """Points before it are late: `late` wants to hear of them."""
        return self.settled_ns if self._round is None else max(self.settled_ns, self._round.end)

    def late(self, metrics: Iterable[str], time_ns: int) -> None:
        """Points of some metrics were stored, the oldest at `time_ns`."""
        if time_ns < self.horizon_ns:
            for metric in metrics:
                self._late[metric] = min(self._late.get(metric, MAX_NS), time_ns)

    def step(self, connection: sqlite3.Connection, before_ns: int, budget_points: int = BUDGET_POINTS) -> int | None:
        """Move some of what is older than `before_ns`: how many rows; None if nothing is left. Within a transaction."""
        stop_at = time.monotonic() + BUDGET_S
        moved = 0
        while moved < budget_points and time.monotonic() < stop_at:
            self._round = self._round or self._new_round(connection, before_ns)
            if self._round is None:
                return moved or None
            moved += self._advance(connection, self._round)
        return moved

    def _advance(self, connection: sqlite3.Connection, current: _Round) -> int:
        """Move a region, or look for the next one; how many rows were moved."""
        limits = {"start": current.time, "end": current.end, "metric": current.metric}
        (oldest,) = connection.execute(_OLDEST_OF, limits).fetchone()
        if oldest < _NOTHING:
            return self._move(connection, current, oldest)
        following = last = None
        if not current.only_one:
            following = connection.execute(_NEXT_WITH_SOMETHING, {**limits, "start": current.begin}).fetchone()
            (last,) = connection.execute(f"SELECT max(id) FROM (SELECT id {_NEXT_METRICS})", limits).fetchone()
        if following is not None:
            current.metric, current.time = following
        elif last is not None:
            current.metric, current.time = last, current.end
        else:
            self.settled_ns = max(self.settled_ns, current.end)
            self._round = None
        return 0

    def _new_round(self, connection: sqlite3.Connection, before_ns: int) -> _Round | None:
        # Aggregates are formed of the rows of the finest tier, which must be there until then.
        (formed_to,) = connection.execute("SELECT rolled_to FROM tier WHERE id = ?", (COARSER[0].id,)).fetchone()
        end = min(before_ns, formed_to) // WINDOW_NS * WINDOW_NS
        if end > self.settled_ns:
            return _Round(0, self.settled_ns, self.settled_ns, end)
        self.settled_ns = end  # lower if the clock was ahead for a while: what is young again is to stay in rows
        while self._late:
            name, time_ns = self._late.popitem()
            found = connection.execute("SELECT id FROM metric WHERE name = ?", (name,)).fetchone()
            if found and time_ns < self.settled_ns:
                begin = time_ns // WINDOW_NS * WINDOW_NS
                return _Round(found[0], begin, begin, self.settled_ns, only_one=True)
        return None

    def _move(self, connection: sqlite3.Connection, current: _Round, oldest: int) -> int:
        mover = _Mover.of(connection, self._packer, current.metric)
        start = oldest // WINDOW_NS * WINDOW_NS
        if mover.is_small(start):
            current.time = start + WINDOW_NS
            return 0
        if start < mover.raw_from or not mover.rows("point", oldest, start + WINDOW_NS, 1):
            current.time = start + WINDOW_NS
            return mover.move_aggregates(start, current.time)
        moved, current.time = mover.move_points(oldest, start + WINDOW_NS)
        return moved


def compact_step(connection: sqlite3.Connection, before_ns: int, budget_points: int = BUDGET_POINTS) -> int:
    """Move some points that are older than `before_ns`: 0 if nothing is left. Within a transaction.

    Looks at everything from the beginning. Who does this again and again keeps a `Compaction`.
    """
    compaction = Compaction()
    moved: int | None = 0
    while moved == 0:
        moved = compaction.step(connection, before_ns, budget_points)
    return moved or 0


@dataclass(frozen=True, slots=True)
class _Mover:
    """Moves the rows of one metric."""

    connection: sqlite3.Connection
    packer: Packer
    metric: int
    raw_from: int

    @classmethod
    def of(cls, connection: sqlite3.Connection, packer: Packer, metric: int) -> _Mover:
        (raw_from,) = connection.execute(
            "SELECT coalesce(raw_from, ?) FROM metric WHERE id = ?", (MIN_NS, metric)
        ).fetchone()
        return cls(connection, packer, metric, raw_from)

    def rows(self, table: str, start: int, end: int, limit: int) -> int:
        """How many rows there are, at most `limit`."""
        of = f"tier = {FINEST.id} AND metric" if table == "rollup" else "metric"
        (count,) = self.connection.execute(
            f"SELECT count(*) FROM (SELECT 1 FROM {table} WHERE {of} = ? AND time >= ? AND time < ? LIMIT ?)",
            (self.metric, start, end, limit),
        ).fetchone()
        return int(count)

    def is_small(self, start: int) -> bool:
        """Whether a window has so little that it stays in rows. What is late joins the series that are there."""
        end = start + WINDOW_NS
        return (
            self.rows("point", start, end, FEWEST_POINTS) < FEWEST_POINTS
            and self.rows("rollup", start, end, FEWEST_POINTS) < FEWEST_POINTS
            and start_of_first(self.connection, self.metric, RAW, start, end) is None
            and start_of_first(self.connection, self.metric, FINEST.id, start, end) is None
        )

    def move_points(self, oldest: int, window_end: int) -> tuple[int, int]:
        """Move the region that begins with a row: how many rows that were, and where the region ends."""
        series_start = start_of_first(self.connection, self.metric, RAW, oldest, oldest + 1)
        span = FINEST.span_ns
        start = (oldest if series_start is None else series_start) // span * span
        times, values = stored_points(self.connection, self.metric, start, window_end, MOST_POINTS + 1)
        end = _region_end(times, start, window_end)
        if end == start + span:  # a dense one
            times, values = stored_points(self.connection, self.metric, start, end)
        count = bisect_left(times, end)
        times, values = times[:count], values[:count]
        moved = self._clear("point", start, end)
        self.packer.cut(self.connection, self.metric, RAW, start, end)
        for first in range(0, count, MOST_POINTS):
            part = slice(first, first + MOST_POINTS)
            self.packer.put(self.connection, self.metric, RAW, times[part], [values[part]])
        self.move_aggregates(start, end)
        return moved, end

    def move_aggregates(self, start: int, end: int) -> int:
        """Move the aggregates of a range, which are right as they are: how many rows that were."""
        buckets = stored_buckets(self.connection, FINEST.id, self.metric, start, end)
        rows = self._clear("rollup", start, end)
        self.packer.cut(self.connection, self.metric, FINEST.id, start, end)
        self.packer.put_buckets(self.connection, self.metric, buckets)
        return rows

    def _clear(self, table: str, start: int, end: int) -> int:
        of = f"tier = {FINEST.id} AND metric" if table == "rollup" else "metric"
        return self.connection.execute(
            f"DELETE FROM {table} WHERE {of} = ? AND time >= ? AND time < ?", (self.metric, start, end)
        ).rowcount


def _region_end(times: array[int], start: int, window_end: int) -> int:
    """Where a region that begins at `start` ends: as far as `MOST_POINTS` go. `times` has one more, if there is one."""
    if len(times) <= MOST_POINTS:
        return window_end
    for span in _REGIONS_NS:
        end = min((start // span + 1) * span, window_end)
        if bisect_left(times, end) <= MOST_POINTS:
            return end
    return start + FINEST.span_ns
