# SPDX-License-Identifier: MIT
"""Connections to one database: one that inserts, a few that read; made when needed, and again when lost.

Every error leaves here as StorageBusy or StorageError. asyncpg, which takes 40 ms to load, is loaded here.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from bus.errors import StorageBusy, StorageError
from sinks.postgres import schema
from sinks.postgres.address import Address
from sinks.postgres.errors import explained
from sinks.postgres.tables import MIGRATIONS

if TYPE_CHECKING:
    import asyncpg
    from asyncpg.pool import PoolConnectionProxy

    Connection = asyncpg.Connection[asyncpg.Record] | PoolConnectionProxy[asyncpg.Record]

CONNECT_TIMEOUT_S = 10.0
ANSWER_TIMEOUT_S = 120.0
"""A server that says nothing for so long is gone: its machine, or the network."""
MOST_READERS = 4
OLDEST_VERSION = 14

# jit: compiling takes longer than our short queries. synchronous_commit: a commit that has returned is on the disk,
# whatever the server has as its default for those who care less.
_SESSION = (
    "SET jit = off; "
    "SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') = 'off'"
)


class Database:
    """Made by ``await Database.open(address, access)``. Safe for several tasks at once."""

    def __init__(self, address: Address, access: str, readers: asyncpg.Pool[asyncpg.Record]) -> None:
        self.address = address
        self.access = access
        self._readers = readers
        self._writer: asyncpg.Connection[asyncpg.Record] | None = None
        self._turn = asyncio.Lock()
        self._closed = False

    @classmethod
    async def open(cls, address: Address, access: str) -> Database:
        """Connect, and check that there is an archive of ours; to ``write``, make one or bring it up to date.

        Raises StorageError that says what would be right, and StorageBusy if it may work later.
        """
        import asyncpg

        with explained(address):
            readers = await asyncpg.create_pool(
                **_arguments(address), min_size=0, max_size=MOST_READERS, init=_prepare_session, reset=_keep_session
            )
            database = cls(address, access, readers)
            try:
                async with database.connection() as connection:
                    await database.prepare(connection)
            except BaseException:
                readers.terminate()
                raise
        return database

    async def prepare(self, connection: Connection) -> None:
        """Check, or bring up to date, what a connection has found."""
        version = connection.get_server_version()
        if version.major < OLDEST_VERSION:
            raise StorageError(
                f"{self.address.label} is PostgreSQL {version.major}: at least {OLDEST_VERSION} is needed"
            )
        if self.access == "write":
            await schema.migrate(connection, self.address)
            return
        found = await schema.check(connection, self.address)
        if found == 0:
            raise StorageError(f"there is no hostbus archive in {self.address.label}: a postgres-sink makes one")
        if found < len(MIGRATIONS):
            raise StorageError(
                f"{self.address.label} has schema {found}, older than the {len(MIGRATIONS)} that is read "
                "here: a postgres-sink that starts brings it up to date"
            )

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        """A connection for reading and for short work beside the inserts."""
        self._check_open()
        with explained(self.address):
            async with self._readers.acquire(timeout=CONNECT_TIMEOUT_S) as connection:
                yield connection

    @asynccontextmanager
    async def snapshot(self) -> AsyncIterator[Connection]:
        """A connection that sees the database as it is at its first query, until the body ends."""
        async with (
            self.connection() as connection,
            connection.transaction(isolation="repeatable_read", readonly=True),
        ):
            yield connection

    @asynccontextmanager
    async def writer(
        self, when_new: Callable[[asyncpg.Connection[asyncpg.Record]], Awaitable[None]]
    ) -> AsyncIterator[asyncpg.Connection[asyncpg.Record]]:
        """The one connection that inserts, for one task at a time; `when_new` makes a new one ready.

        After any error but the server's own it is given up: nobody knows in what state it is.
        """
        import asyncpg

        async with self._turn:
            self._check_open()
            with explained(self.address):
                connection = self._writer
                if connection is None or connection.is_closed():
                    connection = self._writer = await asyncpg.connect(**_arguments(self.address))
                    try:
                        await _prepare_session(connection)
                        await self.prepare(connection)
                        await when_new(connection)
                    except BaseException:
                        self._give_up()
                        raise
                try:
                    async with asyncio.timeout(ANSWER_TIMEOUT_S):
                        yield connection
                except asyncpg.PostgresError as error:
                    if isinstance(error, asyncpg.PostgresConnectionError):
                        self._give_up()
                    raise
                except BaseException:
                    self._give_up()
                    raise

    def _give_up(self) -> None:
        connection, self._writer = self._writer, None
        if connection is not None:
            connection.terminate()

    def _check_open(self) -> None:
        if self._closed:
            raise StorageError(f"{self.address.label} is closed")

    async def aclose(self) -> None:
        """Close all connections. May be called twice."""
        self._closed = True
        async with self._turn:
            writer, self._writer = self._writer, None
            try:
                with explained(self.address):
                    if writer is not None:
                        await writer.close(timeout=1.0)
                    async with asyncio.timeout(1.0):
                        await self._readers.close()
            except StorageBusy:
                self._readers.terminate()  # a server that does not answer need not agree


def _arguments(address: Address) -> dict[str, Any]:
    """What asyncpg's connect and create_pool take. What is None it finds in PGHOST, ... and ~/.pgpass."""
    return {
        "host": address.host or None,
        "port": address.port or None,
        "user": address.user or None,
        "password": address.password or None,
        "database": address.database or None,
        "ssl": address.ssl or None,
        "timeout": CONNECT_TIMEOUT_S,
        "command_timeout": ANSWER_TIMEOUT_S,
        "server_settings": {"application_name": "hostbus"},
    }


async def _prepare_session(connection: asyncpg.Connection[asyncpg.Record]) -> None:
    await connection.execute(_SESSION)


async def _keep_session(connection: asyncpg.Connection[asyncpg.Record]) -> None:
    """Between two uses: they leave nothing behind, and the pool's own way would undo the settings."""
