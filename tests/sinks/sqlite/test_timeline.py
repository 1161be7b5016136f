# SPDX-License-Identifier: MIT
"""Aggregates from tiers, rows and series are what all points together come to."""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bus.aggregates import Aggregate
from bus.archive import MIN_NS
from bus.chunk import MAX_NS
from bus.frame import Group
from sinks.retention import Retention
from sinks.sqlite import compaction, reading
from sinks.sqlite.retention import expire_step
from sinks.sqlite.tiers import COARSER, FINEST, RAW, ROLLUPS
from sinks.sqlite.timeline import Kept, stretches
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
        newest = {name: max(bench.known(name).items()) for name in NAMES if bench.known(name)}
        assert str(sorted(reading.newest_points(bench.connection).items())) == str(sorted(newest.items()))


@pytest.mark.usefixtures("tiny_blocks")
@given(scripts)
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
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


# -- what is read ------------------------------------------------------------------------------------------

NEVER = MAX_NS + 1
FORMED = T0 + 41 * DAY - 3 * S
END = FORMED + 2 * MINUTE
"""Tiers are formed every minute."""


def tiers(**expired: int) -> list[Kept]:
    """All tiers of an archive of `FORMED`; `expired` says up to when which are not there any more."""
    found = [Kept(RAW, 1, expired.get("raw", MIN_NS), NEVER)]
    for tier in ROLLUPS:
        until = NEVER if tier is FINEST else FORMED // tier.span_ns * tier.span_ns
        found.append(Kept(tier.id, tier.span_ns, expired.get(f"tier{tier.id}", T0 - 400 * DAY), until))
    return found


@given(st.integers(T0, END), st.integers(T0, END), st.sampled_from(EVERY))
def test_any_range_is_covered_once_with_few_rows(start: int, end: int, every: int | None) -> None:
    found = list(stretches(tiers(), start, end, every))
    position = start
    for tier, first, last in found:
        assert first == position
        assert first < last
        if tier:
            span = ROLLUPS[tier - 1].span_ns
            assert first % span == last % span == 0
            assert every is None or every % span == 0
        position = last
    assert position == max(start, end) or not found
    if every is None:
        assert sum((last - first) / S for tier, first, last in found if tier == RAW) < 2 * 10
        rows = sum((last - first) // ROLLUPS[tier - 1].span_ns for tier, first, last in found if tier)
        assert rows <= 2 * (5 + 9 + 5 + 23) + 41 + 18, "few at the ends, days between, and what is not formed yet"


def test_a_bucket_is_read_from_the_coarsest_tier_that_divides_it() -> None:
    start, end = T0 + DAY, T0 + 3 * DAY
    found = {every: list(stretches(tiers(), start, end, every)) for every in EVERY}
    assert found[7 * S] == found[25 * S] == [(RAW, start, end)]
    assert found[30 * S] == [(1, start, end)]
    assert found[MINUTE] == [(2, start, end)]
    assert found[5 * HOUR] == [(4, start, end)]
    assert found[None] == found[7 * DAY] == [(5, start, end)]


def test_what_is_not_formed_yet_comes_from_the_next_finer_tier() -> None:
    start, end = FORMED - 3 * HOUR, FORMED + HOUR
    found = list(stretches(tiers(), start, end, HOUR))
    assert [tier for tier, *_ in found] == [RAW, 4, 3, 2, 1, RAW]
    assert max(last for tier, _, last in found if tier >= 2) <= FORMED


def test_where_the_finer_tiers_have_expired_the_finest_that_is_left_serves() -> None:
    week = T0 + 7 * DAY
    kept = tiers(raw=T0 + 30 * DAY, tier1=T0 + 10 * DAY, tier2=week)
    assert list(stretches(kept, T0 + 29 * DAY + 5 * S, T0 + 30 * DAY + 5 * S, S)) == [
        (1, T0 + 29 * DAY, T0 + 30 * DAY),
        (RAW, T0 + 30 * DAY, T0 + 30 * DAY + 5 * S),
    ]
    assert list(stretches(kept, week - 1, T0 + 12 * DAY, 10 * S)) == [
        (3, week - 10 * MINUTE, week),
        (2, week, T0 + 10 * DAY),
        (1, T0 + 10 * DAY, T0 + 12 * DAY),
    ]
    (only,) = stretches(kept, week - HOUR + S, week - HOUR + 2 * S, None)
    assert only == (3, week - HOUR, week - HOUR + 2 * S), "the bucket that reaches into it"


def test_aggregates_outlive_their_points() -> None:
    """What retention leaves: aggregates, and of the oldest but the coarse ones."""
    with Workbench(now=T0 + 8 * DAY) as bench:
        times = range(T0, T0 + 6 * DAY, 30 * S)
        bench.insert(group(["a"], times, [float(number % 100) for number in range(len(times))]))
        whole = bench.expected("a", T0, T0 + 6 * DAY, HOUR)
        keep = Retention.load({"raw": "3d", "10s": "5d", "1m": "5d"})
        while bench.transaction(lambda connection: expire_step(connection, bench.now, keep)):
            pass
        assert bench.points("a", MIN_NS, MAX_NS)[0][0] == T0 + 5 * DAY
        assert_same(bench.aggregates("a", T0, T0 + 6 * DAY, HOUR), whole)
        assert [one.count for one in bench.aggregates("a", T0, T0 + 6 * DAY, None)] == [len(times)]
        minutes = bench.aggregates("a", T0, T0 + 6 * DAY, MINUTE)
        steps = [later.time - one.time for one, later in pairwise(minutes)]
        assert set(steps[: 3 * 144 - 1]) == {10 * MINUTE}
        assert set(steps[3 * 144 :]) == {MINUTE}
        seconds = bench.aggregates("a", T0 + 4 * DAY + S, T0 + 4 * DAY + 35 * S, 7 * S)
        assert sum(one.count for one in seconds) == 2, "buckets of 10 s, for there are no points"
