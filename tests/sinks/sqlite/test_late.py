# SPDX-License-Identifier: MIT
"""Points that come late, again, or before those that have expired: what they change in the aggregates.

That any order leads to the same aggregates is in test_timeline.
"""

from __future__ import annotations

import math

from bus.aggregates import Aggregate
from bus.archive import MIN_NS
from bus.chunk import MAX_NS
from tests.sinks.sqlite.workbench import DAY, HOUR, MINUTE, T0, S, Workbench, group

TABLES = ("rollup", "series WHERE tier = 1", "block WHERE tier = 1")


def counts(bench: Workbench) -> list[int]:
    return [bench.connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0] for table in TABLES]


def whole(bench: Workbench, start: int = MIN_NS, end: int = MAX_NS) -> Aggregate:
    (found,) = bench.aggregates("a", start, end, None)
    (expected,) = bench.expected("a", start, end, None)
    assert found == expected
    return found


def test_a_late_point_takes_time_from_the_one_after_it_in_every_tier() -> None:
    with Workbench(now=T0 + 2 * DAY) as bench:
        bench.insert(group(["a"], [T0, T0 + 20 * S], [1.0, 3.0]))
        assert whole(bench).integral == 60.0
        bench.insert(group(["a"], [T0 + 5 * S], [7.0]))
        assert whole(bench).integral == 7.0 * 5 + 3.0 * 15
        rows = bench.connection.execute("SELECT tier, sum(integral), sum(covered) FROM rollup GROUP BY tier").fetchall()
        assert rows == [(tier, 80.0, 20.0) for tier in range(1, 6)]


def test_the_first_and_the_last_value_of_a_bucket_stay_unless_new_ones_are_outside() -> None:
    with Workbench(now=T0 + DAY) as bench:
        bench.insert(group(["a"], [T0 + 3 * S, T0 + 6 * S], [1.0, 2.0]))
        for second, value, ends in (
            (4, 9.0, (1.0, 2.0)),
            (1, 8.0, (8.0, 2.0)),
            (8, 7.0, (8.0, 7.0)),
            (9, math.nan, (8.0, 7.0)),
        ):
            bench.insert(group(["a"], [T0 + second * S], [value]))
            assert (whole(bench).first, whole(bench).last) == ends


def test_a_point_that_is_there_changes_nothing_even_with_another_value() -> None:
    with Workbench(now=T0 + DAY) as bench:
        bench.insert(group(["a"], [T0, T0 + S], [1.0, 2.0]))
        before = bench.connection.execute("SELECT * FROM rollup").fetchall()
        assert bench.insert(group(["a"], [T0, T0 + S], [5.0, 2.0])) == 0
        assert bench.connection.execute("SELECT * FROM rollup").fetchall() == before


def test_packed_aggregates_that_a_late_point_changes_become_rows_until_they_are_packed_again() -> None:
    with Workbench(now=T0 + 2 * DAY) as bench:
        times = range(T0, T0 + 12 * HOUR, 10 * S)
        bench.insert(group(["a", "b"], times, [1.0] * 2 * len(times)))
        bench.compact(T0 + DAY)
        rows, series, blocks = counts(bench)
        assert (series, blocks) == (4, 2)
        bench.insert(group(["a"], [T0 + HOUR + S, T0 + HOUR + 2 * S], [2.0, 4.0]))
        assert counts(bench) == [rows + 6 * 360, 3, 2], "b still needs the times"
        assert whole(bench).sum == 12 * 360 + 6.0
        bucket = bench.aggregates("a", T0 + HOUR, T0 + HOUR + 20 * S, 10 * S)
        assert bucket == bench.expected("a", T0 + HOUR, T0 + HOUR + 20 * S, 10 * S)
        bench.compact(T0 + DAY)
        assert counts(bench) == [rows, 4, 2]
        assert bucket == bench.aggregates("a", T0 + HOUR, T0 + HOUR + 20 * S, 10 * S)


def test_a_late_point_before_a_packed_window_takes_time_from_its_first_point() -> None:
    with Workbench(now=T0 + 2 * DAY) as bench:
        times = range(T0 + 6 * HOUR, T0 + 12 * HOUR, 60 * S)
        bench.insert(group(["a"], [T0 + 6 * HOUR - 55 * S, *times], [1.0] * (len(times) + 1)))
        bench.compact(T0 + DAY)
        bench.insert(group(["a"], [T0 + 6 * HOUR - 5 * S], [1.0]))
        (bucket,) = bench.aggregates("a", T0 + 6 * HOUR, T0 + 6 * HOUR + 10 * S, 10 * S)
        assert bucket.covered == 5.0


def test_what_expired_and_comes_again_is_not_counted_twice() -> None:
    with Workbench(now=T0 + 2 * DAY) as bench:
        batch = group(["a"], range(T0, T0 + HOUR, S), [1.0] * 3600)
        bench.insert(batch)
        bench.connection.execute("DELETE FROM point")
        bench.connection.execute("UPDATE metric SET raw_from = ?", (T0 + 6 * HOUR,))
        before = bench.connection.execute("SELECT * FROM rollup").fetchall()
        bench.writer.forget()
        assert bench.transaction(lambda connection: bench.writer.insert(connection, [batch], (), bench.now)) == 0
        assert bench.connection.execute("SELECT * FROM rollup").fetchall() == before
        late = group(["a"], [T0 + 2 * HOUR], [5.0])
        assert bench.transaction(lambda connection: bench.writer.insert(connection, [late], (), bench.now)) == 1
        assert [one.count for one in bench.aggregates("a", T0, T0 + 3 * HOUR, HOUR)] == [3600, 1]


def test_infinity_is_the_same_for_any_time() -> None:
    with Workbench(now=T0 + DAY) as bench:
        bench.insert(group(["a"], [T0, T0 + 20 * S], [1.0, math.inf]))
        bench.insert(group(["a"], [T0 + 10 * S], [1.0]))
        assert (whole(bench).integral, whole(bench).covered) == (math.inf, 20.0)
        bench.insert(group(["a"], [T0 - MINUTE], [1.0]))
        assert (whole(bench).integral, whole(bench).covered) == (math.inf, 80.0)


def test_a_metric_in_several_groups_of_a_batch_is_counted_once_per_time() -> None:
    """Regression: all of them were taken for new ones, because each came after what was stored before the batch."""
    with Workbench(now=T0 + DAY) as bench:
        assert (
            bench.insert(group(["a"], [T0 + S, T0 + 3 * S], [1.0, 3.0]), group(["a", "b"], [T0 + 2 * S], [2.0, 9.0]))
            == 4
        )
        assert (whole(bench).count, whole(bench).covered, whole(bench).integral) == (3, 2.0, 5.0)
        assert bench.insert(group(["b"], [T0 + 5 * S], [5.0]), group(["b", "a"], [T0 + 5 * S], [5.0, 7.0])) == 2
        assert whole(bench).count == 4
