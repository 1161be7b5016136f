# SPDX-License-Identifier: MIT
"""What the conformance tests work with: one broker, transports on it, and inboxes for deliveries.

The same tests run on every implementation of `Transport`; where implementations honestly differ, a
capability says so by name.
"""

import asyncio
import contextlib
import itertools
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol

import pytest

from bus.errors import PublishFailed, Refused
from bus.transport import Binding, Consumer, Consumption, Delivery, Exchange, Message, Queue, Transport, connect
from bus.transport.memory import MemoryTransport
from tests.services.rabbitmq import ForeignServer, RabbitMq

PATIENCE_S = 20.0
"""How long a test waits for what must come."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Capabilities:
    """Where transports differ, and may."""

    at_once: bool
    """An ack has reached the broker when `ack` returns, and a broken connection is noticed in the same turn of the
    loop; over a network both take their time."""


class Place(Protocol):
    """A kind of broker."""

    capabilities: Capabilities
    url: str
    is_ours: bool
    """Nobody minds what tests leave behind, for it vanishes with the broker or the virtual host."""

    async def sever(self, transport: Transport) -> None:
        """Begin to break the transport's connections."""

    async def stop(self) -> None:
        """Take the broker away."""

    async def start(self) -> None:
        """Bring it back, with what it had stored."""


class MemoryPlace:
    """A broker in this process."""

    capabilities = Capabilities(at_once=True)

    is_ours = True

    def __init__(self, url: str) -> None:
        self.url = url
        self._broker = MemoryTransport(url).broker

    async def sever(self, transport: Transport) -> None:
        assert isinstance(transport, MemoryTransport)
        transport.drop_connections()

    async def stop(self) -> None:
        self._broker.stop()

    async def start(self) -> None:
        self._broker.start()


class AmqpPlace:
    """A virtual host of a RabbitMQ server."""

    capabilities = Capabilities(at_once=False)

    def __init__(self, url: str, server: RabbitMq) -> None:
        self.url = url
        self._server = server
        self.is_ours = not isinstance(server, ForeignServer)

    async def sever(self, transport: Transport) -> None:
        await self._do(self._server.close_connections)

    async def stop(self) -> None:
        await self._do(self._server.stop)

    async def start(self) -> None:
        await self._do(self._server.start)

    async def _do(self, what: Callable[[], object]) -> None:
        try:
            await asyncio.to_thread(what)
        except NotImplementedError as error:
            pytest.skip(str(error))


class Inbox:
    """Takes the deliveries of one consumer, in order."""

    def __init__(self) -> None:
        self.waiting: asyncio.Queue[Delivery] = asyncio.Queue()

    def __call__(self, delivery: Delivery) -> None:
        self.waiting.put_nowait(delivery)

    async def next(self) -> Delivery:
        """The next delivery, which must come."""
        async with asyncio.timeout(PATIENCE_S):
            return await self.waiting.get()

    async def take(self, count: int) -> list[Delivery]:
        """So many."""
        return [await self.next() for _ in range(count)]

    async def bodies(self, count: int) -> list[bytes]:
        """What is in so many."""
        return [delivery.message.body for delivery in await self.take(count)]


class Lab:
    """One broker of a test's own."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self.capabilities = place.capabilities
        self._transports: list[Transport] = []
        self._numbers = itertools.count(1)
        self._names: list[str] = []
        self._id = uuid.uuid4().hex[:8]

    def name(self, stem: str) -> str:
        """A name that no other test uses: the broker may be one that outlives the tests."""
        name = f"{stem}-{self._id}-{next(self._numbers)}"
        self._names.append(name)
        return name

    def unopened(self) -> Transport:
        """A transport that is closed after the test, but not opened."""
        transport = connect(self.place.url)
        self._transports.append(transport)
        return transport

    async def transport(self) -> Transport:
        """A connected one."""
        transport = self.unopened()
        await transport.open()
        async with asyncio.timeout(PATIENCE_S):
            await transport.connected()
        return transport

    async def queue(self, transport: Transport, queue: Queue | None = None, *keys: str) -> tuple[str, Exchange]:
        """A queue and a topic exchange of their own, bound with `keys`; both names are new unless `queue` is given."""
        queue = queue or Queue(name=self.name("queue"), durable=False, exclusive=True)
        exchange = Exchange(name=self.name("topic"), durable=False)
        await transport.declare_queue(queue)
        await transport.declare_exchange(exchange)
        for key in keys:
            await transport.bind(queue.name, exchange.name, key)
        return queue.name, exchange

    async def reconnected(self, transport: Transport) -> int:
        """Sever the transport's connections and wait until it is back; the number of its new connection."""
        seen = await transport.connected()
        await self.place.sever(transport)
        async with asyncio.timeout(PATIENCE_S):
            return await transport.connected(seen)

    async def aclose(self) -> None:
        """Close all, and leave no queue on a broker that is not ours."""
        for transport in self._transports:
            await transport.aclose()
        if self.place.is_ours or not self._names:
            return
        broom = await self.transport()
        for name in self._names:
            with contextlib.suppress(Refused):  # an exclusive queue, which is just going by itself
                await broom.delete_queue(name)
        await broom.aclose()


async def send(transport: Transport, queue: str, *bodies: bytes, expiration_s: float | None = None) -> None:
    """Put messages into a queue, one after the other."""
    for body in bodies:
        await transport.publish(
            Message(body=body, routing_key=queue, mandatory=True, persistent=True, expiration_s=expiration_s)
        )


async def listen(
    transport: Transport, queue: Queue | str, *bindings: Binding, prefetch: int = 100
) -> tuple[Inbox, Consumer]:
    """Consume into an inbox."""
    inbox = Inbox()
    consumer = await transport.consume(
        Consumption(queue=queue, on_delivery=inbox, bindings=bindings, prefetch=prefetch)
    )
    return inbox, consumer


async def drain(transport: Transport, queue: str, marker: bytes = b"the end") -> list[bytes]:
    """All that is in a queue, acked: what comes before a marker that is sent now."""
    inbox, consumer = await listen(transport, queue)
    await send(transport, queue, marker)
    found = []
    while (delivery := await inbox.next()).message.body != marker:
        found.append(delivery.message.body)
        consumer.ack(delivery)
    consumer.ack(delivery)
    await consumer.cancel()
    return found


async def exists(transport: Transport, queue: str) -> bool:
    """Whether there is such a queue."""
    try:
        await transport.publish(Message(body=b"", routing_key=queue, mandatory=True, expiration_s=0))
    except PublishFailed:
        return False
    return True


async def eventually(condition: Callable[[], Awaitable[bool]]) -> None:
    """Wait until it holds."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            if await condition():
                return
            await asyncio.sleep(0.05)


async def refused(code: int, operation: Awaitable[object]) -> str:
    """The words with which the broker refuses an operation, which it must, with this code."""
    with pytest.raises(Refused) as caught:
        async with asyncio.timeout(PATIENCE_S):
            await operation
    assert caught.value.code == code
    return str(caught.value)
