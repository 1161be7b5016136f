# SPDX-License-Identifier: MIT
"""The table of points by days, so that a day that has expired goes in one stroke, and gives its space back.

A day's partition is made ahead, or when its first point comes: an import brings old days. Points of days that
have none, because their clock is wrong by years or because there are too many of them, are in the partition
`point_other`, so that no point is ever without a place; they move when their day gets a partition.

Where the extension TimescaleDB is in the database, the table is its hypertable instead, with a chunk for each day.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from bus.archive import MIN_NS
from sinks.postgres.locks import PARTITION_LOCK
from sinks.postgres.tables import POINT

if TYPE_CHECKING:
    from sinks.postgres.database import Connection

DAY_NS = 86400 * 10**9
AHEAD = 3
"""So many days from today on have their partition before they come."""
EARLIEST = MIN_NS // DAY_NS + 1
"""The first whole day that int64 nanoseconds can tell."""
LATEST = 7
"""A point of a later day than so many from today is a mistake, and gets no partition."""
MOST = 1000
"""Partitions that are made for points that come; more make PostgreSQL's planning slow."""

LOCK_TIMEOUT_MS = 1_000
"""Whoever reads for long must not make us, and all others behind us, wait for the end of that."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_HAS_TIMESCALE = "SELECT EXISTS (SELECT 1 FROM pg_extension WHERE extname = 'timescaledb')"
_DAYS = (
    "SELECT substr(c.relname, 7) FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid "
    "WHERE i.inhparent = 'hostbus.point'::regclass AND c.relname ~ '^point_[0-9]{8}$'"
)


async def make_point_table(connection: Connection) -> None:
    """Make the table of points, ready to take them."""
    if await connection.fetchval(_HAS_TIMESCALE):
        await connection.execute(POINT)
        await connection.execute(
            f"SELECT create_hypertable('hostbus.point', 'time', chunk_time_interval => {DAY_NS}::bigint, "
            "create_default_indexes => false)"
        )
    else:
        await connection.execute(f"{POINT} PARTITION BY RANGE (time)")
        await connection.execute("CREATE TABLE hostbus.point_other PARTITION OF hostbus.point DEFAULT")


class Partitions:
    """The days of one database, as one connection knows them."""

    def __init__(self, days: set[int], *, by_extension: bool) -> None:
        self._days = days
        self.by_extension = by_extension

    @classmethod
    async def of(cls, connection: Connection) -> Partitions:
        """What there is."""
        return cls(await _known_days(connection), by_extension=await _is_hypertable(connection))

    async def provide(self, connection: Connection, days: Iterable[int]) -> None:
        """Give those days (since 1970) a partition that should have one and have none. Not within a transaction."""
        if self.by_extension:
            return
        today = time.time_ns() // DAY_NS
        wanted = sorted(day for day in set(days) - self._days if EARLIEST <= day <= today + LATEST)
        if not wanted:
            return
        self._days |= await _known_days(connection)
        for day in wanted:
            if day not in self._days and (len(self._days) < MOST or day >= today):
                if not await _make(connection, day):
                    return  # next time; until then its points have their place beside the days
                self._days.add(day)

    async def provide_ahead(self, connection: Connection) -> None:
        """Make the partitions of the days to come."""
        today = time.time_ns() // DAY_NS
        await self.provide(connection, range(today, today + AHEAD))


async def days_before(connection: Connection, end_ns: int) -> list[int]:
    """The days with a partition, or a chunk, that end at `end_ns` or before."""
    if await _is_hypertable(connection):
        rows = await connection.fetch(
            "SELECT range_start_integer FROM timescaledb_information.chunks "
            "WHERE hypertable_schema = 'hostbus' AND hypertable_name = 'point' AND range_end_integer <= $1",
            end_ns,
        )
        return sorted(start // DAY_NS for (start,) in rows)
    return sorted(day for day in await _known_days(connection) if (day + 1) * DAY_NS <= end_ns)


async def drop(connection: Connection, day: int) -> None:
    """Drop the partition, or the chunk, of a day that `days_before` told."""
    if await _is_hypertable(connection):
        await connection.execute(
            "SELECT drop_chunks('hostbus.point', older_than => $1::bigint, newer_than => $2::bigint)",
            (day + 1) * DAY_NS,
            day * DAY_NS,
        )
    else:
        await connection.execute(f"DROP TABLE {partition(day)}")


async def _is_hypertable(connection: Connection) -> bool:
    kind: bytes = await connection.fetchval("SELECT relkind FROM pg_class WHERE oid = 'hostbus.point'::regclass")
    return kind == b"r"


def partition(day: int) -> str:
    """The name of a day's partition: ``hostbus.point_20261121``."""
    return f"hostbus.point_{_EPOCH + timedelta(days=day):%Y%m%d}"


async def _known_days(connection: Connection) -> set[int]:
    return {(_date(text) - _EPOCH).days for (text,) in await connection.fetch(_DAYS)}


def _date(text: str) -> datetime:
    return datetime.strptime(text, "%Y%m%d").replace(tzinfo=UTC)


async def _make(connection: Connection, day: int) -> bool:
    """Make a day's partition, and move there what `point_other` has of that day; False if somebody reads that now.

    ATTACH lets inserts into other days go on, where CREATE TABLE ... PARTITION OF would wait for all of them.
    """
    import asyncpg

    name, start_ns, end_ns = partition(day), day * DAY_NS, (day + 1) * DAY_NS
    try:
        async with connection.transaction():
            await connection.execute(f"SET LOCAL lock_timeout = {LOCK_TIMEOUT_MS}")
            await connection.execute("SELECT pg_advisory_xact_lock($1)", PARTITION_LOCK)
            if await connection.fetchval("SELECT to_regclass($1) IS NOT NULL", name):
                return True
            await connection.execute(f"CREATE TABLE {name} (LIKE hostbus.point INCLUDING ALL)")
            await connection.execute("LOCK TABLE hostbus.point_other IN ACCESS EXCLUSIVE MODE")
            await connection.execute(
                "WITH moved AS (DELETE FROM hostbus.point_other WHERE time >= $1 AND time < $2 RETURNING *) "
                f"INSERT INTO {name} TABLE moved",
                start_ns,
                end_ns,
            )
            await connection.execute(
                f"ALTER TABLE hostbus.point ATTACH PARTITION {name} FOR VALUES FROM ({start_ns}) TO ({end_ns})"
            )
    except asyncpg.LockNotAvailableError:
        return False
    return True
