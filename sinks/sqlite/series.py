# SPDX-License-Identifier: MIT
"""Writing blocks: a metric's series of values, and the times that it shares with others.

The series of a metric and tier never overlap. All functions work within a transaction of the caller's.
"""

from __future__ import annotations

import sqlite3
from array import array
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from bus.aggregates import Aggregate
from sinks.sqlite.blocks import pack_columns, pack_times, unpack_columns, unpack_times
from sinks.sqlite.tiers import FINEST, RAW

COLUMNS = {RAW: 1, FINEST.id: len(Aggregate._fields) - 1}
"""How many columns a series of a tier has: the value; all of an `Aggregate` but its time."""

LIKELY_BLOCKS = 8
"""Blocks with the same ends and count that are compared before another one is made."""
REMEMBERED_TIMES = 256

_OVERLAPPING = (
    "FROM series JOIN block ON block.id = series.block WHERE series.metric = :metric AND series.tier = :tier "
    "AND series.start < :end AND series.end > :start AND series.start >= coalesce((SELECT max(start) FROM series "
    "WHERE metric = :metric AND tier = :tier AND start <= :start), :start)"
)


@dataclass(frozen=True, slots=True)
class Series:
    """A stored series, unpacked."""

    id: int
    block: int
    times: array[int]
    columns: list[array[float]]

    def part(self, start: int, end: int) -> tuple[array[int], list[array[float]]]:
        """Its points with indices start <= i < end."""
        return self.times[start:end], [column[start:end] for column in self.columns]


class Packer:
    """Writes series; the times of the last ones are remembered packed, because most metrics share them."""

    def __init__(self) -> None:
        self._packed: dict[tuple[int, int, int], tuple[array[int], bytes]] = {}

    def put(
        self, connection: sqlite3.Connection, metric: int, tier: int, times: array[int], columns: Sequence[array[float]]
    ) -> None:
        """Store a series, where no other one of the metric and tier is."""
        if not times:
            return
        place = (tier, times[0], times[-1] + 1)
        connection.execute(
            "INSERT INTO series (metric, tier, start, end, block, columns) VALUES (?,?,?,?,?,?)",
            (metric, *place, self._block(connection, place, times), pack_columns(columns)),
        )

    def put_buckets(self, connection: sqlite3.Connection, metric: int, buckets: Sequence[Aggregate]) -> None:
        """Store aggregates of the finest tier."""
        if buckets:
            times, *columns = zip(*buckets, strict=True)
            self.put(connection, metric, FINEST.id, array("q", times), [array("d", column) for column in columns])

    def cut(self, connection: sqlite3.Connection, metric: int, tier: int, start: int, end: int) -> bool:
        """Remove what series have in start <= t < end; whether there was a series. Its ends outside stay."""
        found = list(overlapping(connection, metric, tier, start, end))
        if not found:
            return False
        connection.executemany("DELETE FROM series WHERE id = ?", [(one.id,) for one in found])
        for one in found:
            self.put(connection, metric, tier, *one.part(0, bisect_left(one.times, start)))
            self.put(connection, metric, tier, *one.part(bisect_left(one.times, end), len(one.times)))
        delete_orphans(connection, {one.block for one in found})
        return True

    def _block(self, connection: sqlite3.Connection, place: tuple[int, int, int], times: array[int]) -> int:
        """The id of a block with these times."""
        count = len(times)
        packed = self._pack(place, times)
        likely = connection.execute(
            "SELECT id, times FROM block WHERE tier = ? AND start = ? AND end = ? AND count = ? "
            "ORDER BY id DESC LIMIT ?",
            (*place, count, LIKELY_BLOCKS),
        )
        for block, stored in likely:
            if stored == packed:
                return int(block)
        made = connection.execute(
            "INSERT INTO block (tier, start, end, count, times) VALUES (?,?,?,?,?)", (*place, count, packed)
        )
        assert made.lastrowid is not None, "a row was inserted"
        return made.lastrowid

    def _pack(self, place: tuple[int, int, int], times: array[int]) -> bytes:
        known = self._packed.get(place)
        if known is not None and known[0] == times:
            return known[1]
        if len(self._packed) >= REMEMBERED_TIMES:
            self._packed.clear()
        packed = pack_times(times)
        self._packed[place] = (times, packed)
        return packed


def overlapping(connection: sqlite3.Connection, metric: int, tier: int, start: int, end: int) -> Iterator[Series]:
    """The series that have something in start <= t < end, oldest first."""
    rows = connection.execute(
        f"SELECT series.id, block.id, block.times, block.count, series.columns {_OVERLAPPING} ORDER BY series.start",
        {"metric": metric, "tier": tier, "start": start, "end": end},
    ).fetchall()
    for id_, block, times, count, columns in rows:
        yield Series(id_, block, unpack_times(times, count), unpack_columns(columns, count, COLUMNS[tier]))


def start_of_first(connection: sqlite3.Connection, metric: int, tier: int, start: int, end: int) -> int | None:
    """Where the first series begins that has something in start <= t < end; None if there is none."""
    (found,) = connection.execute(
        f"SELECT min(series.start) {_OVERLAPPING}", {"metric": metric, "tier": tier, "start": start, "end": end}
    ).fetchone()
    return None if found is None else int(found)


def delete_orphans(connection: sqlite3.Connection, blocks: Iterable[int]) -> None:
    """Remove those of some blocks that no series refers to any more."""
    connection.executemany(
        "DELETE FROM block WHERE id = ?1 AND NOT EXISTS (SELECT 1 FROM series WHERE block = ?1)",
        [(block,) for block in blocks],
    )
