# SPDX-License-Identifier: MIT
"""The transport over AMQP 0-9-1, for RabbitMQ.

Two connections, because a broker in a memory alarm stops reading from connections that publish, and
consumers and their acks must go on: one publishes, the other consumes and declares. Each comes back by
itself (`amqp_link`); each consumer too (`amqp_consumer`). What is not here: resending. See `base`.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable

from aiormq.channel import Channel

from bus.errors import NotConnected, Refused
from bus.transport import amqp_topology as topology
from bus.transport.amqp_address import Address
from bus.transport.amqp_consumer import AmqpConsumer
from bus.transport.amqp_link import Link, Outage, Session
from bus.transport.amqp_publisher import Publisher
from bus.transport.base import Consumer, Consumption, Exchange, Message, Queue

CLOSE_CONSUMERS_S = 1.5
"""Then Session.aclose takes 3 s at most."""


class AmqpTransport:
    """Implements `Transport`. Raises ConfigError for a URL that is none.

    url: ``amqp://user:password@host:5672/vhost``, or ``amqps://`` with certificates verified against the
    system's authorities, or those in ``?cafile=FILE``; ``?certfile=FILE&keyfile=FILE`` is our own certificate.
    """

    def __init__(self, url: str) -> None:
        self._address = Address.parse(url)
        self._outage = Outage(self._address)
        self._publisher = Publisher(self._address)
        self._publishing = Link(
            self._address, "publishing", self._outage, on_change=self._on_change, tend=self._publisher.tend
        )
        self._consuming = Link(
            self._address, "consuming", self._outage, on_change=self._on_change, prepare=self._restore
        )
        self._consumers: set[AmqpConsumer] = set()
        self._generation = 0
        self._is_connected = False
        self._changed = asyncio.Event()
        self._opened = asyncio.Event()
        self._stop = asyncio.Event()
        self._consumer_tasks = asyncio.TaskGroup()
        self._root: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        return f"<AmqpTransport {self._address}>"

    @property
    def url(self) -> str:
        """See `Transport`. Without user and password."""
        return self._address.text

    @property
    def last_error(self) -> str:
        """See `Transport`."""
        return self._outage.last_error

    async def open(self) -> None:
        """See `Transport`."""
        if self._stop.is_set():
            raise NotConnected(f"the connection to the broker at {self._address} is closed")
        if self._root is None:
            self._root = asyncio.create_task(self._run(), name=f"transport {self._address}")
            await self._opened.wait()

    async def aclose(self) -> None:
        """See `Transport`. Who still waits for anything gets NotConnected or PublishFailed."""
        self._close_doors()
        if self._root is None:
            return
        await asyncio.wait({self._root})
        self._root.result()

    async def _run(self) -> None:
        try:
            async with asyncio.TaskGroup() as links:
                tasks = [
                    links.create_task(self._publishing.run(), name=f"publishing {self._address}"),
                    links.create_task(self._consuming.run(), name=f"consuming {self._address}"),
                ]
                await self._run_consumers()
                for task in tasks:
                    task.cancel()
        finally:
            self._close_doors()

    async def _run_consumers(self) -> None:
        """Until closing; then the acks that were given still go out, but not at any price."""
        async with self._consumer_tasks:
            self._opened.set()
            await self._stop.wait()
            timer = asyncio.get_running_loop().call_later(CLOSE_CONSUMERS_S, self.drop_connections, "closing")
            for consumer in self._consumers:
                if consumer.task is not None:
                    consumer.task.cancel()
        timer.cancel()

    def _close_doors(self) -> None:
        self._stop.set()
        self._publishing.close()
        self._consuming.close()
        self._pulse()

    def drop_connections(self, because: str = "dropped on purpose") -> None:
        """Break both connections off, without a goodbye; they come back by themselves. For tests and for doubt."""
        for link in (self._publishing, self._consuming):
            with contextlib.suppress(NotConnected):
                link.session.abort(because)

    async def connected(self, after: int = 0) -> int:
        """See `Transport`. Both connections are up, and consumers were restored as far as the broker let them."""
        while not (self._is_connected and self._generation > after):
            self._check_open()
            await self._changed.wait()
        return self._generation

    def _check_open(self) -> None:
        if self._stop.is_set():
            raise NotConnected(f"the connection to the broker at {self._address} is closed")

    def _on_change(self) -> None:
        """A link came or went."""
        connected = self._publishing.ready and self._consuming.ready
        if connected and not self._is_connected:
            self._generation += 1
            self._outage.over()
        elif self._publishing.ready or self._consuming.ready:
            # One alone is no use: requests come in and replies cannot go out.
            self._publishing.hurry()
            self._consuming.hurry()
        self._is_connected = connected
        self._pulse()

    def _pulse(self) -> None:
        """Let everyone who waits in `connected` look again."""
        self._changed.set()
        self._changed = asyncio.Event()

    async def _restore(self, session: Session) -> None:
        """Before a new session counts, every consumer has had its try: a reply queue is there again."""
        for consumer in list(self._consumers):
            await consumer.has_tried(session)

    async def declare_exchange(self, exchange: Exchange) -> None:
        """See `Transport`. One that exists but that we may not declare is good enough."""
        await self._ask(lambda session: topology.declare_exchange(session, exchange))

    async def declare_queue(self, queue: Queue) -> None:
        """See `Transport`."""
        await self._ask_channel(f"queue {queue.name!r}", lambda channel: topology.declare_queue(channel, queue))

    async def delete_queue(self, name: str) -> None:
        """See `Transport`."""
        await self._ask_channel(f"queue {name!r}", lambda channel: channel.queue_delete(name))

    async def bind(self, queue: str, exchange: str, key: str) -> None:
        """See `Transport`."""
        what = topology.in_words(queue, exchange, key)
        await self._ask_channel(what, lambda channel: channel.queue_bind(queue, exchange, key))

    async def unbind(self, queue: str, exchange: str, key: str) -> None:
        """See `Transport`."""
        what = topology.in_words(queue, exchange, key)
        try:
            await self._ask_channel(what, lambda channel: channel.queue_unbind(queue, exchange, key))
        except Refused as refused:
            if refused.code != 404:
                raise

    async def _ask_channel(self, what: str, question: Callable[[Channel], Awaitable[object]]) -> None:
        await self._ask(lambda session: topology.ask(session, what, question))

    async def _ask(self, question: Callable[[Session], Awaitable[None]]) -> None:
        """Ask, and ask again on the next connection if this one is lost before the answer."""
        while True:
            session = await self._consuming.up()
            try:
                return await question(session)
            except NotConnected:
                self._check_open()

    async def publish(self, message: Message) -> None:
        """See `Transport`."""
        await self._publisher.publish(self._publishing.session, message)

    async def consume(self, consumption: Consumption) -> Consumer:
        """See `Transport`. Refused if the broker says no to the first attempt; later ones are logged."""
        self._check_open()
        if self._root is None:
            raise NotConnected(f"the connection to the broker at {self._address} was not opened yet")
        consumer = AmqpConsumer(consumption, self._consuming)
        consumer.task = self._consumer_tasks.create_task(consumer.run(), name=f"consume {consumption.queue_name}")
        self._consumers.add(consumer)
        consumer.task.add_done_callback(lambda _: self._consumers.discard(consumer))
        try:
            await consumer.started
        except BaseException:
            await consumer.cancel()
            raise
        return consumer
