# SPDX-License-Identifier: MIT
"""What `agent up` knows about its families: counted from the messages that they send."""

import time
from collections import deque
from dataclasses import dataclass
from pathlib import Path

from agents.cli.tap import frame_of
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
        self.newest: dict[str, float] = {}
        """By name without the source's prefix, in the order of the messages."""
        self._arrivals: deque[tuple[float, int]] = deque()

    def on_data(self, message: Message) -> None:
        """Count one message."""
        frame = frame_of(message)
        prefix = message.routing_key + "."
        for chunk in frame.chunks():
            self.newest[chunk.metric.removeprefix(prefix)] = chunk.values[-1]
        self.points += frame.points
        self._arrivals.append((time.monotonic(), frame.points))

    def value(self, name: str) -> float | None:
        """The newest value of a metric, or for ``*.NAME`` the sum over all devices but the loopback; None if none."""
        if not name.startswith("*."):
            return self.newest.get(name)
        of_devices = [
            value for found, value in self.newest.items() if found.partition(".")[2] == name[2:] and found[:3] != "lo."
        ]
        return sum(of_devices) if of_devices else None

    def unit_of(self, name: str) -> str:
        """The unit of a metric, empty if the family does not say."""
        metric = self._table.find(name)
        return metric.unit if metric is not None else ""

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


def human_bytes(count: float) -> str:
    """``1.5 MB``: decimal units, three digits."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" or count >= 100 else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"
