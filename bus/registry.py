# SPDX-License-Identifier: MIT
"""`Registry`: what the manager knows, in a SQLite file: metrics and their owners, sinks, configurations.

All of it is held in memory too, for reading; a change is in the file before it is answered.
"""

import asyncio
import logging
import os
import re
import time
from collections.abc import Collection, Iterable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import msgspec

from bus.errors import RpcError, StorageError
from bus.rpc import Json
from bus.timestamp import Timestamp

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    import aiosqlite

# At DEBUG it writes every statement with its values, and a configuration may hold a password.
if logging.getLogger("aiosqlite").level == logging.NOTSET:
    logging.getLogger("aiosqlite").setLevel(logging.INFO)

SCHEMA_VERSION = 2
MAX_SELECTOR_LENGTH = 1000
APPLICATION_ID = 0x68627265  # "hbre"

_SCHEMA = """
CREATE TABLE metric (name TEXT PRIMARY KEY, owner TEXT NOT NULL, metadata TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE sink (token TEXT PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE historic (archive TEXT, metric TEXT, PRIMARY KEY (archive, metric)) WITHOUT ROWID;
CREATE TABLE config (token TEXT, version INTEGER, config TEXT NOT NULL, set_ns INTEGER NOT NULL,
                     set_by TEXT NOT NULL, PRIMARY KEY (token, version)) WITHOUT ROWID;
"""

# In schema 1 nobody noted which archive keeps a metric: the token is empty until one says so.
_FROM_SCHEMA_1 = """
ALTER TABLE historic RENAME TO historic_1;
CREATE TABLE historic (archive TEXT, metric TEXT, PRIMARY KEY (archive, metric)) WITHOUT ROWID;
INSERT INTO historic (archive, metric) SELECT '', metric FROM historic_1;
DROP TABLE historic_1;
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricEntry:
    """A metric: the token of the source that declared it, and its metadata."""

    owner: str
    metadata: Json


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfigVersion:
    """One version of an agent's configuration; versions count from 1."""

    version: int
    config: Json
    set_at: Timestamp
    set_by: str


