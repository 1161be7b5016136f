# SPDX-License-Identifier: MIT
"""What an archive answers to a request for history, in bounded time and memory, whatever is asked.

A client of ours names a limit, gets at most so much and asks on. MetricQ's clients cannot: they get everything up
to `MAX_POINTS` or `MAX_AGGREGATES`, or an error that says how to ask for less.
"""

from array import array
from collections.abc import AsyncIterator
from dataclasses import dataclass
from math import nan

from bus.aggregates import TIERS_NS, Aggregate, combine
from bus.archive import History
from bus.chunk import MAX_NS
from bus.errors import HostbusError
from bus.frame import MAX_FRAME_POINTS
from bus.history_wire import HistoryRequest, HistoryResponse, RequestType
from bus.names import check_metric
from bus.timestamp import Timestamp

MAX_POINTS = MAX_FRAME_POINTS
MAX_AGGREGATES = 100_000
"""More of them may not fit into 16 MiB."""

DAY_NS = TIERS_NS["1d"]
FINEST_NS = min(TIERS_NS.values())
"""Archives keep aggregates of such spans; what is finer comes from points."""

Part = tuple[list[Aggregate], int]
"""Some aggregates, and the time up to which they speak."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """A request whose range and limit are settled."""

    history: History
    metric: str
    start_ns: int
    end_ns: int
    limit: int | None
    """None: the client takes all or nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Extent:
    """Where the points in a range lie: begin <= time < end; `count` of them are numbers."""

    begin: int
    end: int
    count: int


async def answer(history: History, metric: str, request: HistoryRequest) -> HistoryResponse:
    """The answer to a request about a metric.

    Raises HostbusError or ValueError whose words are for the client: a bad request, too much, or a broken archive.
    """
    check_metric(metric)
    if request.interval_max < 0:
        raise ValueError(f"{metric}: interval_max must be at least 0 ns, not {request.interval_max}")
    end_ns = request.end_time if request.end_time or request.limit else MAX_NS
    if end_ns < request.start_time:
        raise ValueError(f"{metric}: the range ends at {end_ns} ns, before it begins at {request.start_time} ns")
    question = Question(
        history=history,
        metric=metric,
        start_ns=request.start_time,
        end_ns=end_ns,
        limit=request.limit or None,
    )
    match request.type:
        case RequestType.LAST_VALUE:
            return await _last_value(question)
        case RequestType.AGGREGATE:
            return await _aggregate(question)
        case RequestType.AGGREGATE_TIMELINE:
            # Without an interval: one for each point, as MetricQ's database has it.
            return await _timeline(question, request.interval_max or 1)
        case RequestType.FLEX_TIMELINE:
            return await _flex_timeline(question, request.interval_max)


async def _last_value(question: Question) -> HistoryResponse:
    found = (await question.history.last(question.metric)).get(question.metric)
    if found is None:
        return HistoryResponse(metric=question.metric)
    return HistoryResponse(metric=question.metric, times=array("q", found[:1]), values=array("d", found[1:]))


async def _aggregate(question: Question) -> HistoryResponse:
    found = await question.history.aggregates(question.metric, question.start_ns, question.end_ns)
    rows = list(found.rows())
    if not rows and question.limit is None:
        # MetricQ's clients insist on one.
        rows = [Aggregate(question.start_ns, 0, 0.0, nan, nan, nan, nan, 0.0, 0.0)]
    return HistoryResponse(metric=question.metric, aggregates=rows)


async def _flex_timeline(question: Question, interval_ns: int) -> HistoryResponse:
    """Points if aggregates of that span could not say more with less, aggregates otherwise."""
    if interval_ns < FINEST_NS:
        return await _points(question)
    extent = await _extent(question)
    if extent is not None and extent.count * interval_ns <= extent.end - extent.begin:
        response = await _points(question)
        # Points are not kept as long as aggregates are.
        if response.next_time is not None or len(response.times) >= extent.count:
            return response
    return await _timeline(question, interval_ns)


