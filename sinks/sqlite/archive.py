# SPDX-License-Identifier: MIT
"""The archive: points in one SQLite file, at most one per metric and time, and aggregates of them for ever.

What is young lies in plain rows, for any program to read; what is old in blocks, a tenth of the size. Readers
here see one series. Knows nothing of how points are delivered.
"""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from bus.aggregates import Aggregates
from bus.archive import MIN_NS, PAGE_POINTS, Event, MissingFrames
from bus.chunk import MAX_NS, Chunk
from bus.frame import Group
from bus.names import Selection
from sinks.sqlite import events, reading, timeline
from sinks.sqlite.database import Database
from sinks.sqlite.metadata import tell
from sinks.sqlite.writer import Writer

T = TypeVar("T")


class SqliteArchive:
    """An open archive, made by ``await SqliteArchive.open(path)``. Safe for several tasks at once.

    `path` is the file, with symbolic links resolved. `points_stored` counts the points inserted since it was
    opened, without those that were there already; `size_bytes` is the file and its write-ahead log after the
    last insert.
    """

    def __init__(self, database: Database, clock: Callable[[], int] = time.time_ns) -> None:
        self.path = database.path
        self.points_stored = 0
        self.size_bytes = database.size_bytes
        self.database = database
        self._clock = clock
        self._writer = Writer()

    @classmethod
    async def open(cls, path: str | Path, access: str = "write", *, clock: Callable[[], int] = time.time_ns) -> Self:
        """Open the archive at `path`: to ``write``, to ``read``, or to add ``events``. See `Database.open`.

        `clock` is the time in ns, by which aggregates of what is over are formed.
        """
        return cls(await Database.open(path, access), clock)

    async def aclose(self) -> None:
        """Close the file; the last to close it moves the write-ahead log into it. May be called twice."""
        await self.database.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    @property
    def known_metrics(self) -> int:
        """How many metrics have points in the file, as far as this object knows: all, once it has inserted."""
        return len(self._writer.ids)

    # -- writing ---------------------------------------------------------------------------------------

    async def insert(self, groups: Iterable[Group], missing: Sequence[MissingFrames] = ()) -> int:
        """Store points, and what is missing, in one transaction: when it returns they are on the disk.

        A point whose metric and time are there already is ignored, so that the same batch may come again.
        Returns the number of new points. Raises StorageBusy if it may work later, StorageError if not: then
        nothing of the batch is stored.
        """

        def work(connection: sqlite3.Connection) -> int:
            self.size_bytes = self.database.size_bytes
            return self._writer.insert(connection, groups, missing, self._clock())

        stored = await self.database.write_or(self._writer.forget, work)
        self.points_stored += stored
        return stored

    async def set_metadata(self, metadata: Mapping[str, Mapping[str, Any]]) -> None:
        """Remember the metadata (JSON objects) of metrics; names that have no points are ignored."""

        def work(connection: sqlite3.Connection) -> None:
            if tell(connection, metadata):
                self._writer.forget()  # the next insert learns the new holds

        await self.database.write_or(self._writer.forget, work)

    async def add_event(self, event: Event) -> int:
        """Store an event; its id. One that equals a stored one in all but its id is not stored again."""
        return await self.database.write(events.add, event)

    # -- reading ---------------------------------------------------------------------------------------

    async def metrics(self, pattern: str = "#") -> dict[str, dict[str, Any]]:
        """The metrics that the name or pattern selects, sorted, with their metadata ({} if not known)."""
        wanted = Selection([pattern])
        found = await self._fetch(
            "SELECT name, metadata FROM metric WHERE name >= ? AND name < ? ORDER BY name", *reading.name_range(pattern)
        )
        return {name: json.loads(metadata or "{}") for name, metadata in found if name in wanted}

    async def metrics_without_metadata(self) -> list[str]:
        """The names of metrics whose metadata was never set."""
        return [name for (name,) in await self._fetch("SELECT name FROM metric WHERE metadata IS NULL ORDER BY name")]

    async def points(self, metric: str, start_ns: int = MIN_NS, end_ns: int = MAX_NS) -> AsyncIterator[Chunk]:
        """The points of a metric with start_ns <= time < end_ns, oldest first, in pages; none if it is not known."""
        id_ = await self._id(metric)
        while id_ is not None:
            times, values = await self.database.read(reading.stored_points, id_, start_ns, end_ns, PAGE_POINTS)
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
        rows = [] if id_ is None else await self.database.read(timeline.aggregates, id_, start_ns, end_ns, every_ns)
        return Aggregates.from_rows(metric, rows)

    async def last(self, pattern: str = "#") -> dict[str, tuple[int, float]]:
        """The newest (time in ns, value) of each metric that the name or pattern selects."""
        return await self.database.read(reading.newest_points, pattern)

    async def missing(self, since_ns: int = MIN_NS) -> list[MissingFrames]:
        """What is known to be missing and was noticed since then, in the order in which it was noticed."""
        found = await self._fetch(
            "SELECT source, key, epoch, first, last, noticed FROM gap WHERE noticed >= ? ORDER BY noticed, first",
            since_ns,
        )
        names = MissingFrames.__dataclass_fields__
        return [MissingFrames(**dict(zip(names, row, strict=True))) for row in found]

    async def events(self, start_ns: int = MIN_NS, end_ns: int = MAX_NS, *, source: str | None = None) -> list[Event]:
        """The events that begin before `end_ns` and do not end before `start_ns`, oldest first."""
        return await self.database.read(events.between, start_ns, end_ns, source)

    async def _id(self, metric: str) -> int | None:
        found = await self._fetch("SELECT id FROM metric WHERE name = ?", metric)
        return found[0][0] if found else None

    async def _fetch(self, query: str, *parameters: str | int) -> list[Any]:
        return await self.database.read(lambda connection: connection.execute(query, parameters).fetchall())


async def open_archive(where: str, access: str) -> SqliteArchive:
    """The archive at a path, or ``sqlite://PATH``: what the entry point names."""
    return await SqliteArchive.open(where.removeprefix("sqlite://"), access)
