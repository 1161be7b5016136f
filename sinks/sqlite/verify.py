# SPDX-License-Identifier: MIT
"""Verification: whether an archive is whole, and its tiers agree with each other.

Each metric is looked at in a transaction of its own, so that a sink may go on writing meanwhile.
"""

from __future__ import annotations

import random
import sqlite3
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from math import isclose

from bus.aggregates import Aggregate, Buckets, combine, gaps_before
from bus.archive import MIN_NS
from bus.chunk import MAX_NS
from bus.errors import StorageError
from bus.maintenance import Finding, Progress
from bus.timestamp import Timestamp
from sinks.sqlite.blocks import unpack_columns, unpack_times
from sinks.sqlite.buckets import stored_buckets
from sinks.sqlite.compaction import WINDOW_NS
from sinks.sqlite.reading import stored_points, time_before
from sinks.sqlite.rollups import rolled_to
from sinks.sqlite.series import COLUMNS
from sinks.sqlite.tiers import COARSER, FINEST, RAW, Tier

SAMPLES = 2
"""Windows per metric whose aggregates are compared, unless all are."""


def check(connection: sqlite3.Connection, *, thorough: bool = False) -> Iterator[Finding | Progress]:
    """What is wrong with an archive, and how far it was looked through. The connection is in no transaction."""
    yield from _guarded("the file", lambda: _check_file(connection, thorough=thorough))
    try:
        metrics = connection.execute("SELECT id, name FROM metric ORDER BY id").fetchall()
    except sqlite3.DatabaseError as error:
        yield Finding("the table of metrics", f"cannot be read ({error})")
        return
    for number, (metric, name) in enumerate(metrics):
        yield Progress(number / len(metrics), number, "metrics")
        connection.execute("BEGIN")
        try:
            yield from _guarded(name, lambda: _check_metric(connection, metric, name, thorough=thorough))  # noqa: B023
        finally:
            connection.execute("ROLLBACK")


def _guarded(where: str, findings: Callable[[], Iterator[Finding]]) -> Iterator[Finding]:
    """Findings; what keeps one from looking further is one."""
    try:
        yield from findings()
    except (sqlite3.DatabaseError, StorageError) as error:
        yield Finding(where, f"cannot be read ({error})")


def _check_file(connection: sqlite3.Connection, *, thorough: bool) -> Iterator[Finding]:
    pragma = "integrity_check" if thorough else "quick_check"
    for (line,) in connection.execute(f"PRAGMA {pragma}"):
        if line != "ok":
            yield Finding("the file", line)
    for (block,) in connection.execute("SELECT id FROM block WHERE id NOT IN (SELECT block FROM series)"):
        yield Finding(f"block {block}", "belongs to no series")
    for table in ("point", "series", "rollup"):
        for (metric,) in connection.execute(
            f"SELECT DISTINCT metric FROM {table} WHERE metric NOT IN (SELECT id FROM metric)"
            if thorough
            else "SELECT 0"
        ):
            if metric:
                yield Finding(f"metric {metric}", f"has no name, but is in the table {table}")


def _check_metric(connection: sqlite3.Connection, metric: int, name: str, *, thorough: bool) -> Iterator[Finding]:
    damaged = False
    for tier in COLUMNS:
        for finding in _check_series(connection, metric, name, tier):
            damaged = True
            yield finding
    if damaged:
        return  # what is made of it would only be told twice
    raw_from, oldest, newest = _extent(connection, metric)
    for start in _windows(oldest, newest, thorough=thorough):
        if start >= raw_from:
            yield from _check_finest(connection, metric, name, start, raw_from)
    formed = rolled_to(connection)
    for coarser in COARSER:
        yield from _check_coarser(connection, metric, name, coarser, formed[coarser.id], thorough=thorough)