async def _points(question: Question) -> HistoryResponse:
    limit = MAX_POINTS if question.limit is None else min(question.limit, MAX_POINTS)
    times, values = array("q"), array("d")
    next_time = None
    async for page in question.history.points(question.metric, question.start_ns, question.end_ns):
        room = limit - len(times)
        times += page.times[:room]
        values += page.values[:room]
        if len(page) > room:
            next_time = page.times[room]
        elif question.limit is not None and len(page) == room:
            next_time = times[-1] + 1  # maybe there is no more: looking would cost a page
        if next_time is not None:
            break
    if next_time is not None and question.limit is None:
        raise await _too_much(question, f"{MAX_POINTS} points")
    return HistoryResponse(metric=question.metric, times=times, values=values, next_time=next_time)


async def _timeline(question: Question, every_ns: int) -> HistoryResponse:
    limit = MAX_AGGREGATES if question.limit is None else min(question.limit, MAX_AGGREGATES)
    extent = await _extent(question)
    if extent is None:
        return HistoryResponse(metric=question.metric)
    parts = _by_points if every_ns < FINEST_NS else _by_time
    rows: list[Aggregate] = []
    async for part, reached in parts(question, extent, every_ns, limit):
        if rows and part and rows[-1].time == part[0].time:
            part[:1] = combine([rows.pop(), part[0]])
        rows += part
        if question.limit is None and len(rows) > limit:
            raise await _too_much(question, f"{MAX_AGGREGATES} aggregates")
        if question.limit is not None and len(rows) >= limit:
            next_time = rows[limit].time if len(rows) > limit else reached
            return HistoryResponse(
                metric=question.metric,
                aggregates=rows[:limit],
                next_time=next_time if next_time < extent.end else None,
            )
    return HistoryResponse(metric=question.metric, aggregates=rows)


async def _by_time(question: Question, extent: Extent, every_ns: int, limit: int) -> AsyncIterator[Part]:
    """Spans of `limit` buckets each, longer ones over times without any points: few looks, whatever the limit.

    No aggregates fit buckets that are not multiples of the finest: they are made of points, of a day at a time.
    """
    begin, times = extent.begin, 1
    while begin < extent.end:
        buckets = min(times * limit, MAX_AGGREGATES)
        end = min((begin // every_ns + buckets) * every_ns, extent.end)
        if every_ns % FINEST_NS:
            end = min(end, (begin // DAY_NS + times) * DAY_NS)
        found = await question.history.aggregates(question.metric, begin, end, every_ns)
        yield list(found.rows()), end
        begin, times = end, 1 if found else 2 * times


async def _by_points(question: Question, extent: Extent, every_ns: int, _limit: int) -> AsyncIterator[Part]:
    """Of buckets as fine as this there may be more than points: a page of points at a time."""
    async for page in question.history.points(question.metric, extent.begin, extent.end):
        end = page.times[-1] + 1
        found = await question.history.aggregates(question.metric, page.times[0], end, every_ns)
        yield list(found.rows()), end


async def _extent(question: Question) -> Extent | None:
    """None if there are no numbers in the range."""
    metric = question.metric
    whole = await question.history.aggregates(metric, question.start_ns, question.end_ns)
    newest = (await question.history.last(metric)).get(metric)
    if not whole or newest is None:
        return None
    return Extent(
        begin=max(question.start_ns, whole.times[0]),
        end=min(question.end_ns, newest[0] + 1),
        count=whole.counts[0],
    )


async def _too_much(question: Question, limit: str) -> HostbusError:
    extent = await _extent(question)
    span_ns = 0 if extent is None else extent.end - extent.begin
    name = next((name for name, tier_ns in TIERS_NS.items() if span_ns // tier_ns < MAX_AGGREGATES), "1d")
    first = "" if extent is None else f", {Timestamp(extent.begin)} to {Timestamp(extent.end)}"
    return HostbusError(
        f"{question.metric}: more than {limit} in this range{first}: "
        f"ask for a shorter one, or for aggregates with an interval_max of {name} or more"
    )
