# SPDX-License-Identifier: MIT
"""The unsent points of all metrics of a source, and the rules by which they are accepted.

The hot path of every source: no coroutine, log call or object per point. Measured in tests/bench.
"""

from array import array
from collections.abc import Callable, Iterator, Mapping
from operator import lt
from typing import Any

from bus.chunk import ChunkBuffer, ChunkSize
from bus.encoder import Column
from bus.names import check_metric


class Buffers:
    """One chunk per metric; tells by `on_ready` that there is something to take.

    `points` counts what is buffered. Past `limit` points all chunks are ready, those with a chunk size of
    None too: memory stays bounded, and what happens to the surplus is the outbox's decision.
    """

    chunk_size = ChunkSize()

    def __init__(self, chunk_size: int | None, limit: int, on_ready: Callable[[], None]) -> None:
        self.chunk_size = chunk_size
        self._limit = limit
        self._on_ready = on_ready
        self._chunks: dict[str, ChunkBuffer] = {}
        self._ready: list[ChunkBuffer] = []
        self.points = 0

    def __getitem__(self, metric: str) -> ChunkBuffer:
        """The chunk of a metric, made on first use with the chunk size of the source."""
        chunk = self._chunks.get(metric)
        if chunk is None:
            chunk = self._chunks[check_metric(metric)] = ChunkBuffer(metric, self.chunk_size)
        return chunk

    def __contains__(self, metric: str) -> bool:
        return metric in self._chunks

    def forget(self, metric: str) -> None:
        """Drop a metric and what is buffered of it."""
        chunk = self._chunks.pop(metric, None)
        if chunk is not None:
            self.points -= len(chunk.take()[0])

    def set_chunk_size(self, chunk_size: int | None) -> None:
        """Change the chunk size of the source and of every metric it has."""
        self.chunk_size = chunk_size
        for chunk in self._chunks.values():
            chunk.chunk_size = chunk_size

    def sample(self, time_ns: int, values: Mapping[str, float]) -> None:
        """One point each for many metrics.

        Raises ValueError or TypeError for the first point that cannot be taken; all others are kept.
        """
        chunks = self._chunks
        ready = self._ready
        refused: Exception | None = None
        for metric, value in values.items():
            try:
                chunk = chunks.get(metric) or self[metric]
                chunk.append(time_ns, value)
            except (ValueError, TypeError) as error:
                refused = refused or error
                continue
            self.points += 1
            if chunk.is_ready:
                ready.append(chunk)
        self._announce()
        if refused is not None:
            raise refused

    def add(self, metric: str, time_ns: int, value: float) -> None:
        """One point. Raises ValueError unless it is later than the one before it."""
        chunk = self._chunks.get(metric) or self[metric]
        chunk.append(time_ns, value)
        self.points += 1
        if chunk.is_ready:
            self._ready.append(chunk)
            self._announce()
        elif self.points > self._limit:
            self._announce()

    def add_many(self, metric: str, times: Any, values: Any) -> None:
        """Columns of one metric, any buffers. Raises ValueError unless all times strictly increase."""
        time_column = to_column("q", times, "times")
        value_column = to_column("d", values, "values")
        if len(time_column) != len(value_column):
            raise ValueError(f"{metric}: {len(time_column)} times but {len(value_column)} values")
        if not time_column:
            return
        if not all(map(lt, time_column, time_column[1:])):
            raise ValueError(f"{metric}: the times must strictly increase")
        chunk = self[metric]
        chunk.extend(time_column, value_column)
        self.points += len(time_column)
        if chunk.is_ready:
            self._ready.append(chunk)
        self._announce()

    def _announce(self) -> None:
        if self.points > self._limit:
            self._ready.extend(self._chunks.values())
        if self._ready:
            self._on_ready()

    def take_ready(self) -> list[Column]:
        """The chunks that are ready, swapped out."""
        ready, self._ready = self._ready, []
        return self._take(iter(ready))

    def take_all(self, *, manual: bool = True) -> list[Column]:
        """All chunks; without `manual`, not those that only `flush()` sends."""
        self._ready = []
        return self._take(chunk for chunk in self._chunks.values() if manual or chunk.chunk_size is not None)

    def _take(self, chunks: Iterator[ChunkBuffer]) -> list[Column]:
        columns = []
        for chunk in chunks:
            times, values = chunk.take()
            if times:
                columns.append((chunk.metric, times, values))
                self.points -= len(times)
        return columns


def to_column(typecode: str, numbers: Any, what: str) -> "array[Any]":
    """Numbers as an array of 8 bytes each: an array as it is, a buffer of the same format by one copy.

    `typecode` is ``q`` (int64) or ``d`` (float64). Other buffers and sequences are converted number by number.
    Raises TypeError for what does not hold numbers, ValueError for more than one dimension.
    """
    if isinstance(numbers, array) and numbers.typecode == typecode:
        return numbers
    formats = ("q", "l") if typecode == "q" else ("d",)
    try:
        view = memoryview(numbers)
    except (TypeError, ValueError):
        try:
            return array(typecode, numbers)
        except TypeError as error:
            hint = "; for datetime64 use .astype('int64')" if what == "times" else ""
            raise TypeError(f"{what} must be numbers, 8 bytes each at best: {error}{hint}") from None
    if view.ndim != 1:
        raise ValueError(f"{what} must have one dimension, not {view.ndim}")
    column: array[Any] = array(typecode)
    if view.format in formats and view.itemsize == 8:
        column.frombytes(view if view.contiguous else view.tobytes())
    else:
        column.fromlist(view.tolist())
    return column
