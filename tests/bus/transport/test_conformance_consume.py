# SPDX-License-Identifier: MIT
"""Every transport: deliveries, acks, and what goes back."""

import asyncio

import pytest

from bus.transport import Binding, Consumption, Delivery, Exchange, Message, Queue, Transport
from tests.bus.transport.lab import Inbox, Lab, drain, eventually, listen, refused, send


async def test_consuming_declares_the_queue_and_its_bindings(lab: Lab) -> None:
    transport = await lab.transport()
    exchange = Exchange(name=lab.name("topic"), durable=False)
    queue = Queue(name=lab.name("queue"), durable=False, exclusive=True)
    inbox, _ = await listen(
        transport, queue, Binding(exchange=exchange, key="a.*"), Binding(exchange=exchange, key="b")
    )
    for key in ("a.1", "c", "b"):
        await transport.publish(Message(body=key.encode(), exchange=exchange.name, routing_key=key))
    assert await inbox.bodies(2) == [b"a.1", b"b"]


async def test_deliveries_come_in_order(lab: Lab) -> None:
    transport = await lab.transport()
    queue, _ = await lab.queue(transport)
    bodies = [str(number).encode() for number in range(200)]
    await send(transport, queue, *bodies[:100])
    inbox, consumer = await listen(transport, queue, prefetch=7)
    sender = asyncio.create_task(send(transport, queue, *bodies[100:]))
    found: list[bytes] = []
    while len(found) < 200:
        delivery = await inbox.next()
        found.append(delivery.message.body)
        consumer.ack(delivery)
    await sender
    assert found == bodies


async def test_a_delivery_never_runs_inside_the_publish_that_caused_it(lab: Lab) -> None:
    transport = await lab.transport()
    queue, _ = await lab.queue(transport)
    where: asyncio.Future[object] = asyncio.get_running_loop().create_future()
    await transport.consume(
        Consumption(queue=queue, on_delivery=lambda delivery: where.set_result(asyncio.current_task()))
    )
    await send(transport, queue, b"x")
    async with asyncio.timeout(10):
        assert await where is not asyncio.current_task()


async def test_a_handler_may_settle_at_once(lab: Lab) -> None:
    transport = await lab.transport()
    queue, _ = await lab.queue(transport)
    done: asyncio.Queue[bytes] = asyncio.Queue()

    def handle(delivery: Delivery) -> None:
        consumer.ack(delivery)
        done.put_nowait(delivery.message.body)

    consumer = await transport.consume(Consumption(queue=queue, on_delivery=handle, prefetch=1))
    await send(transport, queue, b"1", b"2", b"3")
    async with asyncio.timeout(10):
        assert [await done.get() for _ in range(3)] == [b"1", b"2", b"3"]


async def test_a_handler_that_fails_gets_the_next_message_all_the_same(
    lab: Lab, caplog: pytest.LogCaptureFixture
) -> None:
    transport = await lab.transport()
    queue, _ = await lab.queue(transport)
    inbox = Inbox()

    def handle(delivery: Delivery) -> None:
        if delivery.message.body == b"bad":
            raise ValueError("what a message")
        inbox(delivery)

    consumer = await transport.consume(Consumption(queue=queue, on_delivery=handle))
    await send(transport, queue, b"bad", b"good")
    assert await inbox.bodies(1) == [b"good"]
    assert "what a message" in caplog.text
    assert queue in caplog.text
    await consumer.cancel()
    assert await drain(transport, queue) == [b"good"], "the bad one was dropped"


async def test_no_more_are_outstanding_than_prefetch_allows(lab: Lab) -> None:
    transport = await lab.transport()
    queue, _ = await lab.queue(transport)
    await send(transport, queue, b"1", b"2", b"3", b"4", b"5")
    slow, consumer = await listen(transport, queue, prefetch=2)
    held = await slow.take(2)
    fast, other = await listen(transport, queue)
    assert await fast.bodies(3) == [b"3", b"4", b"5"]
    await other.cancel()
    assert slow.waiting.empty()
    consumer.ack(held[0])
    assert await slow.bodies(1) == [b"3"], "one ack, one more"
    assert slow.waiting.empty()


async def test_consumers_of_one_queue_take_turns(lab: Lab) -> None:
    transport = await lab.transport()
    queue, _ = await lab.queue(transport)
    one, _ = await listen(transport, queue)
    two, _ = await listen(transport, queue)
    await send(transport, queue, b"1", b"2", b"3", b"4", b"5", b"6")
    found = [await one.bodies(3), await two.bodies(3)]
    assert sorted(found) == [[b"1", b"3", b"5"], [b"2", b"4", b"6"]]


