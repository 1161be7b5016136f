# SPDX-License-Identifier: MIT
"""JSON Lines: one object a line; a complete copy of an archive.

    {"metric":"web1.load.1m","time":1763719200000000000,"value":0.25}
    {"metric":"web1.load.1m","metadata":{"unit":"1"}}
    {"event":{"time":1763719200000000000,"label":"reboot"}}
    {"missing":{"source":"source-load-web1","key":"web1.load","epoch":1,"first":7,"last":9,"noticed":2}}

Times are nanoseconds since 1970; when read, ISO 8601 will do as well. JSON has no NaN and no infinity: they are
the texts "NaN", "Infinity" and "-Infinity"; null is read as NaN. Lines with ``frames`` are those by which
`JsonSink` finds its place again; readers pass over them.
"""

from __future__ import annotations

from array import array
from collections.abc import AsyncIterator, Iterator, Mapping
from datetime import tzinfo
from pathlib import Path
from typing import Annotated, Any

import msgspec
from msgspec import UNSET, Meta, UnsetType

from bus.archive import Event, MissingFrames
from bus.chunk import Chunk
from bus.errors import StorageError
from bus.formats import Batch, Extras
from sinks.formats.base import PlainWriter, TextFormat
from sinks.formats.files import Block, bad, blocks, in_thread
from sinks.formats.rows import chunks_of, nth_row
from sinks.formats.texts import QUOTED_SPECIAL, Clock, to_value, value_texts

_Int64 = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]
_ENCODER = msgspec.json.Encoder()


class EventLine(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True, kw_only=True):
    """An event in a file; what is left out is as in `Event`."""

    time: int | str
    label: str
    end: int | str | None = None
    source: str = "manual"
    host: str = ""
    color: str = "#888888"
    dash: str = "dash"
    metadata: dict[str, Any] = {}

    @classmethod
    def of(cls, event: Event) -> EventLine:
        """The line of an event."""
        return cls(
            time=event.time,
            label=event.label,
            end=event.end,
            source=event.source,
            host=event.host,
            color=event.color,
            dash=event.dash,
            metadata=dict(event.metadata),
        )

    def event(self, clock: Clock) -> Event:
        """The event of a line. Raises ValueError for a time that is none."""
        return Event(
            time=time_ns(self.time, clock),
            label=self.label,
            end=None if self.end is None else time_ns(self.end, clock),
            source=self.source,
            host=self.host,
            color=self.color,
            dash=self.dash,
            metadata=self.metadata,
        )


