# SPDX-License-Identifier: MIT
"""Aggregates from tiers, rows and series are what all points together come to."""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bus.aggregates import Aggregate
from bus.archive import MIN_NS
from bus.chunk import MAX_NS
from bus.frame import Group
from sinks.sqlite import compaction, reading
from sinks.sqlite.tiers import COARSER
from tests.sinks.sqlite.workbench import DAY, HOUR, MINUTE, T0, S, Workbench, group

NAMES = ("fast", "slow", "silent")
VALUES = (0.0, 1.0, 2.5, -3.0, 1e9, 0.1, math.nan, math.nan, math.inf, -math.inf)
EVERY = (None, S, 7 * S, 10 * S, 25 * S, 30 * S, MINUTE, 90 * S, 10 * MINUTE, HOUR, 3601 * S, 5 * HOUR, DAY, 7 * DAY)


Script = list[tuple[str, Any]]
Question = tuple[str, tuple[int, int], int | None]


def same(a: float, b: float) -> bool:
    return a == b or (a != a and b != b) or math.isclose(a, b, rel_tol=1e-9, abs_tol=1e-3)


def assert_same(found: Sequence[Aggregate], expected: Sequence[Aggregate]) -> None:
    assert [bucket.time for bucket in found] == [bucket.time for bucket in expected]
    for one, other in zip(found, expected, strict=True):
        assert one[1] == other[1], (one, other)
        assert one[3:7] == other[3:7], (one, other)
        assert same(one.sum, other.sum), (one, other)
        assert same(one.integral, other.integral), (one, other)
        assert same(one.covered, other.covered), (one, other)


# Times where something may go wrong: around the borders of buckets and windows, dense and sparse.
borders = st.sampled_from([0, 10 * S, MINUTE, 10 * MINUTE, HOUR, 6 * HOUR, 12 * HOUR, DAY, 2 * DAY])
near = st.sampled_from([-30 * S, -10 * S, -S, -1, 0, 1, S // 2, S, 3 * S, 9 * S, 61 * S, 181 * S])
moments = st.builds(lambda border, by: T0 + border + by, borders, near) | st.integers(T0, T0 + 3 * DAY)


@st.composite
def runs(draw: st.DrawFn) -> tuple[tuple[str, ...], list[int]]:
    """Metrics, and times of their points: regular ones, or any."""
    names = draw(st.lists(st.sampled_from(NAMES), min_size=1, unique=True))
    if draw(st.booleans()):
        first, step = draw(moments), draw(st.sampled_from([S // 3, S, 10 * S, 50 * S, 7 * MINUTE]))
        return tuple(names), [first + number * step for number in range(draw(st.integers(1, 40)))]
    return tuple(names), sorted(draw(st.sets(moments, min_size=1, max_size=6)))


@st.composite
def batches(draw: st.DrawFn) -> list[Group]:
    """Groups that agree on the value of a metric at a time, which another batch may have otherwise."""
    salt = draw(st.integers(0, 20))

    def value(name: str, time: int) -> float:
        return VALUES[zlib.crc32(b"%d %d %s" % (salt, time, name.encode())) % len(VALUES)] if salt else 1.0

    return [
        group(names, times, [value(name, time) for name in names for time in times])
        for names, times in draw(st.lists(runs(), min_size=1, max_size=3))
    ]


later = st.sampled_from([S, 10 * S, 70 * S, 15 * MINUTE, HOUR, 7 * HOUR, DAY])
inserting = st.tuples(st.just("insert"), batches())
waiting = st.tuples(st.just("wait"), later)
compacting = st.tuples(st.just("compact"), moments)
scripts: st.SearchStrategy[Script] = st.lists(inserting | waiting | compacting, min_size=1, max_size=10)
ranges = st.tuples(moments | st.just(MIN_NS), moments | st.just(MAX_NS))
questions: st.SearchStrategy[list[Question]] = st.lists(
    st.tuples(st.sampled_from(NAMES), ranges, st.sampled_from(EVERY)), min_size=3, max_size=8
)


@pytest.fixture
def tiny_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """A few points are enough for a series, and a few more for the next."""
    monkeypatch.setattr(compaction, "FEWEST_POINTS", 3)
    monkeypatch.setattr(compaction, "MOST_POINTS", 12)


def play(bench: Workbench, script: Script) -> None:
    bench.describe({"fast": {"rate": 1.0}, "slow": {"interval": 60}, "silent": {}})
    for action, argument in script:
        if action == "insert":
            bench.insert(*argument)
        elif action == "wait":
            bench.now += argument
        else:
            bench.compact(argument)


@pytest.mark.usefixtures("tiny_blocks")
@given(scripts, questions)
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_aggregates_are_those_of_all_points_whatever_came_before(script: Script, questions: list[Question]) -> None:
    with Workbench() as bench:
        play(bench, script)
        for name, (start, end), every in questions:
            assert_same(bench.aggregates(name, start, end, every), bench.expected(name, start, end, every))


@pytest.mark.usefixtures("tiny_blocks")
@given(scripts, st.lists(st.tuples(st.sampled_from(NAMES), ranges, st.integers(1, 20)), min_size=3, max_size=8))
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_points_are_all_points_whatever_came_before(
    script: Script, questions: list[tuple[str, tuple[int, int], int]]
) -> None:
    with Workbench() as bench:
        play(bench, script)
        for name, (start, end), limit in questions:
            known = bench.known(name)
            times = [time for time in sorted(known) if start <= time < end]
            for found, expected in (
                (bench.points(name, start, end), times),
                (bench.points(name, start, end, limit), times[:limit]),
            ):
                assert [time for time, _ in found] == expected
                assert all(same(value, known[time]) for time, value in found)
            before = [time for time in known if time < end]
            assert reading.time_before(bench.connection, bench.id(name), end) == max(before, default=None)
            numbers = [time for time in times if known[time] == known[time]]
            for find, one in ((reading.first_value_time, min), (reading.last_value_time, max)):
                assert find(bench.connection, bench.id(name), start, end) == one(numbers, default=None)
        newest = {name: max(bench.known(name).items()) for name in NAMES if bench.known(name)}
        assert str(sorted(reading.newest_points(bench.connection).items())) == str(sorted(newest.items()))


@pytest.mark.usefixtures("tiny_blocks")
@given(scripts)
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_views_for_other_programs_tell_the_same(script: Script) -> None:
    with Workbench() as bench:
        play(bench, script)
        for tier in COARSER:
            for name in NAMES:
                rows = bench.connection.execute(
                    "SELECT time, count, sum, min, max, first, last, integral, covered "
                    f"FROM rollup_{tier.name} WHERE metric = ? ORDER BY time",
                    (name,),
                )
                found = [Aggregate(*(math.nan if number is None else number for number in row)) for row in rows]
                assert_same(found, bench.expected(name, MIN_NS, MAX_NS, tier.span_ns))
