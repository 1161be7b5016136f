# SPDX-License-Identifier: MIT
"""The tiers: filled with the points, formed from fine to coarse as time goes by."""

from __future__ import annotations

from bus.aggregates import Aggregate
from sinks.sqlite import rollups
from sinks.sqlite.tiers import ROLLUPS
from tests.sinks.sqlite.workbench import DAY, HOUR, MINUTE, T0, S, Workbench, group


def rows(bench: Workbench) -> dict[int, int]:
    return dict(bench.connection.execute("SELECT tier, count(*) FROM rollup GROUP BY tier"))


def test_a_batch_writes_the_finest_tier_alone() -> None:
    with Workbench() as bench:
        bench.insert(group(["a"], range(T0, T0 + 95 * S, S), [1.0] * 95))
        assert rows(bench) == {1: 10}


def test_a_bucket_is_formed_when_it_is_over_and_what_was_on_its_way_has_come() -> None:
    with Workbench() as bench:
        bench.insert(group(["a"], range(T0, T0 + 26 * HOUR, 10 * S), [1.0] * 26 * 360))
        formed = {}
        for now in (T0 + MINUTE, T0 + MINUTE + rollups.GRACE_NS, T0 + HOUR + rollups.GRACE_NS, T0 + DAY + MINUTE):
            bench.transaction(lambda connection, now=now: rollups.cascade(connection, now))  # type: ignore[misc]
            formed[now - T0] = [rows(bench).get(tier.id, 0) for tier in ROLLUPS[1:]]
        assert formed == {
            MINUTE: [0, 0, 0, 0],
            MINUTE + 30 * S: [1, 0, 0, 0],
            HOUR + 30 * S: [60, 6, 1, 0],
            DAY + MINUTE: [1440, 144, 24, 1],
        }
        (day,) = bench.connection.execute("SELECT count, sum, integral, covered FROM rollup WHERE tier = 5").fetchall()
        assert day == (8640, 8640.0, 86390.0, 86390.0)


def test_forming_twice_is_forming_once() -> None:
    with Workbench() as bench:
        bench.insert(group(["a"], range(T0, T0 + HOUR, 10 * S), [1.0] * 360))
        for _ in range(2):
            bench.transaction(lambda connection: rollups.cascade(connection, T0 + 2 * HOUR))
            assert [one.count for one in bench.aggregates("a", T0, T0 + HOUR, HOUR)] == [360]


def test_a_late_point_goes_into_the_buckets_that_are_formed_and_no_others() -> None:
    with Workbench() as bench:
        bench.insert(group(["a"], range(T0, T0 + 30 * MINUTE, 10 * S), [1.0] * 180))
        bench.now += 25 * MINUTE
        bench.insert()
        assert rows(bench) == {1: 180, 2: 24, 3: 2}
        bench.insert(group(["a"], [T0 + S, T0 + 20 * MINUTE + S, T0 + 29 * MINUTE + S], [1.0] * 3))
        counts = bench.connection.execute("SELECT tier, sum(count) FROM rollup GROUP BY tier").fetchall()
        assert counts == [(1, 183), (2, 144 + 2), (3, 120 + 1)]
        bench.now += DAY
        bench.insert()
        assert bench.aggregates("a", T0, T0 + DAY, DAY) == bench.expected("a", T0, T0 + DAY, DAY)


def test_the_future_is_formed_when_it_is_over() -> None:
    with Workbench() as bench:
        bench.insert(group(["a"], [T0 + DAY, T0 + DAY + S], [1.0, 2.0]))
        assert rows(bench) == {1: 1}
        assert [one.sum for one in bench.aggregates("a", T0, T0 + 3 * DAY, DAY)] == [3.0]
        bench.now += 3 * DAY
        bench.insert()
        assert rows(bench) == {tier.id: 1 for tier in ROLLUPS}


def test_an_archive_is_written_on_where_another_process_left_it() -> None:
    with Workbench() as bench:
        bench.insert(group(["a"], [T0, T0 + S], [1.0, 2.0]))
        bench.writer.forget()
        bench.insert(group(["a"], [T0 + 2 * S], [4.0]))
        assert bench.aggregates("a", T0, T0 + 10 * S, 10 * S) == [Aggregate(T0, 3, 7.0, 1.0, 4.0, 1.0, 4.0, 6.0, 2.0)]
