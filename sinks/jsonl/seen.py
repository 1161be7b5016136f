# SPDX-License-Identifier: MIT
"""Which frames were written already, so that none is written twice when the broker delivers it again.

A file of lines cannot ignore a point that it has, as an archive does. But sources number their frames: of each
source and routing key the ranges of numbers that were written are remembered, mostly a single one. Frames
without a number (MetricQ) are known by the times of their points, which increase in each metric.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from bus.chunk import Chunk
from bus.frame import Frame

MAX_KEYS = 100_000
MAX_EPOCHS = 4
"""Of a source: those it had before are forgotten."""
MAX_RANGES = 1000

K = TypeVar("K")
V = TypeVar("V")
Ranges = list[list[int]]
Epochs = dict[int, Ranges]


@dataclass(slots=True)
class Knowledge:
    """What was written: by (source, key) and epoch the ranges of sequence numbers; by metric the last time."""

    frames: dict[tuple[str, str], Epochs] = field(default_factory=dict)
    times: dict[str, int] = field(default_factory=dict)

    def learn(self, more: Knowledge) -> None:
        """Take over what is newer. What has not come up for long is forgotten when there is too much."""
        _renew(self.frames, more.frames)
        _renew(self.times, more.times)

    def to_json(self) -> dict[str, Any]:
        """As a JSON value."""
        seen = [[source, key, list(epochs.items())] for (source, key), epochs in self.frames.items()]
        return {"seen": seen, "times": self.times}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Knowledge:
        """From what `to_json` made. Raises KeyError, TypeError or ValueError for anything else."""
        frames = {(source, key): dict(epochs) for source, key, epochs in value["seen"]}
        return cls(frames, dict(value["times"]))


def new_chunks(known: Knowledge, frames: Sequence[Frame]) -> tuple[list[Chunk], Knowledge, int]:
    """The chunks that are not known yet, what will be known once they are written, and how many frames were known."""
    chunks: list[Chunk] = []
    news = Knowledge()
    again = 0
    for frame in frames:
        if frame.sequence is None:
            for chunk in frame.chunks():
                later = _later(chunk, news.times.get(chunk.metric, known.times.get(chunk.metric)))
                if later is not None:
                    chunks.append(later)
                    news.times[chunk.metric] = later.times[-1]
            continue
        name = (frame.source, frame.key)
        epochs = news.frames.get(name)
        if epochs is None:
            epochs = {epoch: [*map(list, ranges)] for epoch, ranges in known.frames.get(name, {}).items()}
        if add(epochs.setdefault(frame.epoch, []), frame.sequence):
            while len(epochs) > MAX_EPOCHS:
                del epochs[min(epochs)]
            news.frames[name] = epochs
            chunks += frame.chunks()
        else:
            again += 1
    return chunks, news, again


def add(ranges: Ranges, number: int) -> bool:
    """Put a number into sorted ranges [first, last] that do not touch each other; False if it is there."""
    at = bisect_right(ranges, [number, number])
    # The range that begins at or before the number is the one before, or this one if it begins with it.
    if at < len(ranges) and ranges[at][0] == number:
        return False
    before = ranges[at - 1] if at else None
    if before is not None and number <= before[1]:
        return False
    touches_before = before is not None and before[1] == number - 1
    touches_after = at < len(ranges) and ranges[at][0] == number + 1
    if before is not None and touches_before and touches_after:
        before[1] = ranges.pop(at)[1]
    elif before is not None and touches_before:
        before[1] = number
    elif touches_after:
        ranges[at][0] = number
    else:
        ranges.insert(at, [number, number])
        del ranges[: max(0, len(ranges) - MAX_RANGES)]
    return True


def _renew(mine: dict[K, V], others: dict[K, V]) -> None:
    for key, value in others.items():
        mine.pop(key, None)  # so that it stands last
        mine[key] = value
    while len(mine) > MAX_KEYS:
        del mine[next(iter(mine))]


def _later(chunk: Chunk, last: int | None) -> Chunk | None:
    """The points after a time; None if there are none."""
    start = 0 if last is None else bisect_left(chunk.times, last + 1)
    if start == 0:
        return chunk
    times: array[int] = chunk.times[start:]
    return Chunk(chunk.metric, times, chunk.values[start:]) if times else None
