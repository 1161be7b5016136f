# SPDX-License-Identifier: MIT
"""Every transport: what happens when the connection or the broker goes, and comes back."""

import asyncio

import pytest

from bus.errors import NotConnected, PublishFailed
from bus.transport import Binding, Consumption, Exchange, Message, Queue
from tests.bus.transport.lab import PATIENCE_S, Inbox, Lab, drain, listen, send


async def test_connections_are_counted_from_one(lab: Lab) -> None:
    transport = await lab.transport()
    assert await transport.connected() == 1
    assert await transport.connected(0) == 1
    assert await lab.reconnected(transport) == 2
    assert await transport.connected() == 2
    assert await transport.connected(1) == 2


async def test_connected_after_waits_for_the_next_connection(lab: Lab) -> None:
    transport = await lab.transport()
    waiting = asyncio.create_task(transport.connected(1))
    await transport.declare_exchange(Exchange(name=lab.name("some"), durable=False))
    assert not waiting.done()
    await lab.reconnected(transport)
    async with asyncio.timeout(PATIENCE_S):
        assert await waiting == 2


async def test_there_is_no_error_while_connected_and_one_in_words_otherwise(lab: Lab) -> None:
    transport = await lab.transport()
    assert transport.last_error == ""
    await transport.aclose()
    with pytest.raises(NotConnected, match="closed"):
        await transport.connected()


async def test_the_url_of_a_transport_can_be_shown(lab: Lab) -> None:
    transport = await lab.transport()
    assert "guest" not in transport.url
    assert transport.url.partition(":")[0] == lab.place.url.partition(":")[0]


async def test_operations_wait_for_the_connection(lab: Lab) -> None:
    transport = lab.unopened()
    queue = Queue(name=lab.name("queue"), durable=False, exclusive=True)
    declaring = asyncio.create_task(transport.declare_queue(queue))
    connecting = asyncio.create_task(transport.connected())
    for _ in range(5):
        await asyncio.sleep(0)
    assert not declaring.done()
    assert not connecting.done()
    await transport.open()
    async with asyncio.timeout(PATIENCE_S):
        await declaring
        await connecting
    await send(transport, queue.name, b"it is there")


async def test_opening_twice_is_opening_once(lab: Lab) -> None:
    transport = await lab.transport()
    await transport.open()
    assert await transport.connected() == 1


async def test_closing_twice_is_closing_once(lab: Lab) -> None:
    transport = await lab.transport()
    await listen(transport, Queue(name=lab.name("queue"), durable=False, exclusive=True))
    await transport.aclose()
    await transport.aclose()


async def test_a_transport_that_was_never_opened_can_be_closed(lab: Lab) -> None:
    transport = lab.unopened()
    await transport.aclose()
    with pytest.raises(NotConnected):
        await transport.connected()


async def test_closing_ends_those_who_wait(lab: Lab) -> None:
    transport = await lab.transport()
    waiting = asyncio.create_task(transport.connected(1))
    await asyncio.sleep(0)
    await transport.aclose()
    async with asyncio.timeout(PATIENCE_S):
        with pytest.raises(NotConnected):
            await waiting


async def test_after_closing_every_operation_says_so(lab: Lab) -> None:
    transport = await lab.transport()
    _, consumer = await listen(transport, Queue(name=lab.name("queue"), durable=False, exclusive=True))
    await transport.aclose()
    for operation in (
        transport.declare_queue(Queue(name="q")),
        transport.declare_exchange(Exchange(name="e")),
        transport.delete_queue("q"),
        transport.bind("q", "e", "k"),
        transport.unbind("q", "e", "k"),
        transport.consume(Consumption(queue="q", on_delivery=Inbox())),
    ):
        async with asyncio.timeout(PATIENCE_S):
            with pytest.raises(NotConnected):
                await operation
    await consumer.cancel()


async def test_consumers_are_restored_with_their_exclusive_queues_and_bindings(lab: Lab) -> None:
    transport = await lab.transport()
    exchange = Exchange(name=lab.name("topic"), durable=False)
    queue = Queue(name=lab.name("mine"), durable=False, exclusive=True)
    inbox, consumer = await listen(transport, queue, Binding(exchange=exchange, key="a"))
    generations = []
    for _ in range(2):
        await lab.reconnected(transport)
        await transport.publish(Message(body=b"x", exchange=exchange.name, routing_key="a", mandatory=True))
        delivery = await inbox.next()
        generations.append(delivery.generation)
        consumer.ack(delivery)
    assert generations[1] > generations[0]


async def test_a_cancelled_consumer_is_not_restored(lab: Lab) -> None:
    transport = await lab.transport()
    queue = Queue(name=lab.name("mine"), durable=False, exclusive=True)
    _, consumer = await listen(transport, queue)
    await consumer.cancel()
    await lab.reconnected(transport)
    with pytest.raises(PublishFailed):
        await send(transport, queue.name, b"x")


