# SPDX-License-Identifier: MIT
"""Days of points that are older than they are kept are dropped, when aggregates have been formed of all they hold."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from bus.errors import StorageBusy
from sinks.postgres import partitions
from sinks.postgres.locks import ROLLUP_LOCK
from sinks.postgres.partitions import DAY_NS, days_before, drop
from sinks.postgres.tables import RAW

if TYPE_CHECKING:
    from sinks.postgres.database import Connection, Database

logger = logging.getLogger(__name__)

ROWS_AT_ONCE = 50_000

_UNFORMED = "SELECT EXISTS (SELECT 1 FROM hostbus.unformed WHERE tier = $1 AND first < $2 AND last > $3)"
_GONE = "UPDATE hostbus.tier SET gone_to = greatest(gone_to, $2) WHERE id = $1"
# Of a point that this statement sees, it sees the change, too, if that has not been worked off.
_DELETE = (
    "DELETE FROM hostbus.point_other WHERE ctid = ANY (ARRAY(SELECT ctid FROM hostbus.point_other WHERE time < $1 "
    "AND NOT EXISTS (SELECT 1 FROM hostbus.unformed u WHERE u.tier = $2 AND u.first <= time AND time < u.last) "
    "LIMIT $3))"
)


async def expire(database: Database, before_ns: int) -> int:
    """Remove the whole days of points before a time; how many days, or portions, went."""
    before_ns = before_ns // DAY_NS * DAY_NS
    async with database.connection() as connection:
        days = await days_before(connection, before_ns)
        divided = await connection.fetchval("SELECT to_regclass('hostbus.point_other') IS NOT NULL")
    dropped = 0
    for day in days:
        try:
            async with database.connection() as connection:
                dropped += await _drop_day(connection, day)
        except StorageBusy as error:
            logger.debug("points of a day stay for now: %s", error)
            break
    while divided:
        async with database.connection() as connection:
            if not await _delete_some(connection, before_ns):
                break
            dropped += 1
    return dropped


async def _drop_day(connection: Connection, day: int) -> bool:
    """Drop one day, unless somebody uses the table for long, or aggregates are still to be formed of it."""
    start_ns, end_ns = day * DAY_NS, (day + 1) * DAY_NS
    async with connection.transaction():
        if not await connection.fetchval("SELECT pg_try_advisory_xact_lock($1)", ROLLUP_LOCK):
            return False
        if await connection.fetchval(_UNFORMED, RAW.id, end_ns, start_ns):
            return False
        await connection.execute(f"SET LOCAL lock_timeout = {partitions.LOCK_TIMEOUT_MS}")
        await connection.execute("LOCK TABLE hostbus.point IN ACCESS EXCLUSIVE MODE")
        # Asked again: a late point may have come, and now none can.
        if await connection.fetchval(_UNFORMED, RAW.id, end_ns, start_ns):
            return False
        await connection.execute(_GONE, RAW.id, end_ns)
        await drop(connection, day)
    return True


async def _delete_some(connection: Connection, before_ns: int) -> bool:
    """Delete some of the points that never had a day's partition."""
    async with connection.transaction():
        if not await connection.fetchval("SELECT pg_try_advisory_xact_lock($1)", ROLLUP_LOCK):
            return False
        done = await connection.execute(_DELETE, before_ns, RAW.id, ROWS_AT_ONCE)
        if done == "DELETE 0":
            return False
        await connection.execute(_GONE, RAW.id, before_ns)
    return True
