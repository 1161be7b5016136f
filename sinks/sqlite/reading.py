# SPDX-License-Identifier: MIT
"""Points out of the archive: rows and series as one.

Whatever a point lies in, it lies there alone: no time of a metric is both in a row and in a series, and series of
a metric do not overlap. But rows that came late may lie between the points of a series.
"""

from __future__ import annotations

import sqlite3
from array import array
from bisect import bisect_left
from collections.abc import Iterator
from itertools import takewhile
from math import nan
from operator import itemgetter
from typing import TypeAlias

from bus.chunk import MAX_NS
from bus.errors import StorageError
from bus.names import Selection, is_pattern
from bus.timestamp import Timestamp
from sinks.sqlite.blocks import look_into_times, unpack_columns
from sinks.sqlite.tiers import RAW

Points: TypeAlias = "tuple[array[int], array[float]]"

_TIME, _VALUE = itemgetter(0), itemgetter(1)

_ROWS = "SELECT time, value FROM point WHERE metric = ? AND time >= ? AND time < ? ORDER BY time LIMIT ?"

# Series of a metric do not overlap, so that all before the last that begins before :start end there, too.
_SERIES = (
    "SELECT block.times, block.count, series.columns, series.start, series.end "
    "FROM series CROSS JOIN block ON block.id = series.block "
    "WHERE series.metric = :metric AND series.tier = :tier AND series.start < :end AND series.end > :start "
    "AND series.start >= coalesce((SELECT max(start) FROM series "
    "WHERE metric = :metric AND tier = :tier AND start <= :start), :start) ORDER BY series.start"
)

_SERIES_BEFORE = (
    "SELECT start, end, block FROM series WHERE metric = ? AND tier = ? AND start < ? ORDER BY start DESC LIMIT 1"
)

_NEWEST = (
    "SELECT id, name, row, (SELECT value FROM point WHERE metric = id AND time = row), packed FROM (SELECT id, name, "
    "(SELECT max(time) FROM point WHERE metric = metric.id) AS row, "
    f"(SELECT end - 1 FROM series WHERE metric = metric.id AND tier = {RAW} ORDER BY start DESC LIMIT 1) AS packed "
    "FROM metric WHERE name >= ? AND name < ?) WHERE row IS NOT NULL OR packed IS NOT NULL ORDER BY name"
)


def stored_points(
    connection: sqlite3.Connection, metric: int, start_ns: int, end_ns: int, limit: int | None = None
) -> Points:
    """The points of a metric with start_ns <= time < end_ns, oldest first, at most `limit`."""
    most = MAX_NS if limit is None else limit
    end_ns = min(end_ns, MAX_NS)  # the last bucket of all time ends later than a column can say
    times, values = array("q"), array("d")
    for packed_times, (packed_values,) in series_between(connection, metric, RAW, start_ns, end_ns):
        rows = _rows(connection, metric, start_ns, packed_times[-1], most - len(times))
        more_times, more_values = _merged(rows, (packed_times, packed_values))
        times += more_times
        values += more_values
        start_ns = packed_times[-1] + 1
        if len(times) >= most:
            return times[:most], values[:most]
    more_times, more_values = _rows(connection, metric, start_ns, end_ns, most - len(times))
    return times + more_times, values + more_values


def series_between(
    connection: sqlite3.Connection, metric: int, tier: int, start_ns: int, end_ns: int, columns: int = 1
) -> Iterator[tuple[array[int], list[array[float]]]]:
    """The times and columns that series have in a range, oldest first: never empty, one series at a time.

    Raises StorageError that says what is damaged.
    """
    where = {"metric": metric, "tier": tier, "start": start_ns, "end": end_ns}
    for packed_times, count, packed, first_ns, after_ns in connection.execute(_SERIES, where):
        try:
            times = look_into_times(packed_times, count)
            start, end = bisect_left(times, start_ns), bisect_left(times, end_ns)
            found = array("q", times[start:end]), unpack_columns(packed, count, columns, start, end)
        except StorageError as error:
            raise _damaged(connection, metric, first_ns, after_ns, error) from error
        if start < end:
            yield found


