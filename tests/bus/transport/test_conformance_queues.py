# SPDX-License-Identifier: MIT
"""Every transport: what queues are, how long they live, and what they drop."""

from dataclasses import replace
from typing import Any

import pytest

from bus.errors import PublishFailed, Refused
from bus.transport import Binding, Exchange, Message, Queue, Transport
from tests.bus.transport.lab import Inbox, Lab, drain, eventually, exists, listen, refused, send


async def limbo(lab: Lab, transport: Transport) -> tuple[str, Inbox]:
    """A dead-letter exchange, and what arrives there."""
    exchange = Exchange(name=lab.name("limbo"), kind="fanout", durable=False)
    queue = Queue(name=lab.name("dead"), durable=False, exclusive=True)
    inbox, _ = await listen(transport, queue, Binding(exchange=exchange, key="#"))
    return exchange.name, inbox


async def test_declaring_again_with_the_same_arguments_keeps_the_messages(lab: Lab) -> None:
    transport = await lab.transport()
    queue = Queue(name=lab.name("queue"), durable=False, exclusive=True, message_ttl_s=60, max_bytes=1000)
    await transport.declare_queue(queue)
    await send(transport, queue.name, b"kept")
    await transport.declare_queue(queue)
    assert await drain(transport, queue.name) == [b"kept"]


@pytest.mark.parametrize(
    "other",
    [
        {"auto_delete": True},
        {"expires_s": 60},
        {"message_ttl_s": 61},
        {"max_bytes": 1001},
        {"dead_letter": "elsewhere"},
    ],
    ids=lambda other: next(iter(other)),
)
async def test_declaring_with_other_arguments_is_refused(lab: Lab, other: dict[str, Any]) -> None:
    transport = await lab.transport()
    queue = Queue(name=lab.name("queue"), durable=False, exclusive=True, message_ttl_s=60, max_bytes=1000)
    await transport.declare_queue(queue)
    assert queue.name in await refused(406, transport.declare_queue(replace(queue, **other)))
    await send(transport, queue.name, b"the first stays")


async def test_an_exclusive_queue_is_never_durable_whatever_is_said(lab: Lab) -> None:
    transport = await lab.transport()
    name = lab.name("queue")
    await transport.declare_queue(Queue(name=name, exclusive=True, durable=True))
    await transport.declare_queue(Queue(name=name, exclusive=True, durable=False))


async def test_declaring_an_exchange_of_another_kind_is_refused(lab: Lab) -> None:
    transport = await lab.transport()
    name = lab.name("exchange")
    await transport.declare_exchange(Exchange(name=name, durable=False))
    await transport.declare_exchange(Exchange(name=name, durable=False))
    assert name in await refused(406, transport.declare_exchange(Exchange(name=name, kind="fanout", durable=False)))
    assert name in await refused(406, transport.declare_exchange(Exchange(name=name, durable=True)))


async def test_what_is_absent_is_refused_by_name(lab: Lab) -> None:
    transport = await lab.transport()
    queue, exchange = await lab.queue(transport)
    absent = lab.name("absent")
    assert absent in await refused(404, listen(transport, absent))
    assert absent in await refused(404, transport.bind(absent, exchange.name, "#"))
    assert absent in await refused(404, transport.bind(queue, absent, "#"))


async def test_names_that_belong_to_the_broker_are_refused(lab: Lab) -> None:
    transport = await lab.transport()
    await refused(403, transport.declare_queue(Queue(name=f"amq.{lab.name('queue')}")))
    await refused(403, transport.declare_exchange(Exchange(name=f"amq.{lab.name('exchange')}")))


