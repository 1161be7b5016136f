# SPDX-License-Identifier: MIT
"""What a sink gets, when it is acknowledged, and what becomes of what it cannot take."""

import asyncio
import logging
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import pytest

from bus import agent as agent_module
from bus import client as client_module
from bus import sink as sink_module
from bus.chunk import Chunk
from bus.client import Client
from bus.errors import RpcError, StorageBusy
from bus.frame import Frame
from bus.gaps import Gap
from bus.manager import Manager
from bus.metricq_wire import encode_data_chunk
from bus.sink import DurableSink, Sink
from bus.timestamp import Timedelta, Timestamp
from bus.transport import Consumption, Message, Transport
from bus.transport.memory import MemoryTransport
from tests.bus.support import (
    START_NS,
    HandSource,
    break_connection,
    frame_message,
    points_in,
    transport_at,
    until,
)


@pytest.fixture(autouse=True)
def in_a_hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sink_module, "LOWEST_RETRY_S", 0.02)
    monkeypatch.setattr(client_module, "LOWEST_BACKOFF_S", 0.05)


class Keeping:
    """Keeps what it gets in `calls`; `on_call` may raise or wait."""

    def __init__(self, *args: Any, on_call: Callable[[Sequence[Frame]], Any] | None = None, **options: Any) -> None:
        super().__init__(*args, **options)
        self.calls: list[list[Frame]] = []
        self.gaps: list[Gap] = []
        self.on_call = on_call

    async def on_frames(self, frames: Sequence[Frame]) -> None:
        self.calls.append(list(frames))
        if self.on_call is not None:
            answer = self.on_call(frames)
            if answer is not None:
                await answer

    async def on_gap(self, gap: Gap) -> None:
        self.gaps.append(gap)

    @property
    def points(self) -> list[tuple[str, int, float]]:
        return points_in([frame for call in self.calls for frame in call])


class Store(Keeping, DurableSink):
    """A durable sink named ``store``."""

    def __init__(self, url: str | Transport, metrics: Sequence[str] = ("web1.#",), **options: Any) -> None:
        super().__init__("store", url, metrics=metrics, **options)


class Live(Keeping, Sink):
    """A sink that comes and goes."""

    def __init__(self, url: str | Transport, **options: Any) -> None:
        super().__init__("live", url, **options)


async def publish(transport: Transport, indices: Iterable[int], *, sequence: bool = True) -> None:
    """One frame each with ``web1.a`` = index, `index` seconds after the start."""
    for index in indices:
        await transport.publish(frame_message("web1", {"web1.a": float(index)}, index=index, sequence=index))


def a_points(indices: Iterable[int]) -> list[tuple[str, int, float]]:
    return [("web1.a", index, float(index)) for index in indices]


async def left_in(transport: Transport, queue: str) -> list[Message]:
    """What is in a queue, read to its end, which is marked by a message of our own."""
    found: list[Message] = []
    consumer = await transport.consume(
        Consumption(queue=queue, on_delivery=lambda delivery: found.append(delivery.message))
    )
    await transport.publish(Message(body=b"the end", routing_key=queue, mandatory=True))
    await until(lambda: bool(found) and found[-1].body == b"the end")
    await consumer.cancel()
    return found[:-1]


# -- four ways to take points ----------------------------------------------------------------------------


