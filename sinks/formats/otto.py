# SPDX-License-Identifier: MIT
"""JSON in otto's layout: one object with the metrics, the events, and (ours) the metadata of metrics.

    {"metrics": [{"timestamp": "2026-11-21T10:00:00.000000000Z", "host": "web1", "label": "load.1m", "value": 0.25}],
     "events": [{"timestamp": "...", "label": "reboot", "source": "manual", "color": "#888888", "dash": "dash"}],
     "metadata": {"web1.load.1m": {"unit": "1"}}}

How names and (host, label) go together is in sinks/formats/names.py. NaN and the infinities are texts, "NaN",
"Infinity", "-Infinity"; when read, Python's literals of these names and null will do. Unknown keys are passed over.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping
from datetime import tzinfo
from pathlib import Path
from typing import Any, BinaryIO

import msgspec

from bus.archive import Event
from bus.chunk import Chunk
from bus.formats import Batch, Extras
from bus.timestamp import Timestamp
from sinks.formats import names
from sinks.formats.base import PlainWriter, TextFormat
from sinks.formats.elements import Elements, Run, Scanner, members, members_from_here, place
from sinks.formats.files import bad, in_thread, opened
from sinks.formats.rows import chunks_of, nth_row
from sinks.formats.texts import QUOTED_SPECIAL, Clock, SameTimes, to_value, value_texts

_ENCODER = msgspec.json.Encoder()


class _Sample(msgspec.Struct):
    timestamp: str
    label: str
    value: float | str | None
    host: str | None = None


class _Event(msgspec.Struct, omit_defaults=False):
    timestamp: str
    label: str
    source: str = "manual"
    color: str = "#888888"
    dash: str = "dash"
    end_timestamp: str | None = None
    host: str = ""
    metadata: dict[str, Any] = {}


_SAMPLES: Elements[_Sample] = Elements(_Sample)
_EVENTS: Elements[_Event] = Elements(_Event)
_OBJECTS: Elements[dict[str, Any]] = Elements(dict[str, Any])


class OttoWriter(PlainWriter):
    """Its state: whether a comma is due."""

    def __init__(self, state: Any) -> None:
        self.state = bool(state)
        self._iso = SameTimes()

    def begin(self) -> bytes:
        """The beginning of the metrics."""
        return b'{"metrics":[\n'

    def points(self, chunk: Chunk, metadata: Mapping[str, Any]) -> bytes:
        """A line for each point. 0.4 to 0.8 µs."""
        host, label = names.split(chunk.metric, metadata)
        named = {"host": host, "label": label} if host else {"label": label}
        behind = "," + _ENCODER.encode(named)[1:-1].decode() + ',"value":'
        texts = value_texts(chunk.values, QUOTED_SPECIAL)
        lines = [
            f'{{"timestamp":"{at}"{behind}{value}}}' for at, value in zip(self._iso(chunk.times), texts, strict=True)
        ]
        comma, self.state = ",\n" if self.state else "", True
        return (comma + ",\n".join(lines)).encode()

    def end(self, extras: Extras) -> Iterator[bytes]:
        """The events and the metadata."""
        yield b'\n],\n"events":[\n'
        for number, event in enumerate(extras.events):
            yield (b",\n" if number else b"") + _event_json(event)
        yield b'\n],\n"metadata":{\n'
        described = [(metric, about) for metric, about in extras.metadata.items() if about]
        for number, (metric, about) in enumerate(described):
            yield (b",\n" if number else b"") + b'"%b":%b' % (metric.encode(), _ENCODER.encode(about))
        yield b"\n}}\n"


class Otto(TextFormat):
    """The format ``json``."""

    name = "json"
    suffixes: tuple[str, ...] = (".json",)
    carries = frozenset({"metadata", "events"})

    def writer(self, state: Any = None) -> OttoWriter:
        """A writer."""
        return OttoWriter(state)

    def read(self, path: Path, *, start: Any = None, zone: tzinfo | None = None) -> AsyncIterator[Batch]:
        """The elements in runs; a position is an offset and the key of the array that it lies in, or ""."""
        return in_thread(_Reading(path, zone).batches(start))


FORMAT = Otto()


def _event_json(event: Event) -> bytes:
    line: dict[str, Any] = {
        "timestamp": Timestamp(event.time).isoformat(),
        "label": event.label,
        "source": event.source,
        "color": event.color,
        "dash": event.dash,
    }
    if event.end is not None:
        line["end_timestamp"] = Timestamp(event.end).isoformat()
    if event.host:
        line["host"] = event.host
    if event.metadata:
        line["metadata"] = event.metadata
    return _ENCODER.encode(line)


class _Reading:
    """One reading of a file."""

    def __init__(self, path: Path, zone: tzinfo | None) -> None:
        self._path = path
        self._clock = Clock(zone)
        self._names = names.Names()

    def batches(self, start: list[Any] | None) -> Iterator[Batch]:
        offset, inside = start or (0, "")
        with opened(self._path) as (text, file):
            scanner = Scanner(self._path, text, offset)
            keys = members(scanner) if start is None else self._keys_from(scanner, inside)
            has_metrics = start is not None
            for key in keys:
                if not inside:
                    scanner.expect(b":", "':'")
                has_metrics = has_metrics or key == "metrics"
                yield from self._section(scanner, file, key, entered=bool(inside))
                inside = ""
            if rest := scanner.peek():
                raise scanner.error(f"{rest.decode(errors='replace')!r} stands behind the end of the object")
        if not has_metrics:
            raise bad(self._path, "", 'has no "metrics", which the JSON of an export has')

    def _keys_from(self, scanner: Scanner, inside: str) -> Iterator[str]:
        """The keys from a position on: that of the array we are in, then those that follow."""
        if inside:
            yield inside
        if scanner.expect(b",}", "',' or '}'") == b",":
            yield from members_from_here(scanner)

    def _section(self, scanner: Scanner, file: BinaryIO, key: str, *, entered: bool) -> Iterator[Batch]:
        if key == "metadata":
            yield from self._metadata(scanner, file)
        elif key not in {"metrics", "events"}:
            scanner.element()
        else:
            if not entered:
                scanner.expect(b"[", "'['")
            runs = _SAMPLES.of_array(scanner) if key == "metrics" else _EVENTS.of_array(scanner)
            for run in runs:
                yield self._batch(run, [scanner.position, key if run.goes_on else ""], file.tell())

    def _batch(self, run: Run[Any], position: list[Any], read_bytes: int) -> Batch:
        metrics: list[str] = []
        times: list[int] = []
        values: list[float] = []
        events: list[Event] = []
        memory: dict[str, Mapping[str, Any]] = {}
        try:
            for element in run.elements:
                if isinstance(element, _Sample):
                    metrics.append(self._names.metric(element.host or "", element.label, memory))
                    times.append(self._clock.ns(element.timestamp))
                    values.append(element.value if type(element.value) is float else to_value(element.value))
                else:
                    events.append(self._event(element))
        except ValueError as error:
            # A metric is the first that an element adds, a value the last.
            number = len(events) + len(values)
            raise bad(self._path, place(self._path, run.start, number), str(error)) from None
        return Batch(
            chunks=chunks_of(metrics, times, values),
            extras=Extras(metadata=memory, events=events),
            position=position,
            read_bytes=read_bytes,
            locate=lambda metric, n: place(self._path, run.start, nth_row(metrics, metric, n)),
        )

    def _event(self, event: _Event) -> Event:
        return Event(
            time=self._clock.ns(event.timestamp),
            label=event.label,
            end=None if event.end_timestamp is None else self._clock.ns(event.end_timestamp),
            source=event.source,
            host=event.host,
            color=event.color,
            dash=event.dash,
            metadata=event.metadata,
        )

    def _metadata(self, scanner: Scanner, file: BinaryIO) -> Iterator[Batch]:
        found: dict[str, Mapping[str, Any]] = {}
        for metric in members(scanner):
            scanner.expect(b":", "':'")
            about = _OBJECTS.decode(scanner)
            found[metric] = {**self._names.memory(metric), **about}
        yield Batch(
            extras=Extras(metadata=found),
            position=[scanner.position, ""],
            read_bytes=file.tell(),
            locate=lambda metric, n: "metadata",
        )