async def test_an_exclusive_queue_belongs_to_its_connection(lab: Lab) -> None:
    owner, other = await lab.transport(), await lab.transport()
    queue = Queue(name=lab.name("mine"), durable=False, exclusive=True)
    await owner.declare_queue(queue)
    exchange = Exchange(name=lab.name("topic"), durable=False)
    await other.declare_exchange(exchange)
    assert queue.name in await refused(405, other.declare_queue(queue))
    assert queue.name in await refused(405, listen(other, queue))
    assert queue.name in await refused(405, listen(other, queue.name))
    assert queue.name in await refused(405, other.bind(queue.name, exchange.name, "#"))
    assert queue.name in await refused(405, other.delete_queue(queue.name))
    await send(other, queue.name, b"but everyone may write to it")
    assert await drain(owner, queue.name) == [b"but everyone may write to it"]


async def test_an_exclusive_queue_goes_with_its_connection(lab: Lab) -> None:
    owner, other = await lab.transport(), await lab.transport()
    queue = Queue(name=lab.name("mine"), durable=False, exclusive=True)
    await owner.declare_queue(queue)
    assert await exists(other, queue.name)
    await owner.aclose()

    async def is_gone() -> bool:
        return not await exists(other, queue.name)

    await eventually(is_gone)
    await other.declare_queue(queue)


async def test_a_shared_queue_outlives_the_connection_that_declared_it(lab: Lab) -> None:
    first, second = await lab.transport(), await lab.transport()
    queue = Queue(name=lab.name("shared"))
    await first.declare_queue(queue)
    await send(first, queue.name, b"kept")
    await first.aclose()
    assert await drain(second, queue.name) == [b"kept"]
    await second.delete_queue(queue.name)


async def test_an_auto_delete_queue_goes_with_its_last_consumer(lab: Lab) -> None:
    transport = await lab.transport()
    queue = Queue(name=lab.name("queue"), durable=True, auto_delete=True)
    await transport.declare_queue(queue)
    await send(transport, queue.name, b"it waits for its first consumer")
    inbox, one = await listen(transport, queue.name)
    one.ack(await inbox.next())
    _, another = await listen(transport, queue)
    await one.cancel()
    assert await exists(transport, queue.name)
    await another.cancel()

    async def is_gone() -> bool:
        return not await exists(transport, queue.name)

    await eventually(is_gone)


async def test_an_expiring_queue_goes_when_nobody_consumed_for_so_long(lab: Lab) -> None:
    transport = await lab.transport()
    used = Queue(name=lab.name("used"), expires_s=0.4)
    _, consumer = await listen(transport, used)
    unused = Queue(name=lab.name("unused"), expires_s=0.4)
    await transport.declare_queue(unused)

    async def is_gone(name: str) -> bool:
        # Not `exists`: a message would be no use of the queue either, but would go to the consumer.
        return not await _can_be_bound(lab, transport, name)

    await eventually(lambda: is_gone(unused.name))
    assert not await is_gone(used.name)
    await consumer.cancel()
    await eventually(lambda: is_gone(used.name))


async def test_a_deleted_queue_is_gone_with_what_was_in_it(lab: Lab) -> None:
    transport = await lab.transport()
    queue = Queue(name=lab.name("queue"))
    await transport.declare_queue(queue)
    await send(transport, queue.name, b"lost")
    await transport.delete_queue(queue.name)
    assert not await exists(transport, queue.name)
    await transport.delete_queue(queue.name)
    await transport.declare_queue(queue)
    assert await drain(transport, queue.name) == []
    await transport.delete_queue(queue.name)


async def test_no_exchange_routes_to_a_deleted_queue(lab: Lab) -> None:
    transport = await lab.transport()
    queue, exchange = await lab.queue(transport, None, "#")
    message = Message(body=b"x", exchange=exchange.name, routing_key="a", mandatory=True)
    await transport.publish(message)
    await transport.delete_queue(queue)
    with pytest.raises(PublishFailed):
        await transport.publish(message)