def time_before(connection: sqlite3.Connection, metric: int, time_ns: int) -> int | None:
    """The time of the newest point before `time_ns`."""
    time_ns = min(time_ns, MAX_NS)
    point = connection.execute("SELECT max(time) FROM point WHERE metric = ? AND time < ?", (metric, time_ns))
    (row,) = point.fetchone()
    found = connection.execute(_SERIES_BEFORE, (metric, RAW, time_ns)).fetchone()
    if found is None:
        return None if row is None else int(row)
    start_ns, end_ns, block = found
    packed = end_ns - 1
    if end_ns > time_ns:
        try:
            times = look_into_times(
                *connection.execute("SELECT times, count FROM block WHERE id = ?", (block,)).fetchone()
            )
        except StorageError as error:
            raise _damaged(connection, metric, start_ns, end_ns, error) from error
        packed = times[bisect_left(times, time_ns) - 1]
    return int(packed if row is None else max(row, packed))


def newest_times(connection: sqlite3.Connection) -> dict[int, int]:
    """The time of the newest point of each metric that has points, by id."""
    return {
        metric: max(time_ns for time_ns in (row, packed) if time_ns is not None)
        for metric, _, row, _, packed in connection.execute(_NEWEST, name_range("#"))
    }


def newest_points(connection: sqlite3.Connection, pattern: str = "#") -> dict[str, tuple[int, float]]:
    """The newest (time, value) of each metric that the name or pattern selects, sorted by name."""
    wanted = Selection([pattern])
    found = {}
    for metric, name, row, value, packed in connection.execute(_NEWEST, name_range(pattern)).fetchall():
        if name not in wanted:
            continue
        if packed is None or (row is not None and row > packed):
            found[name] = (row, nan if value is None else value)
        else:
            found[name] = (packed, stored_points(connection, metric, packed, packed + 1)[1][0])
    return found


def name_range(pattern: str) -> tuple[str, str]:
    """Between which names those lie that a name or pattern selects: first <= name < second."""
    words = list(takewhile(lambda word: not is_pattern(word), pattern.split(".")))
    return (".".join(words), ".".join(words) + "/") if words else ("", "~")  # "/" follows ".", "~" all of a name


def _damaged(
    connection: sqlite3.Connection, metric: int, start_ns: int, end_ns: int, error: StorageError
) -> StorageError:
    """What is damaged, by its name."""
    (name,) = connection.execute("SELECT name FROM metric WHERE id = ?", (metric,)).fetchone()
    return StorageError(f"{name} from {Timestamp(start_ns)} to {Timestamp(end_ns - 1)}: {error}")


def _rows(connection: sqlite3.Connection, metric: int, start_ns: int, end_ns: int, limit: int) -> Points:
    """The points in rows. 0.5 µs each, most of it for the interpreter to step through them."""
    rows = connection.execute(_ROWS, (metric, start_ns, end_ns, limit)).fetchall()
    times, values = list(map(_TIME, rows)), list(map(_VALUE, rows))
    try:
        return array("q", times), array("d", values)
    except TypeError:  # there is a NULL, SQLite's NaN
        return array("q", times), array("d", [nan if value is None else value for value in values])


def _merged(one: Points, other: Points) -> Points:
    """Both, by time."""
    if not one[0] or not other[0]:
        return one if one[0] else other
    if one[0][0] > other[0][0]:
        one, other = other, one
    if one[0][-1] < other[0][0]:
        return one[0] + other[0], one[1] + other[1]
    both = dict(zip(*one, strict=True)) | dict(zip(*other, strict=True))
    times = array("q", sorted(both))
    return times, array("d", map(both.__getitem__, times))
