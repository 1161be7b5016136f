# SPDX-License-Identifier: MIT
"""`HistoryClient` against archives that are played by hand; with real ones it is tested beside them (tests/sinks)."""

import asyncio
from array import array
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from bus import history_link
from bus.aggregates import Aggregate
from bus.client import Client
from bus.errors import NotArchived, NotConnected, RpcError, RpcTimeout
from bus.history import HistoryClient
from bus.history_wire import (
    HistoryRequest,
    HistoryResponse,
    RequestType,
    decode_history_request,
    encode_history_response,
)
from bus.timestamp import Timedelta, Timestamp
from bus.transport import Consumption, Delivery, Message
from tests.bus.protobuf_oracle import ORACLE
from tests.bus.support import START_NS, break_connection

METRIC = "web1.power"
S = 10**9
MINUTE = 60 * S

Play = Callable[[HistoryRequest], HistoryResponse | bytes | None]


@pytest.fixture(autouse=True)
def in_a_hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history_link, "ERROR_PATIENCE_S", 0.2)
    monkeypatch.setattr(history_link, "RETRY_S", 0.05)


class Played(Client):
    """An archive that says what the test wants; None: nothing at all."""

    def __init__(self, token: str, url: str, play: Play, *metrics: str) -> None:
        super().__init__(token, url)
        self.play = play
        self.metrics = metrics
        self.asked: list[HistoryRequest] = []

    async def start(self) -> None:
        await super().start()
        reply = await self.rpc("db.subscribe", metrics=list(self.metrics), data=False)
        consumption = Consumption(queue=reply["historyQueue"], on_delivery=self.on_delivery)
        self.consumer = await self.transport.consume(consumption)

    def on_delivery(self, delivery: Delivery) -> None:
        request = decode_history_request(delivery.message.body)
        self.asked.append(request)
        said = self.play(request)
        if said is not None:
            self.say(delivery, said)

    def say(self, delivery: Delivery, said: HistoryResponse | bytes) -> None:
        message = Message(
            body=said if isinstance(said, bytes) else encode_history_response(said),
            routing_key=delivery.message.reply_to,
            correlation_id=delivery.message.correlation_id,
            app_id=self.token,
        )
        self.start_task(self.transport.publish(message), name="answer")
        self.consumer.ack(delivery)


@asynccontextmanager
async def asking(url: str, *, timeout_s: float = 10.0) -> AsyncIterator[HistoryClient]:
    async with HistoryClient("asker", url, timeout_s=timeout_s) as client:
        yield client


def points(first: int, end: int, next_time: int | None = None) -> HistoryResponse:
    """Points from second `first` to before `end`, with these seconds as their values."""
    return HistoryResponse(
        metric=METRIC,
        times=array("q", [START_NS + second * S for second in range(first, end)]),
        values=array("d", range(first, end)),
        next_time=next_time,
    )


def a_minute(start_ns: int, **others: float) -> Aggregate:
    return Aggregate(start_ns, 60, 120.0, 1.0, 3.0, 2.0, 2.0, 120.0, 60.0)._replace(**others)


def error(text: str) -> HistoryResponse:
    return HistoryResponse(metric=METRIC, error=text)


# -- what is asked -------------------------------------------------------------------------------------------


async def test_the_response_queue_is_gone_with_the_client(network: str) -> None:
    async with Client("tool", network) as tool, asking(network) as client:
        queue = f"{client.token}-hrsp"
        await tool.transport.publish(Message(body=b"", routing_key=queue, mandatory=True))
        assert client.token.startswith("asker.")
        await client.aclose()
        await client.aclose()
        with pytest.raises(Exception, match="no queue takes"):
            await tool.transport.publish(Message(body=b"", routing_key=queue, mandatory=True))


async def test_without_a_manager_it_does_not_start(memory_url: str) -> None:
    with pytest.raises(NotConnected, match="agent start manager"):
        async with asking(memory_url):
            pass


