# SPDX-License-Identifier: MIT
"""The exchanges, and the queues of sinks."""

from collections.abc import AsyncIterator

import pytest

from bus import queues as queues_module
from bus.errors import Refused, RpcError
from bus.queues import CHUNKS, DEAD, FRAMES, HISTORY, DataQueues, durable_name, live_name
from bus.transport import Consumption, Delivery, Message, Queue, Transport
from tests.bus.support import transport_at, until


@pytest.fixture
async def transport(any_url: str) -> AsyncIterator[Transport]:
    async with transport_at(any_url) as opened:
        yield opened


@pytest.fixture
async def queues(transport: Transport) -> DataQueues:
    made = DataQueues(transport)
    await made.declare_exchanges()
    return made


async def send(transport: Transport, *keys: str, exchange: str = FRAMES.name) -> None:
    for key in keys:
        await transport.publish(Message(body=key.encode(), exchange=exchange, routing_key=key))


async def take_all(transport: Transport, queue: str) -> list[Message]:
    """What is in the queue, taken out of it."""
    taken: list[Delivery] = []
    consumer = await transport.consume(Consumption(queue=queue, on_delivery=taken.append))
    await transport.publish(Message(body=b"end of queue", routing_key=queue, mandatory=True))
    await until(lambda: bool(taken) and taken[-1].message.body == b"end of queue")
    consumer.ack(taken[-1], multiple=True)
    await consumer.cancel()
    return [delivery.message for delivery in taken[:-1]]


async def drain(transport: Transport, queue: str) -> list[str]:
    """The bodies of all that is in the queue, taken out of it."""
    return [message.body.decode() for message in await take_all(transport, queue)]


def test_the_exchanges_are_named_as_the_contract_says() -> None:
    assert [(exchange.name, exchange.kind) for exchange in (FRAMES, CHUNKS, HISTORY, DEAD)] == [
        ("hostbus.data", "topic"),
        ("metricq.data", "topic"),
        ("metricq.history", "topic"),
        ("hostbus.dead", "fanout"),
    ]


async def test_declaring_again_is_no_error(queues: DataQueues) -> None:
    await queues.declare_exchanges()
    await queues.subscribe("sink-data", ["web1.#"], frames=True)
    await queues.subscribe("sink-data", ["web1.#"], frames=True)


async def test_queues_that_are_there_with_other_arguments_are_good_enough(any_url: str) -> None:
    # An operator's choice, or an earlier version's, must not keep the manager from starting.
    async with transport_at(any_url) as transport:
        for name in ("hostbus.dead", "sink-data", "db-hreq"):
            await transport.declare_queue(Queue(name=name, max_bytes=1000))
        queues = DataQueues(transport)
        await queues.declare_exchanges()
        await queues.subscribe("sink-data", ["web1.#"], frames=True)
        assert await queues.declare_history("db", "hreq") == "db-hreq"


@pytest.mark.parametrize(
    ("pattern", "frames", "chunks"),
    [
        ("web1.cpu.usage", ["web1", "web1.cpu", "web1.cpu.usage"], ["web1.cpu.usage"]),
        ("web1.#", ["web1", "web1.cpu", "web1.cpu.usage"], ["web1", "web1.cpu", "web1.cpu.usage"]),
        ("*.cpu.*", ["web1", "web1.cpu", "web1.cpu.usage", "web2", "web2.cpu"], ["web1.cpu.usage"]),
        ("web2", ["web2"], ["web2"]),
    ],
)
async def test_a_pattern_binds_its_word_prefixes_for_frames_and_itself_for_chunks(
    transport: Transport, queues: DataQueues, pattern: str, frames: list[str], chunks: list[str]
) -> None:
    await queues.subscribe("sink-data", [pattern], frames=True)
    keys = ["web1", "web1.cpu", "web1.cpu.usage", "web2", "web2.cpu", "db.x.y.z"]
    await send(transport, *keys)
    assert await drain(transport, "sink-data") == frames
    await send(transport, *keys, exchange=CHUNKS.name)
    assert await drain(transport, "sink-data") == chunks


