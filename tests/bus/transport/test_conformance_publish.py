# SPDX-License-Identifier: MIT
"""Every transport: routing, confirms, and what travels with a message."""

import asyncio

import pytest

from bus.errors import NotConnected, PublishFailed, Unroutable
from bus.transport import Exchange, Message, Queue
from tests.bus.transport.lab import Lab, drain, listen, refused, send

# What each pattern takes of the keys, as RabbitMQ routes them (AMQP 0-9-1, 3.1.3.3).
TOPICS = {
    "web1.cpu.usage": ["web1.cpu.usage"],
    "web1.*.usage": ["web1.cpu.usage", "web1..usage"],
    "web1.*": ["web1.cpu"],
    "*": ["web1"],
    "web1.#": ["web1", "web1.cpu", "web1.cpu.usage", "web1..usage"],
    "#.usage": ["web1.cpu.usage", "web1..usage"],
    "web1.#.usage": ["web1.cpu.usage", "web1..usage"],
    "#.cpu.#": ["web1.cpu", "web1.cpu.usage"],
    "*.#": ["web1", "web1.cpu", "web1.cpu.usage", "web1..usage"],
    "#": ["", "web1", "web1.cpu", "web1.cpu.usage", "web1..usage"],
    "web": [],
}
KEYS = ["", "web1", "web1.cpu", "web1.cpu.usage", "web1..usage"]


async def test_the_default_exchange_reaches_the_queue_named_by_the_key(lab: Lab) -> None:
    transport = await lab.transport()
    one, _ = await lab.queue(transport)
    other, _ = await lab.queue(transport)
    await send(transport, one, b"for one")
    assert await drain(transport, other) == []
    assert await drain(transport, one) == [b"for one"]


async def test_a_topic_exchange_routes_by_pattern(lab: Lab) -> None:
    transport = await lab.transport()
    exchange = Exchange(name=lab.name("topic"), durable=False)
    await transport.declare_exchange(exchange)
    queues = {pattern: lab.name("queue") for pattern in TOPICS}
    for pattern, queue in queues.items():
        await transport.declare_queue(Queue(name=queue, durable=False, exclusive=True))
        await transport.bind(queue, exchange.name, pattern)
    for key in KEYS:
        await transport.publish(Message(body=key.encode(), exchange=exchange.name, routing_key=key))
    found = {pattern: [body.decode() for body in await drain(transport, queue)] for pattern, queue in queues.items()}
    assert found == TOPICS


async def test_a_fanout_exchange_ignores_the_key(lab: Lab) -> None:
    transport = await lab.transport()
    exchange = Exchange(name=lab.name("fanout"), kind="fanout", durable=False)
    await transport.declare_exchange(exchange)
    queues = [(await lab.queue(transport))[0] for _ in range(2)]
    for queue in queues:
        await transport.bind(queue, exchange.name, "some.key")
    await transport.publish(Message(body=b"to all", exchange=exchange.name, routing_key="another", mandatory=True))
    assert [await drain(transport, queue) for queue in queues] == [[b"to all"], [b"to all"]]


async def test_a_queue_gets_one_copy_however_many_bindings_match(lab: Lab) -> None:
    transport = await lab.transport()
    queue, exchange = await lab.queue(transport, None, "a.b", "a.*", "a.#", "#")
    await transport.publish(Message(body=b"once", exchange=exchange.name, routing_key="a.b"))
    assert await drain(transport, queue) == [b"once"]


async def test_binding_twice_is_binding_once(lab: Lab) -> None:
    transport = await lab.transport()
    queue, exchange = await lab.queue(transport, None, "a.#", "a.#")
    await transport.unbind(queue, exchange.name, "a.#")
    with pytest.raises(Unroutable):
        await transport.publish(Message(body=b"x", exchange=exchange.name, routing_key="a", mandatory=True))


async def test_unbinding_leaves_the_other_bindings(lab: Lab) -> None:
    transport = await lab.transport()
    queue, exchange = await lab.queue(transport, None, "a", "b")
    await transport.unbind(queue, exchange.name, "a")
    for key in ("a", "b"):
        await transport.publish(Message(body=key.encode(), exchange=exchange.name, routing_key=key))
    assert await drain(transport, queue) == [b"b"]


async def test_unbinding_what_is_not_bound_is_no_error(lab: Lab) -> None:
    transport = await lab.transport()
    queue, exchange = await lab.queue(transport)
    await transport.unbind(queue, exchange.name, "never bound")
    await transport.unbind(lab.name("absent"), exchange.name, "a")
    await transport.unbind(queue, lab.name("absent"), "a")


