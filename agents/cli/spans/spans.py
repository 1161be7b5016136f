# SPDX-License-Identifier: MIT
"""Spans in the archive: commands that `agent run` ran, and every other event that has an end; found by label."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from agents.cli.localtime import clock, offset_s
from bus.aggregates import NS_PER_S
from bus.archive import Archive, Event
from bus.config import nearest
from bus.errors import HostbusError

SOURCE = "run"
"""Of the events that `agent run` records."""
NEWEST = 5
"""How many labels an error names."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """An event that lasted. `number` counts those of the same label, from 1, the oldest; `of` is how many they are."""

    event: Event
    number: int
    of: int

    @property
    def name(self) -> str:
        """What finds just this one: the label, and its number if there are several of it."""
        return f"{self.event.label}#{self.number}" if self.of > 1 else self.event.label

    @property
    def end_ns(self) -> int:
        """When it ended."""
        return self.event.time if self.event.end is None else self.event.end

    @property
    def duration_s(self) -> float:
        """How long it lasted."""
        return (self.end_ns - self.event.time) / NS_PER_S

    @property
    def patterns(self) -> list[str]:
        """Which metrics it was about; none if nobody said."""
        told = self.event.metadata.get("metrics")
        return [str(pattern) for pattern in told] if isinstance(told, list) else []

    @property
    def exit_code(self) -> int | None:
        """Of the command."""
        code = self.event.metadata.get("exit_code")
        return code if isinstance(code, int) else None

    @property
    def began(self) -> str:
        """When it began, in local time."""
        return clock(self.event.time, offset_s(self.event.time))

    def to_json(self) -> dict[str, Any]:
        """For programs; times in ns since 1970."""
        return {
            "label": self.event.label,
            "number": self.number,
            "host": self.event.host,
            "start": self.event.time,
            "end": self.end_ns,
            "duration": self.duration_s,
            **self.event.metadata,
        }


async def all_spans(archive: Archive) -> list[Span]:
    """The spans of an archive, oldest first."""
    by_label: defaultdict[str, list[Event]] = defaultdict(list)
    for event in await archive.events():
        if event.end is not None and event.end > event.time:
            by_label[event.label].append(event)
    found = [
        Span(event=event, number=number, of=len(events))
        for events in by_label.values()
        for number, event in enumerate(events, 1)
    ]
    return sorted(found, key=lambda span: span.event.time)


def find(spans: Sequence[Span], label: str) -> Span:
    """The newest span of a label, or of ``label#2`` the second. Raises HostbusError with the labels that are known."""
    same = [span for span in spans if span.event.label == label] or [span for span in spans if span.name == label]
    if same:
        return same[-1]
    before, _, number = label.rpartition("#")
    of = sum(span.event.label == before for span in spans)
    if of and number:
        raise HostbusError(f"{before!r} has no number {number}: it has {of}, counted from 1")
    if not spans:
        raise HostbusError(f"no span is called {label!r}: none is recorded; 'agent run' records them")
    labels = list(dict.fromkeys(span.event.label for span in reversed(spans)))[:NEWEST]
    near = nearest(label, {span.event.label for span in spans})
    hint = f"{near} " if near.startswith("did you mean") else ""
    raise HostbusError(f"no span is called {label!r}; {hint}the newest: {', '.join(labels)} ('agent diff' lists all)")
