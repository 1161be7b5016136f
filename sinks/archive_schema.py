# SPDX-License-Identifier: MIT
"""The archive's tables, by version, and the check that a file is an archive of ours.

`PRAGMA application_id` marks the file, `PRAGMA user_version` is the number of migrations that it has had.
A migration that was released is never changed; what comes later (rollups, blocks, events) is appended.
"""

from collections.abc import Sequence
from pathlib import Path

import aiosqlite

from bus.errors import StorageError

APPLICATION_ID = 0x48427553
"""'HBuS': what file(1) and we know an archive by."""

Migration = Sequence[str]
"""The statements that lead from one version to the next."""

MIGRATIONS: tuple[Migration, ...] = (
    # 1: metrics, their points, and what is known to be missing. Times are ns since 1970-01-01T00:00:00Z.
    (
        # metadata is a JSON object, NULL while nobody has told it.
        "CREATE TABLE metric (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, metadata TEXT)",
        # SQLite stores NaN as NULL: a point without a value was measured, and had no answer.
        "CREATE TABLE point (metric INTEGER NOT NULL REFERENCES metric (id), time INTEGER NOT NULL, value REAL, "
        "PRIMARY KEY (metric, time)) WITHOUT ROWID",
        # Frames first..last of a source's routing key, of the run that began at epoch, never came.
        "CREATE TABLE gap (source TEXT NOT NULL, key TEXT NOT NULL, epoch INTEGER NOT NULL, first INTEGER NOT NULL, "
        "last INTEGER NOT NULL, noticed INTEGER NOT NULL, PRIMARY KEY (source, key, epoch, first)) WITHOUT ROWID",
        "CREATE VIEW points (metric, time, value) AS "
        "SELECT metric.name, point.time, point.value FROM metric JOIN point ON point.metric = metric.id",
    ),
)


async def check(connection: aiosqlite.Connection, path: Path) -> int:
    """The version of the file's schema, 0 for an empty file. Raises StorageError unless it is ours to read."""
    application_id = await pragma(connection, "application_id")
    if application_id != APPLICATION_ID:
        if application_id == 0 and not await connection.execute_fetchall("SELECT 1 FROM sqlite_master LIMIT 1"):
            return 0
        raise StorageError(f"{path} is an SQLite file of another program, not a hostbus archive: choose another --path")
    version = await pragma(connection, "user_version")
    if version > len(MIGRATIONS):
        raise StorageError(
            f"{path} was made by a newer hostbus (schema {version}; this one reads up to {len(MIGRATIONS)}): "
            "upgrade hostbus or choose another --path"
        )
    return version


async def migrate(connection: aiosqlite.Connection, version: int) -> None:
    """Bring the file from `version` to the newest schema, in one transaction: wholly or not at all."""
    await connection.execute("BEGIN IMMEDIATE")
    try:
        for migration in MIGRATIONS[version:]:
            for statement in migration:
                await connection.execute(statement)
        await connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        await connection.execute(f"PRAGMA user_version = {len(MIGRATIONS)}")
        await connection.commit()
    except BaseException:
        await connection.rollback()
        raise


async def pragma(connection: aiosqlite.Connection, name: str) -> int:
    """The number that a PRAGMA answers."""
    async with connection.execute(f"PRAGMA {name}") as cursor:
        row = await cursor.fetchone()
    return int(row[0]) if row else 0
