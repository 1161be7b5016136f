# SPDX-License-Identifier: MIT
"""The archive: points in one SQLite file, at most one per metric and time.

Owns the file: opening, inserting, reading. Knows nothing of how points are delivered. SQLite runs in
aiosqlite's thread; nothing here makes the event loop wait for a disk.
"""

from __future__ import annotations

import asyncio
import json
import os
from array import array
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import astuple, dataclass
from math import nan
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import aiosqlite

from bus.chunk import Chunk
from bus.errors import StorageError
from bus.frame import Group
from bus.names import Selection
from sinks import archive_schema
from sinks.archive_errors import explained
from sinks.archive_rows import ROWS_PER_STATEMENT, Families, flatten, gather, left_rows, whole_statements
from sinks.path_lock import PathLock

BUSY_TIMEOUT_S = 1.0
"""How long SQLite itself waits for a lock. Short, because the end of a program waits for it, too."""

BYTES_PER_POINT = 27
"""Measured: random values of one decimal at whole seconds."""

LARGEST_IDLE_WAL_BYTES = 64 * 1024 * 1024
NAMES_PER_QUERY = 500

_INSERT = "INSERT OR IGNORE INTO point (metric, time, value) VALUES "
_INSERT_ONE = _INSERT + "(?,?,?)"
_INSERT_MANY = _INSERT + ",".join(["(?,?,?)"] * ROWS_PER_STATEMENT)


@dataclass(frozen=True, slots=True, kw_only=True)
class MissingFrames:
    """Frames `first` to `last` of a source's routing key never came; `epoch` and `noticed` in ns."""

    source: str
    key: str
    epoch: int
    first: int
    last: int
    noticed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ArchiveInfo:
    """What is cheap to know about an archive. `points` is an estimate from the size of the file."""

    path: Path
    schema: int
    size_bytes: int
    metrics: int
    points: int


