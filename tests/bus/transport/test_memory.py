# SPDX-License-Identifier: MIT
"""What only the memory transport has: names, threads, and an end with the process."""

import asyncio
import threading

import pytest

from bus.errors import ConfigError, NotConnected, Refused
from bus.transport import Consumption, Delivery, Exchange, Message, Queue
from bus.transport.memory import MemoryTransport
from tests.bus.transport.lab import PATIENCE_S, drain, exists, listen, send


async def opened(url: str) -> MemoryTransport:
    transport = MemoryTransport(url)
    await transport.open()
    return transport


async def test_one_name_is_one_broker(memory_url: str) -> None:
    one, same, other = await opened(memory_url), await opened(memory_url + "/"), await opened(memory_url + "-2")
    await one.declare_queue(Queue(name="q"))
    assert await exists(same, "q")
    assert not await exists(other, "q")
    assert one.url == same.url == memory_url
    for transport in (one, same, other):
        await transport.aclose()


def test_without_a_name_it_is_the_default_broker() -> None:
    assert MemoryTransport("memory://").broker is MemoryTransport("memory://default").broker
    assert MemoryTransport("memory://").url == "memory://default"


@pytest.mark.parametrize("url", ["memory://a b", "memory://a/b", "memory:a", "memory://a?x=1", ""])
def test_another_url_is_refused_with_the_right_one(url: str) -> None:
    with pytest.raises(ConfigError, match="memory://NAME"):
        MemoryTransport(url)


async def test_when_the_last_transport_closes_only_durable_things_stay(memory_url: str) -> None:
    first, last = await opened(memory_url), await opened(memory_url)
    for durable in (True, False):
        await first.declare_queue(Queue(name=f"queue {durable}", durable=durable))
        await first.declare_exchange(Exchange(name=f"exchange {durable}", durable=durable))
        await send(first, f"queue {durable}", b"kept")
    await first.aclose()
    assert await exists(last, "queue False")
    await last.aclose()

    again = await opened(memory_url)
    assert await drain(again, "queue True") == [b"kept"]
    assert not await exists(again, "queue False")
    await again.bind("queue True", "exchange True", "#")
    with pytest.raises(Refused):
        await again.bind("queue True", "exchange False", "#")
    await again.aclose()


async def test_a_stopped_broker_is_away_for_all_until_it_starts(memory_url: str) -> None:
    one, two = await opened(memory_url), await opened(memory_url)
    one.broker.stop()
    for transport in (one, two):
        with pytest.raises(NotConnected):
            await transport.publish(Message(body=b"x", routing_key="q"))
    late = await opened(memory_url)
    assert late.last_error == "the broker is stopped"
    declaring = asyncio.create_task(late.declare_queue(Queue(name="q")))
    for _ in range(5):
        await asyncio.sleep(0)
    assert not declaring.done()
    one.broker.start()
    async with asyncio.timeout(PATIENCE_S):
        await declaring
        assert [await one.connected(1), await two.connected(1), await late.connected()] == [2, 2, 1]
    for transport in (one, two, late):
        await transport.aclose()


async def test_a_transport_closed_while_the_broker_was_stopped_stays_closed(memory_url: str) -> None:
    transport = await opened(memory_url)
    broker = transport.broker
    broker.stop()
    await asyncio.sleep(0)
    await transport.aclose()
    broker.start()
    await asyncio.sleep(0)
    with pytest.raises(NotConnected):
        await transport.connected()


