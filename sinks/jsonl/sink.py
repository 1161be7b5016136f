# SPDX-License-Identifier: MIT
"""`JsonSink`: adds what it receives to a file of JSON Lines, and acknowledges it when it is on the disk."""

import asyncio
import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta

from bus.archive import MissingFrames
from bus.config import AgentConfig
from bus.errors import ConfigError, StorageBusy, StorageError
from bus.frame import Frame
from bus.gaps import Gap
from bus.names import check_pattern
from bus.rpc import Json
from bus.sink import DurableSink
from bus.state import make_state_folder, state_file
from bus.transport.base import Transport
from sinks.formats.jsonl import missing_line, point_lines
from sinks.jsonl.log import PointLog, Rotation, tidy
from sinks.jsonl.seen import Knowledge, new_chunks
from sinks.path_lock import PathLock

logger = logging.getLogger(__name__)


def default_path() -> str:
    """The file of this user."""
    return state_file("points.jsonl")


class JsonConfig(AgentConfig, frozen=True, kw_only=True):
    """What the JSON Lines sink can be told."""

    path: Annotated[str, Meta(min_length=1, description="the file that is added to; its directory must exist")] = (
        msgspec.field(default_factory=default_path)
    )
    metrics: Annotated[list[str], Meta(min_length=1, description="names and patterns of the metrics to write")] = (
        msgspec.field(default_factory=lambda: ["#"])
    )
    rotate_bytes: Annotated[
        int, Meta(ge=0, description="put the file aside, and begin another, when it is so large; 0: never")
    ] = 256 * 1024 * 1024
    rotate_every: Annotated[
        float, Meta(ge=0, description="put the file aside, too, when it is so many seconds old; 0: never")
    ] = 0.0
    keep: Annotated[int, Meta(ge=0, description="remove the oldest files put aside but for so many; 0: keep all")] = 0
    compress: Annotated[bool, Meta(description="compress files that were put aside, by gzip")] = False
    batch_points: Annotated[
        int, Meta(ge=1, le=1_000_000, description="write at the latest when so many points have come in")
    ] = 50_000
    batch_age: Annotated[float, Meta(ge=0, le=60, description="write at the latest after so many seconds")] = 1.0

    def __post_init__(self) -> None:
        """Checks the patterns. Raises ValueError."""
        for pattern in self.metrics:
            check_pattern(pattern)

    @property
    def rotation(self) -> Rotation:
        """When a file is full, and what becomes of it."""
        return Rotation(size_bytes=self.rotate_bytes, age_s=self.rotate_every, keep=self.keep, compress=self.compress)