class Archive:
    """An open archive, made by ``await Archive.open(path)``. Safe for several tasks at once.

    `path` is the file, with symbolic links resolved. `points_stored` counts the points inserted since it was
    opened, without those that were there already; `size_bytes` is the file and its write-ahead log after the
    last insert.
    """

    def __init__(self, path: Path, connection: aiosqlite.Connection, lock: PathLock | None, schema: int) -> None:
        self.path = path
        self.schema = schema
        self.points_stored = 0
        self.size_bytes = _size_bytes(path)
        self._connection = connection
        self._lock = lock
        self._closed = False
        self._turn = asyncio.Lock()
        self._ids: dict[str, int] = {}
        self._identity = _identity(path)

    # -- opening and closing ---------------------------------------------------------------------------

    @classmethod
    async def open(cls, path: str | Path, *, readonly: bool = False) -> Self:
        """Open the archive at `path`; to write, it is made if it does not exist, but its directory is not.

        One writer per file; readers are welcome at any time. Raises StorageError that says what would be
        right: not an archive, made by a newer hostbus, written by another process, not writable; and
        StorageBusy if it may work later: locked by another program, disk full.
        """
        path = _checked_path(Path(path), readonly)
        lock = None if readonly else PathLock(path)
        try:
            with explained(path, opening=True):
                connection = await aiosqlite.connect(
                    f"{path.as_uri()}?mode={'ro' if readonly else 'rwc'}",
                    uri=True,
                    isolation_level=None,
                    timeout=BUSY_TIMEOUT_S,
                )
                try:
                    schema = await (_check(connection, path) if readonly else _prepare(connection, path))
                    archive = cls(path, connection, lock, schema)
                    archive._ids = {name: id_ for id_, name in await archive._fetch("SELECT id, name FROM metric")}
                except BaseException:
                    await connection.close()
                    raise
        except BaseException:
            if lock is not None:
                lock.release()
            raise
        return archive

    async def aclose(self) -> None:
        """Close the file; the last to close it moves the write-ahead log into it. May be called twice."""
        async with self._turn:
            self._closed = True
            try:
                with explained(self.path):
                    await self._connection.close()
            finally:
                if self._lock is not None:
                    self._lock.release()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    @property
    def known_metrics(self) -> int:
        """How many metrics have points in the file, as far as this object knows: all, if it is the writer."""
        return len(self._ids)

    # -- writing ---------------------------------------------------------------------------------------

    async def insert(self, groups: Iterable[Group], missing: Sequence[MissingFrames] = ()) -> int:
        """Store all points, and what is missing, in one transaction: when it returns they are on the disk.

        A point whose metric and time are there already is ignored, so that the same batch may come again.
        Returns the number of new points. Raises StorageBusy if it may work later, StorageError if not: then
        nothing of the batch is stored.
        """
        families = gather(groups)
        unknown = {name for metrics in families for name in metrics if name not in self._ids}
        async with self._transaction():
            fresh = await self._make_ids(sorted(unknown))
            flat: list[float | int] = []
            rows = self._rows(families, {**self._ids, **fresh} if fresh else self._ids, flat)
            stored = (await self._connection.executemany(_INSERT_MANY, rows)).rowcount
            if left := left_rows(flat):
                stored += (await self._connection.executemany(_INSERT_ONE, left)).rowcount
            if missing:
                await self._connection.executemany(
                    "INSERT OR IGNORE INTO gap (source, key, epoch, first, last, noticed) VALUES (?,?,?,?,?,?)",
                    map(astuple, missing),
                )
        # Only now: ids of a transaction that was rolled back belong to nobody.
        self._ids.update(fresh)
        self.points_stored += stored
        return stored

    async def set_metadata(self, metadata: Mapping[str, Mapping[str, Any]]) -> None:
        """Remember the metadata (JSON objects) of metrics; names that have no points are ignored."""
        told = [(name, json.dumps(fields)) for name, fields in metadata.items() if name in self._ids]
        async with self._transaction():
            await self._connection.executemany(
                "UPDATE metric SET metadata = ? WHERE name = ? AND metadata IS NOT ?",
                ((text, name, text) for name, text in told),
            )

    @asynccontextmanager
    async def _transaction(self) -> AsyncIterator[None]:
        async with self._exclusive():
            try:
                await self._connection.execute("BEGIN IMMEDIATE")
                yield
                await self._connection.commit()
            except BaseException:
                # It queues behind what still runs in the thread, so that it holds for a cancelled task, too.
                await self._connection.rollback()
                raise

    @asynccontextmanager
    async def _exclusive(self) -> AsyncIterator[None]:
        """One task at a time: a connection would show its own transaction before it is committed."""
        async with self._turn:
            if self._closed:
                raise StorageError(f"{self.path} is closed")
            with explained(self.path):
                yield

    async def _make_ids(self, names: Sequence[str]) -> dict[str, int]:
        """Ids for names that are not known here, though perhaps in the file."""
        fresh: dict[str, int] = {}
        if names:
            await self._connection.executemany("INSERT OR IGNORE INTO metric (name) VALUES (?)", ((n,) for n in names))
        for start in range(0, len(names), NAMES_PER_QUERY):
            some = names[start : start + NAMES_PER_QUERY]
            marks = ",".join("?" * len(some))
            rows = await self._connection.execute_fetchall(
                f"SELECT name, id FROM metric WHERE name IN ({marks})",  # noqa: S608  # marks only
                some,
            )
            fresh.update((name, id_) for name, id_ in rows)
        return fresh

    def _rows(
        self, families: Families, ids: Mapping[str, int], flat: list[float | int]
    ) -> Iterator[Sequence[float | int]]:
        """The rows that fill statements; all rows are left in `flat`. Runs where it is consumed: in SQLite's thread.

        Raises StorageError if the file is gone: SQLite would go on, into nowhere.
        """
        if _identity(self.path) != self._identity:
            raise StorageError(f"{self.path} was removed or replaced while it was written")
        self.size_bytes = _size_bytes(self.path)
        flat += flatten(families, ids)
        yield from whole_statements(flat)

    # -- reading ---------------------------------------------------------------------------------------

    async def metrics(self, pattern: str = "#") -> dict[str, dict[str, Any]]:
        """The metrics that the name or pattern selects, sorted, with their metadata ({} if not known)."""
        wanted = Selection([pattern])
        rows = await self._fetch("SELECT name, metadata FROM metric ORDER BY name")
        return {name: json.loads(metadata or "{}") for name, metadata in rows if name in wanted}

    async def metrics_without_metadata(self) -> list[str]:
        """The names of metrics whose metadata was never set."""
        return [name for (name,) in await self._fetch("SELECT name FROM metric WHERE metadata IS NULL ORDER BY name")]

    async def points(self, metric: str, start_ns: int = -(2**63), end_ns: int = 2**63 - 1) -> Chunk:
        """The points of a metric with start_ns <= time < end_ns, oldest first; none if it is not known."""
        rows = await self._fetch(
            "SELECT time, value FROM point WHERE metric = (SELECT id FROM metric WHERE name = ?) "
            "AND time >= ? AND time < ? ORDER BY time",
            (metric, start_ns, end_ns),
        )
        return await asyncio.to_thread(_chunk, metric, rows)

    async def last(self, pattern: str = "#") -> dict[str, tuple[int, float]]:
        """The newest (time in ns, value) of each metric that the name or pattern selects."""
        wanted = Selection([pattern])
        rows = await self._fetch(
            "SELECT m.name, p.time, p.value FROM metric AS m JOIN point AS p ON p.metric = m.id "
            "AND p.time = (SELECT max(newest.time) FROM point AS newest WHERE newest.metric = m.id) ORDER BY m.name"
        )
        return {name: (time, nan if value is None else value) for name, time, value in rows if name in wanted}

    async def count(self, metric: str) -> int:
        """How many points a metric has; 0 if it is not known. Reads through them all."""
        rows = await self._fetch(
            "SELECT count(*) FROM point WHERE metric = (SELECT id FROM metric WHERE name = ?)", (metric,)
        )
        return int(rows[0][0])

    async def missing(self) -> list[MissingFrames]:
        """What is known to be missing, in the order in which it was noticed."""
        rows = await self._fetch("SELECT source, key, epoch, first, last, noticed FROM gap ORDER BY noticed, first")
        names = MissingFrames.__dataclass_fields__
        return [MissingFrames(**dict(zip(names, row, strict=True))) for row in rows]

    async def info(self) -> ArchiveInfo:
        """Size and contents, without reading through the points."""
        pages = await self._pragma("page_count") - await self._pragma("freelist_count")
        return ArchiveInfo(
            path=self.path,
            schema=self.schema,
            size_bytes=await asyncio.to_thread(_size_bytes, self.path),
            metrics=int((await self._fetch("SELECT count(*) FROM metric"))[0][0]),
            points=pages * await self._pragma("page_size") // BYTES_PER_POINT,
        )

    async def _fetch(self, query: str, parameters: Sequence[str | int] = ()) -> Sequence[Any]:
        async with self._exclusive():
            return list(await self._connection.execute_fetchall(query, parameters))

    async def _pragma(self, name: str) -> int:
        return int((await self._fetch(f"PRAGMA {name}"))[0][0])