async def test_what_a_broken_connection_held_comes_again_and_old_acks_do_nothing(lab: Lab) -> None:
    transport = await lab.transport()
    queue = Queue(name=lab.name("queue"))
    inbox, consumer = await listen(transport, queue)
    await send(transport, queue.name, b"1", b"2")
    old = await inbox.take(2)
    await lab.reconnected(transport)
    new = await inbox.take(2)
    assert [delivery.message.body for delivery in new] == [b"1", b"2"]
    assert all(delivery.redelivered for delivery in new)
    assert new[0].generation > old[0].generation
    consumer.ack(old[1], multiple=True)
    consumer.reject(old[0])
    consumer.ack(new[0])
    await consumer.cancel()
    assert await drain(transport, queue.name) == [b"2"]
    await transport.delete_queue(queue.name)


async def test_a_broken_connection_takes_no_message_out_of_order(lab: Lab) -> None:
    transport = await lab.transport()
    queue = Queue(name=lab.name("queue"))
    inbox, consumer = await listen(transport, queue, prefetch=3)
    bodies = [str(number).encode() for number in range(20)]
    await send(transport, queue.name, *bodies)
    first = await inbox.next()
    consumer.ack(first)
    await inbox.next()
    await lab.reconnected(transport)
    found: list[bytes] = []
    while len(found) < 19:
        delivery = await inbox.next()
        if delivery.generation == first.generation:
            continue
        found.append(delivery.message.body)
        consumer.ack(delivery)
    the_ack_was_lost = found[0] == bodies[0] and not lab.capabilities.at_once
    assert found == (bodies[:19] if the_ack_was_lost else bodies[1:])
    await consumer.cancel()
    await transport.delete_queue(queue.name)


async def test_publishing_fails_or_works_but_never_hangs_while_the_connection_breaks(lab: Lab) -> None:
    transport = await lab.transport()
    queue = Queue(name=lab.name("queue"))
    await transport.declare_queue(queue)
    confirmed: list[bytes] = []
    stop = asyncio.Event()
    failures: list[Exception] = []

    async def publish_for_ever() -> None:
        number = 0
        while not stop.is_set():
            number += 1
            body = str(number).encode()
            try:
                await send(transport, queue.name, body)
            except (NotConnected, PublishFailed) as error:
                failures.append(error)
                await asyncio.sleep(0)
            else:
                confirmed.append(body)
                await asyncio.sleep(0.001)

    async with asyncio.TaskGroup() as group:
        group.create_task(publish_for_ever())
        await lab.reconnected(transport)
        before = len(confirmed)
        async with asyncio.timeout(PATIENCE_S):
            while len(confirmed) < before + 5:
                await asyncio.sleep(0.01)
        stop.set()
    assert failures
    stored = await drain(transport, queue.name)
    assert [body for body in confirmed if body not in stored] == []
    await transport.delete_queue(queue.name)


async def test_a_broken_connection_is_noticed_at_once(lab: Lab) -> None:
    if not lab.capabilities.at_once:
        pytest.skip("over a network it takes its time")
    transport = await lab.transport()
    await lab.place.sever(transport)
    assert transport.last_error
    with pytest.raises(NotConnected):
        await transport.publish(Message(body=b"x", routing_key="q"))


async def test_a_consumer_that_cannot_be_restored_waits_and_hurts_no_other(lab: Lab) -> None:
    transport = await lab.transport()
    shared = Queue(name=lab.name("shared"), durable=False, exclusive=True)
    await transport.declare_queue(shared)  # by hand: nobody declares it again after the connection is lost
    waiting, _ = await listen(transport, shared.name)
    mine = Queue(name=lab.name("mine"), durable=False, exclusive=True)
    inbox, _ = await listen(transport, mine)
    await lab.reconnected(transport)
    await send(transport, mine.name, b"mine is back")
    assert await inbox.bodies(1) == [b"mine is back"]
    await transport.declare_queue(shared)
    await send(transport, shared.name, b"now it is there")
    assert await waiting.bodies(1) == [b"now it is there"]


async def test_a_restart_of_the_broker_loses_only_what_is_not_durable(lab: Lab) -> None:
    transport = await lab.transport()
    durable = Queue(name=lab.name("durable"))
    fleeting = Queue(name=lab.name("fleeting"), durable=False, exclusive=True)
    exchange = Exchange(name=lab.name("topic"))
    await transport.declare_queue(durable)
    await transport.declare_exchange(exchange)
    await transport.bind(durable.name, exchange.name, "a")
    await transport.declare_queue(fleeting)
    inbox, _ = await listen(transport, Queue(name=lab.name("mine"), durable=False, exclusive=True))
    await send(transport, durable.name, b"persistent")
    await transport.publish(Message(body=b"not persistent", routing_key=durable.name, mandatory=True))
    seen = await transport.connected()
    await lab.place.stop()
    try:
        async with asyncio.timeout(PATIENCE_S):
            while not transport.last_error:
                await asyncio.sleep(0.01)
        with pytest.raises((NotConnected, PublishFailed)):
            await send(transport, durable.name, b"lost")
        declaring = asyncio.create_task(transport.declare_queue(fleeting))
        await asyncio.sleep(0)
        assert not declaring.done()
    finally:
        await lab.place.start()
    async with asyncio.timeout(2 * PATIENCE_S):
        await transport.connected(seen)
        await declaring
    assert transport.last_error == ""
    await transport.publish(Message(body=b"routed", exchange=exchange.name, routing_key="a", mandatory=True))
    assert await drain(transport, durable.name) == [b"persistent", b"routed"]
    assert await drain(transport, fleeting.name) == []
    await transport.delete_queue(durable.name)
    assert inbox.waiting.empty()
