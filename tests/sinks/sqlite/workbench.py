# SPDX-License-Identifier: MIT
"""An archive file without threads and clocks: everything happens at times that a test says, within one call."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from array import array
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Self, TypeVar

from bus.aggregates import Aggregate, hold_ns
from bus.frame import Group
from sinks.sqlite import reading, schema, timeline
from sinks.sqlite.compaction import compact_step
from sinks.sqlite.tiers import COARSER
from sinks.sqlite.writer import Writer
from tests.sinks.memory_archive import MemoryArchive

S = 10**9
MINUTE, HOUR, DAY = 60 * S, 3600 * S, 86400 * S
T0 = 1_790_000_000 * S // DAY * DAY
"""The beginning of a day."""

T = TypeVar("T")


def group(metrics: Iterable[str], times: Iterable[int], values: Iterable[float]) -> Group:
    return Group(tuple(metrics), array("q", times), array("d", values))


class Workbench:
    """A file, made at `now`, that is written and read by plain calls; `memory` gets all points, too."""

    def __init__(self, path: Path | str = ":memory:", now: int = T0) -> None:
        self.connection = sqlite3.connect(path, isolation_level=None)
        self.memory = MemoryArchive()
        self.now = now
        self.writer = Writer()
        schema.migrate(self.connection, 0)
        for tier in COARSER:
            made = now // tier.span_ns * tier.span_ns
            self.connection.execute("UPDATE tier SET rolled_to = ? WHERE id = ?", (made, tier.id))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.connection.close()

    def transaction(self, work: Callable[[sqlite3.Connection], T]) -> T:
        self.connection.execute("BEGIN IMMEDIATE")
        result = work(self.connection)
        self.connection.execute("COMMIT")
        return result

    def insert(self, *groups: Group) -> int:
        stored = self.transaction(lambda connection: self.writer.insert(connection, groups, (), self.now))
        assert asyncio.run(self.memory.insert(groups)) == stored
        return stored

    def describe(self, metadata: Mapping[str, Mapping[str, Any]]) -> None:
        """Tell metadata of metrics, which need not have points yet."""
        self.connection.executemany(
            "INSERT INTO metric (name, metadata, hold) VALUES (?,?,?)",
            [(name, json.dumps(fields), hold_ns(fields)) for name, fields in metadata.items()],
        )
        self.memory._points.update({name: {} for name in metadata})
        asyncio.run(self.memory.set_metadata(metadata))
        self.writer.forget()

    def compact(self, before: int) -> int:
        moved = 0
        while part := self.transaction(lambda connection: compact_step(connection, before)):
            moved += part
        return moved

    def id(self, metric: str) -> int:
        found = self.connection.execute("SELECT id FROM metric WHERE name = ?", (metric,)).fetchone()
        return int(found[0])

    def points(self, metric: str, start: int, end: int, limit: int | None = None) -> list[tuple[int, float]]:
        return list(zip(*reading.stored_points(self.connection, self.id(metric), start, end, limit), strict=True))

    def aggregates(self, metric: str, start: int, end: int, every: int | None) -> list[Aggregate]:
        return timeline.aggregates(self.connection, self.id(metric), start, end, every)

    def known(self, metric: str) -> dict[int, float]:
        """All points."""
        return self.memory._points.get(metric, {})

    def expected(self, metric: str, start: int, end: int, every: int | None) -> list[Aggregate]:
        """What all points together come to."""
        return list(asyncio.run(self.memory.aggregates(metric, start, end, every)).rows())
