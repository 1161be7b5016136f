# SPDX-License-Identifier: MIT
"""What can be asked of an archive, whatever it is made of: a file, a database, or one at the other end of the bus.

    History           metrics, points, aggregates, newest values: read over the bus, too (`HistoryClient`)
    └── Archive        ... and events, gaps, and everything that is written

Every implementation passes the same suite (tests/sinks/conformance.py).
"""

from __future__ import annotations

from array import array
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from bus.aggregates import Aggregates
from bus.chunk import MAX_NS, Chunk
from bus.frame import Group

MIN_NS = -MAX_NS - 1
PAGE_POINTS = 100_000
"""About how many points `History.points` hands over at a time."""


class History(Protocol):
    """What an archive can be asked. Every range is start_ns <= time < end_ns, in ns since 1970.

    Metrics that are not known have no points: that is no error. Raises StorageError (files, databases) or
    another HostbusError (the bus).
    """

    async def metrics(self, pattern: str = "#") -> dict[str, dict[str, Any]]:
        """The metrics that the name or pattern selects, sorted, with their metadata ({} if not known)."""

    def points(self, metric: str, start_ns: int = MIN_NS, end_ns: int = MAX_NS) -> AsyncIterator[Chunk]:
        """The points of a metric, oldest first, in pages that are never empty; some may expire meanwhile."""

    async def aggregates(self, metric: str, start_ns: int, end_ns: int, every_ns: int | None = None) -> Aggregates:
        """Aggregates over buckets of `every_ns`, each beginning at a multiple of it; None: at most one, over all.

        The first and the last bucket hold only what lies in the range, as far as points or fine enough
        aggregates are still there. Reads a number of rows bounded by the number of buckets.
        """

    async def last(self, pattern: str = "#") -> dict[str, tuple[int, float]]:
        """The newest (time in ns, value) of each metric that the name or pattern selects; sorted by name."""

    async def aclose(self) -> None:
        """Let go of the file or connection. May be called twice."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MissingFrames:
    """Frames `first` to `last` of a source's routing key never came; `epoch` and `noticed` in ns."""

    source: str
    key: str
    epoch: int
    first: int
    last: int
    noticed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Something that happened at a time (ns), or lasted until `end`: a mark, an alert, a command that ran.

    `source` says who recorded it (``manual``, ``run``, ...); `color` and `dash` are how it is drawn. `id` is
    given by the archive; 0 in one that is not stored yet.
    """

    time: int
    label: str
    end: int | None = None
    source: str = "manual"
    host: str = ""
    color: str = "#888888"
    dash: str = "dash"
    metadata: Mapping[str, Any] = field(default_factory=dict)
    id: int = 0


class Archive(History, Protocol):
    """A store of points, at most one per metric and time."""

    async def insert(self, groups: Iterable[Group], missing: Sequence[MissingFrames] = ()) -> int:
        """Store points, and what is missing, all or nothing: when it returns they are on the disk.

        A point whose metric and time are there already is ignored, so that the same batch may come again.
        Returns the number of new points. Raises StorageBusy if it may work later, StorageError if not.
        """

    async def set_metadata(self, metadata: Mapping[str, Mapping[str, Any]]) -> None:
        """Remember the metadata (JSON objects) of metrics; names that have no points are ignored."""

    async def missing(self, since_ns: int = MIN_NS) -> list[MissingFrames]:
        """What is known to be missing and was noticed since then, in the order in which it was noticed."""

    async def add_event(self, event: Event) -> int:
        """Store an event; its id. One that equals a stored one in all but its id is not stored again."""

    async def events(self, start_ns: int = MIN_NS, end_ns: int = MAX_NS, *, source: str | None = None) -> list[Event]:
        """The events that begin before `end_ns` and do not end before `start_ns`, oldest first."""


async def read_points(history: History, metric: str, start_ns: int = MIN_NS, end_ns: int = MAX_NS) -> Chunk:
    """All points of a metric in one chunk, which may be empty: for ranges that are known to fit into memory."""
    times, values = array("q"), array("d")
    async for page in history.points(metric, start_ns, end_ns):
        times += page.times
        values += page.values
    return Chunk(metric, times, values)
