# SPDX-License-Identifier: MIT
"""A broker inside the process, with the semantics of RabbitMQ.

Owns exchanges, routing, and who may use which queue; what happens inside a queue is memory_queue.py's.
Brokers are found by name and live as long as the process: when the last connection closes, what is not
durable goes, and durable queues keep their messages. Connections may belong to event loops in different
threads: one lock guards a broker, and every delivery runs on its consumer's loop.
"""

import heapq
import itertools
import math
import threading
import time
from collections.abc import Callable
from dataclasses import replace

from bus.errors import PublishFailed, Refused, Unroutable
from bus.names import matches
from bus.transport.base import DEFAULT_EXCHANGE, Exchange, Message, OnDelivery, Queue
from bus.transport.memory_connection import Connection
from bus.transport.memory_queue import MemoryQueue, Stored, Subscription

MAX_ROUTES = 10_000
"""Routing keys of one exchange whose queues are remembered."""

_brokers: dict[str, "MemoryBroker"] = {}


def broker_named(name: str) -> "MemoryBroker":
    """The broker with this name, made when it is first asked for."""
    return _brokers.setdefault(name, MemoryBroker(name))


class _Router:
    """An exchange and its bindings."""

    def __init__(self, spec: Exchange) -> None:
        self.spec = spec
        self._bindings: dict[MemoryQueue, set[str]] = {}
        self._routes: dict[str, tuple[MemoryQueue, ...]] = {}

    def bind(self, queue: MemoryQueue, key: str) -> None:
        self._bindings.setdefault(queue, set()).add(key)
        self._routes.clear()

    def unbind(self, queue: MemoryQueue, key: str | None) -> None:
        """Remove one binding, or with None all to this queue."""
        keys = self._bindings.get(queue, set())
        keys.discard(key) if key is not None else keys.clear()
        if not keys:
            self._bindings.pop(queue, None)
        self._routes.clear()

    def route(self, key: str) -> tuple[MemoryQueue, ...]:
        """Each queue once, however many bindings match."""
        found = self._routes.get(key)
        if found is None:
            if len(self._routes) >= MAX_ROUTES:
                self._routes.clear()
            found = tuple(queue for queue, keys in self._bindings.items() if self._takes(keys, key))
            self._routes[key] = found
        return found

    def _takes(self, keys: set[str], key: str) -> bool:
        if self.spec.kind == "fanout":
            return True
        if not key:  # has no words, where `matches` sees one empty word
            return any(not pattern.strip("#.") for pattern in keys)
        return any(matches(pattern, key) for pattern in keys)