async def test_a_range_is_read_in_the_parts_that_the_archive_makes_of_it(network: str) -> None:
    def play(request: HistoryRequest) -> HistoryResponse:
        first = max(0, (request.start_time - START_NS) // S)
        return points(first, first + 3, START_NS + (first + 5) * S if first < 10 else None)

    async with Played("sink-a", network, play, METRIC) as archive, asking(network) as client:
        pages = [list(page.values) async for page in client.points(METRIC)]
        assert pages == [[0, 1, 2], [5, 6, 7], [10, 11, 12]]
        assert {(one.type, one.interval_max) for one in archive.asked} == {(RequestType.FLEX_TIMELINE, 0)}
        assert all(one.limit > 0 for one in archive.asked)
        archive.asked.clear()
        chunk = await client.history_raw_timeline(METRIC, Timestamp(START_NS + 6 * S), Timestamp(START_NS + 9 * S))
        assert list(chunk.values) == [6, 7, 8]
        assert [(one.start_time, one.end_time) for one in archive.asked] == [(START_NS + 6 * S, START_NS + 9 * S)]


async def test_a_bucket_that_was_cut_by_a_part_is_one_again(quick_network: str) -> None:
    start = START_NS // MINUTE * MINUTE

    def play(request: HistoryRequest) -> HistoryResponse:
        if request.start_time == start + MINUTE + 30 * S:
            rows = [a_minute(start + MINUTE, count=20, maximum=9.0, last=5.0), a_minute(start + 2 * MINUTE)]
            return HistoryResponse(metric=METRIC, aggregates=rows)
        rows = [a_minute(start), a_minute(start + MINUTE, count=40)]
        return HistoryResponse(metric=METRIC, aggregates=rows, next_time=start + MINUTE + 30 * S)

    async with Played("sink-a", quick_network, play, METRIC), asking(quick_network) as client:
        found = await client.history_aggregate_timeline(METRIC, Timedelta(MINUTE))
        assert list(found.times) == [start, start + MINUTE, start + 2 * MINUTE]
        joined = list(found.rows())[1]
        assert (joined.count, joined.maximum, joined.first, joined.last) == (60, 9.0, 2.0, 5.0)


async def test_a_flex_timeline_goes_on_as_it_began(quick_network: str) -> None:
    kinds: list[tuple[RequestType, int]] = []

    def play(request: HistoryRequest) -> HistoryResponse:
        kinds.append((request.type, request.interval_max))
        rows = [a_minute(START_NS + len(kinds) * MINUTE)]
        cut = START_NS + (len(kinds) + 1) * MINUTE if len(kinds) % 2 else None
        if len(kinds) <= 2:
            return HistoryResponse(metric=METRIC, aggregates=rows, next_time=cut)
        return points(len(kinds), len(kinds) + 1, cut)

    async with Played("sink-a", quick_network, play, METRIC), asking(quick_network) as client:
        found = await client.history_flex_timeline(METRIC, Timedelta(MINUTE))
        assert len(found) == 2
        assert kinds == [(RequestType.FLEX_TIMELINE, MINUTE), (RequestType.AGGREGATE_TIMELINE, MINUTE)]
        found = await client.history_flex_timeline(METRIC, Timedelta(MINUTE))
        assert len(found) == 2
        assert kinds[2:] == [(RequestType.FLEX_TIMELINE, MINUTE), (RequestType.FLEX_TIMELINE, 0)]


async def test_an_archive_that_never_gets_on_is_left(quick_network: str) -> None:
    def play(request: HistoryRequest) -> HistoryResponse:
        return points(0, 1, request.start_time)

    async with Played("sink-a", quick_network, play, METRIC), asking(quick_network) as client:
        with pytest.raises(RpcError, match="asked for the same times again"):
            await client.history_raw_timeline(METRIC)


@pytest.mark.parametrize("nanoseconds", [0, -1])
async def test_aggregates_over_no_time_are_refused(quick_network: str, nanoseconds: int) -> None:
    async with asking(quick_network) as client:
        with pytest.raises(ValueError, match="more than 0 ns"):
            await client.aggregates(METRIC, 0, 1, nanoseconds)


# -- MetricQ's own databases ---------------------------------------------------------------------------------


async def test_a_metricq_database_is_understood(quick_network: str) -> None:
    start = START_NS // MINUTE * MINUTE

    def play(request: HistoryRequest) -> bytes:
        """Whole answers, in spans of its own, as metricq-db-hta sends them."""
        message = ORACLE["HistoryResponse"](metric=METRIC)
        if request.type in (RequestType.LAST_VALUE, RequestType.FLEX_TIMELINE):
            message.time_delta.extend([start, S])
            message.value.extend([1.5, 2.5])
        else:
            spans = 1 if request.type is RequestType.AGGREGATE else 4
            message.time_delta.extend([start] + [20 * S] * (spans - 1))
            for _ in range(spans):
                message.aggregate.add(minimum=1, maximum=3, sum=40, count=20, integral=40e9, active_time=20 * S)
        serialized: bytes = message.SerializeToString()
        return serialized

    async with Played("db-hta", quick_network, play, METRIC), asking(quick_network) as client:
        assert list((await client.history_raw_timeline(METRIC)).values) == [1.5, 2.5]
        assert await client.history_last_value(METRIC) == (Timestamp(start + S), 2.5)
        assert await client.last(METRIC) == {METRIC: (start + S, 2.5)}
        found = await client.history_aggregate_timeline(METRIC, Timedelta(MINUTE))
        assert [(row.time, row.count, row.integral, row.covered, row.mean) for row in found.rows()] == [
            (start, 60, 120.0, 60.0, 2.0),
            (start + MINUTE, 20, 40.0, 20.0, 2.0),
        ]
        whole = await client.history_aggregate(METRIC)
        assert whole is not None
        assert (whole.count, whole.mean) == (20, 2.0)


async def test_an_aggregate_of_nothing_is_none(quick_network: str) -> None:
    def play(request: HistoryRequest) -> bytes:
        message = ORACLE["HistoryResponse"](metric=METRIC, time_delta=[5])
        message.aggregate.add()
        serialized: bytes = message.SerializeToString()
        return serialized

    async with Played("db-hta", quick_network, play, METRIC), asking(quick_network) as client:
        assert await client.history_aggregate(METRIC) is None


async def test_the_wrong_kind_of_answer_is_an_error(quick_network: str) -> None:
    def play(request: HistoryRequest) -> HistoryResponse:
        if request.type in (RequestType.LAST_VALUE, RequestType.FLEX_TIMELINE):
            return HistoryResponse(metric=METRIC, aggregates=[a_minute(START_NS)])
        return points(0, 2)

    async with Played("db-odd", quick_network, play, METRIC), asking(quick_network) as client:
        with pytest.raises(RpcError, match="points where aggregates were asked for"):
            await client.history_aggregate(METRIC)
        for wrong in (client.last(METRIC), client.history_last_value(METRIC), next_page(client)):
            with pytest.raises(RpcError, match="aggregates where points were asked for"):
                await wrong


async def next_page(client: HistoryClient) -> object:
    return await anext(client.points(METRIC))


# -- several archives, and none ------------------------------------------------------------------------------


async def test_the_first_good_answer_is_taken_and_an_error_waits_for_a_better_one(network: str) -> None:
    def fails(_: HistoryRequest) -> HistoryResponse:
        return error("the disk is broken")

    async with Played("sink-bad", network, fails, METRIC) as bad, asking(network) as client:
        with pytest.raises(RpcError, match="sink-bad: the disk is broken"):
            await client.history_last_value(METRIC)
        async with Played("sink-good", network, lambda _: points(7, 8), METRIC) as good:
            for _ in range(20):
                assert await client.history_last_value(METRIC) == (Timestamp(START_NS + 7 * S), 7.0)
            assert len(bad.asked) == 21
            assert len(good.asked) == 20


async def test_what_cannot_be_read_is_an_error_of_that_archive(quick_network: str) -> None:
    async with Played("sink-mad", quick_network, lambda _: b"\xff", METRIC), asking(quick_network) as client:
        with pytest.raises(RpcError, match="sink-mad: an answer that cannot be read"):
            await client.history_last_value(METRIC)
        async with Played("sink-good", quick_network, lambda _: points(7, 8), METRIC):
            assert await client.history_last_value(METRIC)


async def test_a_metric_that_nobody_keeps_has_no_points_but_is_an_error_for_who_names_it(network: str) -> None:
    async with asking(network) as client:
        assert [page async for page in client.points(METRIC)] == []
        assert len(await client.aggregates(METRIC, 0, 5, 1)) == 0
        assert await client.last(METRIC) == await client.last() == await client.metrics() == {}
        for question in (
            client.history_aggregate(METRIC),
            client.history_aggregate_timeline(METRIC, Timedelta(S)),
            client.history_raw_timeline(METRIC),
            client.history_flex_timeline(METRIC, Timedelta(S)),
            client.history_last_value(METRIC),
        ):
            with pytest.raises(NotArchived, match=r"no archive keeps 'web1\.power': check the name"):
                await question


async def test_an_archive_that_is_not_running_is_told_from_one_that_never_was(network: str) -> None:
    async with Client("sink-a", network) as archive, asking(network) as client:
        await archive.rpc("db.subscribe", metrics=[METRIC], data=False)
        await archive.transport.delete_queue("sink-a-hreq")  # as the broker does after five minutes
        for question in (client.history_last_value(METRIC), client.last(METRIC), next_page(client)):
            with pytest.raises(NotArchived, match=r"the archive that keeps 'web1\.power' is not running"):
                await question


async def test_an_archive_that_is_silent_is_a_timeout(network: str) -> None:
    async with Played("sink-mute", network, lambda _: None, METRIC), asking(network, timeout_s=0.3) as client:
        with pytest.raises(RpcTimeout, match=r"no answer about 'web1\.power' within 0\.3 s"):
            await client.history_last_value(METRIC)
        assert client._archives._waiting == {}


async def test_metrics_are_found_by_name_and_pattern(network: str) -> None:
    names = ["web1.a", "web1.a.b", "web1.b", "web10.a", "x.web1.a"]
    async with Played("sink-a", network, lambda _: None, *names) as archive, asking(network) as client:
        await archive.rpc("source.declare_metrics", metrics={"web1.a": {"unit": "W"}, "web1.live": {}})
        assert list(await client.metrics()) == names
        assert list(await client.metrics("web1.#")) == ["web1.a", "web1.a.b", "web1.b"]
        assert list(await client.metrics("*.a")) == ["web1.a", "web10.a"]
        assert list(await client.metrics("web1.*.#")) == ["web1.a", "web1.a.b", "web1.b"]
        assert (await client.metrics("web1.a"))["web1.a"]["unit"] == "W"
        assert await client.metrics("web1.live") == {}
        with pytest.raises(ValueError, match="not a metric name or pattern"):
            await client.metrics("web1..a")


async def test_the_last_values_of_many_metrics_are_asked_for_together(network: str) -> None:
    names = [f"web1.m{number:03}" for number in range(150)]
    async with Played("sink-a", network, lambda _: points(3, 4), *names), asking(network) as client:
        found = await client.last("web1.*")
        assert list(found) == names
        assert set(found.values()) == {(START_NS + 3 * S, 3.0)}


# -- lost connections ----------------------------------------------------------------------------------------


async def test_a_request_is_sent_again_when_the_connection_was_lost(network: str) -> None:
    asked = asyncio.Event()

    def play(_: HistoryRequest) -> HistoryResponse | None:
        asked.set()
        return points(7, 8) if len(archive.asked) > 1 else None

    async with Played("sink-a", network, play, METRIC) as archive, asking(network) as client:
        question = asyncio.create_task(client.history_last_value(METRIC))
        await asked.wait()
        await break_connection(client.transport)
        assert await question == (Timestamp(START_NS + 7 * S), 7.0)
        assert await client.history_last_value(METRIC)


async def test_questions_from_all_sides_get_their_own_answers(network: str) -> None:
    names = [f"web1.m{number}" for number in range(40)]

    def play(request: HistoryRequest) -> HistoryResponse:
        second = (request.start_time - START_NS) // S
        return points(second, second + 2)

    async with Played("sink-a", network, play, *names), asking(network) as client:

        async def ask(second: int) -> None:
            begin = Timestamp(START_NS + second * S)
            chunk = await client.history_raw_timeline(names[second % len(names)], begin, begin + Timedelta(9 * S))
            assert list(chunk.values) == [second, second + 1]

        await asyncio.gather(*map(ask, range(300)))
