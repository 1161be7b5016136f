# SPDX-License-Identifier: MIT
"""What an archive answers, asked without a bus."""

from array import array
from collections.abc import AsyncIterator
from dataclasses import replace
from math import isnan, nan

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bus.aggregates import Aggregate, combine
from bus.archive import MIN_NS
from bus.chunk import MAX_NS, Chunk
from bus.errors import HostbusError
from bus.frame import Group
from bus.history_wire import HistoryRequest, HistoryResponse, RequestType
from sinks import history_answers
from sinks.history_answers import answer
from tests.sinks.memory_archive import MemoryArchive

METRIC = "web1.power"
S = 10**9
START = 1_790_000_000 * S


async def archive_with(times: list[int], values: list[float] | None = None, page_points: int = 7) -> MemoryArchive:
    archive = MemoryArchive(page_points)
    column = array("d", values or [float(index) for index in range(len(times))])
    if times:
        await archive.insert([Group((METRIC,), array("q", times), column)])
    return archive


def seconds(*offsets: float) -> list[int]:
    return [START + round(offset * S) for offset in offsets]


def request(kind: RequestType, **fields: int) -> HistoryRequest:
    return HistoryRequest(type=kind, **fields)


async def all_parts(archive: MemoryArchive, first: HistoryRequest) -> tuple[list[HistoryResponse], list[Aggregate]]:
    """As a client of ours asks: on and on; the aggregates joined where a part ends within a bucket."""
    parts: list[HistoryResponse] = []
    asked = first
    while True:
        part = await answer(archive, METRIC, asked)
        assert len(part.times) + len(part.aggregates) <= asked.limit
        parts.append(part)
        if part.next_time is None:
            break
        assert part.next_time > asked.start_time
        asked = replace(asked, start_time=part.next_time)
    rows = [row for part in parts for row in part.aggregates]
    return parts, combine(rows, first.interval_max or 1)


# -- in parts ------------------------------------------------------------------------------------------------

