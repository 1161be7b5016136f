# SPDX-License-Identifier: MIT
"""Aggregates in the archive: added to as points come, formed for coarser tiers as time goes by.

Whatever a point adds to an aggregate is a sum, a minimum or a maximum, so that rows are never formed anew: what
comes is merged into what is there. Each batch is merged into the finest tier. A bucket of a coarser tier is
formed from the tier below once it is over (`cascade`): until then only one row per metric is written, not five.
What comes for buckets that are formed already is merged into them too.
"""

from __future__ import annotations

import json
import sqlite3
import time
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from math import nan

from bus.aggregates import DEFAULT_HOLD_NS, Aggregate, aggregate_points, combine, hold_ns
from sinks.sqlite.tiers import COARSER, FINEST, ROLLUPS

GRACE_NS = 30 * 10**9
"""How long after its end a bucket waits for what is on its way. What comes later costs more, and is no less right."""

REBUILD_PAGE = 50_000

Row = tuple[float | int, ...]
"""(tier, metric, time, count, sum, minimum, maximum, first, last, integral, covered)"""

_INTO = "INSERT INTO rollup (tier, metric, time, count, sum, minimum, maximum, first, last, integral, covered) "
_MERGE = (
    "ON CONFLICT (tier, metric, time) DO UPDATE SET count = count + excluded.count, sum = sum + excluded.sum, "
    "minimum = min(minimum, excluded.minimum), maximum = max(maximum, excluded.maximum), "
    "integral = integral + excluded.integral, covered = covered + excluded.covered, "
)
APPEND = f"{_INTO} VALUES (?,?,?,?,?,?,?,?,?,?,?) {_MERGE} last = excluded.last"
"""Merge a `Row` whose points are later than all that are there."""

MERGE = (
    f"{_INTO} VALUES (?1,?2,?3,?4,?5,?6,?7,?8,?9,?10,?11) {_MERGE} "
    "first = iif(?12, excluded.first, first), last = iif(?13, excluded.last, last)"
)
"""Merge a `Row` of any points, and whether they have the first and the last value of the bucket."""

CORRECT = "UPDATE rollup SET integral = integral + ?, covered = covered + ? WHERE tier = ? AND metric = ? AND time = ?"
"""A point came before one that is there, which therefore speaks for less time."""

# Buckets begin at multiples of their span, before 1970 too; SQLite's % has the sign of the time.
_FORM = (
    f"{_INTO} SELECT :tier, fine.metric, fine.time - (fine.time % :span + :span) % :span, fine.count, fine.sum, "
    "fine.minimum, fine.maximum, fine.first, fine.last, fine.integral, fine.covered "
    "FROM metric JOIN rollup AS fine ON fine.tier = :tier - 1 AND fine.metric = metric.id "
    "AND fine.time >= :start AND fine.time < :end WHERE true ORDER BY fine.metric, fine.time "
    f"{_MERGE} last = excluded.last"
)