async def test_a_sink_may_take_points_one_by_one_by_chunk_or_by_frame(quick_network: str) -> None:
    seen: dict[str, list[Any]] = {"data": [], "chunk": [], "frame": []}

    class ByPoint(DurableSink):
        async def on_data(self, metric: str, time: Timestamp, value: float) -> None:
            seen["data"].append((metric, time, value))

    class ByChunk(DurableSink):
        async def on_chunk(self, chunk: Chunk) -> None:
            seen["chunk"].append((chunk.metric, list(chunk.times), list(chunk.values)))

    class ByFrame(DurableSink):
        async def on_frame(self, frame: Frame) -> None:
            seen["frame"].append((frame.source, frame.key, frame.points))

    class ByDefault(DurableSink):
        """Takes nothing, which is no error."""

    async with (
        ByPoint("p", quick_network, metrics=["web1.#"]),
        ByChunk("c", quick_network, metrics=["web1.#"]),
        ByFrame("f", quick_network, metrics=["web1.#"]),
        ByDefault("d", quick_network, metrics=["web1.#"]) as taker,
        HandSource("source-web1", quick_network, prefix="web1", chunk_size=2) as source,
    ):
        source.tick(0, {"web1.a": 1.0, "web1.b": 2.0})
        source.tick(1, {"web1.a": 3.0, "web1.b": 4.0})
        await until(lambda: len(seen["data"]) == 4 and taker.points_received == 4)
        assert taker.vital_signs() == {"pointsReceived": 4, "framesRejected": 0}
    times = [START_NS, START_NS + 10**9]
    assert seen["frame"] == [("source-web1", "web1", 4)]
    assert seen["chunk"] == [("web1.a", times, [1.0, 3.0]), ("web1.b", times, [2.0, 4.0])]
    assert seen["data"] == [
        ("web1.a", Timestamp(times[0]), 1.0),
        ("web1.a", Timestamp(times[1]), 3.0),
        ("web1.b", Timestamp(times[0]), 2.0),
        ("web1.b", Timestamp(times[1]), 4.0),
    ]


async def test_a_sink_reads_metricqs_chunks_beside_frames(network: str) -> None:
    async with transport_at(network) as transport, Store(network, metrics=["web1.a"]) as store:
        body = encode_data_chunk([START_NS + 5 * 10**9], [5.0])
        await transport.publish(Message(body=body, exchange="metricq.data", routing_key="web1.a", app_id="stock"))
        await publish(transport, [6])
        await until(lambda: len(store.points) == 2)
        assert sorted(store.points) == a_points([5, 6])


# -- patterns --------------------------------------------------------------------------------------------

METRICS = [
    "solo",
    "web1",
    "web1.cpu",
    "web1.cpu.usage",
    "web1.cpu.core0.user",
    "web1.mem.used",
    "web10.cpu.usage",
    "web2.cpu.idle",
]


@pytest.mark.parametrize(
    ("patterns", "selected"),
    [
        (["#"], METRICS),
        (["solo"], ["solo"]),
        (["web1"], ["web1"]),
        (["web1.cpu"], ["web1.cpu"]),
        (["web1.#"], ["web1", "web1.cpu", "web1.cpu.usage", "web1.cpu.core0.user", "web1.mem.used"]),
        (["web1.cpu.usage"], ["web1.cpu.usage"]),
        (["web1.cpu.*"], ["web1.cpu.usage"]),
        (["*.cpu.*"], ["web1.cpu.usage", "web10.cpu.usage", "web2.cpu.idle"]),
        (["*"], ["solo", "web1"]),
        (["#.user"], ["web1.cpu.core0.user"]),
        (["*.mem.used", "web2.#"], ["web1.mem.used", "web2.cpu.idle"]),
        (["web1.cpu.usage", "web1.mem.used"], ["web1.cpu.usage", "web1.mem.used"]),
        (["web3.#"], []),
    ],
    ids=lambda value: ",".join(value) if isinstance(value, list) else None,
)
async def test_a_sink_gets_all_metrics_that_its_patterns_select_and_no_other(
    network: str, patterns: list[str], selected: list[str]
) -> None:
    async with (
        Store(network, metrics=[*patterns, "end.marker"]) as store,
        HandSource("plain", network) as plain,
        HandSource("prefixed", network, prefix="web1.cpu") as prefixed,
        HandSource("stock", network, wire="metricq") as stock,
    ):
        for index, source in enumerate((plain, prefixed, stock)):
            source.tick(index, {metric: float(index) for metric in METRICS})
            await source.drain()
        plain.tick(9, {"end.marker": 0.0})
        await until(lambda: ("end.marker", 9, 0.0) in store.points)
        wanted = {(metric, index, float(index)) for metric in selected for index in range(3)}
        got = [point for point in store.points if point[0] != "end.marker"]
        assert set(got) == wanted
        assert len(got) == len(wanted), "each once"