async def _prepare(connection: aiosqlite.Connection, path: Path) -> int:
    """Check the file, set it up for writing and bring its schema up to date; the schema's version."""
    version = await archive_schema.check(connection, path)
    if version == 0:
        # Must come before everything else in an empty file. It costs a tenth of the insert rate, and later lets
        # deleted points give their space back in small steps, where VACUUM would lock the archive for minutes.
        await connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
    await connection.execute("PRAGMA journal_mode = WAL")
    # A transaction is on the disk when it is committed; costs up to a tenth at the sink's batches.
    await connection.execute("PRAGMA synchronous = FULL")
    await connection.execute(f"PRAGMA journal_size_limit = {LARGEST_IDLE_WAL_BYTES}")
    # Runs for the newest schema, too: here, not at the first insert, it turns out whether the file can be written.
    await archive_schema.migrate(connection, version)
    return len(archive_schema.MIGRATIONS)


async def _check(connection: aiosqlite.Connection, path: Path) -> int:
    """Check a file that is only read; the version of its schema."""
    version = await archive_schema.check(connection, path)
    if version < len(archive_schema.MIGRATIONS):
        raise StorageError(
            f"{path} has schema {version}, older than the {len(archive_schema.MIGRATIONS)} that is read here: "
            "a sink that opens it for writing brings it up to date"
        )
    return version


def _checked_path(path: Path, readonly: bool) -> Path:
    """The file that is meant, links resolved. Raises StorageError unless an archive may be there."""
    try:
        path = path.expanduser().resolve()
        if path.is_dir():
            raise StorageError(f"{path} is a directory: an archive is a file, like {path / 'archive.db'}")
        if path.exists() and not path.is_file():
            raise StorageError(f"{path} is not a regular file: choose another --path")
        if readonly and not path.exists():
            raise StorageError(f"there is no archive at {path}")
        if not path.parent.is_dir():
            raise StorageError(f"{path.parent} is not a directory: make it, or choose another --path")
        # Before SQLite finds out: it would leave side files behind that nobody may write.
        if not readonly and path.exists() and not os.access(path, os.W_OK, effective_ids=True):
            raise StorageError(f"{path} may not be written by this user: change its mode, or choose another --path")
    except (
        OSError,
        RuntimeError,
        ValueError,
    ) as error:  # no permission, a loop of links, an unknown ~user, a null byte
        raise StorageError(f"{path} is not a path for an archive ({error}): choose another --path") from error
    return path


def _identity(path: Path) -> tuple[int, int]:
    """Which file it is, whatever its name: device and inode; zeros if there is none."""
    try:
        status = path.stat()
    except OSError:
        return (0, 0)
    return (status.st_dev, status.st_ino)


def _size_bytes(path: Path) -> int:
    """The file and its write-ahead log."""
    size = 0
    for name in (path, f"{path}-wal"):
        try:
            size += os.stat(name).st_size
        except OSError:
            continue  # closed or moved away meanwhile
    return size


def _chunk(metric: str, rows: Sequence[tuple[int, float | None]]) -> Chunk:
    times = array("q", [time for time, _ in rows])
    return Chunk(metric, times, array("d", [nan if value is None else value for _, value in rows]))
