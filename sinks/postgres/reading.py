# SPDX-License-Identifier: MIT
"""Points out of the database, as columns.

The server joins the numbers of a column to one value of bytes: 0.4 µs a point, where rows cost 1.2.
"""

from __future__ import annotations

import sys
from array import array
from collections.abc import Iterable, Sequence
from math import nan
from typing import TYPE_CHECKING, TypeAlias

from bus.archive import MIN_NS

if TYPE_CHECKING:
    from asyncpg import Record

    from sinks.postgres.database import Connection

Columns: TypeAlias = "tuple[array[int], array[float]]"

_JOINED = (
    "string_agg(int8send(time), ''::bytea) AS times, "
    "string_agg(float8send(coalesce(value, 'NaN')), ''::bytea) AS values"
)

_PAGE = (
    f"SELECT {_JOINED} FROM (SELECT time, value FROM hostbus.point "
    "WHERE metric = $1 AND time >= $2 AND time < $3 ORDER BY time LIMIT $4) page"
)

_MANY = (
    f"SELECT wanted.metric, page.* FROM unnest($1::int[], $2::bigint[]) AS wanted (metric, start), "
    f"LATERAL (SELECT {_JOINED} FROM (SELECT time, value FROM hostbus.point WHERE point.metric = wanted.metric "
    "AND time >= wanted.start AND time < $3 ORDER BY time LIMIT $4) ordered) page"
)

_BEFORE = (
    "SELECT wanted.metric, (SELECT time FROM hostbus.point WHERE point.metric = wanted.metric "
    "AND time < $2 AND time >= wanted.earliest ORDER BY time DESC LIMIT 1) "
    "FROM unnest($1::int[], $3::bigint[]) AS wanted (metric, earliest)"
)

_AFTER = (
    "SELECT wanted.metric, (SELECT time FROM hostbus.point WHERE point.metric = wanted.metric "
    "AND time >= $2 AND time < wanted.latest ORDER BY time LIMIT 1) "
    "FROM unnest($1::int[], $3::bigint[]) AS wanted (metric, latest)"
)

# What is on its way to the archive is known to `latest` alone; what a sink did not insert, to `point` alone.
_NEWEST = (
    "SELECT metric.name, newest.time, newest.value FROM hostbus.metric, LATERAL ("
    "(SELECT time, value FROM hostbus.point WHERE point.metric = metric.id ORDER BY time DESC LIMIT 1) UNION ALL "
    "(SELECT time, value FROM hostbus.latest WHERE latest.metric = metric.id) ORDER BY time DESC LIMIT 1"
    ") newest WHERE metric.name = ANY($1) ORDER BY metric.name"
)


async def page(connection: Connection, metric: int, start_ns: int, end_ns: int, limit: int) -> Columns:
    """The first points of a metric with start_ns <= time < end_ns, oldest first, at most `limit`."""
    ((times, values),) = await connection.fetch(_PAGE, metric, start_ns, end_ns, limit)
    return columns(times, values)


async def pages(
    connection: Connection, metrics: Sequence[int], starts: Sequence[int], end_ns: int, limit: int
) -> dict[int, Columns]:
    """The same of several metrics at once, of each from its own start on."""
    rows = await connection.fetch(_MANY, metrics, starts, end_ns, limit)
    return {metric: columns(times, values) for metric, times, values in rows}


async def times_before(
    connection: Connection, metrics: Sequence[int], time_ns: int, holds: Sequence[int]
) -> dict[int, int | None]:
    """The time of each metric's newest point before `time_ns`, if it is not longer ago than its hold."""
    earliest = [max(MIN_NS, time_ns - hold) for hold in holds]
    return _by_metric(await connection.fetch(_BEFORE, metrics, time_ns, earliest))


async def times_after(
    connection: Connection, metrics: Sequence[int], time_ns: int, latest: Sequence[int]
) -> dict[int, int | None]:
    """The time of each metric's oldest point at or after `time_ns` and before its own limit."""
    return _by_metric(await connection.fetch(_AFTER, metrics, time_ns, latest))


async def newest(connection: Connection, names: Sequence[str]) -> dict[str, tuple[int, float]]:
    """The newest (time, value) of each of these metrics that has points; sorted by name."""
    rows = await connection.fetch(_NEWEST, names)
    return {name: (time, nan if value is None else value) for name, time, value in rows}


def columns(times: bytes | None, values: bytes | None) -> Columns:
    """Two columns from what the server joined; None if there were no rows."""
    found = array("q", times or b""), array("d", values or b"")
    if sys.byteorder == "little":
        for column in found:
            column.byteswap()
    return found


def _by_metric(rows: Iterable[Record]) -> dict[int, int | None]:
    return dict((metric, time) for metric, time in rows)  # noqa: C402  # which ruff would have as dict(rows), mypy not
