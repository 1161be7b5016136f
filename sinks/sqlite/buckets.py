# SPDX-License-Identifier: MIT
"""Aggregates as they are stored: rows, and for the finest tier series, as one."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from functools import partial
from heapq import merge
from math import nan
from operator import itemgetter

from bus.aggregates import Aggregate, combine
from sinks.sqlite.reading import series_between
from sinks.sqlite.series import COLUMNS
from sinks.sqlite.tiers import FINEST

_ROWS = (
    "SELECT time, count, sum, minimum, maximum, first, last, integral, covered FROM rollup "
    "WHERE tier = ? AND metric = ? AND time >= ? AND time < ? ORDER BY time"
)

_TIME = itemgetter(0)
_aggregate = partial(tuple.__new__, Aggregate)  # half the cost of Aggregate._make


def stored_buckets(connection: sqlite3.Connection, tier: int, metric: int, start: int, end: int) -> list[Aggregate]:
    """The buckets of a tier that begin at start <= t < end, oldest first; equal ones are joined."""
    found = connection.execute(_ROWS, (tier, metric, start, end)).fetchall()
    rows = [_aggregate(row if row[2] is not None and row[7] is not None else _with_nan(row)) for row in found]
    packed: list[Aggregate] = []
    if tier == FINEST.id:
        for times, columns in series_between(connection, metric, tier, start, end, COLUMNS[tier]):
            packed += map(Aggregate, times, map(int, columns[0]), *columns[1:])
    if not rows or not packed or packed[-1].time < rows[0].time:
        return packed + rows
    # A row beside a packed bucket has what came later, at its end: else the packed one would be a row, too.
    return combine(merge(packed, rows, key=_TIME), FINEST.span_ns)


def _with_nan(row: Sequence[float | None]) -> list[float]:
    """A row without NULL, which is SQLite's NaN."""
    return [nan if number is None else number for number in row]
