# SPDX-License-Identifier: MIT
"""Points that come late, or again: each is looked for, and what a new one changes is merged into the aggregates."""

from __future__ import annotations

import sqlite3
from array import array
from collections.abc import Mapping, Sequence, Set
from itertools import pairwise
from math import isinf

from bus.aggregates import NS_PER_S, Buckets
from bus.archive import MIN_NS
from bus.chunk import MAX_NS
from sinks.sqlite import rollups
from sinks.sqlite.reading import first_value_time, last_value_time, stored_points, time_before
from sinks.sqlite.series import delete_orphans, overlapping
from sinks.sqlite.tiers import COARSER, FINEST, ROLLUPS

_MINUTE = COARSER[0]


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
    there = dict(zip(*stored_points(connection, metric, min(given), max(given) + 1), strict=True))
    (raw_from,) = connection.execute(
        "SELECT coalesce(raw_from, ?) FROM metric WHERE id = ?", (MIN_NS, metric)
    ).fetchone()
    fresh = _not_expired(connection, metric, sorted(given.keys() - there.keys()), there, raw_from)
    if not fresh:
        return 0
    connection.executemany(
        "INSERT INTO point (metric, time, value) VALUES (?,?,?)", [(metric, t, given[t]) for t in fresh]
    )
    _merge(connection, metric, fresh, given, there, hold_ns, rolled, raw_from)
    return len(fresh)


def _not_expired(
    connection: sqlite3.Connection, metric: int, times: list[int], there: Mapping[int, float], raw_from: int
) -> list[int]:
    """Without points from before those that are kept, in a minute whose aggregate has long counted them.

    They come again when an old file is imported twice. A minute of which points are there was not there before.
    """
    if not times or times[0] >= raw_from:
        return times
    span = _MINUTE.span_ns
    old = {time_ns // span * span for time_ns in times if time_ns < raw_from}
    counted = {
        start
        for start in old - {time_ns // span * span for time_ns in there}
        if connection.execute(
            "SELECT 1 FROM rollup WHERE tier = ? AND metric = ? AND time = ?", (_MINUTE.id, metric, start)
        ).fetchone()
        and not stored_points(connection, metric, start, start + span, 1)[0]
    }
    return [time_ns for time_ns in times if time_ns >= raw_from or time_ns // span * span not in counted]


def _merge(
    connection: sqlite3.Connection,
    metric: int,
    fresh: list[int],
    given: Mapping[int, float],
    there: Mapping[int, float],
    hold_ns: int,
    rolled: Mapping[int, int],
    raw_from: int,
) -> None:
    """Add new points to the aggregates, and take from the points after them the time that they spoke for."""
    before = time_before(connection, metric, fresh[0])
    after_times, after_values = stored_points(connection, metric, fresh[-1] + 1, MAX_NS, 1)
    old = {**there, **dict(zip(after_times, after_values, strict=True))}
    line = sorted({*fresh, *(t for t in old if t > fresh[0])} | ({before} if before is not None else set()))
    gaps = {line[0]: 0.0, **{b: _gap_s(a, b, hold_ns) for a, b in pairwise(line)}}
    buckets = Buckets(fresh, [gaps[t] for t in fresh], FINEST.span_ns)
    parts = list(buckets.aggregate(array("d", [given[t] for t in fresh])))
    is_new = set(fresh)
    changes = []
    previous: int | None = None
    for a, b in pairwise(line):
        if a not in is_new:
            previous = a
        elif b not in is_new and old[b] == old[b]:
            spoke_s = 0.0 if previous is None else _gap_s(previous, b, hold_ns)
            if gaps[b] != spoke_s:
                changes.append((b, _change(old[b], gaps[b], spoke_s), gaps[b] - spoke_s))
    _loosen(connection, metric, {part.time for part in parts} | {_bucket(time_ns) for time_ns, _, _ in changes})
    connection.executemany(
        rollups.MERGE,
        [(*row, *_has_ends(connection, row, is_new, raw_from)) for row in rollups.rows(metric, parts, rolled)],
    )
    connection.executemany(rollups.CORRECT, list(rollups.corrections(metric, changes, rolled)))


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
            buckets = zip(one.times, map(int, one.columns[0]), *one.columns[1:], strict=True)
            connection.executemany(rollups.APPEND, [(FINEST.id, metric, *bucket) for bucket in buckets])
            connection.execute("DELETE FROM series WHERE id = ?", (one.id,))
            delete_orphans(connection, (one.block,))
            loosened_to = one.times[-1] + 1


def _bucket(time_ns: int) -> int:
    return time_ns // FINEST.span_ns * FINEST.span_ns


def _has_ends(connection: sqlite3.Connection, row: rollups.Row, is_new: Set[int], raw_from: int) -> tuple[bool, bool]:
    """Whether the first and the last value of a bucket are among the new points."""
    tier, metric, start = map(int, row[:3])
    end = start + ROLLUPS[tier - FINEST.id].span_ns
    if start < raw_from:  # what was there before has expired
        return False, False
    return first_value_time(connection, metric, start, end) in is_new, last_value_time(
        connection, metric, start, end
    ) in is_new


def _change(value: float, speaks_s: float, spoke_s: float) -> float:
    """What an integral gets more when a point speaks for another time. Infinity is the same for any."""
    return 0.0 if isinf(value) and speaks_s and spoke_s else value * (speaks_s - spoke_s)


def _gap_s(earlier_ns: int, later_ns: int, hold_ns: int) -> float:
    gap_ns = later_ns - earlier_ns
    return gap_ns / NS_PER_S if gap_ns <= hold_ns else 0.0
