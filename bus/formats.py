# SPDX-License-Identifier: MIT
"""What a file format is, and what every file must keep to be imported.

    Format            its name, its endings
    ├── writer()       a `Writer`: columns in, bytes out, for files that are written piece by piece
    └── read()         the file as `Batch`es, each with the position at which reading can go on

Formats are found by name: the entry points of the group ``hostbus.formats`` are objects with the attributes of
`Format`; other packages may add theirs. Nothing here touches a file.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import tzinfo
from operator import lt
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import msgspec

from bus.archive import Event, MissingFrames
from bus.chunk import MAX_NS, Chunk
from bus.errors import StorageError
from bus.names import are_metrics, is_metric
from bus.timestamp import Timestamp

GROUP = "hostbus.formats"


@dataclass(frozen=True, slots=True, kw_only=True)
class Extras:
    """What an archive holds besides points."""

    metadata: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    events: Sequence[Event] = ()
    missing: Sequence[MissingFrames] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """A part of a file, in its order.

    There is at most one chunk of each metric. `position` is a JSON value from which reading goes on behind this
    batch; `read_bytes` is how much of the file has been read. ``locate(metric, n)`` says where in the file the
    n-th point (from 0) of that metric in this batch stands, like ``line 17``.
    """

    chunks: Sequence[Chunk] = ()
    extras: Extras = Extras()
    position: Any
    read_bytes: int
    locate: Callable[[str, int], str]

    @property
    def points(self) -> int:
        """The number of points."""
        return sum(map(len, self.chunks))


class Writer(Protocol):
    """Turns columns into the bytes of a file. Whatever comes out is written in this order, nothing twice."""

    @property
    def state(self) -> Any:
        """A JSON value: given to `Format.writer`, it makes one that goes on here. Valid after `begin` and `flush`."""

    def begin(self) -> bytes:
        """How the file begins."""

    def points(self, chunk: Chunk, metadata: Mapping[str, Any]) -> bytes:
        """Points of one metric; metrics come in the order of `Format.order`, each with its points in one run."""

    def flush(self) -> bytes:
        """What was held back."""

    def end(self, extras: Extras) -> Iterator[bytes]:
        """How the file ends, with as much of the extras as the format `carries`."""


class Format(Protocol):
    """One kind of file.

    `carries` names the fields of `Extras` that it can hold. If it `assembles`, the bytes of its writer are not
    yet the file: `assemble` makes it of them. A format that is only read has ``writable = False``.
    """

    name: str
    suffixes: tuple[str, ...]
    carries: frozenset[str]
    writable: bool
    assembles: bool

    def order(self, metrics: Iterable[str]) -> list[str]:
        """The metrics in the order in which they have to be written."""

    def writer(self, state: Any = None) -> Writer:
        """A writer, at the beginning or where one with this state was. Raises StorageError if it cannot work here."""

    def assemble(self, part: BinaryIO, out: BinaryIO) -> None:
        """Make the file of what the writer wrote; reads `part` from its beginning. May take long: for a thread."""

    def read(self, path: Path, *, start: Any = None, zone: tzinfo | None = None) -> AsyncIterator[Batch]:
        """The file from the beginning or a position, never more of it in memory than a few batches.

        `zone` is that of times without one; None: they are refused. Raises StorageError, which names the file,
        the place in it, and what would be right. Never writes to the file or beside it.
        """


class Rules:
    """What a file must keep: allowed names, in each metric times that strictly increase, extras that can be kept.

    Remembers the last time of every metric. `any_order` lifts the rule for times.
    """

    def __init__(self, path: Path, *, any_order: bool = False) -> None:
        self._path = path
        self._any_order = any_order
        self._last: dict[str, int] = {}

    @property
    def metrics(self) -> int:
        """How many metrics have had points."""
        return len(self._last)

    def check(self, batch: Batch) -> None:
        """Raises StorageError for the first point of the batch that breaks a rule."""
        self._check_names([chunk.metric for chunk in batch.chunks], batch)
        self._check_names(list(batch.extras.metadata), None)
        self._check_extras(batch.extras)
        for chunk in batch.chunks:
            times = chunk.times
            last = self._last.get(chunk.metric)
            if not self._any_order and (
                (last is not None and times[0] <= last) or not all(map(lt, times, memoryview(times)[1:]))
            ):
                raise self._disorder(chunk, last, batch)
            self._last[chunk.metric] = times[-1]

    def _check_names(self, names: list[str], batch: Batch | None) -> None:
        if not names or are_metrics(names):
            return
        wrong = next(name for name in names if not is_metric(name))
        place = batch.locate(wrong, 0) if batch else "metadata"
        raise StorageError(
            f"{self._path}: {place}: {wrong[:300]!r} is not a metric name: words of A-Z a-z 0-9 _ - joined by dots, "
            "at most 255 bytes"
        )

    def _check_extras(self, extras: Extras) -> None:
        for metric, about in extras.metadata.items():
            self._check_texts(f"metadata of {metric}", about)
        for event in extras.events:
            place = f"event {event.label[:100]!r}"
            self._check_texts(place, event)
            self._check_int64(place, event.time, event.time if event.end is None else event.end)
        for missing in extras.missing:
            place = f"missing frames of {missing.source[:100]!r}"
            self._check_texts(place, [missing.source, missing.key])
            self._check_int64(place, missing.epoch, missing.first, missing.last, missing.noticed)

    def _check_texts(self, place: str, value: Any) -> None:
        try:
            msgspec.json.encode(value)
        except (ValueError, RecursionError):  # half of a character; a number or a depth that JSON does not have
            raise StorageError(f"{self._path}: {place}: cannot be kept as JSON in UTF-8") from None

    def _check_int64(self, place: str, *numbers: int) -> None:
        if not all(-MAX_NS - 1 <= number <= MAX_NS for number in numbers):
            raise StorageError(f"{self._path}: {place}: a number is not between -2**63 and 2**63 - 1")

    def _disorder(self, chunk: Chunk, last: int | None, batch: Batch) -> StorageError:
        befores = [chunk.times[0] - 1 if last is None else last, *chunk.times[:-1]]
        number = next(n for n, (before, time) in enumerate(zip(befores, chunk.times, strict=True)) if time <= before)
        before, time = befores[number], chunk.times[number]
        what = "comes twice" if time == before else f"is not later than the point before it, {Timestamp(before)}"
        return StorageError(
            f"{self._path}: {batch.locate(chunk.metric, number)}: {Timestamp(time)} of {chunk.metric} {what}: "
            "the times of a metric must increase"
        )