class MissingLine(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """Frames that never came."""

    source: str
    key: str
    epoch: _Int64
    first: _Int64
    last: _Int64
    noticed: _Int64


class _Line(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    metric: str | UnsetType = UNSET
    time: int | str | UnsetType = UNSET
    value: float | str | UnsetType | None = UNSET
    metadata: dict[str, Any] | UnsetType = UNSET
    event: EventLine | UnsetType = UNSET
    missing: MissingLine | UnsetType = UNSET
    frames: msgspec.Raw | UnsetType = UNSET


_LINES = msgspec.json.Decoder(_Line)


def time_ns(time: int | str, clock: Clock) -> int:
    """Nanoseconds, given as such or as ISO 8601. Raises ValueError."""
    if isinstance(time, str):
        return clock.ns(time)
    if not -(2**63) <= time < 2**63:
        raise ValueError(f"the time {time} is not between 1677-09-21 and 2262-04-11, in ns since 1970")
    return time


def point_lines(metric: str, times: array[int], values: array[float]) -> bytes:
    """Lines of points. 0.35 µs each."""
    beginning = f'{{"metric":"{metric}","time":'
    texts = value_texts(values, QUOTED_SPECIAL)
    return "".join(
        [f'{beginning}{time},"value":{value}}}\n' for time, value in zip(times, texts, strict=True)]
    ).encode()


def missing_line(missing: MissingFrames) -> bytes:
    """A line that says which frames never came."""
    return _ENCODER.encode({"missing": missing}) + b"\n"


class JsonLinesWriter(PlainWriter):
    """Lines need no memory of those before them."""

    def points(self, chunk: Chunk, metadata: Mapping[str, Any]) -> bytes:
        """A line for each point."""
        return point_lines(chunk.metric, chunk.times, chunk.values)

    def end(self, extras: Extras) -> Iterator[bytes]:
        """The metadata, which counts for metrics that have points; then events and missing frames."""
        for metric, about in extras.metadata.items():
            if about:
                yield _ENCODER.encode({"metric": metric, "metadata": about}) + b"\n"
        for event in extras.events:
            yield _ENCODER.encode({"event": EventLine.of(event)}) + b"\n"
        for missing in extras.missing:
            yield missing_line(missing)


class JsonLines(TextFormat):
    """The format ``jsonl``."""

    name = "jsonl"
    suffixes: tuple[str, ...] = (".jsonl", ".ndjson")
    carries = frozenset({"metadata", "events", "missing"})

    def writer(self, state: Any = None) -> JsonLinesWriter:
        """A writer."""
        return JsonLinesWriter()

    def read(self, path: Path, *, start: Any = None, zone: tzinfo | None = None) -> AsyncIterator[Batch]:
        """The lines in blocks; a position is an offset and a line."""
        return in_thread(_batches(path, start, Clock(zone)))


FORMAT = JsonLines()


def _batches(path: Path, start: list[int] | None, clock: Clock) -> Iterator[Batch]:
    for block in blocks(path, start):
        try:
            batch = _batch(_decode(block), block, clock)
        except (ValueError, OverflowError, RecursionError) as error:  # a MsgspecError is a ValueError
            raise _line_error(path, block, clock) or bad(path, f"line {block.first_line} ff.", str(error)) from None
        yield batch


def _decode(block: Block) -> list[_Line]:
    lines = _LINES.decode_lines(block.data)
    if len(lines) == block.lines:
        return lines
    # Empty lines, which do no harm; or objects that do not keep to one line each, which this refuses.
    return [_LINES.decode(text) for _, text in _numbered(block)]


def _batch(lines: list[_Line], block: Block, clock: Clock) -> Batch:
    metrics: list[str] = []
    times: list[int] = []
    values: list[float] = []
    metadata: dict[str, Mapping[str, Any]] = {}
    events: list[Event] = []
    missing: list[MissingFrames] = []
    for line in lines:
        metric, time, value = line.metric, line.time, line.value
        if metric is not UNSET and time is not UNSET and value is not UNSET:
            metrics.append(metric)
            times.append(time if type(time) is int else time_ns(time, clock))
            values.append(value if type(value) is float else to_value(value))
        elif metric is not UNSET and line.metadata is not UNSET:
            metadata[metric] = line.metadata
        elif line.event is not UNSET:
            events.append(line.event.event(clock))
        elif line.missing is not UNSET:
            missing.append(MissingFrames(**msgspec.structs.asdict(line.missing)))
        elif line.frames is UNSET:
            raise ValueError('needs "metric", "time" and "value"; or "metric" and "metadata"; or "event"; or "missing"')
    return Batch(
        chunks=chunks_of(metrics, times, values),
        extras=Extras(metadata=metadata, events=events, missing=missing),
        position=block.position,
        read_bytes=block.read_bytes,
        locate=lambda metric, number: _locate(block, metric, number),
    )


def _locate(block: Block, metric: str, number: int) -> str:
    """Where the n-th point of a metric stands, found by reading the block again."""
    points = [(line, read) for line, text in _numbered(block) if (read := _LINES.decode(text)).value is not UNSET]
    row = nth_row([str(read.metric) for _, read in points], metric, number)
    return f"line {points[row][0]}"


def _line_error(path: Path, block: Block, clock: Clock) -> StorageError | None:
    """The error for the first line that is wrong alone."""
    for number, text in _numbered(block):
        try:
            _batch([_LINES.decode(text)], block, clock)
        except (ValueError, OverflowError, RecursionError) as error:
            return bad(path, f"line {number}", _reason(error, text))
    return None


def _reason(error: Exception, text: bytes) -> str:
    if isinstance(error, OverflowError):
        return "the time is not between 1677-09-21 and 2262-04-11, in ns since 1970"
    if isinstance(error, RecursionError):
        return "is nested too deeply"
    if "truncated" in str(error):
        return f"is cut off: {text[-40:].decode(errors='replace')!r} ends in the middle"
    return str(error)


def _numbered(block: Block) -> Iterator[tuple[int, bytes]]:
    for number, text in enumerate(block.data.split(b"\n"), block.first_line):
        if text.strip():
            yield number, text
