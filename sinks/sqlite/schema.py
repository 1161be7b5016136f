# SPDX-License-Identifier: MIT
"""The archive's tables, by version, and the check that a file is an archive of ours.

`PRAGMA application_id` marks the file, `PRAGMA user_version` is the number of migrations that it has had.
A migration that was released is never changed; what comes later is appended. All times are ns since 1970.
"""

import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path

from bus.errors import StorageError
from sinks.sqlite import rollups
from sinks.sqlite.tiers import COARSER, FINEST, ROLLUPS, Tier

APPLICATION_ID = 0x48427553
"""'HBuS': what file(1) and we know an archive by."""

Migration = Sequence[str | Callable[[sqlite3.Connection], None]]
"""The statements and steps that lead from one version to the next."""


_AGGREGATE = "time, count, sum, minimum, maximum, first, last, integral, covered"

# A sum over NULL, which is NaN (infinities of both signs), is NULL: SQLite's would pass over it.
_SUM = "iif(count(fine.{0}) OVER bucket = count(*) OVER bucket, sum(fine.{0}) OVER bucket, NULL)"


def _coming_view(tier: Tier) -> str:
    """The buckets of a tier that are not formed yet, from those of the next finer tier that are, or are coming too."""
    finer = f"SELECT metric, {_AGGREGATE} FROM rollup WHERE tier = {tier.id - 1}"
    if tier.id - 1 > FINEST.id:
        finer += f" UNION ALL SELECT metric, {_AGGREGATE} FROM rollup_coming_{tier.id - 1}"
    whole = "(PARTITION BY fine.metric, fine.time / {span} ORDER BY fine.time ROWS BETWEEN UNBOUNDED PRECEDING AND "
    return (
        f"CREATE VIEW rollup_coming_{tier.id} (metric, {_AGGREGATE}) AS SELECT DISTINCT fine.metric, "
        f"fine.time - fine.time % {tier.span_ns}, sum(fine.count) OVER bucket, {_SUM.format('sum')}, "
        "min(fine.minimum) OVER bucket, max(fine.maximum) OVER bucket, first_value(fine.first) OVER bucket, "
        f"last_value(fine.last) OVER bucket, {_SUM.format('integral')}, sum(fine.covered) OVER bucket "
        f"FROM tier JOIN ({finer}) AS fine ON fine.time >= tier.rolled_to WHERE tier.id = {tier.id} "
        f"WINDOW bucket AS {whole.format(span=tier.span_ns)}UNBOUNDED FOLLOWING)"
    )


def _rollup_view(tier: Tier) -> str:
    """All buckets of a tier, for people."""
    mean = "CASE WHEN covered > 0 THEN integral / covered ELSE sum / count END"
    select = f"SELECT metric.name, {_AGGREGATE}, {mean} FROM metric JOIN"
    formed = f"{select} rollup ON rollup.metric = metric.id AND tier = {tier.id}"
    coming = f" UNION ALL {select} rollup_coming_{tier.id} AS coming ON coming.metric = metric.id"
    return (
        f"CREATE VIEW rollup_{tier.name} (metric, time, count, sum, min, max, first, last, integral, covered, mean) "
        f"AS {formed}{'' if tier is FINEST else coming}"
    )


MIGRATIONS: tuple[Migration, ...] = (
    # 1: metrics, their points, and what is known to be missing.
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
    # 2: aggregates for ever, old points in blocks, events.
    (
        # hold: for how long a point speaks, at most; NULL for the default. Points before raw_from have expired.
        "ALTER TABLE metric ADD COLUMN hold INTEGER",
        "ALTER TABLE metric ADD COLUMN raw_from INTEGER",
        # Tier 1 is the finest. A bucket of a coarser one is formed when it is over and ends before rolled_to.
        "CREATE TABLE tier (id INTEGER PRIMARY KEY, name TEXT NOT NULL, span INTEGER NOT NULL, "
        "rolled_to INTEGER NOT NULL)",
        "CREATE TABLE rollup (tier INTEGER NOT NULL, metric INTEGER NOT NULL REFERENCES metric (id), "
        "time INTEGER NOT NULL, count INTEGER NOT NULL, sum REAL, minimum REAL, maximum REAL, first REAL, last REAL, "
        "integral REAL, covered REAL, PRIMARY KEY (tier, metric, time)) WITHOUT ROWID",
        # Times that several metrics share, packed; tier 0: points, tier 1: aggregates. end is the last time + 1.
        "CREATE TABLE block (id INTEGER PRIMARY KEY, tier INTEGER NOT NULL, start INTEGER NOT NULL, "
        "end INTEGER NOT NULL, count INTEGER NOT NULL, times BLOB NOT NULL)",
        "CREATE INDEX block_range ON block (tier, start, end)",
        # One metric's values at the times of a block. Not WITHOUT ROWID: that is for small rows.
        "CREATE TABLE series (id INTEGER PRIMARY KEY, metric INTEGER NOT NULL REFERENCES metric (id), "
        "tier INTEGER NOT NULL, start INTEGER NOT NULL, end INTEGER NOT NULL, "
        "block INTEGER NOT NULL REFERENCES block (id), columns BLOB NOT NULL)",
        "CREATE UNIQUE INDEX series_range ON series (metric, tier, start)",
        "CREATE INDEX series_block ON series (block)",
        "CREATE TABLE event (id INTEGER PRIMARY KEY, time INTEGER NOT NULL, end INTEGER, label TEXT NOT NULL, "
        "source TEXT NOT NULL, host TEXT NOT NULL, color TEXT NOT NULL, dash TEXT NOT NULL, metadata TEXT NOT NULL)",
        "CREATE INDEX event_time ON event (time)",
        *map(_coming_view, COARSER),
        *map(_rollup_view, ROLLUPS),
        rollups.begin,
    ),
)


def check(connection: sqlite3.Connection, path: Path) -> int:
    """The version of the file's schema, 0 for an empty file. Raises StorageError unless it is ours to read."""
    application_id = pragma(connection, "application_id")
    if application_id != APPLICATION_ID:
        if application_id == 0 and not connection.execute("SELECT 1 FROM sqlite_master LIMIT 1").fetchone():
            return 0
        raise StorageError(f"{path} is an SQLite file of another program, not a hostbus archive: choose another file")
    version = pragma(connection, "user_version")
    if version > len(MIGRATIONS):
        raise StorageError(
            f"{path} was made by a newer hostbus (schema {version}; this one reads up to {len(MIGRATIONS)}): "
            "upgrade hostbus or choose another file"
        )
    return version


def migrate(connection: sqlite3.Connection, version: int) -> None:
    """Bring the file from `version` to the newest schema, in one transaction: wholly or not at all."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        for migration in MIGRATIONS[version:]:
            for step in migration:
                if isinstance(step, str):
                    connection.execute(step)
                else:
                    step(connection)
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {len(MIGRATIONS)}")
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def pragma(connection: sqlite3.Connection, name: str) -> int:
    """The number that a PRAGMA answers."""
    row = connection.execute(f"PRAGMA {name}").fetchone()
    return int(row[0]) if row else 0
