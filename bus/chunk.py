# SPDX-License-Identifier: MIT
"""Chunks: the points of one metric as two columns.

`ChunkBuffer` is the writing end, one per metric of a source: points are appended to plain lists, which
costs 40 ns where arrays cost 130. `Chunk` is the reading end: two arrays of 8-byte numbers, made once.
"""

from __future__ import annotations

import sys
from array import array
from collections.abc import Iterator
from dataclasses import dataclass

from bus.timestamp import Timestamp

MAX_NS = 2**63 - 1
"""The last time that a column can hold: 2262-04-11."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """Points of one metric, oldest first.

    `times` are int64 nanoseconds since the Unix epoch, strictly increasing; `values` are float64, as many
    as there are times; NaN means "measured, no answer".
    """

    metric: str
    times: array[int]
    values: array[float]

    def __len__(self) -> int:
        return len(self.times)

    def points(self) -> Iterator[tuple[Timestamp, float]]:
        """The points one by one. Costs 20 times what the columns cost: for people and small chunks."""
        return zip(map(Timestamp, self.times), self.values, strict=True)


def check_chunk_size(size: int | None) -> int | None:
    """`size`, or a TypeError unless it is None or an integer, a ValueError if it is below 1."""
    if size is not None:
        if not isinstance(size, int) or isinstance(size, bool):
            raise TypeError(f"chunk_size must be None or a positive integer, not {type(size).__name__}")
        if size < 1:
            raise ValueError(f"chunk_size must be at least 1, not {size}")
    return size


class ChunkBuffer:
    """The unsent points of one metric of a source: what ``source["metric"]`` gives."""

    __slots__ = ("_chunk_size", "_has_own_size", "last_ns", "metric", "times", "values")

    def __init__(self, metric: str, chunk_size: int | None) -> None:
        self.metric = metric
        self._chunk_size = check_chunk_size(chunk_size)
        self._has_own_size = False
        self.last_ns = -MAX_NS - 1
        self.times: list[int] = []
        self.values: list[float] = []

    def __len__(self) -> int:
        return len(self.times)

    @property
    def chunk_size(self) -> int | None:
        """How many points make the chunk ready to be sent; None: only `flush()` sends.

        It is the source's until it is set here. Raises TypeError for anything but None or an integer,
        ValueError below 1.
        """
        return self._chunk_size

    @chunk_size.setter
    def chunk_size(self, size: int | None) -> None:
        self._chunk_size = check_chunk_size(size)
        self._has_own_size = True

    def inherit(self, chunk_size: int | None) -> None:
        """Take over the chunk size of the source, which has changed, unless this metric has its own."""
        if not self._has_own_size:
            self._chunk_size = chunk_size

    @property
    def is_ready(self) -> bool:
        """True if the chunk holds its `chunk_size` of points."""
        size = self._chunk_size
        return size is not None and len(self.times) >= size

    def append(self, time_ns: int, value: float) -> None:
        """Add one point. Raises ValueError unless it is later than every point before it.

        Raises TypeError for a value that is no number (text is none), ValueError for one that float64 cannot
        hold. Nothing is added then. 0.2 µs.
        """
        if not self.last_ns < time_ns <= MAX_NS:
            raise self.bad_time(time_ns)
        number = value if type(value) is float else self._to_float(value)
        self.times.append(time_ns)
        self.values.append(number)
        self.last_ns = time_ns

    def _to_float(self, value: float) -> float:
        if not isinstance(value, str | bytes | bytearray):  # which `float` would read
            try:
                return float(value)
            except OverflowError:
                raise ValueError(f"{self.metric}: a value of that size does not fit a float64") from None
            except (TypeError, ValueError):
                pass  # answered below
        raise TypeError(f"{self.metric}: a value must be a number, not {type(value).__name__}")

    def extend(self, times: array[int], values: array[float]) -> None:
        """Add columns whose times are known to increase. Raises ValueError unless they begin late enough."""
        if times[0] <= self.last_ns:
            raise self.bad_time(times[0])
        self.times += times
        self.values += values
        self.last_ns = times[-1]

    def take(self) -> tuple[list[int], list[float]]:
        """All points, swapped out: what arrives from now on belongs to the next chunk."""
        taken = self.times, self.values
        self.times, self.values = [], []
        return taken

    def bad_time(self, time_ns: int) -> ValueError:
        """The error for a point at a time that cannot follow the points before it."""
        if abs(time_ns) > MAX_NS:
            return ValueError(f"{self.metric}: {time_ns} ns is not a time that int64 nanoseconds can hold")
        return ValueError(
            f"{self.metric}: {Timestamp(time_ns)} is not later than the last point, {Timestamp(self.last_ns)}: "
            "points of a metric must strictly increase in time"
        )


def pack_column(column: array[int] | array[float]) -> bytes:
    """The bytes of a column, little-endian, 8 for each number."""
    if sys.byteorder == "big":
        column = column[:]
        column.byteswap()
    return column.tobytes()


def unpack_ints(packed: bytes) -> array[int]:
    """The int64 numbers in bytes whose length is a multiple of 8."""
    column = array("q", packed)
    if sys.byteorder == "big":
        column.byteswap()
    return column


def unpack_floats(packed: bytes) -> array[float]:
    """The float64 numbers in bytes whose length is a multiple of 8."""
    column = array("d", packed)
    if sys.byteorder == "big":
        column.byteswap()
    return column
