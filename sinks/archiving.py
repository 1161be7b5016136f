# SPDX-License-Identifier: MIT
"""`ArchiveSink`: what sinks that fill an archive have in common, whatever the archive is made of."""

import asyncio
import logging
from abc import abstractmethod
from collections.abc import Sequence
from typing import Generic, Protocol, TypeVar

from bus.archive import Archive, MissingFrames
from bus.config import AgentConfig
from bus.errors import StorageBusy, StorageError
from bus.frame import Frame
from bus.gaps import Gap
from bus.rpc import Json
from bus.sink import DEFAULT_PREFETCH
from bus.transport.base import Transport
from sinks.describing import Described, Describer
from sinks.events import EventSink
from sinks.history import HistoryService

logger = logging.getLogger(__name__)


class FilledArchive(Archive, Described, Protocol):
    """An archive that a sink fills."""

    @property
    def known_metrics(self) -> int:
        """How many metrics the archive has, as far as this object knows: all, once it has inserted."""


A = TypeVar("A", bound=FilledArchive)


class ArchiveSink(EventSink, Generic[A]):
    """Stores what comes in an archive, one transaction per batch, acknowledged after its commit.

    What is in the archive, and its events, can be asked for over the bus. While the archive cannot be written,
    consumption pauses and the same points are tried again; the broker keeps the rest.

    Args:
        token: the sink's name on the bus, and of its queue
        url: where the broker is, or a shared `Transport`
        metrics: names and patterns to subscribe to at the start
        prefetch: messages that may be outstanding without an ack
        config: an instance of the class's `Config`
    """

    def __init__(
        self,
        token: str,
        url: str | Transport,
        *,
        metrics: Sequence[str],
        config: AgentConfig,
        prefetch: int = DEFAULT_PREFETCH,
    ) -> None:
        super().__init__(token, url, metrics=metrics, prefetch=prefetch, config=config)
        self.points_stored = 0
        self._archive: A | None = None  # None while it cannot be opened, too
        self._opening = asyncio.Lock()
        self._missing: list[MissingFrames] = []
        self._names = 0
        self._history = HistoryService(self, lambda: self.open_archive("read"))
        self._describer = Describer(
            lambda: self._archive, lambda names: self.get_metrics(selector=list(names)), self.token
        )

    @abstractmethod
    async def open_archive(self, access: str) -> A:
        """Open the archive, to ``read`` or to ``write``. Raises StorageError, which says what would be right."""

    @property
    def archive(self) -> A | None:
        """What it writes; None while it cannot be opened."""
        return self._archive

    async def setup(self) -> None:
        """Open the archive. Raises StorageError, which says what would be right."""
        await super().setup()
        try:
            await self._open()
        except StorageBusy as error:
            logger.warning("%s: %s; it is tried again when points come", self.token, error)

    async def start(self) -> None:
        """Join the bus and store what comes."""
        await super().start()
        self._history.begin()
        self.start_task(self._describer.run(), name="ask for metadata")

    async def teardown(self) -> None:
        """Close the archive."""
        await self._history.aclose()
        await self._close()
        await super().teardown()

    async def on_frames(self, frames: Sequence[Frame]) -> None:
        """Store all points, in one transaction. Raises StorageBusy whatever is wrong with the archive.

        A frame is never to blame for that: no point is given up, a person has to see to the archive.
        """
        try:
            archive = self._archive or await self._open()
            self.points_stored += await archive.insert(
                (group for frame in frames for group in frame.groups), self._missing
            )
        except StorageBusy:
            raise
        except StorageError as error:
            await self._close()  # and open it again with the next attempt, which finds what was put right
            await self._history.reopen()
            raise StorageBusy(str(error)) from error
        self._missing = []
        if archive.known_metrics != self._names:
            self._names = archive.known_metrics
            self._describer.notice()
            self._history.notice()

    async def on_gap(self, gap: Gap) -> None:
        """Remember what is missing; it is stored together with the frames that showed it."""
        await super().on_gap(gap)
        self._missing.append(gap.frames)

    def vital_signs(self) -> Json:
        """Points stored, requests for history."""
        return {**super().vital_signs(), **self._history.vital_signs(), "pointsStored": self.points_stored}

    async def _open(self) -> A:
        async with self._opening:
            if self._archive is None:
                self._archive = await self.open_archive("write")
            return self._archive

    async def _close(self) -> None:
        archive, self._archive = self._archive, None
        if archive is not None:
            try:
                await archive.aclose()
            except StorageError as error:
                logger.warning("%s: %s", self.token, error)
