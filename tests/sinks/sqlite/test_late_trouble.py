# SPDX-License-Identifier: MIT
"""Late points where it is not easy: beside packed aggregates, after a hold has changed, at the ends of all time."""

import math
from collections.abc import Iterator
from unittest.mock import patch

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bus.archive import MIN_NS
from bus.chunk import MAX_NS
from sinks.retention import Retention
from sinks.sqlite import late, reading
from sinks.sqlite.retention import Expiry
from sinks.sqlite.tiers import COARSER, ROLLUPS
from tests.sinks.sqlite.workbench import DAY, HOUR, MINUTE, T0, S, Workbench, group


@pytest.fixture
def bench() -> Iterator[Workbench]:
    with Workbench(now=T0 + 10 * DAY) as bench:
        yield bench


def agree(bench: Workbench, metric: str) -> None:
    """All tiers say of all time what all points together say."""
    for tier in ROLLUPS:
        assert bench.aggregates(metric, MIN_NS, MAX_NS, tier.span_ns) == bench.expected(
            metric, MIN_NS, MAX_NS, tier.span_ns
        )


def test_a_packed_bucket_that_a_later_row_follows_keeps_its_first_value(bench: Workbench) -> None:
    bench.insert(group(["a"], range(T0, T0 + 1005 * S, S), map(float, range(1005))))
    bench.compact(T0 + 5 * DAY)
    bench.insert(group(["a"], [T0 + 1007 * S], [1007.0]))  # in order, so that it is a row beside the packed bucket
    bench.insert(group(["a"], [T0 + 1006 * S], [1006.0]))
    agree(bench, "a")


def test_no_time_is_taken_that_was_not_given_when_the_hold_was_shorter(bench: Workbench) -> None:
    bench.insert(group(["a"], [T0, T0 + 300 * S], [5.0, 5.0]))
    bench.connection.execute("UPDATE metric SET hold = ?", (900 * S,))
    bench.writer.forget()
    bench.insert(group(["a"], [T0 + 150 * S], [5.0]))
    for tier in ROLLUPS:
        assert sum(one.covered for one in bench.aggregates("a", MIN_NS, MAX_NS, tier.span_ns)) == 300.0


def test_time_that_was_given_is_taken_though_the_hold_is_shorter_now(bench: Workbench) -> None:
    bench.insert(group(["a"], [T0, T0 + 30 * S, T0 + 35 * S], [5.0, 5.0, 5.0]))
    bench.connection.execute("UPDATE metric SET hold = ?", (3 * S,))
    bench.writer.forget()
    bench.insert(group(["a"], [T0 + 28 * S], [5.0]))
    for tier in ROLLUPS:
        assert sum(one.covered for one in bench.aggregates("a", MIN_NS, MAX_NS, tier.span_ns)) == 7.0


@pytest.mark.parametrize("hold_s", [1, 45, 200, 4000])
def test_points_between_those_that_are_there_agree_for_any_hold(bench: Workbench, hold_s: int) -> None:
    bench.describe({"a": {"interval": hold_s / 3}})
    bench.insert(group(["a"], range(T0, T0 + 2 * HOUR, 40 * S), [1.0] * 180))
    bench.insert(group(["a"], range(T0 + 7 * S, T0 + 2 * HOUR, 190 * S), [2.0] * 38))
    bench.insert(group(["a"], [T0 + 3 * HOUR, T0 - HOUR], [3.0, 4.0]))
    bench.insert(group(["a"], [T0 + 150 * MINUTE, T0 - 30 * MINUTE], [5.0, 6.0]))
    agree(bench, "a")


def test_points_far_apart_are_stored_without_reading_what_lies_between(bench: Workbench) -> None:
    bench.insert(group(["a"], range(T0, T0 + DAY, 10 * S), [1.0] * 8640))
    with patch.object(late, "stored_points", wraps=reading.stored_points) as reads:
        bench.insert(group(["a"], [T0 + 5 * S, T0 + 20 * HOUR + 5 * S], [2.0, 2.0]))
    assert all(call.args[3] - call.args[2] < HOUR for call in reads.call_args_list)
    agree(bench, "a")


