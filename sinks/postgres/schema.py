# SPDX-License-Identifier: MIT
"""The check that a database holds an archive of ours, and what brings it up to date.

All of it is in the schema `hostbus`, so that a database may hold other things beside it; the table `version` there
says how many migrations it has had.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from bus.errors import StorageError
from sinks.postgres.address import Address
from sinks.postgres.locks import SCHEMA_LOCK
from sinks.postgres.partitions import make_point_table
from sinks.postgres.tables import MIGRATIONS

if TYPE_CHECKING:
    from sinks.postgres.database import Connection

_WHAT_IS_THERE = (
    "SELECT to_regclass('hostbus.version') IS NOT NULL, "
    "EXISTS (SELECT 1 FROM pg_class WHERE relnamespace = to_regnamespace('hostbus'))"
)


async def check(connection: Connection, address: Address) -> int:
    """The version of the archive in the database, 0 if there is none. Raises StorageError unless it is ours to use."""
    ((is_ours, is_used),) = await connection.fetch(_WHAT_IS_THERE)
    if not is_ours:
        if is_used:
            raise StorageError(
                f"{address.label} has a schema hostbus of another program, not a hostbus archive: use another database"
            )
        return 0
    version: int = await connection.fetchval("SELECT version FROM hostbus.version")
    if version > len(MIGRATIONS):
        raise StorageError(
            f"{address.label} was made by a newer hostbus (schema {version}; this one knows up to {len(MIGRATIONS)}): "
            "upgrade hostbus or use another database"
        )
    return version


async def migrate(connection: Connection, address: Address) -> None:
    """Bring the database to the newest schema, wholly or not at all, whoever else tries the same at this moment."""
    if await check(connection, address) == len(MIGRATIONS):
        return
    async with connection.transaction():
        await connection.execute("SELECT pg_advisory_xact_lock($1)", SCHEMA_LOCK)
        version = await check(connection, address)
        if version == 0:
            # An administrator may have made it, for a user who may not.
            if not await connection.fetchval("SELECT to_regnamespace('hostbus') IS NOT NULL"):
                await connection.execute("CREATE SCHEMA hostbus")
            await connection.execute("CREATE TABLE hostbus.version (version integer NOT NULL)")
            await connection.execute("INSERT INTO hostbus.version VALUES (0)")
            await make_point_table(connection)
        for migration in MIGRATIONS[version:]:
            await connection.execute(migration)
        await connection.execute("UPDATE hostbus.version SET version = $1", len(MIGRATIONS))
