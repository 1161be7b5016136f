# SPDX-License-Identifier: MIT
"""Rows and series are read as one, no more of them than it takes, and damage is told by its name.

That what is read is what was stored, whatever came before, is in test_timeline.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import pytest

from bus.archive import MIN_NS
from bus.chunk import MAX_NS
from bus.errors import StorageError
from sinks.sqlite import reading
from tests.sinks.sqlite.workbench import DAY, HOUR, MINUTE, T0, S, Workbench, group


@pytest.fixture
def bench() -> Iterator[Workbench]:
    """Two days of a point a minute, of which the first is packed."""
    with Workbench(now=T0 + 3 * DAY) as made:
        times = range(T0, T0 + 2 * DAY, MINUTE)
        made.insert(group(["a"], times, [float(number) for number in range(len(times))]))
        assert made.compact(T0 + DAY) == 1440
        yield made


def damage(bench: Workbench, column: str, table: str, number: int) -> None:
    """Flip a bit of the blob of a series of points."""
    rows = bench.connection.execute(f"SELECT id, {column} FROM {table} WHERE tier = 0 ORDER BY start").fetchall()
    id_, blob = rows[number]
    damaged = bytes([*blob[:-1], blob[-1] ^ 4])
    bench.connection.execute(f"UPDATE {table} SET {column} = ? WHERE id = ?", (damaged, id_))


def test_rows_follow_series_and_late_rows_lie_between_their_points(bench: Workbench) -> None:
    bench.insert(group(["a"], [T0 + 90 * S, T0 + DAY - S], [-1.0, -2.0]))
    border = T0 + DAY
    assert bench.points("a", T0, T0 + 3 * MINUTE) == [
        (T0, 0.0),
        (T0 + MINUTE, 1.0),
        (T0 + 90 * S, -1.0),
        (T0 + 120 * S, 2.0),
    ]
    assert bench.points("a", border - MINUTE, border + 1) == [
        (border - MINUTE, 1439.0),
        (border - S, -2.0),
        (border, 1440.0),
    ]
    assert bench.points("a", T0 + S, MAX_NS, 2) == [(T0 + MINUTE, 1.0), (T0 + 90 * S, -1.0)]
    assert len(bench.points("a", MIN_NS, MAX_NS)) == 2882
    assert bench.points("a", T0 + 61 * S, T0 + 62 * S) == []


@pytest.mark.parametrize(("column", "table"), [("columns", "series"), ("times", "block")])
def test_what_is_damaged_is_told_by_metric_and_time_and_the_rest_can_be_read(
    bench: Workbench, column: str, table: str
) -> None:
    damage(bench, column, table, 2)
    for start in (MIN_NS, T0 + 12 * HOUR, T0 + 17 * HOUR):
        with pytest.raises(StorageError, match=r"^a from 2026-09-21T12:00:00.*Z to 2026-09-21T17:59:00.*Z: .* damaged"):
            bench.points("a", start, MAX_NS)
    assert len(bench.points("a", T0, T0 + 12 * HOUR)) == 720
    assert len(bench.points("a", T0 + 18 * HOUR, MAX_NS)) == 360 + 1440
    assert len(bench.points("a", T0, MAX_NS, 700)) == 700, "what lies behind the limit is not unpacked"


def test_times_that_are_damaged_are_told_when_the_point_before_is_looked_for(bench: Workbench) -> None:
    damage(bench, "times", "block", 2)
    assert reading.time_before(bench.connection, 1, T0 + 12 * HOUR) == T0 + 12 * HOUR - MINUTE
    with pytest.raises(StorageError, match=r"^a from .* damaged"):
        reading.time_before(bench.connection, 1, T0 + 15 * HOUR)


def test_a_block_that_says_that_it_is_enormous_takes_no_memory(bench: Workbench) -> None:
    bench.connection.execute("UPDATE block SET count = 1 << 50 WHERE tier = 0")
    with pytest.raises(StorageError, match="cannot have 1125899906842624 points"):
        bench.points("a", T0, T0 + HOUR)


def test_series_are_found_by_the_index_and_only_those_of_the_range(bench: Workbench) -> None:
    where = {"metric": 1, "tier": 0, "start": T0 + 13 * HOUR, "end": T0 + 14 * HOUR}
    assert len(bench.connection.execute(reading._SERIES, where).fetchall()) == 1
    plan = [step[3] for step in bench.connection.execute(f"EXPLAIN QUERY PLAN {reading._SERIES}", where)]
    assert any("series USING INDEX series_range (metric=? AND tier=? AND start>? AND start<?)" in step for step in plan)
    assert not any(("SCAN" in step and "CONSTANT" not in step) or "TEMP B-TREE" in step for step in plan), plan


def test_the_newest_point_may_lie_in_a_series_or_in_a_row(bench: Workbench) -> None:
    bench.insert(group(["old", "late"], range(T0, T0 + 100 * S, S), [1.0] * 199 + [math.nan]))
    bench.compact(T0 + DAY)
    bench.insert(group(["late"], [T0 + 50 * S + 1], [3.0]))
    newest = reading.newest_points(bench.connection)
    assert newest["a"] == (T0 + 2 * DAY - MINUTE, 2879.0)
    assert newest["old"] == (T0 + 99 * S, 1.0)
    assert repr(newest["late"]) == repr((T0 + 99 * S, math.nan))
