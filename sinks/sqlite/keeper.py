# SPDX-License-Identifier: MIT
"""The upkeep of an archive while it is written: compaction, retention, space given back.

All of it in small transactions with pauses between them, so that inserts go first; whatever goes wrong is
tried again. Times in ns.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from bus.errors import StorageError, gist
from bus.frame import Group
from sinks.retention import Retention
from sinks.sqlite.archive import SqliteArchive
from sinks.sqlite.compaction import HOT_NS, WINDOW_NS, Compaction
from sinks.sqlite.retention import Expiry
from sinks.sqlite.space import checkpoint, vacuum_step

logger = logging.getLogger(__name__)

PAUSE_S = 60.0
"""Between rounds."""
SHARE_OF_TIME = 0.25
"""That steps may take while there is much to do; the rest is for inserts and readers."""

Step = Callable[[sqlite3.Connection], int | None]
"""Does something, and says how much; None if nothing is left to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What to keep, and what of it in rows: until it is `hot_ns` old."""

    hot_ns: int = HOT_NS
    retention: Retention = field(default_factory=Retention.load)


class Keeper:
    """Keeps the archive that `archive` gives, if there is one, by the `rules`, which may change at any time."""

    def __init__(self, name: str, archive: Callable[[], SqliteArchive | None], rules: Rules) -> None:
        self.rules = rules
        self._name = name
        self._archive = archive
        self._cares_for: SqliteArchive | None = None
        self._compaction = Compaction()
        self._looked_by: Rules | None = None
        self._looked_at_ns = 0
        self._complained: str | None = None

    def stored(self, groups: Iterable[Group]) -> None:
        """Points were stored. Those for times that were seen to already are seen to again."""
        horizon = self._compaction.horizon_ns
        for group in groups:
            if group.times[0] < horizon:
                self._compaction.late(group.metrics, min(group.times))
                self._looked_by = None

    async def run(self) -> None:
        """Do rounds until cancelled."""
        while True:
            await asyncio.sleep(PAUSE_S)
            archive = self._archive()
            if archive is None:
                continue
            try:
                await self.round(archive)
            except StorageError as error:
                self._start_anew()
                self._complain(error)
            else:
                self._complained = None

    async def round(self, archive: SqliteArchive) -> None:
        """Do all that is to be done by now. Raises StorageError; then nothing is half done."""
        if archive is not self._cares_for:
            self._start_anew()
            self._cares_for = archive
        rules, now_ns = self.rules, time.time_ns()
        done = await self._steps(archive, lambda connection: self._compaction.step(connection, now_ns - rules.hot_ns))
        window = now_ns // WINDOW_NS
        if rules != self._looked_by or window != self._looked_at_ns // WINDOW_NS:
            expiry = Expiry(now_ns, rules.retention)
            self._looked_by, self._looked_at_ns = rules, now_ns
            done += await self._steps(archive, expiry.step)
        if done:
            await self._steps(archive, lambda connection: vacuum_step(connection) or None)
            await archive.database.run(checkpoint)
            archive.size_bytes = archive.database.size_bytes

    async def _steps(self, archive: SqliteArchive, step: Step) -> int:
        """Do steps until there is nothing left to do; what they did in all."""
        done = 0
        while True:
            begin = time.monotonic()
            part = await archive.database.write(step)
            if part is None:
                return done
            done += part
            await asyncio.sleep((time.monotonic() - begin) * (1 / SHARE_OF_TIME - 1))

    def _start_anew(self) -> None:
        """What was remembered of a transaction that failed, or of another archive, is worth nothing."""
        self._compaction = Compaction()
        self._looked_by = None
        self._cares_for = None

    def _complain(self, error: StorageError) -> None:
        """Once per cause."""
        cause = gist(error)
        if cause != self._complained:
            self._complained = cause
            logger.warning("%s: old points are not compacted or removed for now: %s", self._name, error)