@pytest.mark.parametrize("expired", [("raw",), ("raw", "10s", "1m"), ("raw", "10s", "1m", "10m", "1h")])
def test_an_old_file_that_comes_again_is_not_counted_twice_however_much_has_expired(
    bench: Workbench, expired: tuple[str, ...]
) -> None:
    def days() -> list[tuple[float, ...]]:
        query = "SELECT time, count, sum, integral, covered FROM rollup_1d WHERE metric = 'a' AND time < ?"
        return bench.connection.execute(query, (T0 + 5 * DAY,)).fetchall()

    first = group(["a"], range(T0 + HOUR, T0 + 2 * HOUR, 7 * S), [2.0] * 515)
    bench.insert(first, group(["a"], [T0 + 9 * DAY], [3.0]))
    before = days()
    expiry = Expiry(bench.now, Retention.load(dict.fromkeys(expired, "1d")))
    while bench.transaction(expiry.step) is not None:
        pass
    bench.writer.forget()
    assert bench.transaction(lambda connection: bench.writer.insert(connection, (first,), (), bench.now)) == 0
    assert days() == before
    missed = group(["a"], range(T0 + 5 * DAY, T0 + 5 * DAY + HOUR, 60 * S), [4.0] * 60)
    assert bench.insert(missed) == 60


times = st.one_of(
    st.integers(0, 400).map(lambda number: number * 9 * S),
    st.integers(0, 400).map(lambda number: number * 7 * MINUTE),
    st.integers(0, 3 * DAY),
)
batches = st.lists(
    st.tuples(
        st.lists(times, min_size=1, max_size=30), st.booleans(), st.booleans(), st.sampled_from([6, 6, 1, -30, 400])
    ),
    min_size=1,
    max_size=8,
)
"""(offsets of times, whether they are in order, whether all is packed then, hours by which the clock goes on)"""


@settings(max_examples=60, deadline=None)
@given(batches, st.sampled_from([2, 20, 300]))
def test_any_order_and_any_clock_come_to_the_same(
    batches: list[tuple[list[int], bool, bool, int]], interval: int
) -> None:
    with Workbench(now=T0 + DAY) as bench:
        bench.describe({"a": {"interval": interval}})
        for number, (offsets, in_order, packed, hours) in enumerate(batches):
            chosen = [T0 + offset for offset in (sorted(set(offsets)) if in_order else offsets)]
            values = [math.nan if offset % 5 == 0 and offset % 2 else float(number) for offset in offsets]
            bench.insert(group(["a"], chosen, values[: len(chosen)]))
            bench.now += hours * HOUR
            bench.insert()
            if packed:
                with patch("sinks.sqlite.compaction.FEWEST_POINTS", 3):
                    bench.compact(bench.now - DAY)
        for tier in COARSER:
            found = bench.aggregates("a", MIN_NS, MAX_NS, tier.span_ns)
            wanted = bench.expected("a", MIN_NS, MAX_NS, tier.span_ns)
            assert [one[:2] for one in found] == [one[:2] for one in wanted]
            for one, other in zip(found, wanted, strict=True):
                assert one[2:] == pytest.approx(other[2:], rel=1e-9, abs=1e-6)


def test_what_no_range_can_name_is_ignored_and_all_else_is_stored(bench: Workbench) -> None:
    """The wire carries any 64 bits; a point that could not be stored would come again for ever."""
    for _ in range(2):
        assert (
            bench.transaction(
                lambda connection: bench.writer.insert(connection, (group(["a"], [MAX_NS], [1.0]),), (), bench.now)
            )
            == 0
        )
        assert (
            bench.transaction(
                lambda connection: bench.writer.insert(connection, (group(["a"], [MIN_NS], [1.0]),), (), bench.now)
            )
            == 0
        )
    mixed = group(["a", "b"], [MIN_NS, T0, T0 + S, MAX_NS], [0.0, 1.0, 2.0, 3.0, 0.0, 4.0, 5.0, 6.0])
    insert = lambda connection: bench.writer.insert(connection, (mixed,), (), bench.now)  # noqa: E731
    assert (bench.transaction(insert), bench.transaction(insert)) == (4, 0)
    assert bench.points("b", MIN_NS, MAX_NS) == [(T0, 4.0), (T0 + S, 5.0)]


def test_the_last_and_the_first_time_that_can_be_asked_for(bench: Workbench) -> None:
    first = -(-MIN_NS // DAY) * DAY
    for _ in range(2):
        bench.insert(group(["a"], [first, first + S, MAX_NS - 1], [1.0, 2.0, 3.0]))
    bench.insert(group(["a"], [MAX_NS - 2, first + 1], [4.0, 5.0]))
    assert len(bench.points("a", MIN_NS, MAX_NS)) == 5
    agree(bench, "a")
