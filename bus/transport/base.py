# SPDX-License-Identifier: MIT
"""The seam between hostbus and whatever carries its messages.

A `Transport` is one program's link to one broker. It heals itself: when the broker or the network dies it
reconnects for ever, with backoff, and restores its consumers. What it does not do: it keeps no message. A
publish that was not confirmed fails, and who published decides what becomes of it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

DEFAULT_EXCHANGE = ""
"""AMQP's default exchange: routes a message to the queue named by its routing key."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Exchange:
    """An exchange: hands messages on to the queues bound to it."""

    name: str
    kind: Literal["topic", "fanout"] = "topic"
    durable: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Queue:
    """A queue: durable (survives the broker) or exclusive (dies with the connection that declared it).

    expires_s: deleted when nobody has consumed from it for so long. max_bytes: past it the oldest messages
    are dropped (dead-lettered). message_ttl_s: messages older than that are dropped. dead_letter: the
    exchange that gets what is rejected, dropped or too old.
    """

    name: str
    durable: bool = True
    exclusive: bool = False
    auto_delete: bool = False
    kind: Literal["classic", "quorum"] = "classic"
    expires_s: float | None = None
    message_ttl_s: float | None = None
    max_bytes: int | None = None
    dead_letter: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Binding:
    """From an exchange, which is declared with it, to a queue: messages whose routing key matches `key`."""

    exchange: Exchange
    key: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """What is published. `mandatory`: fail with Unroutable if no queue takes it."""

    body: bytes
    routing_key: str
    exchange: str = DEFAULT_EXCHANGE
    content_type: str = ""
    correlation_id: str = ""
    reply_to: str = ""
    app_id: str = ""
    type: str = ""
    persistent: bool = False
    mandatory: bool = False
    expiration_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """A message as it arrives. `tag` and `generation` say which delivery of which connection it is."""

    message: Message
    tag: int
    generation: int = 0
    redelivered: bool = False


OnDelivery = Callable[[Delivery], None]
"""Called once per message, in order. It must not wait: it puts the delivery where a task takes it."""


class Consumer(Protocol):
    """A consumer that outlives connections. Settling a delivery of an earlier connection does nothing."""

    def ack(self, delivery: Delivery, *, multiple: bool = False) -> None:
        """Done with it; with `multiple`, with every earlier one of this consumer too. Never waits."""

    def reject(self, delivery: Delivery, *, requeue: bool = False) -> None:
        """Back to the queue, or dropped (dead-lettered). Never waits."""

    async def cancel(self) -> None:
        """No more deliveries; what was not acked goes back to the queue. May be called twice."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Consumption:
    """What to consume, and what must be declared first, at the start and after every reconnect.

    `queue`: a name, for a queue that somebody else declares, or a `Queue`, declared here together with its
    `bindings`. At most `prefetch` deliveries are outstanding without an ack.
    """

    queue: Queue | str
    on_delivery: OnDelivery = field(compare=False)
    bindings: Sequence[Binding] = ()
    prefetch: int = 200

    @property
    def queue_name(self) -> str:
        """The queue's name, whoever declares it."""
        return self.queue if isinstance(self.queue, str) else self.queue.name


class Transport(Protocol):
    """One program's link to one broker; shared by all agents of a process that use the same broker.

    Operations wait for the connection (forever, if need be: put a time-out around them), except `publish`,
    which raises NotConnected at once. All raise Refused if the broker says no.
    """

    @property
    def url(self) -> str:
        """Where the broker is, without the password: fit for logs."""

    @property
    def last_error(self) -> str:
        """Why there is no connection, in words for a person; empty while there is one."""

    async def open(self) -> None:
        """Begin to connect, and return without waiting for it."""

    async def aclose(self) -> None:
        """Close within 5 s, come what may. May be called twice."""

    async def connected(self, after: int = 0) -> int:
        """Wait until connected; the number of the connection, counted from 1, and greater than `after`.

        ``seen = await transport.connected(seen)`` in a loop runs once per (re)connection.
        """

    async def declare_exchange(self, exchange: Exchange) -> None:
        """Make sure that it exists."""

    async def declare_queue(self, queue: Queue) -> None:
        """Make sure that it exists, with these arguments."""

    async def delete_queue(self, name: str) -> None:
        """Delete it and what is in it; it need not exist."""

    async def bind(self, queue: str, exchange: str, key: str) -> None:
        """Route messages with routing keys that match `key` to the queue. Binding twice is binding once."""

    async def unbind(self, queue: str, exchange: str, key: str) -> None:
        """Undo `bind`; the binding need not exist."""

    async def publish(self, message: Message) -> None:
        """Publish and wait for the broker's confirm. Publishes begun in order arrive in order.

        Raises NotConnected at once if there is no connection, PublishFailed if it was not confirmed,
        which is Unroutable if it was mandatory and no queue takes it.
        """

    async def consume(self, consumption: Consumption) -> Consumer:
        """Declare, bind and consume; returns when deliveries may come.

        Restored after every reconnect; what the broker refuses then is logged and tried again, slowly,
        without harm to the rest.
        """
