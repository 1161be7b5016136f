# SPDX-License-Identifier: MIT
"""The transport of a single process: AMQP's semantics without a network or a server.

It carries `agent up`, and the tests of everything above it. ``memory://NAME`` names a broker that all
transports with the same name in this process share. `MemoryTransport.drop_connections`,
`broker.stop` and `broker.start` take the connection or the broker away, for tests of what has to survive that.
"""

import asyncio
import logging
import re

from bus.errors import ConfigError, NotConnected, Refused
from bus.transport.base import Consumer, Consumption, Delivery, Exchange, Message, Queue
from bus.transport.memory_broker import MemoryBroker, broker_named
from bus.transport.memory_connection import Connection
from bus.transport.memory_queue import Subscription

logger = logging.getLogger(__name__)

DEFAULT_NAME = "default"
RETRY_S = 1.0
"""How long a consumer waits that could not be restored."""

_URL = re.compile(r"memory://([A-Za-z0-9_.-]*)/?")


class MemoryTransport:
    """Implements `Transport` on a broker in this process.

    url: ``memory://NAME``, or ``memory://`` for the broker named "default". Raises ConfigError for others.
    """

    def __init__(self, url: str = "memory://") -> None:
        name = _URL.fullmatch(url)
        if name is None:
            raise ConfigError("a memory URL is memory:// or memory://NAME, NAME of A-Z a-z 0-9 _ - and '.'")
        self.broker: MemoryBroker = broker_named(name[1] or DEFAULT_NAME)
        self._connection: Connection | None = None
        self._generation = 0
        self._closed = False
        self._why = "not opened yet"
        self._consumers: list[MemoryConsumer] = []
        self._changed = asyncio.Event()

    @property
    def url(self) -> str:
        """See `Transport`."""
        return str(self.broker)

    @property
    def last_error(self) -> str:
        """See `Transport`."""
        return "" if self._living is not None else self._why

    async def open(self) -> None:
        """See `Transport`."""
        if self._connection is None:
            self._connect()

    async def aclose(self) -> None:
        """See `Transport`."""
        if self._closed:
            return
        self._closed = True
        self._why = "closed"
        if self._connection is not None:
            self.broker.disconnect(self._connection)
        self._wake()

    async def connected(self, after: int = 0) -> int:
        """See `Transport`. Raises NotConnected once the transport is closed."""
        while True:
            await self._link()
            if self._generation > after:
                return self._generation
            await self._changed.wait()

    def drop_connections(self, because: str = "dropped on purpose") -> None:
        """Break the connection, as if the broker had closed it. A new one is made in the next turn of the loop."""
        if self._living is not None:
            self._why = because
            self.broker.drop(self._living)

    async def declare_exchange(self, exchange: Exchange) -> None:
        """See `Transport`."""
        await self._link()
        self.broker.declare_exchange(exchange)

    async def declare_queue(self, queue: Queue) -> None:
        """See `Transport`."""
        self.broker.declare_queue(queue, await self._link())

    async def delete_queue(self, name: str) -> None:
        """See `Transport`."""
        self.broker.delete_queue(name, await self._link())

    async def bind(self, queue: str, exchange: str, key: str) -> None:
        """See `Transport`."""
        self.broker.bind(queue, exchange, key, await self._link())

    async def unbind(self, queue: str, exchange: str, key: str) -> None:
        """See `Transport`."""
        self.broker.unbind(queue, exchange, key, await self._link())

    async def publish(self, message: Message) -> None:
        """See `Transport`."""
        if self._living is None:
            raise NotConnected(f"no connection to {self.url}: {self._why}")
        self.broker.publish(message)
        # A confirm never comes within the same turn: a loop of publishes must not keep the consumers waiting.
        await asyncio.sleep(0)

    async def consume(self, consumption: Consumption) -> Consumer:
        """See `Transport`."""
        consumer = MemoryConsumer(self.broker, consumption, self._consumers)
        consumer.start(await self._link())
        return consumer

    @property
    def _living(self) -> Connection | None:
        return None if self._connection is None or self._connection.closed else self._connection

    async def _link(self) -> Connection:
        """Wait for a connection. Raises NotConnected once the transport is closed."""
        while (connection := self._living) is None:
            if self._closed:
                raise NotConnected(f"the connection to {self.url} is closed")
            await self._changed.wait()
        return connection

    def _connect(self) -> None:
        if self._closed:
            return
        self._connection = Connection(self._generation + 1, self._connect)
        if not self.broker.connect(self._connection, self._connect):
            self._connection.closed = True
            self._why = "the broker is stopped"
            return
        self._generation += 1
        for consumer in list(self._consumers):
            consumer.restore(self._connection)
        self._wake()

    def _wake(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()


class MemoryConsumer:
    """Implements `Consumer`. Keeps itself in `siblings`, its transport's list of consumers to restore."""

    def __init__(self, broker: MemoryBroker, consumption: Consumption, siblings: "list[MemoryConsumer]") -> None:
        self._broker = broker
        self._consumption = consumption
        self._siblings = siblings
        self._place: tuple[Connection, Subscription] | None = None
        self._told = ""

    def start(self, connection: Connection) -> None:
        """Declare, bind, consume. Raises Refused."""
        wanted = self._consumption
        if not isinstance(wanted.queue, str):
            self._broker.declare_queue(wanted.queue, connection)
        for binding in wanted.bindings:
            self._broker.declare_exchange(binding.exchange)
            self._broker.bind(wanted.queue_name, binding.exchange.name, binding.key, connection)

        def again() -> None:
            self.restore(connection)

        place = self._broker.consume(wanted.queue_name, wanted.prefetch, connection, self._receive, again)
        self._place = (connection, place)
        if self not in self._siblings:
            self._siblings.append(self)

    def restore(self, connection: Connection) -> None:
        """Start anew, after the connection or the queue was lost; try again until it works."""
        if connection.closed or self not in self._siblings:
            return
        try:
            self.start(connection)
        except Refused as refused:
            if str(refused) != self._told:
                self._told = str(refused)
                logger.warning("cannot consume, will try again: %s", refused)
            connection.call_later(RETRY_S, lambda: self.restore(connection))
        else:
            self._told = ""

    def ack(self, delivery: Delivery, *, multiple: bool = False) -> None:
        """See `Consumer`. Settling twice does nothing."""
        place = self._place_of(delivery)
        if place is not None:
            self._broker.ack(place, delivery.tag, multiple=multiple)

    def reject(self, delivery: Delivery, *, requeue: bool = False) -> None:
        """See `Consumer`."""
        place = self._place_of(delivery)
        if place is not None:
            self._broker.reject(place, delivery.tag, requeue=requeue)

    async def cancel(self) -> None:
        """See `Consumer`."""
        if self in self._siblings:
            self._siblings.remove(self)
        if self._place is not None:
            connection, subscription = self._place
            self._broker.cancel(subscription, connection)

    def _receive(self, delivery: Delivery) -> None:
        try:
            self._consumption.on_delivery(delivery)
        except Exception:
            # As over AMQP: a handler that fails must stop neither itself nor others, and gets no poison again.
            queue = self._consumption.queue_name
            logger.exception("the handler of messages from queue %r failed; the message is dead-lettered", queue)
            self.reject(delivery)

    def _place_of(self, delivery: Delivery) -> Subscription | None:
        if self._place is None or self._place[0].generation != delivery.generation:
            return None
        return self._place[1]