async def test_frames_without_a_wanted_metric_are_not_handed_over_but_acknowledged(network: str) -> None:
    async with transport_at(network) as transport:
        async with Store(network, metrics=["web1.a"], prefetch=2) as store:
            for index in range(10):
                await transport.publish(frame_message("web1", {"web1.other": 0.0}, index=index, sequence=index))
            await publish(transport, [10])
            await until(lambda: store.points == a_points([10]))
            assert all(frame.groups for call in store.calls for frame in call)
        assert await left_in(transport, "store-data") == []


# -- acknowledgement -------------------------------------------------------------------------------------


async def test_nothing_is_acknowledged_before_on_frames_returns(
    network: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(agent_module, "WIND_DOWN_S", 0.1)
    async with transport_at(network) as transport:
        async with Store(network, on_call=lambda _: asyncio.Event().wait()) as store:
            await publish(transport, range(3))
            await until(lambda: bool(store.calls))
        assert "store could not send all that is buffered" in caplog.text
        assert len(await left_in(transport, "store-data")) == 3


async def test_what_on_frames_took_is_gone_from_the_queue(network: str) -> None:
    async with transport_at(network) as transport:
        async with Store(network) as store:
            await publish(transport, range(20))
            await until(lambda: len(store.points) == 20)
        assert store.points == a_points(range(20))
        assert await left_in(transport, "store-data") == []


async def test_what_comes_while_a_durable_sink_is_away_is_there_when_it_returns(network: str) -> None:
    async with transport_at(network) as transport:
        async with Store(network):
            pass
        await publish(transport, range(5))
        async with Store(network) as store:
            await until(lambda: store.points == a_points(range(5)))


async def test_the_end_finishes_what_came_in_and_leaves_the_rest_with_the_broker(network: str) -> None:
    gate = asyncio.Event()
    async with transport_at(network) as transport:
        store = Store(network, prefetch=4, on_call=lambda _: gate.wait())
        await store.connect()
        await publish(transport, range(20))
        await until(lambda: bool(store.calls))
        stopping = asyncio.create_task(store.stop())
        await until(lambda: store._intake._closing)
        gate.set()
        await stopping
        taken = len(store.points)
        assert 1 <= taken <= 8
        assert store.points == a_points(range(taken))
        left = await left_in(transport, "store-data")
        assert len(left) == 20 - taken, "neither lost nor doubled"


# -- a store that is busy --------------------------------------------------------------------------------


async def test_while_the_store_is_busy_the_same_frames_come_again_and_nothing_is_acknowledged(
    network: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "bus.sink")
    is_busy = True

    def busy(_: Sequence[Frame]) -> None:
        if is_busy:
            raise StorageBusy("the disk is full")

    async with transport_at(network) as transport:
        async with Store(network, prefetch=4, on_call=busy) as store:
            await publish(transport, range(10))
            await until(lambda: len(store.calls) >= 5)
            assert all(call == store.calls[0] for call in store.calls)
            assert len(store.calls[0]) <= 4
            assert store.points_received == 0
            assert caplog.messages.count("store pauses: the disk is full") == 1
            is_busy = False
            store.calls.clear()
            await until(lambda: len(store.points) == 10)
            assert store.points == a_points(range(10))
            assert caplog.messages.count("store goes on") == 1
        assert await left_in(transport, "store-data") == []
        assert await left_in(transport, "hostbus.dead") == []


async def test_a_sink_that_ends_while_its_store_is_busy_leaves_everything_in_the_queue(
    network: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(agent_module, "WIND_DOWN_S", 0.1)

    def busy(_: Sequence[Frame]) -> None:
        raise StorageBusy("locked")

    async with transport_at(network) as transport:
        async with Store(network, on_call=busy) as store:
            await publish(transport, range(5))
            await until(lambda: len(store.calls) > 1)
        assert len(await left_in(transport, "store-data")) == 5


# -- poison ----------------------------------------------------------------------------------------------


async def test_garbage_goes_to_the_dead_letters_and_its_neighbours_are_kept(network: str) -> None:
    async with transport_at(network) as transport:
        async with Store(network) as store:
            garbage = frame_message("web1", {"web1.a": 0.0})
            await publish(transport, [0, 1])
            await transport.publish(
                Message(
                    body=b"\x94\x01\xff",
                    exchange=garbage.exchange,
                    routing_key="web1",
                    content_type=garbage.content_type,
                    app_id="rude",
                )
            )
            await publish(transport, [2, 3])
            await transport.publish(Message(body=b"\xff\xff", exchange="metricq.data", routing_key="web1.a"))
            await publish(transport, [4])
            await until(lambda: store.points == a_points(range(5)))
            assert store.vital_signs()["framesRejected"] == 2
        assert [message.body for message in await left_in(transport, "hostbus.dead")] == [b"\x94\x01\xff", b"\xff\xff"]
        assert await left_in(transport, "store-data") == []


async def test_a_frame_that_breaks_the_sink_goes_to_the_dead_letters_and_its_neighbours_are_kept(
    network: str, caplog: pytest.LogCaptureFixture
) -> None:
    stored: list[tuple[str, int, float]] = []

    def choosy(frames: Sequence[Frame]) -> None:
        points = points_in(frames)
        if any(value == 2.0 for _, _, value in points):
            raise ZeroDivisionError("two")
        stored.extend(points)

    gate = asyncio.Event()
    async with transport_at(network) as transport:
        async with Store(network) as store:
            store.on_call = lambda _: gate.wait()
            await publish(transport, [0])
            await until(lambda: bool(store.calls))
            await publish(transport, range(1, 6))
            await until(lambda: len(store._intake._batch) == 5)  # so that they come together
            store.on_call = choosy
            gate.set()
            await until(lambda: len(stored) == 4)
            assert stored == a_points([1, 3, 4, 5])
            assert store.vital_signs()["framesRejected"] == 1
            # Once together, once alone, and never again.
            assert [len(call) for call in store.calls] == [1, 5, 1, 1, 1, 1, 1]
        assert len(await left_in(transport, "hostbus.dead")) == 1
        assert await left_in(transport, "store-data") == []
    assert "cannot take 5 frames together" in caplog.text
    assert "rejected a frame of 's' under 'web1'" in caplog.text


async def test_a_busy_store_in_the_middle_of_a_poisoned_batch_loses_nothing(quick_network: str) -> None:
    stored: list[tuple[str, int, float]] = []
    busy = 3

    def choosy(frames: Sequence[Frame]) -> None:
        nonlocal busy
        points = points_in(frames)
        if any(value == 1.0 for _, _, value in points):
            raise ZeroDivisionError("one")
        if busy:
            busy -= 1
            raise StorageBusy("locked")
        stored.extend(points)

    async with transport_at(quick_network) as transport, Store(quick_network, on_call=choosy) as store:
        store.batch_age_s = 0.05
        await publish(transport, range(4))
        await until(lambda: stored == a_points([0, 2, 3]))


# -- batches ---------------------------------------------------------------------------------------------


async def test_frames_are_gathered_until_there_are_enough_points(quick_network: str) -> None:
    async with transport_at(quick_network) as transport:
        store = Store(quick_network)
        store.batch_age_s, store.batch_points = 3600, 10
        async with store:
            await publish(transport, range(25))
            await until(lambda: len(store.calls) == 2)
            assert [len(call) for call in store.calls] == [10, 10]
        # The end does not wait for the rest of a batch.
        assert store.points == a_points(range(25))


async def test_frames_are_gathered_until_they_are_old_enough(quick_network: str) -> None:
    async with transport_at(quick_network) as transport:
        store = Store(quick_network)
        store.batch_age_s = 0.2
        async with store:
            await publish(transport, range(3))
            await until(lambda: bool(store.calls))
            assert [len(call) for call in store.calls] == [3]


# -- gaps ------------------------------------------------------------------------------------------------


async def test_missing_frames_are_told_before_the_frame_that_shows_it(quick_network: str) -> None:
    order: list[Any] = []

    class Watching(Store):
        async def on_gap(self, gap: Gap) -> None:
            await super().on_gap(gap)
            order.append((gap.first, gap.last))

        async def on_frame(self, frame: Frame) -> None:
            order.append(frame.sequence)

        async def on_frames(self, frames: Sequence[Frame]) -> None:
            await DurableSink.on_frames(self, frames)

    async with transport_at(quick_network) as transport, Watching(quick_network) as store:
        for index in (0, 1, 4, 5):
            await publish(transport, [index])
            await until(lambda index=index: index in order)
        assert order == [0, 1, (2, 3), 4, 5]
        assert (store.gaps[0].source, store.gaps[0].key, store.gaps[0].epoch) == ("s", "web1", 1)


async def test_the_gap_of_frames_that_are_not_wanted_is_told_too(quick_network: str) -> None:
    # The frames that are missing may have held what is wanted.
    async with transport_at(quick_network) as transport, Store(quick_network, metrics=["web1.b"]) as store:
        await publish(transport, [0, 3])
        await until(lambda: len(store.gaps) == 1)


async def test_without_an_on_gap_of_its_own_a_sink_logs(quick_network: str, caplog: pytest.LogCaptureFixture) -> None:
    async with (
        transport_at(quick_network) as transport,
        DurableSink("store", quick_network, metrics=["web1.#"]) as store,
    ):
        await publish(transport, [0, 3])
        await until(lambda: store.points_received == 2)
    assert "store: frames 1 to 2 of web1 (s) are missing" in caplog.text


async def test_an_on_gap_that_raises_harms_nothing(quick_network: str, caplog: pytest.LogCaptureFixture) -> None:
    class Clumsy(Store):
        async def on_gap(self, gap: Gap) -> None:
            raise StorageBusy("locked")

    async with transport_at(quick_network) as transport, Clumsy(quick_network) as store:
        await publish(transport, [0, 3, 4])
        await until(lambda: store.points == a_points([0, 3, 4]))
    assert "cannot note that frames of 's' are missing" in caplog.text


async def test_metrics_that_come_back_after_a_pause_in_the_subscription_show_no_gap(quick_network: str) -> None:
    async with transport_at(quick_network) as transport, Store(quick_network, metrics=["web1.a", "web2.a"]) as store:
        await publish(transport, [0])
        await until(lambda: len(store.points) == 1)
        await store.unsubscribe(["web1.a"])
        await publish(transport, [1, 2])
        await store.subscribe(["web1.a"])
        await publish(transport, [3])
        await until(lambda: store.points == a_points([0, 3]))
        assert store.gaps == []


# -- connections that break ------------------------------------------------------------------------------


async def test_what_was_not_acknowledged_comes_again_after_a_lost_connection(network: str) -> None:
    gate = asyncio.Event()
    async with transport_at(network) as transport:
        async with Store(network, on_call=lambda _: gate.wait()) as store:
            await publish(transport, range(3))
            await until(lambda: bool(store.calls))
            await break_connection(store.transport)
            gate.set()
            # An ack for the connection before does nothing: they come again.
            await until(lambda: len(store.points) >= 6)
            await publish(transport, range(3, 6))
            await until(lambda: store.points[-1] == ("web1.a", 5, 5.0))
            assert set(store.points) == set(a_points(range(6)))
            assert store.gaps == []
        assert await left_in(transport, "store-data") == []


async def test_a_stream_over_several_lost_connections_has_no_hole(network: str) -> None:
    async with Store(network) as store, HandSource("source-web1", network, prefix="web1") as source:
        for index in range(60):
            source.tick(index, {"web1.a": float(index)})
            if index % 20 == 10:
                await break_connection(store.transport)
            if index % 20 == 15:
                await break_connection(source.transport)
            await asyncio.sleep(0)
        await source.drain()
        await until(lambda: set(store.points) == set(a_points(range(60))))


async def test_a_restart_of_the_broker_leaves_no_hole(any_url: str, request: pytest.FixtureRequest) -> None:
    async with (
        Manager("manager", any_url),
        Store(any_url) as store,
        Live(any_url) as live,
        HandSource("source-web1", any_url, prefix="web1") as source,
    ):
        await live.subscribe(["web1.#"])
        for index in range(30):
            source.tick(index, {"web1.a": float(index)})
            if index == 10:
                await source.drain()
                await until(lambda: len(store.points) == 11)
                restart = asyncio.create_task(restart_broker(store.transport, request))
            await asyncio.sleep(0.01)
        await restart
        await source.drain()
        await until(lambda: set(store.points) == set(a_points(range(30))))
        # The queue of a sink that comes and goes is there again, or a new one is.
        seen = len(live.points)
        index = 30
        while len(live.points) == seen:
            source.tick(index, {"web1.a": float(index)})
            await asyncio.sleep(0.02)
            index += 1


async def restart_broker(transport: Transport, request: pytest.FixtureRequest) -> None:
    if isinstance(transport, MemoryTransport):
        transport.broker.stop()
        await asyncio.sleep(0)
        transport.broker.start()
        return
    try:
        await asyncio.to_thread(request.getfixturevalue("rabbitmq").restart)
    except NotImplementedError as error:
        pytest.skip(str(error))


async def test_a_live_sink_subscribes_again_when_the_broker_has_lost_its_queue(network: str) -> None:
    async with transport_at(network) as transport, Live(network) as live:
        queue = (await live.subscribe(["web1.#"]))["dataQueue"]
        await publish(transport, [0])
        await until(lambda: len(live.points) == 1)
        await transport.delete_queue(queue)
        await break_connection(live.transport)
        await until(lambda: publishes(transport, live))


async def publishes(transport: Transport, live: Live) -> bool:
    """Publish one more; whether one came since the first."""
    index = getattr(live, "next_index", 1)
    live.next_index = index + 1  # type: ignore[attr-defined]
    await publish(transport, [index])
    return len(live.points) > 1


# -- subscriptions ---------------------------------------------------------------------------------------


async def test_subscribe_answers_with_queue_and_metadata(quick_network: str) -> None:
    async with HandSource("source-web1", quick_network) as source, Live(quick_network) as live:
        await source.declare_metrics({"web1.a": {"unit": "V"}, "web2.a": {}})
        reply = await live.subscribe(["web1.#", "web9.unknown"], metadata=True)
        assert reply["dataQueue"].startswith(f"{live.token}-live-")
        assert reply["metrics"].keys() == {"web1.a", "web9.unknown"}
        assert reply["metrics"]["web1.a"]["unit"] == "V"
        assert (await live.subscribe(["web2.a"], metadata=False))["metrics"] == ["web2.a"]


async def test_later_subscriptions_share_the_queue_of_the_first_even_at_once(network: str) -> None:
    async with transport_at(network) as transport, Live(network) as live:
        replies = await asyncio.gather(*(live.subscribe([f"web{number}.#"]) for number in range(1, 6)))
        assert len({reply["dataQueue"] for reply in replies}) == 1
        for number in range(1, 6):
            await transport.publish(frame_message(f"web{number}", {f"web{number}.a": 1.0}))
        await until(lambda: {metric for metric, _, _ in live.points} == {f"web{number}.a" for number in range(1, 6)})


async def test_a_subscription_that_was_refused_leaves_no_trace(quick_network: str) -> None:
    async with Live(quick_network) as live:
        await live.subscribe(["web1.a"])
        with pytest.raises(ValueError, match="'a b' is not a metric name or pattern"):
            await live.subscribe(["a b"])
        with pytest.raises(RpcError, match="expires"):
            await live.subscribe(["web2.a"], expires=-1)
        with pytest.raises(TypeError, match="not one string"):
            await live.subscribe("web1.a")
        assert live._selection.patterns == ["web1.a"]
        assert "expires" not in live._subscription


async def test_expires_may_be_seconds_or_a_timedelta(memory_url: str) -> None:
    async with Manager("manager", memory_url), transport_at(memory_url) as transport:
        for expires in (30, Timedelta.from_s(30)):
            async with Live(memory_url) as live:
                queue = (await live.subscribe(["web1.a"], expires=expires))["dataQueue"]
                assert transport.broker._queues[queue].spec.expires_s == 30  # type: ignore[attr-defined]


async def test_one_of_two_metrics_that_share_a_key_may_be_unsubscribed(network: str) -> None:
    async with transport_at(network) as transport, Live(network) as live:
        await live.subscribe(["web1.cpu.a", "web1.cpu.b"])
        await live.unsubscribe(["web1.cpu.a"])
        await transport.publish(frame_message("web1.cpu", {"web1.cpu.a": 1.0, "web1.cpu.b": 2.0}))
        await until(lambda: live.points == [("web1.cpu.b", 0, 2.0)])
        await live.unsubscribe(["web1.cpu.b"])
        await transport.publish(frame_message("web1.cpu", {"web1.cpu.b": 3.0}, index=1))
        await live.subscribe(["other"])
        await transport.publish(frame_message("other", {"other": 4.0}))
        await until(lambda: live.points[1:] == [("other", 0, 4.0)])


async def test_a_manager_that_was_restarted_takes_no_key_away_that_is_still_needed(any_url: str) -> None:
    async with transport_at(any_url) as transport, Live(any_url) as live:
        async with Manager("manager", any_url):
            await live.subscribe(["web1.cpu.a", "web1.cpu.b"])
        async with Manager("manager", any_url):
            await live.unsubscribe(["web1.cpu.a"])
            await transport.publish(frame_message("web1.cpu", {"web1.cpu.a": 1.0, "web1.cpu.b": 2.0}))
            await until(lambda: live.points == [("web1.cpu.b", 0, 2.0)])


async def test_unsubscribing_what_is_not_subscribed_is_an_error_that_names_what_is(quick_network: str) -> None:
    async with Live(quick_network) as live:
        with pytest.raises(ValueError, match=r"live.* is not subscribed to 'web1\.a'"):
            await live.unsubscribe(["web1.a"])
        await live.subscribe(["web1.#"])
        with pytest.raises(ValueError, match=r"did you mean 'web1\.#'"):
            await live.unsubscribe(["web1.a"])


async def test_tokens_of_sinks_that_come_and_go_are_unique_those_of_durable_ones_as_given() -> None:
    assert Live("memory://").token != Live("memory://").token
    assert Store("memory://").token == "store"


def test_metrics_given_as_one_string_are_a_mistake_of_the_program() -> None:
    with pytest.raises(TypeError, match=r"like \['abc'\], not one string"):
        DurableSink("store", "memory://", metrics="abc")
    with pytest.raises(ValueError, match=r"'web1\.#x' is not a metric name or pattern"):
        DurableSink("store", "memory://", metrics=["web1.#x"])


async def test_a_durable_sink_finds_its_queue_again_after_the_manager_was_restarted(
    memory_url: str, tmp_path: Any
) -> None:
    # The manager forgot which sinks are durable, and gave one a queue that dies after five minutes.
    config = Manager.Config(store=str(tmp_path / "manager.db"))
    async with Client("holder", memory_url):
        async with Manager("manager", memory_url, config=config):
            store = Store(memory_url, metrics=[])
            await store.connect()
        async with Manager("manager", memory_url, config=config):
            assert (await store.subscribe(["web1.#"]))["dataQueue"] == "store-data"
            await store.stop()


async def test_a_sink_that_only_waits_ends_at_once(network: str) -> None:
    store = Store(network)
    await store.connect()
    async with asyncio.timeout(3):
        await store.stop()
