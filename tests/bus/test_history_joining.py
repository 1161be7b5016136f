# SPDX-License-Identifier: MIT
"""The answers of several archives, joined."""

from array import array
from collections.abc import Callable

from hypothesis import given
from hypothesis import strategies as st

from bus.aggregates import aggregate_points, combine
from bus.history_joining import joined
from bus.history_wire import HistoryRequest, HistoryResponse, RequestType

S = 10**9
EVERY = 10 * S
POINTS = st.dictionaries(st.integers(0, 200), st.floats(-1e6, 1e6), max_size=60)
SOME = st.sets(st.integers(0, 200))

Answer = Callable[[dict[int, float], HistoryRequest], HistoryResponse]


def some_points(points: dict[int, float], request: HistoryRequest) -> HistoryResponse:
    """As an archive answers that has these points."""
    found = [second for second in sorted(points) if second * S >= request.start_time]
    part, rest = found[: request.limit], found[request.limit :]
    return HistoryResponse(
        times=array("q", [second * S for second in part]),
        values=array("d", [points[second] for second in part]),
        next_time=rest[0] * S if rest else None,
    )


def some_aggregates(points: dict[int, float], request: HistoryRequest) -> HistoryResponse:
    """Cut anywhere, as those of fine buckets are."""
    part = some_points(points, request)
    rows = aggregate_points(part.times, part.values, EVERY)
    times = array("q", [row.time for row in rows])
    return HistoryResponse(times=times, aggregates=rows, next_time=part.next_time)


def ask_on(
    archives: list[dict[int, float]], answer: Answer, kind: RequestType, limits: tuple[int, int]
) -> list[HistoryResponse]:
    start, parts = 0, []
    while True:
        asked = [HistoryRequest(start_time=start, interval_max=EVERY, type=kind, limit=limit) for limit in limits]
        parts.append(joined([answer(*one) for one in zip(archives, asked, strict=True)], asked[0]))
        if parts[-1].next_time is None:
            return parts
        assert parts[-1].next_time > start
        start = parts[-1].next_time


@given(POINTS, SOME, SOME, st.tuples(st.integers(1, 9), st.integers(1, 9)))
def test_each_point_that_one_of_them_has_is_there_once(
    points: dict[int, float], lacks_one: set[int], lacks_other: set[int], limits: tuple[int, int]
) -> None:
    one = {second: value for second, value in points.items() if second not in lacks_one}
    other = {second: value for second, value in points.items() if second not in lacks_other}
    parts = ask_on([one, other], some_points, RequestType.FLEX_TIMELINE, limits)
    found = [pair for part in parts for pair in zip(part.times, part.values, strict=True)]
    assert found == [(second * S, value) for second, value in sorted({**one, **other}.items())]


@given(
    POINTS, st.sets(st.integers(0, 20)), st.sets(st.integers(0, 20)), st.tuples(st.integers(1, 9), st.integers(1, 9))
)
def test_each_bucket_that_one_of_them_has_whole_is_whole(
    points: dict[int, float], lacks_one: set[int], lacks_other: set[int], limits: tuple[int, int]
) -> None:
    one = {second: value for second, value in points.items() if second // 10 not in lacks_one}
    other = {second: value for second, value in points.items() if second // 10 not in lacks_other}
    parts = ask_on([one, other], some_aggregates, RequestType.AGGREGATE_TIMELINE, limits)
    found = combine([row for part in parts for row in part.aggregates], EVERY)
    whole = some_aggregates({**one, **other}, HistoryRequest(limit=1000)).aggregates
    assert [(row.time, row.count, row.minimum, row.maximum) for row in found] == [
        (row.time, row.count, row.minimum, row.maximum) for row in whole
    ]


def test_of_one_aggregate_over_everything_the_fullest_is_taken() -> None:
    few, many = (some_aggregates(dict.fromkeys(range(end), 1.0), HistoryRequest(limit=1000)) for end in (3, 7))
    request = HistoryRequest(type=RequestType.AGGREGATE)
    assert joined([few, many], request) == joined([many, few], request) == many


def test_an_archive_without_points_takes_nothing_away() -> None:
    some, none = some_points({1: 5.0}, HistoryRequest(limit=9)), HistoryResponse()
    request = HistoryRequest(type=RequestType.FLEX_TIMELINE)
    assert joined([none, some], request) == joined([some, none], request) == some


def test_where_one_has_points_and_the_other_aggregates_these_are_taken() -> None:
    points, request = dict.fromkeys(range(60), 2.0), HistoryRequest(type=RequestType.FLEX_TIMELINE, limit=1000)
    aggregates = some_aggregates(points, request)
    assert joined([some_points({3: 2.0}, request), aggregates], request) == aggregates
