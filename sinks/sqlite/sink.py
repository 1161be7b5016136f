# SPDX-License-Identifier: MIT
"""`SqliteSink`: stores what it receives in an archive, and acknowledges it when it is on the disk."""

import asyncio
from collections.abc import Sequence
from typing import Annotated

import msgspec
from msgspec import Meta

from bus.config import AgentConfig
from bus.errors import ConfigError
from bus.frame import Frame
from bus.names import check_pattern
from bus.rpc import Json
from bus.state import make_state_folder, state_file
from bus.transport.base import Transport
from sinks.archiving import ArchiveSink
from sinks.retention import DEFAULT_KEEP, Retention, span
from sinks.sqlite.archive import SqliteArchive
from sinks.sqlite.keeper import Keeper, Rules


def default_path() -> str:
    """The archive of this user."""
    return state_file("archive.db")


class SqliteConfig(AgentConfig, frozen=True, kw_only=True):
    """What the SQLite archive can be told."""

    path: Annotated[str, Meta(min_length=1, description="the archive, an SQLite file; its directory must exist")] = (
        msgspec.field(default_factory=default_path)
    )
    metrics: Annotated[list[str], Meta(min_length=1, description="names and patterns of the metrics to store")] = (
        msgspec.field(default_factory=lambda: ["#"])
    )
    batch_points: Annotated[
        int, Meta(ge=1, le=1_000_000, description="store at the latest when so many points have come in")
    ] = 50_000
    # Every transaction writes at least one page of 4 KB per metric, whether one tick is in it or ten.
    batch_age: Annotated[
        float, Meta(ge=0, le=60, description="store at the latest after so many seconds; more wears a disk less")
    ] = 5.0
    hot: Annotated[
        str,
        Meta(description="how long points stay in plain rows, for any SQL; then they are packed; or forever"),
    ] = "48h"
    keep: Annotated[
        dict[str, str],
        Meta(description="how long to keep points (raw) and aggregates (10s, 1m, 10m, 1h, 1d); others forever"),
    ] = msgspec.field(default_factory=lambda: dict(DEFAULT_KEEP))
    keep_for: Annotated[
        dict[str, dict[str, str]], Meta(description="the same for the metrics of a name or pattern")
    ] = msgspec.field(default_factory=dict)

    def __post_init__(self) -> None:
        """Checks patterns and times. Raises ValueError."""
        for pattern in self.metrics:
            check_pattern(pattern)
        self.rules()

    def rules(self) -> Rules:
        """What to keep, and how."""
        return Rules(hot_ns=span(self.hot, "hot"), retention=Retention.load(self.keep, self.keep_for))


class SqliteSink(ArchiveSink[SqliteArchive]):
    """Archives metrics in one SQLite file: one transaction per batch, acknowledged after its commit.

    What is in the file can be asked for over the bus (`bus.history.HistoryClient`).

    While the file cannot be written (full disk, another program's lock, the file removed), consumption pauses
    and the same points are tried again; the broker keeps the rest.

    Args:
        token: the sink's name on the bus, and of its queue
        url: where the broker is, or a shared `Transport`
        config: see `SqliteConfig`
    """

    Config = SqliteConfig
    config: SqliteConfig

    def __init__(
        self, token: str = "sink-sqlite", url: str | Transport = "", *, config: SqliteConfig | None = None
    ) -> None:
        config = config or SqliteConfig()
        super().__init__(token, url, metrics=config.metrics, config=config)
        self.batch_points = config.batch_points
        self.batch_age_s = config.batch_age
        self.size_bytes = 0
        self._keeper = Keeper(token, lambda: self.archive, config.rules())

    async def open_archive(self, access: str) -> SqliteArchive:
        """Open the file."""
        archive = await SqliteArchive.open(self.config.path, access)
        self.size_bytes = archive.size_bytes
        return archive

    async def setup(self) -> None:
        """Open the archive. Raises StorageError, which says what would be right."""
        if self.config.path == default_path():
            await asyncio.to_thread(make_state_folder, "--path (agent up: --archive)")
        await super().setup()

    async def start(self) -> None:
        """Join the bus and store what comes."""
        await super().start()
        self.start_task(self._keeper.run(), name="upkeep of the archive")

    async def reconfigure(self, config: AgentConfig) -> None:
        """Everything but the path may change at run time. Raises ConfigError for that."""
        if not isinstance(config, SqliteConfig):
            raise TypeError(f"a SqliteSink takes a SqliteConfig, not {type(config).__name__}")
        if config.path != self.config.path:
            raise ConfigError(f"path: {self.token} has its archive open: restart it with another --path")
        await self.change_metrics(config.metrics)
        self.batch_points = config.batch_points
        self.batch_age_s = config.batch_age
        self._keeper.rules = config.rules()
        await super().reconfigure(config)

    async def on_frames(self, frames: Sequence[Frame]) -> None:
        """Store all points, in one transaction. Raises StorageBusy whatever is wrong with the archive."""
        await super().on_frames(frames)
        for frame in frames:
            self._keeper.stored(frame.groups)
        if self.archive is not None:
            self.size_bytes = self.archive.size_bytes

    def vital_signs(self) -> Json:
        """Points stored, requests for history, the size of the archive in bytes."""
        return {**super().vital_signs(), "archiveBytes": self.size_bytes}
