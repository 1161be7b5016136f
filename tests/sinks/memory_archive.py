# SPDX-License-Identifier: MIT
"""An archive in memory, as plain as can be: what the others must agree with, and a stand-in for them."""

from array import array
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from bus.aggregates import Aggregates, aggregate_points, hold_ns
from bus.archive import MIN_NS, Event, MissingFrames
from bus.chunk import MAX_NS, Chunk
from bus.frame import Group
from bus.names import Selection


class MemoryArchive:
    """Keeps everything in dicts; `page_points` is the size of a page."""

    def __init__(self, page_points: int = 1000) -> None:
        self._page_points = page_points
        self._points: dict[str, dict[int, float]] = {}
        self._metadata: dict[str, dict[str, Any]] = {}
        self._missing: list[MissingFrames] = []
        self._events: list[Event] = []

    async def metrics(self, pattern: str = "#") -> dict[str, dict[str, Any]]:
        wanted = Selection([pattern])
        return {name: dict(self._metadata.get(name, {})) for name in sorted(self._points) if name in wanted}

    async def points(self, metric: str, start_ns: int = MIN_NS, end_ns: int = MAX_NS) -> AsyncIterator[Chunk]:
        found = sorted((t, v) for t, v in self._points.get(metric, {}).items() if start_ns <= t < end_ns)
        for start in range(0, len(found), self._page_points):
            page = found[start : start + self._page_points]
            yield Chunk(metric, array("q", [t for t, _ in page]), array("d", [v for _, v in page]))

    async def aggregates(self, metric: str, start_ns: int, end_ns: int, every_ns: int | None = None) -> Aggregates:
        if every_ns is not None and every_ns < 1:
            raise ValueError(f"every_ns must be at least 1, not {every_ns}")
        known = sorted(self._points.get(metric, {}).items())
        before = [t for t, _ in known if t < start_ns]
        chosen = [(t, v) for t, v in known if start_ns <= t < end_ns]
        rows = aggregate_points(
            [t for t, _ in chosen],
            array("d", [v for _, v in chosen]),
            every_ns,
            previous_ns=before[-1] if before else None,
            hold_ns=hold_ns(self._metadata.get(metric, {})),
        )
        return Aggregates.from_rows(metric, rows)

    async def last(self, pattern: str = "#") -> dict[str, tuple[int, float]]:
        return {name: max(self._points[name].items()) for name in await self.metrics(pattern)}

    async def insert(self, groups: Iterable[Group], missing: Sequence[MissingFrames] = ()) -> int:
        new = 0
        for chunk in (chunk for group in groups for chunk in group.chunks()):
            stored = self._points.setdefault(chunk.metric, {})
            for time, value in zip(chunk.times, chunk.values, strict=True):
                new += time not in stored
                stored.setdefault(time, value)
        self._missing += [frames for frames in missing if frames not in self._missing]
        return new

    async def set_metadata(self, metadata: Mapping[str, Mapping[str, Any]]) -> None:
        self._metadata.update({name: dict(about) for name, about in metadata.items() if name in self._points})

    async def missing(self, since_ns: int = MIN_NS) -> list[MissingFrames]:
        return sorted((frames for frames in self._missing if frames.noticed >= since_ns), key=lambda one: one.noticed)

    async def add_event(self, event: Event) -> int:
        for stored in self._events:
            if replace(stored, id=0) == replace(event, id=0):
                return stored.id
        self._events.append(replace(event, id=len(self._events) + 1))
        return len(self._events)

    async def events(self, start_ns: int = MIN_NS, end_ns: int = MAX_NS, *, source: str | None = None) -> list[Event]:
        found = [
            event
            for event in self._events
            if event.time < end_ns
            and (event.time if event.end is None else event.end) >= start_ns
            and source in (None, event.source)
        ]
        return sorted(found, key=lambda event: event.time)

    async def aclose(self) -> None:
        pass