async def test_a_full_consumer_loses_its_turn(lab: Lab) -> None:
    transport = await lab.transport()
    queue, _ = await lab.queue(transport)
    full, _ = await listen(transport, queue, prefetch=1)
    free, _ = await listen(transport, queue)
    await send(transport, queue, b"1", b"2", b"3", b"4")
    assert len(await full.take(1)) == 1
    assert len(await free.take(3)) == 3
    assert full.waiting.empty()


async def test_what_was_acked_does_not_come_back(lab: Lab) -> None:
    transport = await lab.transport()
    queue, _ = await lab.queue(transport)
    inbox, consumer = await listen(transport, queue)
    await send(transport, queue, b"1", b"2", b"3")
    _, second, _ = await inbox.take(3)
    consumer.ack(second)
    await consumer.cancel()
    assert await drain(transport, queue) == [b"1", b"3"]


async def test_ack_multiple_acks_all_up_to_that_one(lab: Lab) -> None:
    transport = await lab.transport()
    queue, _ = await lab.queue(transport)
    inbox, consumer = await listen(transport, queue)
    await send(transport, queue, b"1", b"2", b"3", b"4", b"5")
    deliveries = await inbox.take(5)
    consumer.ack(deliveries[0])
    consumer.ack(deliveries[2], multiple=True)
    await consumer.cancel()
    assert await drain(transport, queue) == [b"4", b"5"]


async def test_ack_multiple_leaves_other_consumers_alone(lab: Lab) -> None:
    transport = await lab.transport()
    one, _ = await lab.queue(transport)
    two, _ = await lab.queue(transport)
    inbox_one, consumer_one = await listen(transport, one)
    inbox_two, consumer_two = await listen(transport, two)
    await send(transport, one, b"unacked")
    await inbox_one.next()
    await send(transport, two, b"1", b"2")
    consumer_two.ack((await inbox_two.take(2))[1], multiple=True)
    await consumer_two.cancel()
    await consumer_one.cancel()
    assert await drain(transport, two) == []
    assert await drain(transport, one) == [b"unacked"]


async def test_settling_twice_does_nothing(lab: Lab) -> None:
    transport = await lab.transport()
    queue, _ = await lab.queue(transport)
    inbox, consumer = await listen(transport, queue)
    await send(transport, queue, b"1", b"2", b"3")
    one, two, three = await inbox.take(3)
    consumer.ack(one)
    consumer.ack(one)
    consumer.reject(one, requeue=True)
    consumer.reject(two)
    consumer.ack(two, multiple=True)
    await send(transport, queue, b"4")
    four = await inbox.next()
    assert four.message.body == b"4"
    consumer.ack(four, multiple=True)
    consumer.ack(three)
    await consumer.cancel()
    assert await drain(transport, queue) == []


async def test_a_rejected_message_is_delivered_again_in_its_old_place(lab: Lab) -> None:
    transport = await lab.transport()
    queue, _ = await lab.queue(transport)
    await send(transport, queue, b"1", b"2", b"3")
    inbox, consumer = await listen(transport, queue, prefetch=1)
    first = await inbox.next()
    assert not first.redelivered
    consumer.reject(first, requeue=True)
    again = await inbox.next()
    assert (again.message.body, again.redelivered) == (b"1", True)
    consumer.ack(again)
    second = await inbox.next()
    assert (second.message.body, second.redelivered) == (b"2", False)


async def test_what_a_cancelled_consumer_held_goes_back_in_order(lab: Lab) -> None:
    transport = await lab.transport()
    queue, _ = await lab.queue(transport)
    await send(transport, queue, b"1", b"2", b"3", b"4")
    inbox, consumer = await listen(transport, queue, prefetch=3)
    _, two, _ = await inbox.take(3)
    consumer.ack(two)
    await inbox.next()
    await consumer.cancel()
    again, _ = await listen(transport, queue)
    await send(transport, queue, b"5")
    deliveries = await again.take(4)
    assert [delivery.message.body for delivery in deliveries] == [b"1", b"3", b"4", b"5"]
    assert [delivery.redelivered for delivery in deliveries] == [True, True, True, False]