class Registry:
    """The manager's store: made by ``async with Registry.open(path) as registry``.

    The attributes are for reading; the methods change them, all or nothing, and raise StorageError.
    """

    def __init__(self, connection: "aiosqlite.Connection", path: str) -> None:
        self._connection = connection
        self._path = path
        self._lock = asyncio.Lock()
        self.metrics: dict[str, MetricEntry] = {}
        self.configs: dict[str, list[ConfigVersion]] = {}
        self.sinks: set[str] = set()
        """Tokens of the sinks whose queue outlives them."""
        self.kept: dict[str, set[str]] = {}
        """The metrics that each archive keeps, declared or not, by the archive's token."""
        self._heard: dict[str, float] = {}  # of those in `kept`: when they last told it to this object

    @classmethod
    @asynccontextmanager
    async def open(cls, path: str) -> "AsyncIterator[Self]":
        """Open or create the file; ``:memory:`` keeps nothing. Raises StorageError if it cannot be used."""
        import aiosqlite

        async with AsyncExitStack() as resources:
            try:
                if path != ":memory:":
                    # For its owner alone, as are the files that SQLite puts beside it: configurations hold passwords.
                    os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
                connection = await resources.enter_async_context(aiosqlite.connect(path, isolation_level=None))
                registry = cls(connection, path)
                await registry._prepare()
                await registry._load()
            except (aiosqlite.Error, OSError) as error:
                raise StorageError(
                    f"cannot use the store {path}: {getattr(error, 'strerror', None) or error}; "
                    "is its folder there and writable? --store names another file"
                ) from error
            yield registry

    async def _number(self, query: str) -> int:
        async with self._connection.execute(query) as cursor:
            row = await cursor.fetchone()
        return int(row[0]) if row else 0

    async def _prepare(self) -> None:
        version = await self._number("PRAGMA user_version")
        application_id = await self._number("PRAGMA application_id")
        is_empty = not await self._number("SELECT count(*) FROM sqlite_schema")
        if not is_empty and application_id != APPLICATION_ID:
            raise StorageError(f"{self._path} is a SQLite file of another program: choose another file with --store")
        if version > SCHEMA_VERSION:
            raise StorageError(
                f"{self._path} was written by a newer hostbus (schema {version}, this one knows {SCHEMA_VERSION}): "
                "update hostbus, or choose another file with --store"
            )
        await self._connection.execute_fetchall("PRAGMA journal_mode = WAL")
        if is_empty or version < SCHEMA_VERSION:
            await self._connection.executescript(
                f"BEGIN IMMEDIATE; {_SCHEMA if is_empty else _FROM_SCHEMA_1} "
                f"PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {SCHEMA_VERSION}; COMMIT;"
            )

    async def _load(self) -> None:
        self.sinks.update([token async for (token,) in self._rows("SELECT token FROM sink")])
        async for archive, metric in self._rows("SELECT archive, metric FROM historic"):
            self.kept.setdefault(archive, set()).add(metric)
        async for name, owner, metadata in self._rows("SELECT name, owner, metadata FROM metric"):
            self.metrics[name] = MetricEntry(owner=owner, metadata=msgspec.json.decode(metadata))
        async for token, version, config, set_ns, set_by in self._rows(
            "SELECT token, version, config, set_ns, set_by FROM config ORDER BY token, version"
        ):
            self.configs.setdefault(token, []).append(
                ConfigVersion(
                    version=version, config=msgspec.json.decode(config), set_at=Timestamp(set_ns), set_by=set_by
                )
            )

    async def _rows(self, statement: str) -> "AsyncIterator[tuple[Any, ...]]":
        async with self._connection.execute(statement) as cursor:
            async for row in cursor:
                yield tuple(row)

    async def _write(self, *changes: tuple[str, Iterable[tuple[object, ...]]]) -> None:
        """One transaction of statements with their rows. Who calls this holds the lock: two tasks must not mix."""
        import aiosqlite

        try:
            try:
                await self._connection.execute_fetchall("BEGIN IMMEDIATE")
                for statement, rows in changes:
                    await self._connection.executemany(statement, rows)
                await self._connection.execute_fetchall("COMMIT")
            except BaseException:
                await self._connection.rollback()
                raise
        except aiosqlite.Error as error:
            raise StorageError(f"cannot write the store {self._path}: {error}; nothing was changed") from error

    async def declare(self, owner: str, metrics: Mapping[str, Json]) -> None:
        """Metrics now belong to `owner`, with this metadata."""
        async with self._lock:
            rows = [(name, owner, msgspec.json.encode(about).decode()) for name, about in metrics.items()]
            await self._write(("INSERT OR REPLACE INTO metric (name, owner, metadata) VALUES (?, ?, ?)", rows))
            self.metrics.update({name: MetricEntry(owner=owner, metadata=about) for name, about in metrics.items()})

    def metadata(self, name: str) -> Json:
        """What is known of a metric; empty if nothing is."""
        entry = self.metrics.get(name)
        about = entry.metadata if entry is not None else {}
        if self.is_historic(name):
            return {**about, "historic": True}
        # That is for archives to say, not for sources.
        return {key: value for key, value in about.items() if key != "historic"} if "historic" in about else about

    def is_historic(self, name: str) -> bool:
        """Whether an archive keeps this metric."""
        return any(name in metrics for metrics in self.kept.values())

    def archives_heard(self, within_s: float) -> dict[str, set[str]]:
        """What those archives keep that have told it lately, by token, sorted."""
        since = time.monotonic() - within_s
        return {token: self.kept[token] for token, at in sorted(self._heard.items()) if at > since}

    async def add_sink(self, token: str) -> None:
        """A sink whose queue outlives it has registered."""
        if token not in self.sinks:
            async with self._lock:
                await self._write(("INSERT OR IGNORE INTO sink (token) VALUES (?)", [(token,)]))
                self.sinks.add(token)

    async def keep(self, archive: str, names: Iterable[str]) -> None:
        """The archive with this token keeps these metrics, too."""
        async with self._lock:
            new = set(names) - self.kept.get(archive, set())
            nobodys = self.kept.get("", set())
            found = new & nobodys
            if new:
                await self._write(
                    ("INSERT OR IGNORE INTO historic (archive, metric) VALUES (?, ?)", [(archive, one) for one in new]),
                    ("DELETE FROM historic WHERE archive = '' AND metric = ?", [(name,) for name in found]),
                )
                self.kept.setdefault(archive, set()).update(new)
                nobodys -= found
            if archive in self.kept:
                self._heard[archive] = time.monotonic()

    async def forget(self, archive: str, names: Iterable[str] | None = None) -> None:
        """The archive keeps these metrics no more; None: nothing at all."""
        async with self._lock:
            known = self.kept.get(archive, set())
            gone = known & set(known if names is None else names)
            if gone:
                rows = [(archive, name) for name in gone]
                await self._write(("DELETE FROM historic WHERE archive = ? AND metric = ?", rows))
                known -= gone
            if not known:
                self.kept.pop(archive, None)
                self._heard.pop(archive, None)

    def config(self, token: str) -> Json:
        """The configuration in force for an agent; empty if none was ever set."""
        versions = self.configs.get(token)
        return dict(versions[-1].config) if versions else {}

    async def set_config(self, token: str, config: Json, set_by: str) -> ConfigVersion:
        """Store a new version."""
        async with self._lock:
            version = len(self.configs.get(token, ())) + 1
            new = ConfigVersion(version=version, config=config, set_at=Timestamp.now(), set_by=set_by)
            row = (token, version, msgspec.json.encode(config).decode(), new.set_at.posix_ns, set_by)
            statement = "INSERT INTO config (token, version, config, set_ns, set_by) VALUES (?, ?, ?, ?, ?)"
            await self._write((statement, [row]))
            self.configs.setdefault(token, []).append(new)
        return new


def matching(names: Collection[str], selector: str | list[str] | None) -> Collection[str]:
    """The names that a regular expression finds, or that a list has, too. Raises RpcError for a bad one."""
    if selector is None:
        return names
    if isinstance(selector, list):
        return {name for name in selector if name in names}
    if len(selector) > MAX_SELECTOR_LENGTH:
        raise RpcError(f"the selector is too long: {len(selector)} characters, {MAX_SELECTOR_LENGTH} are allowed")
    try:
        pattern = re.compile(selector)
    except re.error as error:
        raise RpcError(f"selector {selector!r} is not a regular expression: {error}") from None
    return {name for name in names if pattern.search(name)}