POINTS = st.dictionaries(
    st.integers(-2, 200).map(lambda tenth: START + tenth * S // 2) | st.integers(-5 * S, MAX_NS - 1),
    st.floats(-1e6, 1e6) | st.just(nan),
    max_size=40,
)
RANGES = st.tuples(st.sampled_from([MIN_NS, 0, START, START + 7 * S, START + 33 * S]), st.just(MAX_NS))


@given(POINTS, RANGES, st.integers(1, 9), st.integers(1, 9))
async def test_points_in_parts_are_the_points(
    points: dict[int, float], wanted: tuple[int, int], limit: int, page_points: int
) -> None:
    archive = await archive_with(sorted(points), [points[time] for time in sorted(points)], page_points)
    start, end = wanted
    parts, _ = await all_parts(archive, request(RequestType.FLEX_TIMELINE, start_time=start, end_time=end, limit=limit))
    times = array("q", [time for part in parts for time in part.times])
    values = array("d", [value for part in parts for value in part.values])
    expected = sorted(time for time in points if start <= time < end)
    assert list(times) == expected
    assert values.tobytes() == array("d", [points[time] for time in expected]).tobytes()


@given(POINTS, RANGES, st.integers(1, 9), st.sampled_from([S // 2, S, 3 * S, 10 * S, 60 * S, 86400 * S * 365]))
async def test_aggregates_in_parts_add_up_to_those_of_the_whole(
    points: dict[int, float], wanted: tuple[int, int], limit: int, every: int
) -> None:
    archive = await archive_with(sorted(points), [points[time] for time in sorted(points)])
    start, end = wanted
    if every < 86400 * S and len(points) > 1:
        # Ten seconds or less over 292 years would take a while: as a person would see who asks for that.
        start = max(start, START)
        end = START + 300 * S
    asked = request(RequestType.AGGREGATE_TIMELINE, start_time=start, end_time=end, interval_max=every, limit=limit)
    _, rows = await all_parts(archive, asked)
    expected = list((await archive.aggregates(METRIC, start, end, every)).rows())
    assert [row[:2] for row in rows] == [row[:2] for row in expected]
    for row, plain in zip(rows, expected, strict=True):
        assert row == pytest.approx(plain, rel=1e-9, abs=1e-6)


async def test_a_part_that_is_full_says_from_when_to_ask_on() -> None:
    archive = await archive_with(seconds(0, 1, 2, 3, 4, 5))
    asked = request(RequestType.FLEX_TIMELINE, start_time=START, end_time=MAX_NS, limit=4)
    part = await answer(archive, METRIC, asked)
    assert (list(part.times), part.next_time) == (seconds(0, 1, 2, 3), seconds(4)[0])
    part = await answer(archive, METRIC, replace(asked, start_time=seconds(4)[0]))
    assert (list(part.times), part.next_time) == (seconds(4, 5), None)


async def test_a_page_that_just_fills_the_part_is_not_looked_beyond() -> None:
    archive = await archive_with(seconds(0, 1, 2, 3), page_points=2)
    part = await answer(archive, METRIC, request(RequestType.FLEX_TIMELINE, end_time=MAX_NS, limit=4))
    assert (len(part.times), part.next_time) == (4, seconds(3)[0] + 1)


async def test_buckets_that_no_aggregates_fit_are_made_of_a_day_of_points_at_a_time() -> None:
    day = 86400
    archive = await archive_with(seconds(*range(0, 9 * day, 600), *range(400 * day, 402 * day, 600)))
    spans: list[int] = []
    aggregates = archive.aggregates

    async def noted(metric: str, start_ns: int, end_ns: int, every_ns: int | None = None):  # type: ignore[no-untyped-def]
        if every_ns is not None:
            spans.append(end_ns - start_ns)
        return await aggregates(metric, start_ns, end_ns, every_ns)

    every = 2 * day * S + 1
    asked = request(RequestType.AGGREGATE_TIMELINE, start_time=START, end_time=MAX_NS, interval_max=every, limit=9)
    expected = list((await archive.aggregates(METRIC, START, MAX_NS, every)).rows())
    archive.aggregates = noted  # type: ignore[method-assign]
    _, rows = await all_parts(archive, asked)
    assert [row[:7] for row in rows] == [pytest.approx(row[:7]) for row in expected]
    assert max(spans[:9]) <= day * S
    assert len(spans) < 40


@pytest.mark.parametrize("limit", [1, 100_000])
async def test_ten_years_of_ten_second_steps_over_three_points_take_few_looks(limit: int) -> None:
    archive = await archive_with(seconds(0, 5 * 365 * 86400, 10 * 365 * 86400))
    looks = 0
    aggregates = archive.aggregates

    async def counted(metric: str, start_ns: int, end_ns: int, every_ns: int | None = None):  # type: ignore[no-untyped-def]
        nonlocal looks
        looks += 1
        return await aggregates(metric, start_ns, end_ns, every_ns)

    archive.aggregates = counted  # type: ignore[method-assign]
    asked = request(
        RequestType.AGGREGATE_TIMELINE, start_time=MIN_NS, end_time=MAX_NS, interval_max=10 * S, limit=limit
    )
    _, rows = await all_parts(archive, asked)
    assert len(rows) == 3
    assert looks < 1000


# -- all or nothing ------------------------------------------------------------------------------------------


async def test_metricqs_clients_get_the_whole_and_no_end_means_no_end() -> None:
    archive = await archive_with(seconds(*range(25)))
    got = await answer(archive, METRIC, request(RequestType.FLEX_TIMELINE))
    assert (list(got.times), got.next_time) == (seconds(*range(25)), None)
    got = await answer(
        archive, METRIC, request(RequestType.FLEX_TIMELINE, start_time=START + S, end_time=START + 3 * S)
    )
    assert list(got.times) == seconds(1, 2)
    got = await answer(archive, METRIC, request(RequestType.AGGREGATE_TIMELINE, interval_max=10 * S))
    assert [(row.time, row.count, row.maximum) for row in got.aggregates] == [
        (START, 10, 9.0),
        (START + 10 * S, 10, 19.0),
        (START + 20 * S, 5, 24.0),
    ]
    got = await answer(archive, METRIC, request(RequestType.AGGREGATE))
    assert [(row.time, row.count, row.sum) for row in got.aggregates] == [(START, 25, 300.0)]
    got = await answer(archive, METRIC, request(RequestType.LAST_VALUE))
    assert (list(got.times), list(got.values)) == (seconds(24), [24.0])


async def test_too_much_is_an_error_that_says_how_to_ask_for_less(monkeypatch: pytest.MonkeyPatch) -> None:
    archive = await archive_with(seconds(*range(0, 300, 3)))
    monkeypatch.setattr(history_answers, "MAX_POINTS", 99)
    monkeypatch.setattr(history_answers, "MAX_AGGREGATES", 20)
    with pytest.raises(HostbusError) as points:
        await answer(archive, METRIC, request(RequestType.FLEX_TIMELINE))
    assert str(points.value) == (
        "web1.power: more than 99 points in this range, "
        "2026-09-21T14:13:20.000000000Z to 2026-09-21T14:18:17.000000001Z: "
        "ask for a shorter one, or for aggregates with an interval_max of 1m or more"
    )
    with pytest.raises(HostbusError, match=r"more than 20 aggregates in this range.*interval_max of 1m or more"):
        await answer(archive, METRIC, request(RequestType.AGGREGATE_TIMELINE, interval_max=10 * S))
    with pytest.raises(HostbusError, match="more than 20 aggregates"):
        await answer(archive, METRIC, request(RequestType.AGGREGATE_TIMELINE, interval_max=S))
    got = await answer(archive, METRIC, request(RequestType.AGGREGATE_TIMELINE, interval_max=60 * S))
    assert len(got.aggregates) == 6


async def test_an_aggregate_over_nothing_is_one_of_nothing_for_metricqs_clients_who_insist_on_one() -> None:
    archive = await archive_with(seconds(5))
    (row,) = (await answer(archive, METRIC, request(RequestType.AGGREGATE, start_time=1, end_time=9))).aggregates
    assert (row.time, row.count, row.covered) == (1, 0, 0.0)
    assert isnan(row.minimum)
    got = await answer(archive, METRIC, request(RequestType.AGGREGATE, start_time=1, end_time=9, limit=1))
    assert not got.aggregates


@pytest.mark.parametrize("kind", [kind for kind in RequestType if kind is not RequestType.AGGREGATE])
async def test_a_metric_without_points_has_an_empty_answer(kind: RequestType) -> None:
    for limit in (0, 5):
        got = await answer(MemoryArchive(), METRIC, request(kind, interval_max=60 * S, end_time=9, limit=limit))
        assert got == HistoryResponse(metric=METRIC, aggregates=got.aggregates)
        assert not got.aggregates


# -- points or aggregates ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("interval", "points", "aggregates"),
    [(0, 100, 0), (9 * S, 100, 0), (10 * S, 0, 30), (60 * S, 0, 5)],
)
async def test_a_flex_timeline_has_points_below_the_finest_aggregates(
    interval: int, points: int, aggregates: int
) -> None:
    archive = await archive_with([START // (60 * S) * 60 * S + index * 3 * S for index in range(100)])
    got = await answer(archive, METRIC, request(RequestType.FLEX_TIMELINE, interval_max=interval))
    assert (len(got.times), len(got.aggregates)) == (points, aggregates)


async def test_a_flex_timeline_has_points_where_they_are_rarer_than_the_interval() -> None:
    archive = await archive_with(seconds(0, 100, 200, 300))
    got = await answer(archive, METRIC, request(RequestType.FLEX_TIMELINE, interval_max=60 * S))
    assert list(got.times) == seconds(0, 100, 200, 300)


async def test_a_flex_timeline_has_aggregates_where_points_are_not_kept_any_more() -> None:
    archive = await archive_with(seconds(0, 100, 200, 300))
    points = archive.points

    def young(metric: str, start_ns: int = MIN_NS, end_ns: int = MAX_NS) -> AsyncIterator[Chunk]:
        return points(metric, max(start_ns, START + 150 * S), end_ns)

    archive.points = young  # type: ignore[method-assign]
    got = await answer(archive, METRIC, request(RequestType.FLEX_TIMELINE, interval_max=60 * S))
    assert [row.count for row in got.aggregates] == [1, 1, 1, 1]


async def test_aggregates_without_an_interval_are_the_points_one_by_one() -> None:
    archive = await archive_with(seconds(0, 1, 2.5))
    got = await answer(archive, METRIC, request(RequestType.AGGREGATE_TIMELINE))
    assert [(row.time, row.count, row.integral) for row in got.aggregates] == [
        (START, 1, 0.0),
        (START + S, 1, 1.0),
        (START + 5 * S // 2, 1, 3.0),
    ]


# -- bad requests --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("metric", "asked", "words"),
    [
        ("web1..a", request(RequestType.LAST_VALUE), "'web1..a' is not a metric name"),
        ("web1.#", request(RequestType.LAST_VALUE), "'web1.#' is not a metric name"),
        (METRIC, request(RequestType.FLEX_TIMELINE, interval_max=-1), "interval_max must be at least 0 ns, not -1"),
        (METRIC, request(RequestType.AGGREGATE, start_time=9, end_time=5), "ends at 5 ns, before it begins at 9 ns"),
    ],
)
async def test_a_bad_request_is_refused_in_words(metric: str, asked: HistoryRequest, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        await answer(MemoryArchive(), metric, asked)
