# SPDX-License-Identifier: MIT
"""Which archive a command means: a file, a database, or those that answer on the bus.

Kinds of archives are found by name, as agents are: the entry points of the group ``hostbus.archives``, one
for each URL scheme, are functions ``async (where: str, access: str) -> Archive``.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from enum import StrEnum
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Annotated, cast

import typer

from bus.archive import Archive, History
from bus.errors import HostbusError
from bus.state import state_file

if TYPE_CHECKING:
    from bus.history import HistoryClient

GROUP = "hostbus.archives"
DEFAULT_SCHEME = "sqlite"

ArchivePath = Annotated[
    str,
    typer.Option(
        "--archive",
        envvar="HOSTBUS_ARCHIVE",
        metavar="PATH|URL",
        help="An SQLite file, or postgresql://USER@HOST/DB.",
        show_default="hostbus/archive.db under $XDG_STATE_HOME or ~/.local/state",
    ),
]


class Access(StrEnum):
    """What for: `events` adds events to an archive that another process may be writing."""

    read = "read"
    events = "events"
    write = "write"


@asynccontextmanager
async def opened(where: str, access: Access = Access.read) -> AsyncIterator[Archive]:
    """The archive at a path or URL; "" is the one of this user. Raises HostbusError if there is none of its kind."""
    where = where or state_file("archive.db")
    scheme, separator, _ = where.partition("://")
    kind = scheme if separator else DEFAULT_SCHEME
    kinds = {entry.name: entry for entry in entry_points(group=GROUP)}
    if kind not in kinds:
        raise HostbusError(f"--archive: {kind}:// is no kind of archive; known: a path, {', '.join(sorted(kinds))}")
    archive = cast("Archive", await kinds[kind].load()(where, access.value))
    try:
        yield archive
    finally:
        await archive.aclose()


@asynccontextmanager
async def history(archive: str, server: str, timeout_s: float) -> AsyncIterator[History]:
    """What a command that only reads was pointed at: --archive, else --server, else this user's own file."""
    if archive or not server:
        async with opened(archive) as found:
            yield found
        return
    async with on_bus(server, timeout_s) as client:
        yield client


@asynccontextmanager
async def on_bus(server: str, timeout_s: float) -> AsyncIterator["HistoryClient"]:
    """All archives that answer on a bus."""
    from agents.cli import connection
    from bus.history import HistoryClient

    async with (
        connection.broker(server, timeout_s) as transport,
        HistoryClient("agent-history", transport, timeout_s=timeout_s) as client,
    ):
        yield client
