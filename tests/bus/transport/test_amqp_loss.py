# SPDX-License-Identifier: MIT
"""Losing an AMQP broker, its attention, or a queue, in the middle of work."""

import asyncio
import contextlib
import logging
import subprocess

import pytest

from bus.errors import NotConnected, PublishFailed, Refused, Unroutable
from bus.transport import Binding, Consumption, Delivery, Exchange, Message, Queue, amqp_link, amqp_publisher
from bus.transport.amqp import AmqpTransport
from tests.bus.transport.amqp_lab import (
    PATIENCE_S,
    connected,
    connection,
    hurry,
    nothing_left,
    outcomes,
    publish_all,
    told,
    topic,
    until,
)
from tests.bus.transport.relay import Relay
from tests.services.rabbitmq import PrivateNode, RabbitMq


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Short waits between attempts to connect."""
    hurry(monkeypatch)


@pytest.mark.parametrize("disturbance", ["restart", "kill9"])
async def test_nothing_confirmed_is_lost_when_the_broker_dies_under_a_publisher_and_a_consumer(
    rabbitmq: RabbitMq, amqp_url: str, disturbance: str
) -> None:
    count = 6000
    async with connected(amqp_url) as source, connected(amqp_url) as sink:
        queue = Queue(name="archive")
        await topic(source, queue)
        inbox: asyncio.Queue[Delivery] = asyncio.Queue()
        consumer = await sink.consume(Consumption(queue=queue, on_delivery=inbox.put_nowait, prefetch=200))
        bodies = [b"%d" % number for number in range(count)]
        publishing = asyncio.create_task(publish_all(source, bodies))
        seen: set[bytes] = set()

        async def collect(wanted: int) -> None:
            async with asyncio.timeout(3 * PATIENCE_S):
                while len(seen) < wanted:
                    delivery = await inbox.get()
                    seen.add(delivery.message.body)
                    if len(seen) % 50 == 0 or inbox.empty():
                        consumer.ack(delivery, multiple=True)

        await collect(count // 10)
        try:
            if disturbance == "restart":
                await asyncio.to_thread(rabbitmq.restart)
            else:
                await asyncio.to_thread(rabbitmq.kill9)
                await asyncio.to_thread(rabbitmq.start)
        except NotImplementedError as error:
            publishing.cancel()
            pytest.skip(str(error))
        await collect(count)
        await publishing
        assert seen == set(bodies)
        assert await source.connected() >= 2


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("turns", [0, 1, 2, 3, 5, 8, 20])
async def test_every_publish_ends_when_the_connection_is_lost_in_the_middle_of_a_burst(
    amqp_url: str, turns: int
) -> None:
    """aiormq's queue to its writer holds 10 frames: a publish that waited for room would wait for ever."""
    async with Relay(amqp_url) as relay, connected(relay.url) as transport:
        await topic(transport, Queue(name="queue", durable=False, exclusive=True))
        message = Message(body=b"x" * 4096, routing_key="key", exchange="topic")
        publishes = [asyncio.create_task(transport.publish(message)) for _ in range(300)]
        for _ in range(turns):
            await asyncio.sleep(0)
        transport.drop_connections()
        assert await outcomes(publishes) <= {type(None), PublishFailed, NotConnected}
        await connection(transport, 1)


@pytest.mark.usefixtures("impatient")
async def test_on_a_network_that_falls_silent_publishes_fail_and_the_transport_comes_back(amqp_url: str) -> None:
    """The library raises CancelledError then, though nobody cancelled anything."""
    async with Relay(amqp_url + "?heartbeat=1") as relay, connected(relay.url) as transport:
        await topic(transport, Queue(name="queue"))
        relay.freeze()
        message = Message(body=b"x", routing_key="key", exchange="topic")
        assert await outcomes(transport.publish(message) for _ in range(64)) == {PublishFailed}
        relay.cut()
        relay.thaw()
        await connection(transport, 1)
        await transport.publish(message)


