# SPDX-License-Identifier: MIT
"""What is older than it is kept goes, by whole days, when the coarser tier has been formed of all of it.

A day of points is dropped with its partition. Aggregates, of which there is a sixtieth, are deleted row by row.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING

from bus.archive import MIN_NS
from bus.errors import StorageBusy
from sinks.postgres import partitions
from sinks.postgres.locks import ROLLUP_LOCK
from sinks.postgres.partitions import DAY_NS, days_before, drop
from sinks.postgres.rollups import gone
from sinks.postgres.tables import RAW, ROLLUPS, Tier
from sinks.retention import FOREVER, TIERS, Retention

if TYPE_CHECKING:
    from sinks.postgres.database import Connection, Database

logger = logging.getLogger(__name__)

DEFAULT_KEEP: Mapping[str, str] = {"raw": "7d"}
ROWS_AT_ONCE = 50_000

_UNFORMED = "SELECT EXISTS (SELECT 1 FROM hostbus.unformed WHERE tier = $1 AND first < $2 AND last > $3)"
_GONE = "UPDATE hostbus.tier SET gone_to = greatest(gone_to, $2) WHERE id = $1"
# Of a point that this statement sees, it sees the change, too, if that has not been worked off.
_DELETE = (
    "DELETE FROM hostbus.point_other WHERE ctid = ANY (ARRAY(SELECT ctid FROM hostbus.point_other WHERE time < $1 "
    "AND NOT EXISTS (SELECT 1 FROM hostbus.unformed u WHERE u.tier = $2 AND u.first <= time AND time < u.last) "
    "LIMIT $3))"
)
_DELETE_ROLLUP = (
    "DELETE FROM hostbus.rollup WHERE ctid = ANY (ARRAY(SELECT ctid FROM hostbus.rollup WHERE tier = $2 AND time < $1 "
    "AND NOT EXISTS (SELECT 1 FROM hostbus.unformed u WHERE u.tier = $2 AND u.first <= time AND time < u.last) "
    "LIMIT $3))"
)


def keep_ns(keep: Mapping[str, str]) -> dict[Tier, int]:
    """For how many ns each tier is kept, from a configuration; without those that are kept for ever.

    Raises ValueError that names what is wrong and says what is right.
    """
    spans = dict(zip(TIERS, Retention.load(keep, usual={}).default, strict=True))
    return {tier: spans[tier.name] for tier in (RAW, *ROLLUPS) if spans[tier.name] != FOREVER}


async def expire(database: Database, tier: Tier, before_ns: int) -> int:
    """Remove the whole days of a tier before a time; how many days, or portions, went."""
    before_ns = max(before_ns // DAY_NS * DAY_NS, MIN_NS)
    return await (_expire_points(database, before_ns) if tier is RAW else _expire_rollup(database, tier, before_ns))


async def _expire_rollup(database: Database, tier: Tier, before_ns: int) -> int:
    portions = 0
    while True:
        async with database.connection() as connection, connection.transaction():
            if await gone(connection, tier) >= before_ns:  # what came late since then goes with the next day
                return portions
            if not await connection.fetchval("SELECT pg_try_advisory_xact_lock($1)", ROLLUP_LOCK):
                return portions
            if await connection.execute(_DELETE_ROLLUP, before_ns, tier.id, ROWS_AT_ONCE) == "DELETE 0":
                await connection.execute(_GONE, tier.id, before_ns)
            portions += 1


async def _expire_points(database: Database, before_ns: int) -> int:
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
