# SPDX-License-Identifier: MIT
"""Exchanges, queues and bindings on AMQP, each asked for on a short-lived channel of its own.

The broker answers a no by closing the channel: so a no harms nothing else.
"""

from collections.abc import Awaitable, Callable

from aiormq.abc import ArgumentsType
from aiormq.channel import Channel

from bus.errors import Refused
from bus.transport.amqp_link import Session
from bus.transport.base import DEFAULT_EXCHANGE, Binding, Exchange, Queue

DELIVERY_LIMIT = 1_000_000
"""For quorum queues: each lost connection counts against every prefetched message, and RabbitMQ 4 drops after 20."""


def queue_arguments(queue: Queue) -> ArgumentsType:
    """The x-arguments; x-queue-type always, because its default differs between brokers."""
    arguments: ArgumentsType = {"x-queue-type": queue.kind}
    if queue.kind == "quorum":
        arguments["x-delivery-limit"] = DELIVERY_LIMIT
    if queue.expires_s is not None:
        arguments["x-expires"] = max(1, round(queue.expires_s * 1000))
    if queue.message_ttl_s is not None:
        arguments["x-message-ttl"] = max(0, round(queue.message_ttl_s * 1000))
    if queue.max_bytes is not None:
        arguments["x-max-length-bytes"] = queue.max_bytes
    if queue.dead_letter is not None:
        arguments["x-dead-letter-exchange"] = queue.dead_letter
    return arguments


async def ask(session: Session, what: str, question: Callable[[Channel], Awaitable[object]]) -> None:
    """Ask the broker on a fresh channel. Raises Refused, or NotConnected if the connection is lost."""
    with session.asking(what):
        channel = await session.channel()
        try:
            await question(channel)
        finally:
            await channel.close()


async def declare_exchange(session: Session, exchange: Exchange) -> None:
    """Make sure that it exists. One that is there but that we may not declare is good enough."""
    if exchange.name == DEFAULT_EXCHANGE:
        return
    what = f"exchange {exchange.name!r}"
    try:
        await ask(
            session,
            what,
            lambda channel: channel.exchange_declare(
                exchange.name, exchange_type=exchange.kind, durable=exchange.durable
            ),
        )
    except Refused as refused:
        if refused.code != 403:
            raise
        try:
            await ask(session, what, lambda channel: channel.exchange_declare(exchange.name, passive=True))
        except Refused:
            raise refused from None


async def declare_queue(channel: Channel, queue: Queue) -> None:
    """Make sure that it exists, with these arguments. To be called inside `Session.asking`."""
    await channel.queue_declare(
        queue.name,
        durable=queue.durable,
        exclusive=queue.exclusive,
        auto_delete=queue.auto_delete,
        arguments=queue_arguments(queue),
    )


def in_words(queue: str, exchange: str, key: str) -> str:
    """A binding, as errors name it."""
    return f"binding of queue {queue!r} to exchange {exchange!r} with key {key!r}"


async def bind(session: Session, channel: Channel, queue: str, binding: Binding) -> None:
    """Bind; the exchange must be there."""
    with session.asking(in_words(queue, binding.exchange.name, binding.key)):
        await channel.queue_bind(queue, binding.exchange.name, binding.key)
