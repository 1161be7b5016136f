# SPDX-License-Identifier: MIT
"""The archive in a PostgreSQL database, which many sinks may fill and anybody may read.

Points are kept by days and go after some; aggregates of a minute to a day are formed of them in the background
and stay. Knows nothing of how points are delivered.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from types import TracebackType
from typing import Any, Self

from bus.aggregates import Aggregates, hold_ns
from bus.archive import MIN_NS, PAGE_POINTS, Event, MissingFrames
from bus.chunk import MAX_NS, Chunk
from bus.frame import Group
from bus.names import Selection
from sinks.postgres import events, live, metadata, reading, retention, rollups, timeline
from sinks.postgres.address import Address
from sinks.postgres.database import Database
from sinks.postgres.tables import Tier
from sinks.postgres.writing import Writer


class PostgresArchive:
    """An open archive, made by ``await PostgresArchive.open(address)``. Safe for several tasks at once.

    `points_stored` counts the points inserted since it was opened, without those that were there already.
    """

    def __init__(self, database: Database) -> None:
        self.points_stored = 0
        self.database = database
        self._writer = Writer(database)

    @classmethod
    async def open(cls, address: Address, access: str = "write") -> Self:
        """Open the archive: to ``write`` (which makes it), to ``read``, or to add ``events``. See `Database.open`."""
        return cls(await Database.open(address, access))

    async def aclose(self) -> None:
        """Close all connections. May be called twice."""
        await self.database.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    @property
    def known_metrics(self) -> int:
        """How many metrics the archive has, as far as this object knows: all, once it has inserted."""
        return len(self._writer.ids)

    # -- writing ---------------------------------------------------------------------------------------

    async def insert(self, groups: Iterable[Group], missing: Sequence[MissingFrames] = ()) -> int:
        """Store points, and what is missing, in one transaction: when it returns they are on the server's disk.

        A point whose metric and time are there already is ignored, so that the same batch may come again.
        Returns the number of new points. Raises StorageBusy if it may work later, StorageError if not: then
        nothing of the batch is stored.
        """
        stored = await self._writer.insert(groups, missing)
        self.points_stored += stored
        return stored

    async def set_latest(self, points: Mapping[str, tuple[int, float]]) -> None:
        """Tell dashboards the newest (time, value) of metrics, which need not have been inserted yet."""
        ids = await self._writer.know(points)
        async with self.database.connection() as connection:
            await live.set_latest(connection, {ids[name]: point for name, point in points.items()})

    async def set_metadata(self, told: Mapping[str, Mapping[str, Any]]) -> None:
        """Remember the metadata (JSON objects) of metrics; names that have no points are ignored."""
        rows = [(name, json.dumps(fields), hold_ns(fields)) for name, fields in told.items()]
        async with self.database.connection() as connection:
            await metadata.set_all(connection, rows)

    async def add_event(self, event: Event) -> int:
        """Store an event; its id. One that equals a stored one in all but its id is not stored again."""
        async with self.database.connection() as connection:
            return await events.add(connection, event)

    async def upkeep(self, keep: Mapping[Tier, int] | None = None, *, settled_s: float = rollups.SETTLED_S) -> None:
        """What is to be done every half a minute: aggregates, the partitions of days to come, what has expired.

        Several sinks may do so at once. keep: for how many ns each tier is kept; those left out for ever.
        """
        await self._writer.provide_partitions()
        await rollups.form(self.database, settled_s)
        if keep:
            # The clock of this machine may be wrong by a year: nothing goes that the server's takes for young.
            now_ns = min(time.time_ns(), await self._server_time_ns())
            for tier, kept_ns in keep.items():
                await retention.expire(self.database, tier, now_ns - kept_ns)

    async def _server_time_ns(self) -> int:
        async with self.database.connection() as connection:
            time_ns: int = await connection.fetchval("SELECT hostbus.ns(clock_timestamp())")
        return time_ns

    # -- reading ---------------------------------------------------------------------------------------

    async def metrics(self, pattern: str = "#") -> dict[str, dict[str, Any]]:
        """The metrics that the name or pattern selects, sorted, with their metadata ({} if not known)."""
        wanted = Selection([pattern])
        async with self.database.connection() as connection:
            found = await connection.fetch("SELECT name, metadata FROM hostbus.metric ORDER BY name")
        return {name: json.loads(text or "{}") for name, text in found if name in wanted}

    async def metrics_without_metadata(self) -> list[str]:
        """The names of metrics whose metadata was never set."""
        async with self.database.connection() as connection:
            found = await connection.fetch("SELECT name FROM hostbus.metric WHERE metadata IS NULL ORDER BY name")
        return [name for (name,) in found]

    async def points(self, metric: str, start_ns: int = MIN_NS, end_ns: int = MAX_NS) -> AsyncIterator[Chunk]:
        """The points of a metric with start_ns <= time < end_ns, oldest first, in pages; none if it is not known.

        Each page is a query of its own: a cursor would keep a transaction open for as long as the reader takes,
        and with it every day that has expired.
        """
        id_ = await self._id(metric)
        while id_ is not None:
            async with self.database.connection() as connection:
                times, values = await reading.page(connection, id_, start_ns, end_ns, PAGE_POINTS)
            if times:
                yield Chunk(metric, times, values)
            if len(times) < PAGE_POINTS:
                return
            start_ns = times[-1] + 1

    async def aggregates(self, metric: str, start_ns: int, end_ns: int, every_ns: int | None = None) -> Aggregates:
        """Aggregates over buckets of `every_ns`, or one over all; see `bus.archive.History`."""
        if every_ns is not None and every_ns < 1:
            raise ValueError(f"every_ns must be at least 1, not {every_ns}")
        id_ = await self._id(metric)
        if id_ is None:
            return Aggregates.from_rows(metric, [])
        async with self.database.snapshot() as connection:
            rows = await timeline.aggregates(connection, id_, start_ns, end_ns, every_ns)
        return Aggregates.from_rows(metric, rows)

    async def last(self, pattern: str = "#") -> dict[str, tuple[int, float]]:
        """The newest (time in ns, value) of each metric that the name or pattern selects."""
        names = list(await self.metrics(pattern))
        async with self.database.connection() as connection:
            return await reading.newest(connection, names)

    async def missing(self, since_ns: int = MIN_NS) -> list[MissingFrames]:
        """What is known to be missing and was noticed since then, in the order in which it was noticed."""
        async with self.database.connection() as connection:
            rows = await connection.fetch(
                "SELECT source, key, epoch, first, last, noticed FROM hostbus.gap WHERE noticed >= $1 "
                "ORDER BY noticed, first",
                since_ns,
            )
        return [MissingFrames(**row) for row in rows]

    async def events(self, start_ns: int = MIN_NS, end_ns: int = MAX_NS, *, source: str | None = None) -> list[Event]:
        """The events that begin before `end_ns` and do not end before `start_ns`, oldest first."""
        async with self.database.connection() as connection:
            return await events.between(connection, start_ns, end_ns, source)

    async def _id(self, metric: str) -> int | None:
        async with self.database.connection() as connection:
            id_: int | None = await connection.fetchval("SELECT id FROM hostbus.metric WHERE name = $1", metric)
        return id_


async def open_archive(where: str, access: str) -> PostgresArchive:
    """The archive at ``postgresql://USER@HOST/DATABASE``: what the entry point names."""
    return await PostgresArchive.open(Address.from_url(where, os.environ), access)