class MemoryBroker:
    """Exchanges, queues and connections. Every public method may be called from any thread."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._lock = threading.RLock()
        self._routers: dict[str, _Router] = {}
        self._queues: dict[str, MemoryQueue] = {}
        self._connections: list[Connection] = []
        self._waiting: list[Callable[[], None]] = []
        self._stopped = False
        self._alarms: list[tuple[float, int, MemoryQueue]] = []
        self._alarm_number = itertools.count()
        self._armed = math.inf

    # Connections, and the broker's own comings and goings.

    def connect(self, connection: Connection, on_start: Callable[[], None]) -> bool:
        """Accept a connection. If the broker is stopped, call `on_start` once it has started, and return False."""
        with self._lock:
            if self._stopped:
                self._waiting.append(lambda: connection.call_soon(on_start))
                return False
            for stale in [known for known in self._connections if known.is_stale]:
                self.disconnect(stale)
            self._connections.append(connection)
            self._arm()
            return True

    def disconnect(self, connection: Connection) -> None:
        """End a connection: unacked messages go back, exclusive queues go; with the last, all that is transient."""
        with self._lock:
            if connection.closed:
                return
            connection.closed = True
            self._connections.remove(connection)
            subscriptions = list(connection.subscriptions)
            connection.subscriptions.clear()
            # First all its places at the queues, so that nothing goes from one of them to another.
            for subscription in subscriptions:
                subscription.queue.unsubscribe(subscription)
            for queue in [queue for queue in self._queues.values() if queue.connection is connection]:
                self.remove(queue)
            for subscription in subscriptions:
                self._release(subscription.queue)
            if not self._connections and not self._stopped:
                self._forget_transient()
            self._armed = math.inf
            self._arm()

    def drop(self, connection: Connection) -> None:
        """Close a connection from the broker's side."""
        self.disconnect(connection)
        connection.lose()

    def stop(self) -> None:
        """Like a broker that goes down: connections break, what is not durable or not persistent is lost."""
        with self._lock:
            self._stopped = True
            for connection in list(self._connections):
                self.drop(connection)
            self._forget_transient()
            for queue in self._queues.values():
                queue.forget_transient()

    def start(self) -> None:
        """Come back after `stop`."""
        with self._lock:
            self._stopped = False
            waiting, self._waiting = self._waiting, []
            for call in waiting:
                call()

    def _forget_transient(self) -> None:
        for queue in [queue for queue in self._queues.values() if not queue.spec.durable]:
            self.remove(queue)
        self._routers = {name: router for name, router in self._routers.items() if router.spec.durable}

    # Exchanges and queues.

    def declare_exchange(self, exchange: Exchange) -> None:
        """Raises Refused. The default exchange is always there."""
        if exchange.name == DEFAULT_EXCHANGE:
            return
        with self._lock:
            _check_not_reserved("exchange", exchange.name)
            router = self._routers.setdefault(exchange.name, _Router(exchange))
            if router.spec != exchange:
                raise _differs("exchange", exchange.name, router.spec, exchange)

    def declare_queue(self, spec: Queue, connection: Connection) -> None:
        """Raises Refused."""
        with self._lock:
            _check_not_reserved("queue", spec.name)
            if spec.kind == "quorum" and (spec.exclusive or spec.auto_delete or not spec.durable):
                raise Refused(
                    f"queue {spec.name!r}: a quorum queue is durable, and neither exclusive nor auto_delete", 406
                )
            if spec.exclusive:  # as on RabbitMQ: it cannot outlive its connection, so it is not durable
                spec = replace(spec, durable=False)
            queue = self._queues.get(spec.name)
            if queue is None:
                self._queues[spec.name] = MemoryQueue(spec, self, connection if spec.exclusive else None)
                return
            if queue.connection is not (connection if spec.exclusive else None):
                raise _locked(spec.name)
            if queue.spec != spec:
                raise _differs("queue", spec.name, queue.spec, spec)
            queue.used()

    def delete_queue(self, name: str, connection: Connection) -> None:
        """Raises Refused if it is exclusive to another connection."""
        with self._lock:
            if name in self._queues:
                self.remove(self._queue(name, connection))

    def bind(self, name: str, exchange: str, key: str, connection: Connection) -> None:
        """Raises Refused."""
        with self._lock:
            queue = self._queue(name, connection)
            self._router(exchange).bind(queue, key)

    def unbind(self, name: str, exchange: str, key: str, connection: Connection) -> None:
        """Raises Refused if the queue is exclusive to another connection, or for the default exchange."""
        with self._lock:
            _check_not_default(exchange)
            if name in self._queues and exchange in self._routers:
                self._routers[exchange].unbind(self._queue(name, connection), key)

    def _queue(self, name: str, connection: Connection) -> MemoryQueue:
        queue = self._queues.get(name)
        if queue is None:
            raise Refused(f"no queue {name!r} at {self}; it must be declared first", 404)
        if queue.connection is not None and queue.connection is not connection:
            raise _locked(name)
        return queue

    def _router(self, name: str) -> _Router:
        _check_not_default(name)
        if name not in self._routers:
            raise Refused(f"no exchange {name!r} at {self}; it must be declared first", 404)
        return self._routers[name]

    def __str__(self) -> str:
        return f"memory://{self.name}"

    # Messages.

    def publish(self, message: Message) -> None:
        """Route and store. Raises PublishFailed."""
        with self._lock:
            queues = self._route(message.exchange, message.routing_key)
            if queues is None:
                raise PublishFailed(
                    f"no exchange {message.exchange!r} at {self} to publish {message.routing_key!r} to; "
                    "it must be declared first"
                )
            if not queues and message.mandatory:
                raise Unroutable(f"no queue takes {message.routing_key!r} from exchange {message.exchange!r} at {self}")
            for queue in queues:
                queue.put(message)

    def _route(self, exchange: str, key: str) -> tuple[MemoryQueue, ...] | None:
        if exchange == DEFAULT_EXCHANGE:
            queue = self._queues.get(key)
            return () if queue is None else (queue,)
        router = self._routers.get(exchange)
        return None if router is None else router.route(key)

    def consume(
        self,
        name: str,
        prefetch: int,
        connection: Connection,
        on_delivery: OnDelivery,
        on_cancelled: Callable[[], None],
    ) -> Subscription:
        """Begin to deliver. `on_cancelled` is called if the queue is deleted. Raises Refused."""
        with self._lock:
            subscription = Subscription(self._queue(name, connection), connection, prefetch)
            connection.subscriptions[subscription] = (on_delivery, on_cancelled)
            subscription.queue.subscribe(subscription)
            return subscription

    def cancel(self, subscription: Subscription, connection: Connection) -> None:
        """No more deliveries; what is unacked goes back."""
        with self._lock:
            if subscription.alive:
                del connection.subscriptions[subscription]
                subscription.queue.unsubscribe(subscription)
                self._release(subscription.queue)

    def ack(self, subscription: Subscription, tag: int, *, multiple: bool) -> None:
        """Settle deliveries; see `Consumer`."""
        with self._lock:
            subscription.ack(tag, multiple=multiple)

    def reject(self, subscription: Subscription, tag: int, *, requeue: bool) -> None:
        """Put a delivery back or drop it; see `Consumer`."""
        with self._lock:
            subscription.reject(tag, requeue=requeue)

    def _release(self, queue: MemoryQueue) -> None:
        """A consumer has gone from a queue."""
        if queue.is_abandoned:
            self.remove(queue)
        else:
            queue.dispatch()

    # What queues ask of their owner.

    def remove(self, queue: MemoryQueue) -> None:
        """See `Owner`; also how queues are deleted on request."""
        if self._queues.get(queue.spec.name) is queue:
            del self._queues[queue.spec.name]
            for router in self._routers.values():
                router.unbind(queue, None)
            queue.delete()

    def dead_letter(self, stored: Stored, exchange: str, deaths: frozenset[str]) -> None:
        """See `Owner`. A message that would go round for ever without being rejected ends here."""
        message = replace(stored.message, exchange=exchange, expiration_s=None, mandatory=False)
        for queue in self._route(exchange, message.routing_key) or ():
            if queue.spec.name not in deaths:
                queue.put(message, deaths)

    def alarm(self, queue: MemoryQueue, when: float) -> None:
        """See `Owner`. The alarms run on the loop of any connection; without one they wait for the next."""
        heapq.heappush(self._alarms, (when, next(self._alarm_number), queue))
        self._arm()

    def _arm(self) -> None:
        if self._alarms and self._connections and self._alarms[0][0] < self._armed:
            self._armed = self._alarms[0][0]
            self._connections[0].call_later(max(0.0, self._armed - time.monotonic()), self._ring)

    def _ring(self) -> None:
        with self._lock:
            self._armed = math.inf
            now = time.monotonic()
            while self._alarms and self._alarms[0][0] <= now:
                _, _, queue = heapq.heappop(self._alarms)
                queue.tick(now)
            self._arm()


def _check_not_reserved(what: str, name: str) -> None:
    if not name or name.startswith("amq."):
        raise Refused(f"{what} {name!r} belongs to the broker: names must not be empty nor begin with 'amq.'", 403)


def _check_not_default(exchange: str) -> None:
    if exchange == DEFAULT_EXCHANGE:
        raise Refused("the default exchange reaches every queue by its name; it has no other bindings", 403)


def _locked(name: str) -> Refused:
    return Refused(f"queue {name!r} is exclusive to another connection, or is declared exclusive but is not", 405)


def _differs(what: str, name: str, present: Exchange | Queue, wanted: Exchange | Queue) -> Refused:
    """Names what differs: ``queue 'a' exists with durable=True, not durable=False``."""
    fields = [field for field in type(present).__slots__ if getattr(present, field) != getattr(wanted, field)]
    return Refused(
        f"{what} {name!r} exists with {', '.join(f'{field}={getattr(present, field)!r}' for field in fields)}, "
        f"not {', '.join(f'{field}={getattr(wanted, field)!r}' for field in fields)}; "
        "declare it as it is, or delete it first",
        406,
    )
