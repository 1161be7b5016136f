# SPDX-License-Identifier: MIT
"""SQL over a whole archive: views that show what is in blocks, too, on a connection that can change nothing.

Functions of ours look into a block, which SQLite calls for each point: 1.5 µs, where a row costs 0.3.
"""

from __future__ import annotations

import sqlite3
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from bus.aggregates import Aggregate
from bus.errors import StorageError
from sinks.sqlite.blocks import unpack_columns, unpack_times
from sinks.sqlite.compaction import MOST_POINTS
from sinks.sqlite.series import COLUMNS, Series
from sinks.sqlite.tiers import FINEST, RAW

REMEMBERED_SERIES = 32
"""Of those that were unpacked: a statement that joins views reads several at the same time."""

READING_PRAGMAS = frozenset(
    {"table_info", "table_xinfo", "table_list", "index_list", "index_info", "database_list", "page_count", "page_size"}
)
FORBIDDEN_FUNCTIONS = frozenset({"load_extension", "fts3_tokenizer"})

_SERIES = (
    "FROM main.metric CROSS JOIN main.series ON series.metric = metric.id CROSS JOIN main.block "
    "ON block.id = series.block CROSS JOIN temp.number ON number.n < block.count "
    "WHERE series.tier = {tier} AND series.end > {start} AND series.start < {end}"
)
_POINTS = (
    "CREATE TEMP VIEW points (metric, time, value) AS "
    "SELECT metric.name, point.time, point.value FROM main.metric JOIN main.point ON point.metric = metric.id "
    "WHERE point.time >= {start} AND point.time < {end} "
    f"UNION ALL SELECT metric.name, hostbus_time(series.id, number.n), hostbus_value(series.id, number.n, 0) {_SERIES}"
)
_BUCKETS = (
    "CREATE TEMP VIEW rollup_{name} (metric, time, count, sum, min, max, first, last, integral, covered, mean) AS "
    "SELECT * FROM main.rollup_{name} WHERE time >= {start} AND time < {end} "
    "UNION ALL SELECT name, time, CAST(count AS INTEGER), sum, min, max, first, last, integral, covered, "
    "CASE WHEN covered > 0 THEN integral / covered ELSE sum / count END FROM ("
    f"SELECT metric.name AS name, hostbus_time(series.id, number.n) AS time, {{columns}} {_SERIES})"
)
_COLUMN_NAMES = ("count", "sum", "min", "max", "first", "last", "integral", "covered")


class Views:
    """The views of a connection, which from then on can change nothing.

    They show all that is stored at start_ns <= time < end_ns, and may show more.
    """

    def __init__(self, connection: sqlite3.Connection, start_ns: int, end_ns: int) -> None:
        self._error: StorageError | None = None
        self._connection = connection
        self._series: OrderedDict[int, Series] = OrderedDict()
        connection.create_function("hostbus_time", 2, self._time)
        connection.create_function("hostbus_value", 3, self._value)
        connection.execute("PRAGMA trusted_schema = OFF")
        connection.execute("CREATE TEMP TABLE number (n INTEGER PRIMARY KEY)")
        (most,) = connection.execute(
            "SELECT max(coalesce(max(count), 0), ?) FROM main.block", (MOST_POINTS,)
        ).fetchone()
        connection.executemany("INSERT INTO number VALUES (?)", ((n,) for n in range(most)))
        limits = {"start": start_ns, "end": end_ns}
        connection.execute(_POINTS.format(tier=RAW, **limits))
        values = (f"hostbus_value(series.id, number.n, {place}) AS {name}" for place, name in enumerate(_COLUMN_NAMES))
        connection.execute(_BUCKETS.format(tier=FINEST.id, name=FINEST.name, columns=", ".join(values), **limits))
        connection.execute("PRAGMA query_only = ON")
        connection.set_authorizer(_may)

    def execute(self, statement: str) -> sqlite3.Cursor:
        """Begin a statement. Raises StorageError that says what is wrong with it."""
        with self._explained():
            return self._connection.execute(statement)

    def fetch(self, cursor: sqlite3.Cursor, count: int) -> list[tuple[Any, ...]]:
        """The next rows, at most `count`; none at the end."""
        with self._explained():
            return cursor.fetchmany(count)

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, sqlite3.Warning) as error:
            if self._error is not None:  # what a function raised, SQLite does not tell
                raise self._error from error
            code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
            if code == sqlite3.SQLITE_AUTH:
                raise StorageError(
                    f"the statement would do more than read ({error}): only reading is allowed"
                ) from error
            if code in (sqlite3.SQLITE_ERROR, sqlite3.SQLITE_MISUSE):
                raise StorageError(f"the statement is wrong: {error}") from error
            raise

    def _time(self, series: int, place: int) -> int:
        """The time of a point of a series."""
        return self._unpacked(series).times[place]

    def _value(self, series: int, place: int, column: int) -> float:
        """A value of a point of a series; SQLite makes NULL of NaN."""
        return self._unpacked(series).columns[column][place]

    def _unpacked(self, series: int) -> Series:
        known = self._series.get(series)
        if known is None:
            known = self._series[series] = self._read(series)
            if len(self._series) > REMEMBERED_SERIES:
                self._series.popitem(last=False)
        return known

    def _read(self, series: int) -> Series:
        # Within the statement that asks, and so from the same state of the file.
        name, tier, block, times, count, columns = self._connection.execute(
            "SELECT metric.name, series.tier, block.id, block.times, block.count, series.columns FROM main.series "
            "JOIN main.block ON block.id = series.block JOIN main.metric ON metric.id = series.metric "
            "WHERE series.id = ?",
            (series,),
        ).fetchone()
        try:
            return Series(series, block, unpack_times(times, count), unpack_columns(columns, count, COLUMNS[tier]))
        except StorageError as error:
            self._error = StorageError(f"{name}: {error}")
            raise


def _may(action: int, one: str | None, two: str | None, _database: str | None, _within: str | None) -> int:
    """SQLite asks this for all that a statement would do."""
    if action in (sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_RECURSIVE):
        return sqlite3.SQLITE_OK
    if action == sqlite3.SQLITE_FUNCTION:
        return sqlite3.SQLITE_DENY if two in FORBIDDEN_FUNCTIONS else sqlite3.SQLITE_OK
    if action == sqlite3.SQLITE_PRAGMA and one in READING_PRAGMAS:
        return sqlite3.SQLITE_OK
    return sqlite3.SQLITE_DENY


assert len(_COLUMN_NAMES) == len(Aggregate._fields) - 1