@pytest.mark.usefixtures("impatient")
async def test_a_connection_that_confirms_nothing_is_given_up(amqp_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(amqp_publisher, "CONFIRM_TIMEOUT_S", 0.5)
    async with Relay(amqp_url) as relay, connected(relay.url) as transport:
        await topic(transport, Queue(name="queue"))
        message = Message(body=b"x", routing_key="key", exchange="topic")
        await transport.publish(message)
        relay.freeze()
        assert await outcomes(transport.publish(message) for _ in range(64)) == {PublishFailed}


async def test_closing_leaves_nothing_running(amqp_url: str) -> None:
    async with nothing_left(), connected(amqp_url) as transport:
        queue = Queue(name="queue", durable=False, exclusive=True)
        await transport.consume(Consumption(queue=queue, on_delivery=lambda _: None))
        await publish_to_nowhere(transport)
        transport.drop_connections()
        await connection(transport, 1)
        await publish_to_nowhere(transport)


async def publish_to_nowhere(transport: AmqpTransport) -> None:
    """A publish that fails with its channel, and one that comes back."""
    absent = Message(body=b"", routing_key="key", exchange="absent")
    unroutable = Message(body=b"", routing_key="absent", mandatory=True)
    assert await outcomes([transport.publish(absent)]) == {PublishFailed}
    assert await outcomes([transport.publish(unroutable)]) == {Unroutable}


@pytest.mark.parametrize("used_before", [True, False], ids=["with a channel", "while it opens a channel"])
async def test_closing_is_quick_on_a_network_that_fell_silent_and_fails_what_is_under_way(
    amqp_url: str, used_before: bool
) -> None:
    async with Relay(amqp_url) as relay, nothing_left():
        async with connected(relay.url) as transport:
            queue = Queue(name="queue")
            await topic(transport, queue)
            message = Message(body=b"x", routing_key="key", exchange="topic")
            if used_before:
                await transport.publish(message)
            consumer = await transport.consume(Consumption(queue=queue, on_delivery=lambda _: None))
            relay.freeze()
            publishes = [asyncio.create_task(transport.publish(message)) for _ in range(64)]
            asking = asyncio.create_task(transport.declare_queue(Queue(name="other")))
            await asyncio.sleep(0.1)
        with pytest.raises(PublishFailed) as caught:
            await publishes[0]
        assert "Connection:" not in str(caught.value)
        assert await outcomes(publishes) == {PublishFailed}
        assert await outcomes([asking]) == {NotConnected}
        await consumer.cancel()


async def test_a_caller_that_stops_waiting_for_its_publish_is_cancelled_and_harms_no_other(amqp_url: str) -> None:
    async with Relay(amqp_url) as relay, connected(relay.url) as transport:
        await topic(transport, Queue(name="queue", durable=False, exclusive=True))
        message = Message(body=b"x", routing_key="key", exchange="topic", mandatory=True)
        await transport.publish(message)
        relay.freeze()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await transport.publish(message)
        publishes = [asyncio.create_task(transport.publish(message)) for _ in range(64)]
        publishes[0].cancel()
        relay.thaw()
        assert await outcomes(publishes[1:]) == {type(None)}
        assert publishes[0].cancelled()


@pytest.mark.usefixtures("impatient")
async def test_a_queue_that_was_declared_otherwise_meanwhile_stops_one_consumer_and_is_reported_once(
    amqp_url: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("bus.transport.amqp_consumer.LOWEST_RETRY_S", 0.02)
    monkeypatch.setattr("bus.transport.amqp_consumer.HIGHEST_RETRY_S", 0.05)
    caplog.set_level(logging.INFO)
    broken = Queue(name="broken", max_bytes=1000)
    exchange = Exchange(name="data")
    everything = [Binding(exchange=exchange, key="#")]
    async with connected(amqp_url) as transport, connected(amqp_url) as other:
        sick: asyncio.Queue[Delivery] = asyncio.Queue()
        well: asyncio.Queue[Delivery] = asyncio.Queue()
        await transport.consume(Consumption(queue=broken, on_delivery=sick.put_nowait, bindings=everything))
        await transport.consume(
            Consumption(queue=Queue(name="healthy"), on_delivery=well.put_nowait, bindings=everything)
        )
        # Deleted and declared otherwise before the consumer can declare it again.
        while not [line for line in told(caplog, logging.WARNING) if "inequivalent arg" in line]:
            with contextlib.suppress(Refused):  # the consumer was quicker
                await other.delete_queue("broken")
                await other.declare_queue(Queue(name="broken", max_bytes=2000))
        message = Message(body=b"x", routing_key="key", exchange="data")
        async with asyncio.timeout(PATIENCE_S):
            for _ in range(20):
                await other.publish(message)
                await well.get()
        complaints = [line for line in told(caplog, logging.WARNING) if "'broken'" in line and "inequivalent" in line]
        assert len(complaints) == 1
        assert "delete it, or declare it as it is" in complaints[0]
        assert sick.empty()
        await other.delete_queue("broken")
        await until(lambda: "queue 'broken': consuming again" in told(caplog, logging.INFO))
        await other.publish(message)
        async with asyncio.timeout(PATIENCE_S):
            await sick.get()
        assert await transport.connected() == 1


@pytest.mark.usefixtures("impatient")
async def test_a_consumer_that_waits_to_try_again_does_not_hold_up_the_next_connection(
    amqp_url: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("bus.transport.amqp_consumer.LOWEST_RETRY_S", 0.01)
    monkeypatch.setattr("bus.transport.amqp_consumer.HIGHEST_RETRY_S", 10_000.0)
    async with connected(amqp_url) as transport:
        await transport.declare_queue(Queue(name="queue"))
        await transport.consume(Consumption(queue="queue", on_delivery=lambda _: None))
        await transport.delete_queue("queue")
        monkeypatch.setattr("random.uniform", lambda lowest, highest: 600.0 if highest > 0.05 else 0.0)
        await until(lambda: any("no queue 'queue'" in line for line in told(caplog, logging.WARNING)))
        for _ in range(5):
            seen = await connection(transport)
            transport.drop_connections()
            assert await connection(transport, seen) > seen


async def test_acks_given_just_before_closing_are_sent(amqp_url: str) -> None:
    queue = Queue(name="queue")
    async with connected(amqp_url) as transport:
        await topic(transport, queue)
        await publish_all(transport, [b"%d" % number for number in range(500)])
        inbox: asyncio.Queue[Delivery] = asyncio.Queue()
        consumer = await transport.consume(Consumption(queue=queue, on_delivery=inbox.put_nowait, prefetch=500))
        async with asyncio.timeout(PATIENCE_S):
            deliveries = [await inbox.get() for _ in range(500)]
        for delivery in deliveries[:-1]:
            consumer.ack(delivery)
    async with connected(amqp_url) as transport:
        rest: asyncio.Queue[Delivery] = asyncio.Queue()
        await transport.consume(Consumption(queue=queue, on_delivery=rest.put_nowait))
        async with asyncio.timeout(PATIENCE_S):
            assert (await rest.get()).message.body == deliveries[-1].message.body
        await transport.publish(Message(body=b"end", routing_key="queue"))
        async with asyncio.timeout(PATIENCE_S):
            assert (await rest.get()).message.body == b"end"


@pytest.mark.usefixtures("impatient")
async def test_in_a_memory_alarm_publishes_wait_and_consuming_goes_on_and_then_all_is_confirmed(
    rabbitmq: RabbitMq, amqp_url: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The broker stops reading, which to TCP looks like a dead network and to a watchdog like a dead broker."""
    if not isinstance(rabbitmq, PrivateNode):
        pytest.skip("needs a broker of our own")
    monkeypatch.setattr(amqp_publisher, "CONFIRM_TIMEOUT_S", 1.0)
    monkeypatch.setattr(amqp_link, "USER_TIMEOUT_MS", 1000)
    caplog.set_level(logging.INFO)
    async with connected(amqp_url) as transport:
        queue = Queue(name="queue")
        await topic(transport, queue)
        await publish_all(transport, [b"%d" % number for number in range(300)])
        await asyncio.to_thread(memory_watermark, rabbitmq, "1MB")
        try:
            message = Message(body=b"x" * 262_144, routing_key="key", exchange="topic")
            publishes = [asyncio.create_task(transport.publish(message)) for _ in range(64)]
            await until(lambda: any("takes no messages" in line for line in told(caplog, logging.WARNING)))
            inbox: asyncio.Queue[Delivery] = asyncio.Queue()
            consumer = await transport.consume(Consumption(queue=queue, on_delivery=inbox.put_nowait, prefetch=50))
            async with asyncio.timeout(PATIENCE_S):
                for _ in range(300):
                    consumer.ack(await inbox.get())
            await asyncio.sleep(3)  # longer than both time-outs
            assert not any(publish.done() for publish in publishes[1:])
        finally:
            await asyncio.to_thread(memory_watermark, rabbitmq, "3GB")
        assert await outcomes(publishes) == {type(None)}
        assert await transport.connected() == 1
        await until(lambda: any("takes messages again" in line for line in told(caplog, logging.INFO)))


def memory_watermark(node: PrivateNode, limit: str) -> None:
    """Above this use of memory the broker raises its alarm."""
    subprocess.run(
        ["/usr/lib/rabbitmq/bin/rabbitmqctl", "set_vm_memory_high_watermark", "absolute", limit],
        env=node._environment,
        check=True,
        capture_output=True,
    )
