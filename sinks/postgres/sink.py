# SPDX-License-Identifier: MIT
"""`PostgresSink`: stores what it receives in a PostgreSQL database, and acknowledges it when it is there."""

import asyncio
import logging
from collections.abc import Awaitable, Iterable, Sequence
from typing import Any

from bus.config import AgentConfig
from bus.errors import ConfigError, StorageError, gist
from bus.frame import Frame
from bus.gaps import Gap
from bus.queues import durable_name
from bus.rpc import Json
from bus.timestamp import Timedelta
from bus.transport.base import Transport
from sinks.archiving import ArchiveSink
from sinks.postgres.archive import PostgresArchive
from sinks.postgres.config import PostgresConfig
from sinks.postgres.live import Newest
from sinks.postgres.retention import keep_ns
from sinks.postgres.shards import Shard

logger = logging.getLogger(__name__)

PREFETCH = 4_000
"""Half of it may wait for the end of a persist period, which more frames than that bring about earlier."""
UPKEEP_S = 30.0


class PostgresSink(ArchiveSink[PostgresArchive]):
    """Archives metrics of many hosts in a PostgreSQL database; several may share the work.

    Points are stored every `persist_period`, and acknowledged after that; the newest value of each metric is
    in the table ``hostbus.latest`` every `live_period`. While the database is away (stopped, cut off, disk full,
    read-only), consumption pauses and the same points are tried again; the broker keeps the rest.

    Args:
        token: the sink's name on the bus, and of its queue
        url: where the broker is, or a shared `Transport`
        config: see `PostgresConfig`
    """

    Config = PostgresConfig
    config: PostgresConfig

    def __init__(
        self, token: str = "sink-postgres", url: str | Transport = "", *, config: PostgresConfig | None = None
    ) -> None:
        config = config or PostgresConfig()
        super().__init__(token, url, metrics=config.metrics, prefetch=PREFETCH, config=config)
        self.batch_points = config.batch_points
        self.batch_age_s = config.persist_period
        self._address = config.address
        self._shard = Shard.parse(config.shard) if config.shard else None
        self._newest = Newest()
        self._troubles: dict[str, str] = {}

    async def open_archive(self, access: str) -> PostgresArchive:
        """Connect to the database."""
        return await PostgresArchive.open(self._address, access)

    async def start(self) -> None:
        """Join the bus and store what comes."""
        await super().start()
        self.start_task(self._show_newest(), name="show the newest values")
        self.start_task(self._keep_up(), name="form aggregates, drop old points")

    async def subscribe(
        self,
        metrics: Iterable[str],
        expires: float | Timedelta | None = None,
        metadata: bool | None = None,
        **others: Any,
    ) -> Json:
        """As ever, into the queue that is configured.

        A shard's queue has its number in its name: whatever becomes of the sinks' tokens and their number, what
        is in the queue of a shard is never taken for another one's.
        """
        if self.config.queue:
            others["dataQueue"] = durable_name(self.config.queue)
        elif self._shard is not None:
            others["dataQueue"] = durable_name(f"{self.token}.{self._shard.number}-of-{self._shard.count}")
        return await super().subscribe(metrics, expires, metadata, **others)

    async def reconfigure(self, config: AgentConfig) -> None:
        """Everything but the database, the queue and the shard may change at run time. Raises ConfigError for those."""
        if not isinstance(config, PostgresConfig):
            raise TypeError(f"a PostgresSink takes a PostgresConfig, not {type(config).__name__}")
        for fixed in ("host", "port", "user", "database", "queue", "shard"):
            if getattr(config, fixed) != getattr(self.config, fixed):
                raise ConfigError(f"{fixed}: {self.token} works with it already: restart it with another --{fixed}")
        await self.change_metrics(config.metrics)
        self.batch_points = config.batch_points
        self.batch_age_s = config.persist_period
        await super().reconfigure(config)

    # -- points ----------------------------------------------------------------------------------------

    def on_arrival(self, frame: Frame) -> None:
        """Take note of the newest values."""
        if self.config.live_period:
            self._newest.on_frame(frame)

    async def on_frames(self, frames: Sequence[Frame]) -> None:
        """Store all points, in one transaction. Raises StorageBusy whatever is wrong with the database.

        A frame is never to blame for that: no point is given up, a person has to see to the database.
        """
        if self._shard is not None:
            frames = [frame.select(self._shard.__contains__) for frame in frames]
        await super().on_frames(frames)

    async def on_gap(self, gap: Gap) -> None:
        """Remember what is missing; it is stored together with the frames that showed it.

        Of a shared queue each sink sees a part, and knows nothing of the rest.
        """
        if not self.config.queue:
            await super().on_gap(gap)

    # -- beside the points -----------------------------------------------------------------------------

    async def _show_newest(self) -> None:
        while True:
            await asyncio.sleep(self.config.live_period or UPKEEP_S)
            newest = self._newest.take(self._stores)
            archive = self.archive
            if newest and archive is not None:
                await self._try("show the newest values", archive.set_latest(newest))

    def _stores(self, metric: str) -> bool:
        return metric in self._selection and (self._shard is None or metric in self._shard)

    async def _keep_up(self) -> None:
        while True:
            await asyncio.sleep(UPKEEP_S)
            archive = self.archive
            if archive is not None:
                await self._try("form aggregates", archive.upkeep(keep_ns(self.config.keep)))

    async def _try(self, what: str, work: Awaitable[None]) -> None:
        """Do what can wait for the next time; a cause of trouble is told once."""
        try:
            await work
        except StorageError as error:
            if self._troubles.get(what) != gist(error):
                self._troubles[what] = gist(error)
                logger.warning("%s cannot %s for now: %s", self.token, what, error)
        else:
            self._troubles.pop(what, None)