async def test_what_several_consumers_held_goes_back_in_order(lab: Lab) -> None:
    transport = await lab.transport()
    queue, _ = await lab.queue(transport)
    await send(transport, queue, b"1", b"2", b"3", b"4")
    holders = [await listen(transport, queue, prefetch=1) for _ in range(3)]
    assert [await inbox.bodies(1) for inbox, _ in holders] == [[b"1"], [b"2"], [b"3"]]
    for index in (0, 2, 1):
        await holders[index][1].cancel()
    assert await drain(transport, queue) == [b"1", b"2", b"3", b"4"]


async def test_after_cancelling_nothing_more_is_delivered(lab: Lab) -> None:
    transport = await lab.transport()
    queue, _ = await lab.queue(transport)
    inbox, consumer = await listen(transport, queue)
    await consumer.cancel()
    await consumer.cancel()
    await send(transport, queue, b"for nobody")
    assert await drain(transport, queue) == [b"for nobody"]
    assert inbox.waiting.empty()


async def test_settling_after_cancelling_does_nothing(lab: Lab) -> None:
    transport = await lab.transport()
    queue, _ = await lab.queue(transport)
    await send(transport, queue, b"1")
    inbox, consumer = await listen(transport, queue)
    delivery = await inbox.next()
    await consumer.cancel()
    consumer.ack(delivery)
    consumer.reject(delivery)
    assert await drain(transport, queue) == [b"1"]


async def test_what_a_closed_connection_held_goes_back(lab: Lab) -> None:
    holder, other = await lab.transport(), await lab.transport()
    queue = Queue(name=lab.name("queue"))
    inbox, _ = await listen(holder, queue)
    await send(other, queue.name, b"1", b"2")
    await inbox.take(2)
    await holder.aclose()
    again, consumer = await listen(other, queue)
    deliveries = await again.take(2)
    assert [(delivery.message.body, delivery.redelivered) for delivery in deliveries] == [(b"1", True), (b"2", True)]
    await consumer.cancel()
    await other.delete_queue(queue.name)


async def test_what_was_acked_before_closing_stays_acked(lab: Lab) -> None:
    holder, other = await lab.transport(), await lab.transport()
    queue = Queue(name=lab.name("queue"))
    inbox, consumer = await listen(holder, queue)
    await send(other, queue.name, b"1", b"2")
    one, _ = await inbox.take(2)
    consumer.ack(one)
    await holder.aclose()
    assert await drain(other, queue.name) == [b"2"]
    await other.delete_queue(queue.name)


async def test_a_consumer_that_is_refused_does_not_hurt_the_others(lab: Lab) -> None:
    transport, other = await lab.transport(), await lab.transport()
    queue, _ = await lab.queue(transport)
    inbox, consumer = await listen(transport, queue)
    foreign = Queue(name=lab.name("foreign"), durable=False, exclusive=True)
    await other.declare_queue(foreign)
    different = Queue(name=queue, durable=False, exclusive=True, max_bytes=5)
    await refused(404, listen(transport, lab.name("absent")))
    await refused(405, listen(transport, foreign))
    await refused(406, listen(transport, different))
    await send(transport, queue, b"still here")
    delivery = await inbox.next()
    assert not delivery.redelivered
    consumer.ack(delivery)
    await consumer.cancel()
    assert await drain(transport, queue) == []


async def test_a_queue_deleted_under_its_consumer_is_declared_again(lab: Lab) -> None:
    transport, other = await lab.transport(), await lab.transport()
    exchange = Exchange(name=lab.name("topic"), durable=False)
    queue = Queue(name=lab.name("queue"))
    inbox, _ = await listen(transport, queue, Binding(exchange=exchange, key="a"))
    await other.delete_queue(queue.name)
    await eventually_delivered(other, inbox, Message(body=b"x", exchange=exchange.name, routing_key="a"))
    await other.delete_queue(queue.name)


async def test_a_consumer_by_name_waits_for_its_queue_to_be_declared_again(lab: Lab) -> None:
    transport, other = await lab.transport(), await lab.transport()
    queue = Queue(name=lab.name("queue"))
    await other.declare_queue(queue)
    inbox, consumer = await listen(transport, queue.name)
    witness, _ = await listen(transport, Queue(name=lab.name("witness"), durable=False, exclusive=True))
    await other.delete_queue(queue.name)
    await other.declare_queue(queue)
    await eventually_delivered(other, inbox, Message(body=b"x", routing_key=queue.name))
    assert witness.waiting.empty()
    await consumer.cancel()
    await other.delete_queue(queue.name)


async def eventually_delivered(transport: Transport, inbox: Inbox, message: Message) -> None:
    """Publish the message until it arrives."""

    async def arrives() -> bool:
        await transport.publish(message)
        return not inbox.waiting.empty()

    await eventually(arrives)