async def test_a_deleted_queue_is_bound_to_nothing_when_it_is_declared_again(lab: Lab) -> None:
    transport = await lab.transport()
    queue = Queue(name=lab.name("queue"), durable=False, exclusive=True)
    _, exchange = await lab.queue(transport, queue, "#")
    await transport.delete_queue(queue.name)
    await transport.declare_queue(queue)
    witness, _ = await lab.queue(transport)
    await transport.bind(witness, exchange.name, "#")
    inbox, _ = await listen(transport, witness)
    await transport.publish(Message(body=b"x", exchange=exchange.name, routing_key="a"))
    await inbox.next()
    assert await drain(transport, queue.name) == []


async def test_what_is_rejected_goes_to_the_dead_letter_exchange(lab: Lab) -> None:
    transport = await lab.transport()
    exchange, dead = await limbo(lab, transport)
    queue = Queue(name=lab.name("queue"), durable=False, exclusive=True, dead_letter=exchange)
    inbox, consumer = await listen(transport, queue)
    await send(transport, queue.name, b"bad", b"good", expiration_s=60)
    bad, good = await inbox.take(2)
    consumer.reject(bad)
    consumer.ack(good)
    letter = await dead.next()
    assert letter.message.body == b"bad"
    assert letter.message.exchange == exchange
    assert letter.message.routing_key == queue.name
    assert letter.message.expiration_s is None, "or it would expire there too"
    assert not letter.redelivered


async def test_what_is_rejected_is_dropped_without_a_dead_letter_exchange(lab: Lab) -> None:
    transport = await lab.transport()
    queue, _ = await lab.queue(transport)
    inbox, consumer = await listen(transport, queue)
    await send(transport, queue, b"bad", b"good")
    consumer.reject(await inbox.next())
    await inbox.next()
    await consumer.cancel()
    assert await drain(transport, queue) == [b"good"]


async def test_messages_older_than_the_queue_allows_are_dead_lettered(lab: Lab) -> None:
    transport = await lab.transport()
    exchange, dead = await limbo(lab, transport)
    queue = Queue(name=lab.name("queue"), durable=False, exclusive=True, message_ttl_s=0.2, dead_letter=exchange)
    await transport.declare_queue(queue)
    await send(transport, queue.name, b"1", b"2")
    assert await dead.bodies(2) == [b"1", b"2"]
    assert await drain(transport, queue.name) == []


async def test_a_message_past_its_own_expiration_is_dead_lettered(lab: Lab) -> None:
    transport = await lab.transport()
    exchange, dead = await limbo(lab, transport)
    queue = Queue(name=lab.name("queue"), durable=False, exclusive=True, dead_letter=exchange)
    await transport.declare_queue(queue)
    await send(transport, queue.name, b"short", expiration_s=0.2)
    await send(transport, queue.name, b"long")
    assert await dead.bodies(1) == [b"short"]
    assert await drain(transport, queue.name) == [b"long"]


async def test_the_shorter_of_two_lifetimes_counts(lab: Lab) -> None:
    transport = await lab.transport()
    exchange, dead = await limbo(lab, transport)
    queue = Queue(name=lab.name("queue"), durable=False, exclusive=True, message_ttl_s=0.2, dead_letter=exchange)
    await transport.declare_queue(queue)
    await send(transport, queue.name, b"x", expiration_s=3600)
    assert await dead.bodies(1) == [b"x"]


async def test_what_a_consumer_holds_does_not_expire(lab: Lab) -> None:
    transport = await lab.transport()
    exchange, dead = await limbo(lab, transport)
    queue = Queue(name=lab.name("queue"), durable=False, exclusive=True, dead_letter=exchange)
    inbox, consumer = await listen(transport, queue, prefetch=1)
    await send(transport, queue.name, b"held", b"waiting", expiration_s=0.2)
    held = await inbox.next()
    assert await dead.bodies(1) == [b"waiting"]
    consumer.ack(held)
    await consumer.cancel()
    assert await drain(transport, queue.name) == []
    assert dead.waiting.empty()