def _check_series(connection: sqlite3.Connection, metric: int, name: str, tier: int) -> Iterator[Finding]:
    """The series of a tier, one by one."""
    before = MIN_NS
    what = "points" if tier == RAW else f"aggregates of {FINEST.name}"
    for start, end, columns, block, block_tier, block_start, block_end, count, times in connection.execute(
        "SELECT series.start, series.end, series.columns, series.block, block.tier, block.start, block.end, "
        "block.count, block.times FROM series LEFT JOIN block ON block.id = series.block "
        "WHERE metric = ? AND series.tier = ? ORDER BY series.start",
        (metric, tier),
    ):
        where = f"{name}, {what} from {Timestamp(start)}"
        if times is None:
            yield Finding(where, f"their times, block {block}, are missing")
            continue
        try:
            unpacked = unpack_times(times, count)
            unpack_columns(columns, count, COLUMNS[tier])
        except StorageError as error:
            yield Finding(where, str(error))
            continue
        if (tier, start, end) != (block_tier, block_start, block_end) or (start, end - 1) != (
            unpacked[0],
            unpacked[-1],
        ):
            yield Finding(where, f"series and block {block} do not begin and end at the same times")
        if any(later <= earlier for earlier, later in pairwise(unpacked)):
            yield Finding(where, "the times do not increase")
        if start < before:
            yield Finding(where, f"overlap those before, which end at {Timestamp(before - 1)}")
        before = max(before, end)
        if tier == RAW:
            rows = connection.execute(
                "SELECT time FROM point WHERE metric = ? AND time >= ? AND time < ?", (metric, start, end)
            )
            if doubled := {time for (time,) in rows} & set(unpacked):
                yield Finding(where, f"{len(doubled)} points are in rows, too")


def _extent(connection: sqlite3.Connection, metric: int) -> tuple[int, int, int]:
    """From when there are points for sure, and the times of the first and the last."""
    (raw_from,) = connection.execute(
        "SELECT coalesce(raw_from, ?) FROM metric WHERE id = ?", (MIN_NS, metric)
    ).fetchone()
    first, _ = stored_points(connection, metric, raw_from, MAX_NS, 1)
    last = time_before(connection, metric, MAX_NS)
    return raw_from, first[0] if first else MAX_NS, MIN_NS if last is None else last


