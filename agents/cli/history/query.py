# SPDX-License-Identifier: MIT
"""What `agent history` was asked for, and what the archive says to that."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from agents.cli.history.resolution import POINT_BY_POINT, POINTS, Extent, Limits, extent, step_ns
from agents.cli.localtime import clock, offset_s, zone
from bus.archive import MIN_NS, Event, History
from bus.chunk import MAX_NS
from bus.errors import HostbusError
from bus.names import is_pattern
from bus.timestamp import Timedelta

_NAMED = 3
"""So many metrics are named in a message."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """Some metrics, with their metadata, over start_ns <= time < end_ns; wanted_ns: see `wanted_step_ns`."""

    source: History
    metrics: Mapping[str, Mapping[str, Any]]
    start_ns: int
    end_ns: int
    now_ns: int
    wanted_ns: int | None

    async def resolve(self, limits: Limits) -> tuple[Extent, int]:
        """The part of the range that holds values, and how long a step of it is to be; says so if we chose."""
        found = await extent(self.source, self.metrics, self.start_ns, self.end_ns, self.now_ns)
        step = step_ns(self.wanted_ns, found, limits)
        if self.wanted_ns is None and found.counts:
            most = max(found.counts.values())
            length = Timedelta(step).precise_string
            note(
                f"all points ({most}); --every TIME aggregates"
                if step == POINT_BY_POINT
                else f"steps of {length}; --every {POINTS} shows all {most} points"
            )
        return found, step

    async def nothing(self, metrics: Sequence[str]) -> str:
        """Says that metrics have no values here, and when the first of them does."""
        text = f"no values of {listed(metrics)} from {_time(self.start_ns)} to {_time(self.end_ns)}"
        whole = await self.source.aggregates(metrics[0], MIN_NS, MAX_NS)
        newest = await self.source.last(metrics[0])
        if not len(whole) or not newest:
            return text
        (last_ns, _), *_ = newest.values()
        return f"{text}: the archive has {metrics[0]} from {_time(whole.times[0])} to {_time(last_ns)}"

    async def events(self) -> list[Event]:
        """What happened in the range, as far as the archive keeps events."""
        ask = getattr(self.source, "events", None)
        return [] if ask is None else list(await ask(self.start_ns, self.end_ns))


async def chosen(source: History, patterns: Sequence[str]) -> dict[str, dict[str, Any]]:
    """The metrics that names and patterns select, with their metadata.

    Raises HostbusError for one that selects nothing, with names that may have been meant.
    """
    found: dict[str, dict[str, Any]] = {}
    for pattern in patterns:
        selected = await source.metrics(pattern)
        if not selected:
            raise HostbusError(_unknown(pattern, list(await source.metrics())))
        found |= selected
    return found


def note(text: str) -> None:
    """One line on stderr, beside the data."""
    sys.stderr.write(text + "\n")


def listed(names: Sequence[str]) -> str:
    """The first names, and how many more there are."""
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more


def _unknown(pattern: str, known: Sequence[str]) -> str:
    from difflib import get_close_matches

    what = f"no metric matches {pattern}" if is_pattern(pattern) else f"there is no metric {pattern}"
    if not known:
        return f"{what}: the archive is empty"
    near = [name for name in known if name.endswith(f".{pattern}")] or get_close_matches(pattern, known, cutoff=0.5)
    return f"{what}; did you mean {listed(near)}?" if near else f"{what}; known: {listed(known)}"


def _time(time_ns: int) -> str:
    offset = offset_s(time_ns)
    return f"{clock(time_ns, offset)} {zone(offset)}"