async def test_past_its_size_a_queue_drops_its_oldest_messages(lab: Lab) -> None:
    transport = await lab.transport()
    exchange, dead = await limbo(lab, transport)
    queue = Queue(name=lab.name("queue"), durable=False, exclusive=True, max_bytes=300, dead_letter=exchange)
    await transport.declare_queue(queue)
    bodies = [bytes([number]) * 100 for number in range(5)]
    await send(transport, queue.name, *bodies)
    assert await dead.bodies(2) == bodies[:2]
    await transport.delete_queue(queue.name)
    assert dead.waiting.empty()


async def test_the_newest_messages_stay_in_a_full_queue(lab: Lab) -> None:
    transport = await lab.transport()
    queue = Queue(name=lab.name("queue"), durable=False, exclusive=True, max_bytes=300)
    await transport.declare_queue(queue)
    bodies = [bytes([number]) * 100 for number in range(5)]
    await send(transport, queue.name, *bodies)
    inbox, _ = await listen(transport, queue.name)
    assert await inbox.bodies(3) == bodies[2:]


async def test_a_message_that_expires_in_a_circle_is_dropped(lab: Lab) -> None:
    transport = await lab.transport()
    circle = Exchange(name=lab.name("circle"), kind="fanout", durable=False)
    queue = Queue(name=lab.name("queue"), durable=False, exclusive=True, message_ttl_s=0.1, dead_letter=circle.name)
    await lab.queue(transport, queue)
    await transport.declare_exchange(circle)
    await transport.bind(queue.name, circle.name, "")
    witness = Queue(name=lab.name("witness"), durable=False, exclusive=True)
    inbox, _ = await listen(transport, witness, Binding(exchange=circle, key=""))
    await send(transport, queue.name, b"1")
    assert await inbox.bodies(1) == [b"1"]
    await send(transport, queue.name, b"2")
    assert await inbox.bodies(1) == [b"2"], "and not the first once more"


async def test_a_rejected_message_may_come_back_by_the_dead_letter_exchange(lab: Lab) -> None:
    transport = await lab.transport()
    circle = Exchange(name=lab.name("circle"), kind="fanout", durable=False)
    queue = Queue(name=lab.name("queue"), durable=False, exclusive=True, dead_letter=circle.name)
    inbox, consumer = await listen(transport, queue, Binding(exchange=circle, key=""))
    await send(transport, queue.name, b"again")
    for _ in range(3):
        consumer.reject(await inbox.next())
    delivery = await inbox.next()
    assert not delivery.redelivered, "it is a new message to the queue"


async def test_a_missing_dead_letter_exchange_is_as_none(lab: Lab) -> None:
    transport = await lab.transport()
    queue = Queue(name=lab.name("queue"), durable=False, exclusive=True, dead_letter=lab.name("absent"))
    inbox, consumer = await listen(transport, queue)
    await send(transport, queue.name, b"bad", b"good")
    consumer.reject(await inbox.next())
    assert await inbox.bodies(1) == [b"good"]


@pytest.mark.parametrize(
    "wrong", [{"durable": False}, {"exclusive": True}, {"auto_delete": True}], ids=lambda wrong: next(iter(wrong))
)
async def test_a_quorum_queue_is_durable_and_shared(lab: Lab, wrong: dict[str, Any]) -> None:
    transport = await lab.transport()
    queue = Queue(name=lab.name("quorum"), kind="quorum")
    await refused(406, transport.declare_queue(replace(queue, **wrong)))


async def test_a_quorum_queue_keeps_its_order(lab: Lab) -> None:
    transport = await lab.transport()
    queue = Queue(name=lab.name("quorum"), kind="quorum")
    await transport.declare_queue(queue)
    await send(transport, queue.name, b"1", b"2", b"3")
    assert await drain(transport, queue.name) == [b"1", b"2", b"3"]
    await transport.delete_queue(queue.name)


async def _can_be_bound(lab: Lab, transport: Transport, queue: str) -> bool:
    exchange = Exchange(name=lab.name("probe"), durable=False)
    await transport.declare_exchange(exchange)
    try:
        await transport.bind(queue, exchange.name, "#")
    except Refused as error:
        return error.code != 404
    return True