class JsonSink(DurableSink):
    """Writes points as JSON Lines: no point is lost and none is there twice, whatever is killed when.

    While the file cannot be written (full disk), consumption pauses and the same points are tried again; the
    broker keeps the rest.

    Args:
        token: the sink's name on the bus, and of its queue
        url: where the broker is, or a shared `Transport`
        config: see `JsonConfig`
    """

    Config = JsonConfig
    config: JsonConfig

    def __init__(
        self, token: str = "sink-json", url: str | Transport = "", *, config: JsonConfig | None = None
    ) -> None:
        config = config or JsonConfig()
        super().__init__(token, url, metrics=config.metrics, config=config)
        self.batch_points = config.batch_points
        self.batch_age_s = config.batch_age
        self.points_stored = 0
        self.frames_again = 0
        self._path = Path(os.path.realpath(config.path))  # a link stays one when the file is put aside
        self._lock: PathLock | None = None
        self._log: PointLog | None = None  # None while it cannot be opened, too
        self._known: Knowledge | None = None
        self._missing: list[MissingFrames] = []
        self._put_aside = asyncio.Event()

    async def setup(self) -> None:
        """Open the file. Raises StorageError, which says what would be right."""
        await super().setup()
        if self.config.path == default_path():
            await asyncio.to_thread(make_state_folder, "--path")
        self._lock = await asyncio.to_thread(PathLock, self._path)
        try:
            await asyncio.to_thread(self._opened)
        except StorageBusy as error:
            logger.warning("%s: %s; it is tried again when points come", self.token, error)
        except BaseException:
            self._lock.release()
            raise
        self._put_aside.set()  # a crash may have left something to be compressed

    async def start(self) -> None:
        """Join the bus and write what comes."""
        await super().start()
        self.start_task(self._tidy_up(), name="tidy up")

    async def teardown(self) -> None:
        """Close the file."""
        await asyncio.to_thread(self._close_log)
        if self._lock is not None:
            self._lock.release()
        await super().teardown()

    async def reconfigure(self, config: AgentConfig) -> None:
        """Everything but the path may change at run time. Raises ConfigError for that."""
        if not isinstance(config, JsonConfig):
            raise TypeError(f"a JsonSink takes a JsonConfig, not {type(config).__name__}")
        if config.path != self.config.path:
            raise ConfigError(f"path: {self.token} has its file open: restart it with another --path")
        await self.change_metrics(config.metrics)
        self.batch_points = config.batch_points
        self.batch_age_s = config.batch_age
        await super().reconfigure(config)

    async def on_frames(self, frames: Sequence[Frame]) -> None:
        """Write all points that are not written yet. Raises StorageBusy whatever is wrong with the file.

        A frame is never to blame for a broken file: no point is given up, a person has to see to the file.
        """
        missing = tuple(self._missing)
        try:
            points, again, is_rotated = await asyncio.to_thread(self._store, frames, missing, self.config.rotation)
        except StorageBusy:
            raise
        except StorageError as error:
            raise StorageBusy(str(error)) from error
        del self._missing[: len(missing)]
        self.points_stored += points
        self.frames_again += again
        if is_rotated:
            self._put_aside.set()

    async def _tidy_up(self) -> None:
        """Compress and remove what was put aside, while the next file is being written."""
        while True:
            await self._put_aside.wait()
            self._put_aside.clear()
            try:
                await asyncio.to_thread(tidy, self._path, self.config.rotation)
            except OSError as error:
                logger.warning("%s: files beside %s stay as they are: %s", self.token, self._path, error)

    async def on_gap(self, gap: Gap) -> None:
        """Remember what is missing; it is written together with the frames that showed it."""
        await super().on_gap(gap)
        self._missing.append(gap.frames)

    def vital_signs(self) -> Json:
        """Points written, frames that were written already when they came again, and the size of the file."""
        size = self._log.size if self._log is not None else 0
        again = self.frames_again
        return {**super().vital_signs(), "pointsStored": self.points_stored, "framesAgain": again, "fileBytes": size}

    # -- in a thread, one call at a time ---------------------------------------------------------------

    def _store(
        self, frames: Sequence[Frame], missing: Sequence[MissingFrames], rotation: Rotation
    ) -> tuple[int, int, bool]:
        """Points written, frames that were already, and whether a file was put aside."""
        log = self._opened()
        is_rotated = log.is_due(rotation)
        if is_rotated:
            self._close_log()
            log.rotate()
            log = self._opened()
        chunks, news, again = new_chunks(log.known, frames)
        if chunks or missing:
            lines = [point_lines(chunk.metric, chunk.times, chunk.values) for chunk in chunks]
            log.append(b"".join([*lines, *map(missing_line, missing)]), news)
        return sum(map(len, chunks)), again, is_rotated

    def _opened(self) -> PointLog:
        """The file, opened if it was not, or is another one now."""
        if self._log is not None and not self._log.is_in_place:
            logger.warning("%s: %s was moved, removed or cut: another one is begun", self.token, self._path)
            self._close_log()
        if self._log is None:
            self._log = PointLog(self._path, self._known)
            self._known = self._log.known
        return self._log

    def _close_log(self) -> None:
        log, self._log = self._log, None
        if log is not None:
            log.close()
