# SPDX-License-Identifier: MIT
"""What points of equal spans of time come to."""

from __future__ import annotations

import math
from array import array

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bus.aggregates import (
    DEFAULT_HOLD_NS,
    Aggregate,
    Aggregates,
    aggregate_points,
    combine,
    declared_interval_s,
    gaps_before,
    hold_ns,
)

S = 10**9
nan, inf = math.nan, math.inf


def of(points: dict[int, float], every_s: int | None = 10, **options: int | None) -> list[Aggregate]:
    """The aggregates of points that are given by their seconds."""
    times = [second * S for second in points]
    return aggregate_points(times, array("d", points.values()), every_s and every_s * S, **options)  # type: ignore[arg-type]


def test_a_bucket_has_what_lies_in_it_and_begins_at_a_multiple() -> None:
    assert of({1: 5.0, 3: 1.0, 9: 3.0, 10: 7.0, 35: 2.0}) == [
        Aggregate(0, 3, 9.0, 1.0, 5.0, 5.0, 3.0, 1.0 * 2 + 3.0 * 6, 8.0),
        Aggregate(10 * S, 1, 7.0, 7.0, 7.0, 7.0, 7.0, 7.0, 1.0),
        Aggregate(30 * S, 1, 2.0, 2.0, 2.0, 2.0, 2.0, 50.0, 25.0),
    ]


def test_one_bucket_over_all_begins_with_the_first_point() -> None:
    assert of({3: 1.0, 65: 3.0}, None) == [Aggregate(3 * S, 2, 4.0, 1.0, 3.0, 1.0, 3.0, 0.0, 0.0)]
    assert of({}, None) == []


def test_buckets_before_1970_begin_before_their_points() -> None:
    assert [bucket.time for bucket in of({-11: 1.0, -10: 1.0, -1: 1.0, 0: 1.0})] == [-20 * S, -10 * S, 0]


def test_the_point_before_the_first_says_for_how_long_that_speaks() -> None:
    (bucket,) = of({12: 4.0}, previous_ns=7 * S)
    assert (bucket.integral, bucket.covered) == (20.0, 5.0)
    (bucket,) = of({12: 4.0})
    assert (bucket.integral, bucket.covered, bucket.mean) == (0.0, 0.0, 4.0)


def test_a_point_speaks_for_no_more_than_its_hold() -> None:
    assert gaps_before([0, 3 * S, 3 * S + 4], None, 3 * S) == [0.0, 3.0, 4e-9]
    assert gaps_before([0, 3 * S + 1], -4 * S, 3 * S) == [0.0, 0.0]
    assert [bucket.covered for bucket in of({0: 1.0, 4: 1.0, 5: 1.0}, hold_ns=3 * S)] == [1.0]


def test_nan_counts_nothing_but_ends_the_time_of_the_next_point() -> None:
    assert of({0: nan, 4: 2.0, 8: nan, 9: 6.0, 10: nan}) == [
        Aggregate(0, 2, 8.0, 2.0, 6.0, 2.0, 6.0, 2.0 * 4 + 6.0, 5.0)
    ]
    assert of({0: nan, 1: nan}) == []


def test_infinity_that_speaks_for_no_time_adds_nothing_to_the_integral() -> None:
    (bucket,) = of({0: inf, 1: 3.0, 2: 4.0})
    assert (bucket.sum, bucket.maximum, bucket.integral) == (inf, inf, 7.0)
    (bucket,) = of({0: 1.0, 1: inf, 2: -inf})
    assert math.isnan(bucket.sum)
    assert math.isnan(bucket.integral)
    assert (bucket.minimum, bucket.maximum) == (-inf, inf)


def test_the_mean_is_weighted_by_time_where_there_is_some() -> None:
    (bucket,) = of({0: 0.0, 1: 1.0, 9: 10.0})
    assert bucket.mean == (1.0 + 80.0) / 9
    assert bucket.sum / bucket.count != bucket.mean


points = st.dictionaries(
    st.integers(-(10**5), 10**5), st.sampled_from([0.0, 1.0, 2.5, -4.0, 100.0, nan]), max_size=40
).map(lambda found: dict(sorted(found.items())))


@given(points, st.sampled_from([60, 600, 3600, None]), st.integers(1, 10**4) | st.just(DEFAULT_HOLD_NS // S))
def test_finer_aggregates_add_up_to_coarser_ones(points: dict[int, float], every_s: int | None, hold_s: int) -> None:
    whole = of(points, every_s, hold_ns=hold_s * S)
    parts = combine(of(points, 10, hold_ns=hold_s * S), every_s and every_s * S)
    if every_s:
        assert [bucket.time for bucket in parts] == [bucket.time for bucket in whole]
    assert [bucket[1:7] for bucket in parts] == [bucket[1:7] for bucket in whole]
    for one, other in zip(parts, whole, strict=True):
        assert one[7:] == pytest.approx(other[7:])


@given(points, st.integers(-(10**5), 10**5))
def test_two_ranges_that_touch_add_up_to_the_whole(points: dict[int, float], border: int) -> None:
    early = {second: value for second, value in points.items() if second < border}
    late = {second: value for second, value in points.items() if second >= border}
    previous = max(early, default=None)
    parts = of(early) + of(late, previous_ns=None if previous is None else previous * S)
    for one, other in zip(combine(parts, 10 * S), of(points), strict=True):
        assert one[:7] == other[:7]
        assert one[7:] == pytest.approx(other[7:])


def test_columns_are_made_of_rows_and_rows_of_columns() -> None:
    rows = of({0: 1.0, 5: 3.0, 12: 4.0})
    columns = Aggregates.from_rows("a", rows)
    assert (columns.metric, len(columns), columns.times.tolist()) == ("a", 2, [0, 10 * S])
    assert list(columns.rows()) == rows
    assert len(Aggregates.from_rows("a", [])) == 0
    (row,) = Aggregates.from_rows("a", [(0, 1, None, 1.0, 1.0, 1.0, 1.0, None, 0.0)]).rows()
    assert math.isnan(row.sum)
    assert math.isnan(row.integral)
    assert row.covered == 0.0


@pytest.mark.parametrize(
    ("metadata", "interval_s", "hold_s"),
    [
        ({}, None, 60),
        ({"interval": 10}, 10.0, 30),
        ({"rate": 4.0}, 0.25, 0.75),
        ({"interval": 2, "rate": 1.0}, 2.0, 6),
        ({"interval": 0, "rate": 0.1}, 10.0, 30),
        ({"interval": "10s"}, None, 60),
        ({"interval": True}, None, 60),
        ({"rate": nan}, None, 60),
        ({"rate": 1e300}, None, 60),
        ({"interval": -3}, None, 60),
    ],
)
def test_a_declared_interval_holds_three_times(
    metadata: dict[str, object], interval_s: float | None, hold_s: float
) -> None:
    assert declared_interval_s(metadata) == interval_s
    assert hold_ns(metadata) == hold_s * S
