# SPDX-License-Identifier: MIT
"""The unsent points of all metrics of a source, and the rules by which they are accepted.

The hot path of every source: no coroutine, log call or object per point. Measured in tests/bench.
"""

from array import array
from collections.abc import Callable, Iterator, Mapping
from itertools import pairwise
from operator import index, lt
from typing import Any

from bus.chunk import ChunkBuffer, check_chunk_size
from bus.encoder import Column
from bus.names import check_metric
from bus.timestamp import Timestamp

_SAME_FORMATS = {"q": ("q", "l"), "d": ("d",)}
"""By typecode of a column, the formats of buffers whose bytes are those of the column."""


class Buffers:
    """One chunk per metric; tells by `on_ready` that there is something to take.

    `points` counts what is buffered. Past `limit` points all chunks are ready, those with a chunk size of
    None too, and `is_full` says that they must be taken at once: memory stays bounded, and what happens to
    the surplus is the outbox's decision.
    """

    def __init__(self, chunk_size: int | None, limit: int, on_ready: Callable[[], None]) -> None:
        self._chunk_size = check_chunk_size(chunk_size)
        self._limit = limit
        self._on_ready = on_ready
        self._chunks: dict[str, ChunkBuffer] = {}
        self._ready: list[ChunkBuffer] = []
        self.points = 0

    @property
    def chunk_size(self) -> int | None:
        """The chunk size of every metric that has not got one of its own."""
        return self._chunk_size

    @chunk_size.setter
    def chunk_size(self, size: int | None) -> None:
        self._chunk_size = check_chunk_size(size)
        for chunk in self._chunks.values():
            chunk.inherit(size)

    @property
    def is_full(self) -> bool:
        """True past the limit."""
        return self.points > self._limit

    def __getitem__(self, metric: str) -> ChunkBuffer:
        """The chunk of a metric, made on first use with the chunk size of the source."""
        chunk = self._chunks.get(metric)
        if chunk is None:
            chunk = self._chunks[check_metric(metric)] = ChunkBuffer(metric, self._chunk_size)
        return chunk

    def sample(self, time_ns: int, values: Mapping[str, float]) -> None:
        """One point each for many metrics.

        Raises ValueError or TypeError for the first point that cannot be taken; all others are kept.
        """
        time_ns = _whole(time_ns)
        chunks = self._chunks
        ready = self._ready
        refused: Exception | None = None
        for metric, value in values.items():
            try:
                chunk = chunks.get(metric)
                if chunk is None:
                    chunk = self[metric]
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
        """One point.

        Raises ValueError unless it is later than the one before it, TypeError for a value that is no number.
        """
        chunk = self._chunks.get(metric)
        if chunk is None:
            chunk = self[metric]
        chunk.append(time_ns if type(time_ns) is int else _whole(time_ns), value)
        self.points += 1
        if chunk.is_ready:
            self._ready.append(chunk)
            self._announce()
        elif self.points > self._limit:
            self._announce()

    def add_many(self, metric: str, times: Any, values: Any) -> None:
        """Columns of one metric, any buffers. Raises ValueError unless all times strictly increase."""
        chunk = self[metric]
        time_column = to_column("q", times, f"{metric}: the times")
        value_column = to_column("d", values, f"{metric}: the values")
        if len(time_column) != len(value_column):
            raise ValueError(f"{metric}: {len(time_column)} times but {len(value_column)} values")
        if not time_column:
            return
        if not all(map(lt, time_column, time_column[1:])):
            raise _not_increasing(metric, time_column)
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
            # A chunk may be there twice, if points came in after it was ready: it is empty the second time.
            times, values = chunk.take()
            if times:
                columns.append((chunk.metric, times, values))
                self.points -= len(times)
        return columns


def to_column(typecode: str, numbers: Any, what: str) -> "array[Any]":
    """Numbers as an array of 8 bytes each: an array as it is, a buffer of the same format byte by byte.

    `typecode` is ``q`` (int64) or ``d`` (float64). Other buffers and sequences are converted number by number.
    Raises TypeError for what does not hold numbers, ValueError for more than one dimension and for a number
    that 8 bytes cannot hold; both name `what` they are.
    """
    if isinstance(numbers, array) and numbers.typecode == typecode:
        return numbers
    try:
        view = memoryview(numbers)
    except (TypeError, ValueError):  # no buffer: a sequence, or numpy's datetime64
        view = None
    if view is not None:
        if view.ndim != 1:
            raise ValueError(f"{what} must have one dimension, not {view.ndim}")
        if view.format in _SAME_FORMATS[typecode]:
            column: array[Any] = array(typecode)
            column.frombytes(view.tobytes())
            return column
    try:
        return array(typecode, _items(numbers, view))
    except OverflowError as error:
        raise ValueError(f"{what}: a number does not fit 8 bytes: {error}") from None
    except TypeError as error:
        hint = "; whole nanoseconds are wanted, datetime64 gives them by .astype('int64')" if typecode == "q" else ""
        raise TypeError(f"{what} must be numbers, 8 bytes each at best: {error}{hint}") from None


def _items(numbers: Any, view: memoryview | None) -> Any:
    """What to convert one by one: plain Python numbers where a memoryview can make them, twice as fast."""
    if view is not None:
        try:
            return view.tolist()
        except NotImplementedError:  # float16, other byte orders: their owner knows what they are
            pass
    return numbers


def _whole(time_ns: int) -> int:
    """Whole nanoseconds, also from NumPy's integers. Raises TypeError for a float: half its digits are lost."""
    try:
        return index(time_ns)
    except TypeError:
        raise TypeError(f"a time must be a whole number of nanoseconds, not {time_ns!r}") from None


def _not_increasing(metric: str, times: "array[int]") -> ValueError:
    before, after = next(pair for pair in pairwise(times) if pair[0] >= pair[1])
    return ValueError(
        f"{metric}: {Timestamp(after)} is not later than the point before it, {Timestamp(before)}: "
        "points of a metric must strictly increase in time"
    )