async def test_an_unroutable_message_is_an_error_only_if_mandatory(lab: Lab) -> None:
    transport = await lab.transport()
    _, exchange = await lab.queue(transport, None, "a")
    await transport.publish(Message(body=b"x", exchange=exchange.name, routing_key="b"))
    with pytest.raises(PublishFailed, match="'b'"):
        await transport.publish(Message(body=b"x", exchange=exchange.name, routing_key="b", mandatory=True))
    absent = lab.name("absent")
    with pytest.raises(PublishFailed, match=absent):
        await send(transport, absent, b"x")


async def test_publishing_to_an_absent_exchange_fails_by_its_name_and_harms_no_other(lab: Lab) -> None:
    transport = await lab.transport()
    queue, exchange = await lab.queue(transport, None, "a")
    absent = lab.name("absent")
    for _ in range(2):
        with pytest.raises(PublishFailed, match=absent):
            await transport.publish(Message(body=b"x", exchange=absent, routing_key="a"))
    await transport.publish(Message(body=b"fine", exchange=exchange.name, routing_key="a", mandatory=True))
    assert await drain(transport, queue) == [b"fine"]


async def test_publishing_works_once_the_absent_exchange_was_declared(lab: Lab) -> None:
    transport = await lab.transport()
    exchange = Exchange(name=lab.name("late"), durable=False)
    with pytest.raises(PublishFailed):
        await transport.publish(Message(body=b"x", exchange=exchange.name, routing_key="a"))
    await transport.declare_exchange(exchange)
    await transport.publish(Message(body=b"x", exchange=exchange.name, routing_key="a"))


async def test_all_that_a_message_says_arrives(lab: Lab) -> None:
    transport = await lab.transport()
    queue, exchange = await lab.queue(transport, None, "#")
    sent = Message(
        body=b"\0\xff body",
        exchange=exchange.name,
        routing_key="the.key",
        content_type="application/json",
        correlation_id="correlation",
        reply_to="back",
        app_id="source-test",
        type="kind",
        persistent=True,
        expiration_s=60.0,
    )
    await transport.publish(sent)
    inbox, _ = await listen(transport, queue)
    delivery = await inbox.next()
    assert delivery.message == sent
    assert not delivery.redelivered


async def test_a_message_that_says_nothing_arrives_with_the_defaults(lab: Lab) -> None:
    transport = await lab.transport()
    queue, _ = await lab.queue(transport)
    await transport.publish(Message(body=b"", routing_key=queue))
    inbox, _ = await listen(transport, queue)
    assert (await inbox.next()).message == Message(body=b"", routing_key=queue)


async def test_a_body_of_a_mebibyte_arrives_whole(lab: Lab) -> None:
    transport = await lab.transport()
    queue, _ = await lab.queue(transport)
    body = bytes(range(256)) * 4096
    await send(transport, queue, body)
    inbox, _ = await listen(transport, queue)
    assert (await inbox.next()).message.body == body


async def test_publishes_begun_in_order_arrive_in_order(lab: Lab) -> None:
    transport = await lab.transport()
    queue, exchange = await lab.queue(transport, None, "#")
    bodies = [str(number).encode() for number in range(300)]
    async with asyncio.TaskGroup() as group:
        for body in bodies:
            group.create_task(
                transport.publish(Message(body=body, exchange=exchange.name, routing_key="a", mandatory=True))
            )
    assert await drain(transport, queue) == bodies


async def test_a_confirmed_message_is_in_the_queue(lab: Lab) -> None:
    publisher, consumer = await lab.transport(), await lab.transport()
    queue = lab.name("queue")
    await publisher.declare_queue(Queue(name=queue))
    await send(publisher, queue, b"stored")
    await publisher.aclose()
    assert await drain(consumer, queue) == [b"stored"]
    await consumer.delete_queue(queue)


async def test_publishing_before_opening_and_after_closing_is_refused_at_once(lab: Lab) -> None:
    transport = lab.unopened()
    with pytest.raises(NotConnected):
        await transport.publish(Message(body=b"x", routing_key="q"))
    await transport.open()
    await transport.connected()
    await transport.aclose()
    with pytest.raises(NotConnected):
        await transport.publish(Message(body=b"x", routing_key="q"))


async def test_the_default_exchange_takes_no_bindings(lab: Lab) -> None:
    transport = await lab.transport()
    queue, _ = await lab.queue(transport)
    await refused(403, transport.bind(queue, "", "key"))
