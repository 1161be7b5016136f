# SPDX-License-Identifier: MIT
"""Points into the database: a batch in one transaction, at most one point per metric and time.

COPY into a temporary table, from there INSERT ... ON CONFLICT DO NOTHING, which tells how many are new.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bus.archive import MissingFrames
from bus.frame import Group
from sinks.postgres import changes
from sinks.postgres.copying import COLUMNS, Families, encode, gather, times_of
from sinks.postgres.partitions import DAY_NS, Partitions
from sinks.postgres.tables import RAW
from sinks.postgres.text import storable

if TYPE_CHECKING:
    import asyncpg

    from sinks.postgres.database import Database

AT_ONCE = 5_000
"""So many points are made ready in half a millisecond: a thread would cost as much."""

PORTION_BYTES = 1 << 20

_STAGED = "CREATE TEMPORARY TABLE staged (metric integer, time bigint, value float8) ON COMMIT DELETE ROWS"
_STORE = (
    "INSERT INTO hostbus.point (metric, time, value) SELECT metric, time, nullif(value, 'NaN') FROM pg_temp.staged "
    "ON CONFLICT DO NOTHING"
)
_GAP = "INSERT INTO hostbus.gap VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT DO NOTHING"


@dataclass(frozen=True, slots=True)
class Batch:
    """A batch made ready: what to COPY, what it changes, and the days that need a place."""

    rows: bytearray
    changed: Mapping[changes.Span, Sequence[int]]
    days: set[int]


class Writer:
    """What inserts into one database; knows the ids of metrics and the partitions as long as its connection lives."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self.ids: dict[str, int] = {}
        self._partitions = Partitions(set(), by_extension=False)

    async def insert(self, groups: Iterable[Group], missing: Sequence[MissingFrames]) -> int:
        """See `bus.archive.Archive.insert`."""
        families = gather(group for group in groups if group.points)
        async with self._database.writer(self._begin) as connection:
            await self._learn_ids(connection, {name for names in families for name in names})
            points = sum(group.points for groups in families.values() for group in groups)
            batch = (
                _batch(families, self.ids) if points <= AT_ONCE else await asyncio.to_thread(_batch, families, self.ids)
            )
            await self._partitions.provide(connection, batch.days)
            async with connection.transaction():
                stored = await self._store(connection, batch.rows) if families else 0
                if stored:
                    await changes.note(connection, RAW, batch.changed)
                if missing:
                    await connection.executemany(_GAP, [_gap_row(frames) for frames in missing])
        return stored

    async def know(self, names: Iterable[str]) -> dict[str, int]:
        """The ids of these metrics, which are made if they have none."""
        wanted = set(names)
        if wanted - self.ids.keys():
            async with self._database.writer(self._begin) as connection:
                await self._learn_ids(connection, wanted)
        return {name: self.ids[name] for name in wanted}

    async def provide_partitions(self) -> None:
        """Make the partitions of the days to come."""
        async with self._database.writer(self._begin) as connection:
            await self._partitions.provide_ahead(connection)

    async def _begin(self, connection: asyncpg.Connection[asyncpg.Record]) -> None:
        """On a new connection: it may be another database by now, put back from a backup."""
        await connection.execute(_STAGED)
        self._partitions = await Partitions.of(connection)
        self.ids = dict(_pairs(await connection.fetch("SELECT name, id FROM hostbus.metric")))

    async def _learn_ids(self, connection: asyncpg.Connection[asyncpg.Record], names: set[str]) -> None:
        # Sorted, so that two sinks that learn the same names wait for each other instead of for ever.
        unknown = sorted(names - self.ids.keys())
        if unknown:
            await connection.execute(
                "INSERT INTO hostbus.metric (name) SELECT unnest($1::text[]) ON CONFLICT DO NOTHING", unknown
            )
            rows = await connection.fetch("SELECT name, id FROM hostbus.metric WHERE name = ANY($1)", unknown)
            self.ids.update(_pairs(rows))

    async def _store(self, connection: asyncpg.Connection[asyncpg.Record], rows: bytearray) -> int:
        await connection.copy_to_table("staged", source=_portions(rows), columns=COLUMNS, format="binary")
        done = await connection.execute(_STORE)
        return int(done.rpartition(" ")[2])  # "INSERT 0 6000"


async def _portions(rows: bytearray) -> AsyncIterator[bytes]:
    # From a file asyncpg would read in a thread, at 0.2 ms a time.
    for start in range(0, len(rows), PORTION_BYTES):
        yield bytes(rows[start : start + PORTION_BYTES])


def _batch(families: Families, ids: Mapping[str, int]) -> Batch:
    days = {time_ns // DAY_NS for groups in families.values() for time_ns in times_of(groups)}
    return Batch(encode(families, ids), changes.changed_minutes(families, ids), days)


def _gap_row(frames: MissingFrames) -> tuple[str, str, int, int, int, int]:
    # Both names come from the wire as they are.
    source, key = storable(frames.source), storable(frames.key)
    return source, key, frames.epoch, frames.first, frames.last, frames.noticed


def _pairs(rows: Iterable[asyncpg.Record]) -> Iterator[tuple[str, int]]:
    return ((name, id_) for name, id_ in rows)