def _windows(oldest: int, newest: int, *, thorough: bool) -> Sequence[int]:
    """Starts of windows of 6 h between two times: all of them, or the last and some others."""
    every = range(oldest // WINDOW_NS * WINDOW_NS, newest + 1, WINDOW_NS)
    if thorough or len(every) <= SAMPLES:
        return every
    return sorted({every[-1], *random.sample(every, SAMPLES - 1)})


def _check_finest(
    connection: sqlite3.Connection, metric: int, name: str, start: int, raw_from: int
) -> Iterator[Finding]:
    """The finest aggregates of a window, and its points."""
    end = start + WINDOW_NS
    times, values = stored_points(connection, metric, start, end)
    stored = {bucket.time: bucket for bucket in stored_buckets(connection, FINEST.id, metric, start, end)}
    previous = time_before(connection, metric, start)
    gaps = gaps_before(times, previous, MAX_NS) if times else []
    expected = {bucket.time: bucket for bucket in Buckets(times, gaps, FINEST.span_ns).aggregate(values)}
    yield from _differences(name, FINEST, stored, expected)
    for time_ns in sorted(expected.keys() & stored.keys()):
        own = slice(bisect_left(times, time_ns), bisect_left(times, time_ns + FINEST.span_ns))
        if own.start == 0 and previous is None and raw_from > MIN_NS:
            continue  # the point before the first has expired
        points = [(value, gap) for value, gap in zip(values[own], gaps[own], strict=True) if value == value]
        if not _is_covered(stored[time_ns], points):
            yield _finding(name, FINEST, time_ns, "does not cover the time for which its points speak")


def _is_covered(stored: Aggregate, points: Sequence[tuple[float, float]]) -> bool:
    """Whether integral and covered fit (value, s since the point before), for whatever hold was in force."""
    for hold in {gap for _, gap in points} | {0.0}:
        spoken = [(value, gap) for value, gap in points if gap <= hold]
        integral = sum(value * gap for value, gap in spoken)
        scale = sum(abs(value * gap) for value, gap in spoken)
        if _is_close(stored.covered, sum(gap for _, gap in spoken), 1.0) and _is_close(
            stored.integral, integral, scale
        ):
            return True
    return False


def _check_coarser(
    connection: sqlite3.Connection, metric: int, name: str, tier: Tier, formed_to: int, *, thorough: bool
) -> Iterator[Finding]:
    """The formed aggregates of a tier, and those of the next finer one."""
    unit = max(WINDOW_NS, tier.span_ns)
    finer = tier.id - 1
    (oldest,) = connection.execute(
        "SELECT min(time) FROM rollup WHERE tier = ? AND metric = ?", (tier.id, metric)
    ).fetchone()
    first_finer, last_finer = _ends(connection, metric, finer)
    if oldest is None or first_finer is None:
        return
    begin = max(oldest, -(-first_finer // unit) * unit)
    starts = range(begin // unit * unit, min(last_finer + 1, formed_to), unit)
    for start in starts if thorough or len(starts) <= SAMPLES else random.sample(starts, SAMPLES):
        end = min(start + unit, formed_to)
        parts = stored_buckets(connection, finer, metric, start, end)
        right = {bucket.time: bucket for bucket in combine(parts, tier.span_ns)}
        stored = {bucket.time: bucket for bucket in stored_buckets(connection, tier.id, metric, start, end)}
        yield from _differences(name, tier, stored, right)
        for time_ns in sorted(right.keys() & stored.keys()):
            covered, wanted = stored[time_ns].covered, right[time_ns].covered
            if not _is_close(covered, wanted, 1.0):
                yield _finding(name, tier, time_ns, f"covers {covered:.3f} s, not {wanted:.3f} s")


def _ends(connection: sqlite3.Connection, metric: int, tier: int) -> tuple[int | None, int]:
    """The times of the oldest and the newest aggregate of a tier."""
    first, last = connection.execute(
        "SELECT min(first), max(last) FROM (SELECT min(time) AS first, max(time) AS last FROM rollup "
        "WHERE tier = ?1 AND metric = ?2 UNION ALL SELECT min(start), max(end) - 1 FROM series "
        "WHERE tier = ?1 AND metric = ?2)",
        (tier, metric),
    ).fetchone()
    return first, MIN_NS if last is None else last


def _differences(name: str, tier: Tier, stored: dict[int, Aggregate], right: dict[int, Aggregate]) -> Iterator[Finding]:
    """Buckets that are missing, or one too many, or say something else of the values."""
    for time_ns in sorted(stored.keys() | right.keys()):
        if time_ns not in stored:
            yield _finding(name, tier, time_ns, "is missing")
        elif time_ns not in right:
            yield _finding(name, tier, time_ns, "has nothing to be made of")
        else:
            one, other = stored[time_ns], right[time_ns]
            scale = other.count * max(abs(other.minimum), abs(other.maximum))
            exact = (one.count, one.minimum, one.maximum, one.first, one.last)
            if exact != (other.count, other.minimum, other.maximum, other.first, other.last) or not _is_close(
                one.sum, other.sum, scale
            ):
                yield _finding(name, tier, time_ns, f"says {_short(one)}, its parts say {_short(other)}")


def _is_close(one: float, other: float, scale: float) -> bool:
    return isclose(one, other, rel_tol=1e-9, abs_tol=1e-9 * scale) or one == other or (one != one and other != other)


def _short(bucket: Aggregate) -> str:
    return (
        f"{bucket.count} values from {bucket.minimum:g} to {bucket.maximum:g}, sum {bucket.sum:g}, "
        f"first {bucket.first:g}, last {bucket.last:g}"
    )


def _finding(name: str, tier: Tier, time_ns: int, what: str) -> Finding:
    return Finding(f"{name}, aggregate of {tier.name} at {Timestamp(time_ns)}", what)
