# SPDX-License-Identifier: MIT
"""Points out of the archive: rows and blocks as one series."""

from __future__ import annotations

import sqlite3
from array import array
from math import nan

from bus.chunk import MAX_NS

LOOK_FOR_VALUES = 100


def stored_points(
    connection: sqlite3.Connection, metric: int, start_ns: int, end_ns: int, limit: int | None = None
) -> tuple[array[int], array[float]]:
    """The points of a metric with start_ns <= time < end_ns, oldest first, at most `limit`."""
    rows = connection.execute(
        "SELECT time, value FROM point WHERE metric = ? AND time >= ? AND time < ? ORDER BY time LIMIT ?",
        (metric, start_ns, end_ns, -1 if limit is None else limit),
    ).fetchall()
    times = array("q", [time for time, _ in rows])
    return times, array("d", [nan if value is None else value for _, value in rows])


def time_before(connection: sqlite3.Connection, metric: int, time_ns: int) -> int | None:
    """The time of the newest point before `time_ns`."""
    (found,) = connection.execute(
        "SELECT max(time) FROM point WHERE metric = ? AND time < ?", (metric, time_ns)
    ).fetchone()
    return None if found is None else int(found)


def newest_times(connection: sqlite3.Connection) -> dict[int, int]:
    """The time of the newest point of each metric that has points, by id."""
    metrics = connection.execute("SELECT id FROM metric").fetchall()
    found = {metric: time_before(connection, metric, MAX_NS) for (metric,) in metrics}
    return {metric: time_ns for metric, time_ns in found.items() if time_ns is not None}


def first_value_time(connection: sqlite3.Connection, metric: int, start_ns: int, end_ns: int) -> int | None:
    """The time of the first point in a range that is not NaN."""
    while True:
        times, values = stored_points(connection, metric, start_ns, end_ns, LOOK_FOR_VALUES)
        for time_ns, value in zip(times, values, strict=True):
            if value == value:
                return time_ns
        if not times:
            return None
        start_ns = times[-1] + 1


def last_value_time(connection: sqlite3.Connection, metric: int, start_ns: int, end_ns: int) -> int | None:
    """The time of the last point in a range that is not NaN."""
    while True:
        time_ns = time_before(connection, metric, end_ns)
        if time_ns is None or time_ns < start_ns:
            return None
        (value,) = stored_points(connection, metric, time_ns, time_ns + 1)[1]
        if value == value:
            return time_ns
        end_ns = time_ns


def newest_points(connection: sqlite3.Connection) -> dict[str, tuple[int, float]]:
    """The newest (time, value) of each metric, by name."""
    names = dict(connection.execute("SELECT id, name FROM metric"))
    return {
        names[metric]: (time_ns, stored_points(connection, metric, time_ns, time_ns + 1)[1][0])
        for metric, time_ns in newest_times(connection).items()
    }
