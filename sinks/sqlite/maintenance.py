# SPDX-License-Identifier: MIT
"""What `agent archive` does with an SQLite archive (`bus.maintenance.Maintenance`)."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

from bus.errors import ConfigError, StorageError
from bus.maintenance import Finding, Migrated, Progress, Row
from sinks.path_lock import PathLock, holder_of
from sinks.retention import Retention, span
from sinks.sqlite import contents, migrating, rollups, schema
from sinks.sqlite.compaction import Compaction
from sinks.sqlite.database import Database, checked_path
from sinks.sqlite.retention import Expiry
from sinks.sqlite.space import checkpoint, vacuum_step
from sinks.sqlite.sql import Views
from sinks.sqlite.verify import check

T = TypeVar("T")

Step = Callable[[sqlite3.Connection], int | None]

ROWS_PER_PORTION = 1000
CHECKPOINT_EVERY_STEPS = 50


class _Damaged(StorageError):
    """SQLite cannot read the file; the cause is its own error."""


async def info(where: str) -> dict[str, Any]:
    """What is in an archive and what it costs."""
    async with _opened(where, "read") as database:
        return await _interruptible(database, lambda connection: contents.describe(connection, database.path))


async def verify(where: str, *, thorough: bool) -> AsyncGenerator[Finding | Progress, None]:
    """Check an archive, which a sink may be writing meanwhile."""
    try:
        async with _opened(where, "read") as database:
            checks = await database.run(lambda connection: check(connection, thorough=thorough))
            while found := await _interruptible(database, lambda _: next(checks, None)):
                yield found
    except _Damaged as error:
        yield Finding("the file", f"cannot be read ({error.__cause__})")


async def compact(where: str, *, hot: str, keep: Mapping[str, str]) -> AsyncGenerator[Progress, None]:
    """Pack what is older than `hot`, remove what is older than `keep` says, and give the space back."""
    now_ns = time.time_ns()
    try:
        before_ns = now_ns - span(hot, "--hot", least_ns=0)
        expiry = Expiry(now_ns, Retention.load(keep, usual={}))
    except ValueError as error:
        raise ConfigError(str(error)) from None
    async with _opened(where, "write") as database:
        await database.write(rollups.cascade, now_ns)
        rows = await database.read(lambda connection: connection.execute("SELECT count(*) FROM point").fetchone()[0])
        compaction = Compaction()
        work: tuple[tuple[Step, str], ...] = (
            (lambda connection: compaction.step(connection, before_ns), "rows packed"),
            (expiry.step, "rows and series removed"),
            (lambda connection: vacuum_step(connection, 0.0) or None, "pages given back"),
        )
        for step, what in work:
            done = steps = 0
            while (part := await database.write(step)) is not None:
                done += part
                steps += 1
                yield Progress(min(done / max(rows, 1), 1.0), done, what)
                if steps % CHECKPOINT_EVERY_STEPS == 0:
                    await database.run(checkpoint)
            yield Progress(1.0, done, what)
        await database.run(checkpoint)


async def migrate(where: str, *, backup: bool) -> AsyncGenerator[Progress | Migrated, None]:
    """Bring an archive up to date, wholly or not at all, and leave a copy of the old one."""
    path = _checked(where, "write")
    before, after = await asyncio.to_thread(migrating.version_of, path), len(schema.MIGRATIONS)
    copy: Path | None = None
    if before < after:
        migrating.check_space(path, backup=backup)
        if backup:
            async for step in _back_up(path, before):
                if isinstance(step, Path):
                    copy = step
                else:
                    yield step
        await (await Database.open(path, "write")).aclose()
    yield Migrated(str(path), before, after, None if copy is None else str(copy))


async def _back_up(path: Path, version: int) -> AsyncIterator[Progress | Path]:
    """Copy a file that nobody writes meanwhile."""
    told: list[Progress] = []

    def tell(share: float, pages: int) -> None:
        told.append(Progress(share, pages, "pages copied"))

    lock = PathLock(path)
    try:
        copying = asyncio.create_task(asyncio.to_thread(migrating.back_up, path, version, tell))
        while not copying.done():
            await asyncio.wait({copying}, timeout=0.1)
            while told:
                yield told.pop(0)
        yield copying.result()
    finally:
        lock.release()


async def select(where: str, statement: str, start_ns: int, end_ns: int) -> AsyncGenerator[Sequence[Row], None]:
    """The rows of an SQL statement that changes nothing, in portions; the first is the columns' names."""
    async with _opened(where, "read") as database:
        views = await database.run(lambda connection: Views(connection, start_ns, end_ns))
        cursor = await _interruptible(database, lambda _: views.execute(statement))
        yield [tuple(column[0] for column in cursor.description or ())]
        while rows := await _interruptible(database, lambda _: views.fetch(cursor, ROWS_PER_PORTION)):
            yield rows


def _checked(where: str, access: str) -> Path:
    """The file that is meant. Raises StorageError if there is none, or a sink has it where it is to be written."""
    path = checked_path(Path(where.removeprefix("sqlite://")), "read")
    if access == "write" and (holder := holder_of(path)):
        raise StorageError(f"{path} is being written by {holder}, which sees to it by itself: nothing is to be done")
    return path


@asynccontextmanager
async def _opened(where: str, access: str) -> AsyncIterator[Database]:
    path = _checked(where, access)
    try:
        database = await Database.open(path, access)
        try:
            yield database
        finally:
            await database.aclose()
    except StorageError as error:
        if getattr(error.__cause__, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_CORRUPT:
            raise _Damaged(
                f"{path} is damaged ({error.__cause__}): keep a copy of it; 'agent archive verify' says where, "
                "'agent export' saves what can be read"
            ) from error.__cause__
        raise


async def _interruptible(database: Database, work: Callable[[sqlite3.Connection], T]) -> T:
    """Do something long; a cancellation ends it in the middle."""
    used: list[sqlite3.Connection] = []

    def noted(connection: sqlite3.Connection) -> T:
        used.append(connection)
        return work(connection)

    try:
        return await database.run(noted)
    except asyncio.CancelledError:
        for connection in used:
            connection.interrupt()
        raise