async def test_transports_of_two_threads_share_a_broker(memory_url: str) -> None:
    """What one thread sends, the other sends back; each gets its deliveries in its own thread."""
    numbers = [str(number).encode() for number in range(500)]
    here = await opened(memory_url)
    to_here = asyncio.Queue[Delivery]()
    receivers: dict[str, set[int]] = {"here": set(), "there": set()}

    def handle(delivery: Delivery) -> None:
        receivers["here"].add(threading.get_ident())
        to_here.put_nowait(delivery)

    consumer = await here.consume(Consumption(queue=Queue(name="to here"), on_delivery=handle, prefetch=10))

    async def there() -> tuple[int, list[bytes]]:
        transport = await opened(memory_url)
        answers: list[bytes] = []
        complete = asyncio.Event()

        def handle(delivery: Delivery) -> None:
            receivers["there"].add(threading.get_ident())
            answers.append(delivery.message.body)
            other.ack(delivery)
            if len(answers) == len(numbers):
                complete.set()

        other = await transport.consume(Consumption(queue=Queue(name="to there"), on_delivery=handle, prefetch=10))
        await send(transport, "to here", *numbers)
        async with asyncio.timeout(PATIENCE_S):
            await complete.wait()
        await transport.aclose()
        return threading.get_ident(), answers

    working = asyncio.create_task(asyncio.to_thread(lambda: asyncio.run(there())))
    for _ in numbers:
        async with asyncio.timeout(PATIENCE_S):
            delivery = await to_here.get()
        await send(here, "to there", delivery.message.body)
        consumer.ack(delivery)
    there_thread, answers = await working
    assert answers == numbers
    assert receivers == {"here": {threading.get_ident()}, "there": {there_thread}}
    await here.aclose()


async def test_queues_expire_though_the_loop_that_declared_them_is_gone(memory_url: str) -> None:
    def elsewhere() -> None:
        async def declare() -> None:
            transport = await opened(memory_url)
            await transport.declare_queue(Queue(name="queue", message_ttl_s=0.05, dead_letter="dead"))
            await transport.declare_exchange(Exchange(name="dead", kind="fanout"))
            await transport.declare_queue(Queue(name="letters"))
            await transport.bind("letters", "dead", "#")
            await send(transport, "queue", b"too old")
            await transport.aclose()

        asyncio.run(declare())

    await asyncio.to_thread(elsewhere)
    transport = await opened(memory_url)
    inbox, _ = await listen(transport, "letters")
    assert await inbox.bodies(1) == [b"too old"]
    await transport.aclose()


async def test_a_transport_that_its_loop_left_open_hurts_nobody(memory_url: str) -> None:
    def leave() -> None:
        async def consume() -> None:
            await listen(await opened(memory_url), Queue(name="queue"), prefetch=1)

        asyncio.run(consume())

    await asyncio.to_thread(leave)
    transport = await opened(memory_url)
    inbox, _ = await listen(transport, "queue")
    await send(transport, "queue", b"1", b"2")
    assert await inbox.bodies(2) == [b"1", b"2"]
    await transport.aclose()


async def test_a_loop_of_publishes_lets_the_consumers_run(memory_url: str) -> None:
    transport = await opened(memory_url)
    queue = Queue(name="queue")
    inbox, consumer = await listen(transport, queue)
    for _ in range(100):
        await send(transport, queue.name, b"x")
        await send(transport, queue.name, b"x")
        assert inbox.waiting.qsize() >= 1, "delivered although nothing but publish was awaited"
        while not inbox.waiting.empty():
            consumer.ack(inbox.waiting.get_nowait())
    await transport.aclose()


async def test_a_consumer_cancelled_with_a_delivery_on_its_way_does_not_stop_the_others(memory_url: str) -> None:
    transport = await opened(memory_url)
    cancelled, consumer = await listen(transport, Queue(name="one"))
    inbox, _ = await listen(transport, Queue(name="two"))
    for queue in ("one", "two"):  # past the transport, which would let the loop turn
        transport.broker.publish(Message(body=b"x", routing_key=queue))
    await consumer.cancel()
    assert await inbox.bodies(1) == [b"x"]
    assert cancelled.waiting.empty()
    assert await drain(transport, "one") == [b"x"]
    await transport.aclose()


async def test_a_refusal_names_what_differs(memory_url: str) -> None:
    transport = await opened(memory_url)
    await transport.declare_queue(Queue(name="q", max_bytes=5))
    with pytest.raises(Refused, match=r"'q' exists with durable=True, max_bytes=5, not durable=False, max_bytes=None"):
        await transport.declare_queue(Queue(name="q", durable=False))
    await transport.aclose()