def begin(connection: sqlite3.Connection) -> None:
    """Fill the tiers of an archive that has none yet from its points."""
    now_ns = time.time_ns()
    rolled = {tier.id: now_ns // tier.span_ns * tier.span_ns for tier in COARSER}
    connection.executemany(
        "INSERT INTO tier (id, name, span, rolled_to) VALUES (?,?,?,?)",
        [(tier.id, tier.name, tier.span_ns, rolled.get(tier.id, 0)) for tier in ROLLUPS],
    )
    for metric, metadata in connection.execute("SELECT id, metadata FROM metric").fetchall():
        its_hold_ns = DEFAULT_HOLD_NS
        if metadata is not None:
            its_hold_ns = hold_ns(json.loads(metadata))
            connection.execute("UPDATE metric SET hold = ? WHERE id = ?", (its_hold_ns, metric))
        _fill(connection, metric, its_hold_ns, rolled)


def form_anew(connection: sqlite3.Connection, metric: int, hold_ns: int, most: int) -> int:
    """Form all aggregates of a metric for another hold: of how many points; 0 if it has more than `most`, or old ones.

    What was packed or has expired is far behind: it stays as it is, and all of it.
    """
    (count,) = connection.execute(
        "SELECT count(*) FROM (SELECT 1 FROM point WHERE metric = ? LIMIT ?)", (metric, most + 1)
    ).fetchone()
    is_old = connection.execute(
        "SELECT 1 FROM metric WHERE id = ?1 AND (raw_from IS NOT NULL OR id IN (SELECT metric FROM series "
        "WHERE metric = ?1))",
        (metric,),
    ).fetchone()
    if count > most or is_old:
        return 0
    connection.executemany("DELETE FROM rollup WHERE tier = ? AND metric = ?", [(tier.id, metric) for tier in ROLLUPS])
    _fill(connection, metric, hold_ns, rolled_to(connection))
    return int(count)


def _fill(connection: sqlite3.Connection, metric: int, hold_ns: int, rolled: Mapping[int, int]) -> None:
    """Aggregate all points of a metric that has no aggregates."""
    previous_ns: int | None = None
    for times, values in _pages(connection, metric):
        parts = aggregate_points(times, values, FINEST.span_ns, previous_ns=previous_ns, hold_ns=hold_ns)
        connection.executemany(APPEND, rows(metric, parts, rolled))
        previous_ns = times[-1]


def _pages(connection: sqlite3.Connection, metric: int) -> Iterator[tuple[list[int], array[float]]]:
    start_ns = -(2**63)
    while True:
        page = connection.execute(
            "SELECT time, value FROM point WHERE metric = ? AND time >= ? ORDER BY time LIMIT ?",
            (metric, start_ns, REBUILD_PAGE),
        ).fetchall()
        if not page:
            return
        times = [time_ns for time_ns, _ in page]
        yield times, array("d", [nan if value is None else value for _, value in page])
        start_ns = times[-1] + 1


def rolled_to(connection: sqlite3.Connection) -> dict[int, int]:
    """Up to when the buckets of each coarser tier are formed, in ns."""
    return dict(connection.execute("SELECT id, rolled_to FROM tier WHERE id > ?", (FINEST.id,)))


def rows(metric: int, parts: Sequence[Aggregate], rolled: Mapping[int, int]) -> Iterator[Row]:
    """What aggregates of the finest tier add to it, and to the buckets of coarser tiers that are formed already."""
    for part in parts:
        yield (FINEST.id, metric, *part)
    for tier in COARSER:
        end_ns = rolled[tier.id]
        if not parts or parts[0].time >= end_ns:
            return  # no coarser tier is formed further than this one
        parts = combine(parts, tier.span_ns)
        for part in parts:
            if part.time + tier.span_ns <= end_ns:
                yield (tier.id, metric, *part)


def corrections(
    metric: int, changes: Iterable[tuple[int, float, float]], rolled: Mapping[int, int]
) -> Iterator[tuple[float, float, int, int, int]]:
    """Parameters of `CORRECT` for (time, more value x s, more s of its point), in all tiers that have it."""
    for time_ns, integral, seconds in changes:
        for tier in ROLLUPS:
            start = time_ns // tier.span_ns * tier.span_ns
            if tier is FINEST or start + tier.span_ns <= rolled[tier.id]:
                yield (integral, seconds, tier.id, metric, start)


def cascade(connection: sqlite3.Connection, now_ns: int) -> None:
    """Form the buckets that are over by now. Within a transaction of the caller's."""
    end_ns = now_ns - GRACE_NS
    for tier in COARSER:
        end_ns = end_ns // tier.span_ns * tier.span_ns
        (start_ns,) = connection.execute("SELECT rolled_to FROM tier WHERE id = ?", (tier.id,)).fetchone()
        if end_ns <= start_ns:
            return
        connection.execute(_FORM, {"tier": tier.id, "span": tier.span_ns, "start": start_ns, "end": end_ns})
        connection.execute("UPDATE tier SET rolled_to = ? WHERE id = ?", (end_ns, tier.id))
