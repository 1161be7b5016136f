# SPDX-License-Identifier: MIT
"""What `agent up` knows about its families: counted from the messages that they send."""

import time
from collections import deque
from dataclasses import dataclass
from fnmatch import fnmatchcase
from math import isnan
from pathlib import Path

from agents.cli.up.tap import frame_of
from agents.metric import MetricTable
from bus.transport.base import Message

RATE_WINDOW_S = 10.0


class FamilyWatch:
    """The points of one family: how many, how fast, and the newest of every metric.

    Args:
        family: its name
        table: its metrics, for their units
    """

    def __init__(self, family: str, table: MetricTable) -> None:
        self.family = family
        self._table = table
        self.points = 0
        self.newest_ns = 0
        """The time of the newest point."""
        self.newest: dict[str, float] = {}
        """By name without the source's prefix, in the order of the messages."""
        self._arrivals: deque[tuple[float, int]] = deque()
        self._matches: dict[str, tuple[int, list[str]]] = {}

    def on_data(self, message: Message) -> None:
        """Count one message."""
        frame = frame_of(message)
        prefix = message.routing_key + "."
        for chunk in frame.chunks():
            self.newest[chunk.metric.removeprefix(prefix)] = chunk.values[-1]
            self.newest_ns = max(self.newest_ns, chunk.times[-1])
        self.points += frame.points
        self._arrivals.append((time.monotonic(), frame.points))

    def value(self, name: str) -> float | None:
        """The newest value of a metric; for a glob like ``*.read_bytes`` the sum over all devices, None without any.

        ``max:*.temperature`` is the highest instead. A ``*`` stays within its word; the loopback is left out.
        """
        kind, _, glob = name.rpartition(":")
        if "*" not in glob:
            return self.newest.get(glob)
        values = [value for value in map(self.newest.__getitem__, self._matching(glob)) if not isnan(value)]
        if not values:
            return None
        return max(values) if kind == "max" else sum(values)

    def unit_of(self, name: str) -> str:
        """The unit of a metric or a glob, empty if the family does not say."""
        glob = name.rpartition(":")[2]
        metric = self._table.find(next(iter(self._matching(glob)), glob))
        return metric.unit if metric is not None else ""

    def _matching(self, glob: str) -> list[str]:
        """Worked out again only when there are new names: the table asks twice a second."""
        known, matching = self._matches.get(glob, (0, []))
        if known != len(self.newest):
            words = glob.split(".")
            found = {name: name.split(".") for name in self.newest}
            matching = [
                name
                for name, its in found.items()
                if len(its) == len(words) and its[0] != "lo" and all(map(fnmatchcase, its, words))
            ]
            self._matches[glob] = (len(self.newest), matching)
        return matching

    def rate(self) -> float:
        """Points per second over the last `RATE_WINDOW_S`, or since the message before the last if that is longer."""
        arrivals = self._arrivals
        while len(arrivals) > 2 and arrivals[0][0] < arrivals[-1][0] - RATE_WINDOW_S:
            arrivals.popleft()
        if len(arrivals) < 2:
            return 0.0
        # The first message ends the span before the window, so its points are not counted.
        points = sum(points for _, points in arrivals) - arrivals[0][1]
        return points / max(arrivals[-1][0] - arrivals[0][0], 1e-3)


@dataclass(frozen=True, slots=True)
class ArchiveFile:
    """The archive's file and what SQLite keeps beside it."""

    path: Path

    def size(self) -> int:
        """Bytes on disk, the write-ahead log included."""
        return sum(file.stat().st_size for file in (self.path, Path(f"{self.path}-wal")) if file.exists())
