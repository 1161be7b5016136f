# SPDX-License-Identifier: MIT
"""An SQLite file and the one thread that uses it: nothing here makes the event loop wait for a disk."""

from __future__ import annotations

import asyncio
import os
import sqlite3
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Concatenate, ParamSpec, Self, TypeVar

from bus.errors import StorageError
from sinks.path_lock import PathLock
from sinks.sqlite import schema
from sinks.sqlite.errors import explained

BUSY_TIMEOUT_S = 1.0
"""How long SQLite itself waits for a lock. Short, because the end of a program waits for it, too."""

EVENTS_TIMEOUT_S = 10.0
"""The same beside the writer: it takes the lock again and again, and SQLite knows no queue."""

LARGEST_IDLE_WAL_BYTES = 64 * 1024 * 1024
CHECKPOINT_PAGES = 4000
"""16 MB: the same pages are written with every batch, and so less often into the file. A tenth of an insert."""

P = ParamSpec("P")
T = TypeVar("T")
Work = Callable[Concatenate[sqlite3.Connection, P], T]


class Database:
    """An open archive file, made by ``await Database.open(path, access)``. Safe for several tasks at once.

    path: the file, links resolved · schema: its version
    """

    def __init__(
        self, path: Path, connection: sqlite3.Connection, thread: ThreadPoolExecutor, lock: PathLock | None
    ) -> None:
        self.path = path
        self._connection = connection
        self._thread = thread
        self._lock = lock
        self._closed = False
        self._identity = _identity(path)

    @classmethod
    async def open(cls, path: str | Path, access: str) -> Self:
        """Open the file. `access`: ``read``; ``events``, to add a little beside its writer; ``write``, to be that.

        To write, the file is made if it does not exist, but its directory is not. One writer per file, readers
        are welcome at any time. Raises StorageError that says what would be right: not an archive, made by a
        newer hostbus, written by another process, not writable; and StorageBusy if it may work later: locked by
        another program, disk full.
        """
        if access not in ("read", "events", "write"):
            raise ValueError(f"access must be read, events or write, not {access!r}")
        path = checked_path(Path(path), access)
        lock = PathLock(path) if access == "write" else None
        thread = ThreadPoolExecutor(1, thread_name_prefix=f"archive {path.name}")
        opening = thread.submit(_connect, path, access)
        try:
            connection = await asyncio.shield(asyncio.wrap_future(opening))
        except BaseException:
            # A migration goes on though nobody waits for it any more: nobody else may write until it is over.
            opening.add_done_callback(partial(_close_unwanted, lock))
            thread.shutdown(wait=False)
            raise
        return cls(path, connection, thread, lock)

    async def read(self, work: Work[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Do something with the connection in one transaction: it sees one state of the file."""
        return await self._do("BEGIN", lambda connection: work(connection, *args, **kwargs), _nothing)

    async def write(self, work: Work[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Do something in one transaction that is on the disk when this returns, or has never been.

        A caller who is cancelled does not undo it. Raises StorageError if the file is gone: SQLite would go on,
        into nowhere.
        """
        return await self.write_or(_nothing, lambda connection: work(connection, *args, **kwargs))

    async def write_or(self, failed: Callable[[], None], work: Callable[[sqlite3.Connection], T]) -> T:
        """`write`, and call `failed` in the thread, before anything else is done there, if it is not on the disk.

        The caller cannot do that: who is cancelled does not learn what became of it.
        """

        def checked(connection: sqlite3.Connection) -> T:
            if _identity(self.path) != self._identity:
                raise StorageError(f"{self.path} was removed or replaced while it was written")
            return work(connection)

        return await self._do("BEGIN IMMEDIATE", checked, failed)

    async def _do(self, begin: str, work: Callable[[sqlite3.Connection], T], failed: Callable[[], None]) -> T:
        if self._closed:
            raise StorageError(f"{self.path} is closed")
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._transaction, begin, work, failed)

    def _transaction(self, begin: str, work: Callable[[sqlite3.Connection], T], failed: Callable[[], None]) -> T:
        with explained(self.path):
            self._connection.execute(begin)
            try:
                result = work(self._connection)
                self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                failed()
                raise
            return result

    async def run(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Do something with the connection that is its own transaction, or cannot be in one (VACUUM)."""
        if self._closed:
            raise StorageError(f"{self.path} is closed")

        def plainly() -> T:
            with explained(self.path):
                return work(self._connection)

        return await asyncio.get_running_loop().run_in_executor(self._thread, plainly)

    async def aclose(self) -> None:
        """Close the file; the last to close it moves the write-ahead log into it. May be called twice."""
        if self._closed:
            return
        self._closed = True
        closing = self._thread.submit(self._close)
        self._thread.shutdown(wait=False)
        await asyncio.shield(asyncio.wrap_future(closing))  # who is cancelled does not leave it open

    def _close(self) -> None:
        try:
            with explained(self.path):
                self._connection.close()
        finally:
            if self._lock is not None:
                self._lock.release()

    @property
    def size_bytes(self) -> int:
        """The file and its write-ahead log."""
        size = 0
        for name in (self.path, f"{self.path}-wal"):
            with suppress(OSError):  # closed or moved away meanwhile
                size += os.stat(name).st_size
        return size


def _connect(path: Path, access: str) -> sqlite3.Connection:
    with explained(path, opening=True):
        mode = {"read": "ro", "events": "rw", "write": "rwc"}[access]
        connection = sqlite3.connect(
            f"{path.as_uri()}?mode={mode}",
            uri=True,
            isolation_level=None,
            timeout=EVENTS_TIMEOUT_S if access == "events" else BUSY_TIMEOUT_S,
            check_same_thread=False,
        )
        try:
            if access == "write":
                _prepare(connection, path)
            else:
                _check(connection, path)
        except BaseException:
            connection.close()
            raise
        return connection


def _close_unwanted(lock: PathLock | None, opening: Future[sqlite3.Connection]) -> None:
    """Nobody waits for it any more."""
    if not opening.cancelled() and opening.exception() is None:
        opening.result().close()
    if lock is not None:
        lock.release()


def _nothing() -> None:
    """What is to be done when nobody has to know."""


def _prepare(connection: sqlite3.Connection, path: Path) -> None:
    """Check the file, set it up for writing and bring its schema up to date."""
    version = schema.check(connection, path)
    if version == 0:
        # Must come before everything else in an empty file. It costs a tenth of the insert rate, and later lets
        # deleted points give their space back in small steps, where VACUUM would lock the archive for minutes.
        connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
    connection.execute("PRAGMA journal_mode = WAL")
    # A transaction is on the disk when it is committed; costs up to a tenth at the sink's batches.
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute(f"PRAGMA journal_size_limit = {LARGEST_IDLE_WAL_BYTES}")
    connection.execute(f"PRAGMA wal_autocheckpoint = {CHECKPOINT_PAGES}")
    # Runs for the newest schema, too: here, not at the first insert, it turns out whether the file can be written.
    schema.migrate(connection, version)


def _check(connection: sqlite3.Connection, path: Path) -> None:
    """Check a file of which another process is the writer."""
    version = schema.check(connection, path)
    if version == 0:
        raise StorageError(f"{path} is empty: 'agent up' and a sqlite-sink make an archive of it")
    if version < len(schema.MIGRATIONS):
        raise StorageError(
            f"{path} has schema {version}, older than the {len(schema.MIGRATIONS)} that is read here: "
            "'agent archive migrate' brings it up to date, and so does a sink that opens it"
        )


def checked_path(path: Path, access: str) -> Path:
    """The file that is meant, links resolved. Raises StorageError unless an archive may be there."""
    try:
        path = path.expanduser().resolve()
        if path.is_dir():
            raise StorageError(f"{path} is a directory: an archive is a file, like {path / 'archive.db'}")
        if path.exists() and not path.is_file():
            raise StorageError(f"{path} is not a regular file: choose another file")
        if access != "write" and not path.exists():
            raise StorageError(f"there is no archive at {path}: 'agent up' and a sqlite-sink make one")
        if not path.parent.is_dir():
            raise StorageError(f"{path.parent} is not a directory: make it, or choose another file")
        # Before SQLite finds out: it would leave side files behind that nobody may write.
        if access != "read" and path.exists() and not os.access(path, os.W_OK, effective_ids=True):
            raise StorageError(f"{path} may not be written by this user: change its mode, or choose another file")
    except (
        OSError,
        RuntimeError,
        ValueError,
    ) as error:  # no permission, a loop of links, an unknown ~user, a null byte
        raise StorageError(f"{path} is not a path for an archive ({error}): choose another file") from error
    return path


def _identity(path: Path) -> tuple[int, int]:
    """Which file it is, whatever its name: device and inode; zeros if there is none."""
    try:
        status = path.stat()
    except OSError:
        return (0, 0)
    return (status.st_dev, status.st_ino)