async def test_unsubscribing_leaves_the_keys_that_other_patterns_need(transport: Transport, queues: DataQueues) -> None:
    await queues.subscribe("sink-data", ["web1.cpu.a", "web1.cpu.b", "web2.x"], frames=True)
    await queues.unsubscribe("sink-data", ["web1.cpu.a"])
    keys = ["web1", "web1.cpu", "web1.cpu.a", "web1.cpu.b", "web2", "web2.x"]
    await send(transport, *keys)
    assert await drain(transport, "sink-data") == ["web1", "web1.cpu", "web1.cpu.b", "web2", "web2.x"]
    await send(transport, *keys, exchange=CHUNKS.name)
    assert await drain(transport, "sink-data") == ["web1.cpu.b", "web2.x"]
    await queues.unsubscribe("sink-data", ["web1.cpu.b", "web2.x"])
    await send(transport, *keys)
    assert await drain(transport, "sink-data") == []


async def test_a_released_queue_is_gone_and_may_be_released_twice(transport: Transport, queues: DataQueues) -> None:
    await queues.subscribe("sink-data", ["web1.#"], frames=True)
    await queues.release("sink-data")
    with pytest.raises(Refused):
        await transport.bind("sink-data", FRAMES.name, "x")
    await queues.release("sink-data")


async def test_the_end_of_a_subscription_is_a_message_in_the_queue(transport: Transport, queues: DataQueues) -> None:
    await queues.subscribe("sink-data", [], frames=True)
    await queues.send_end("sink-data", "manager")
    assert [(message.type, message.body) for message in await take_all(transport, "sink-data")] == [("end", b"")]


@pytest.mark.parametrize("name", ["management", "other-rpc", "", "hostbus.dead", "a b-data", "x-live-123", "x" * 201])
async def test_a_name_that_is_no_sinks_queue_is_refused(queues: DataQueues, name: str) -> None:
    for attempt in (
        queues.subscribe(name, ["web1.#"], frames=True),
        queues.unsubscribe(name, ["web1.#"]),
        queues.release(name),
    ):
        with pytest.raises(RpcError, match=r"dataQueue .* is not the queue of a sink: leave it out, or name the one"):
            await attempt


async def test_what_is_no_pattern_is_refused_before_anything_is_declared(
    transport: Transport, queues: DataQueues
) -> None:
    with pytest.raises(RpcError, match="'web1 a' is not a metric name or pattern"):
        await queues.subscribe("sink-data", ["web1.b", "web1 a"], frames=True)
    with pytest.raises(Refused):
        await transport.bind("sink-data", FRAMES.name, "x")


async def test_rejected_messages_of_a_durable_sink_are_kept(transport: Transport, queues: DataQueues) -> None:
    await queues.subscribe("sink-data", ["web1.#"], frames=True)
    await send(transport, "web1.cpu")
    taken: list[Delivery] = []
    consumer = await transport.consume(Consumption(queue="sink-data", on_delivery=taken.append))
    await until(lambda: bool(taken))
    consumer.reject(taken[0])
    await until(lambda: has_some(transport))


async def has_some(transport: Transport) -> bool:
    return await drain(transport, "hostbus.dead") != []


def test_names_are_made_as_they_are_known() -> None:
    assert durable_name("sink") == "sink-data"
    assert live_name("sink") != live_name("sink")
    assert queues_module._LIVE.fullmatch(live_name("sink.1-x"))
    assert queues_module._DURABLE.fullmatch(durable_name("sink.1-x"))


async def test_what_is_remembered_is_bounded(memory_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queues_module, "MAX_REMEMBERED", 5)
    async with transport_at(memory_url) as transport:
        queues = DataQueues(transport)
        await queues.declare_exchanges()
        for number in range(20):
            await queues.subscribe(f"sink{number}-data", ["web1.#"], frames=True)
        assert len(queues._patterns) <= 5


async def test_a_sink_that_cannot_read_frames_gets_none(any_url: str) -> None:
    # Stock MetricQ requeues what it cannot decode, at once and for ever.
    async with transport_at(any_url) as transport:
        queues = DataQueues(transport)
        await queues.declare_exchanges()
        await queues.subscribe("stock-data", ["web1.cpu.usage"], frames=False)
        for exchange in (FRAMES, CHUNKS):
            await transport.publish(
                Message(body=exchange.name.encode(), exchange=exchange.name, routing_key="web1.cpu.usage")
            )
        assert await drain(transport, "stock-data") == [CHUNKS.name]
