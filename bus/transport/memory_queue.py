# SPDX-License-Identifier: MIT
"""One queue of a `MemoryBroker`, and the subscriptions that take messages from it.

Owns the order of messages, credit, expiry, overflow and what goes back. It knows no exchanges: what it
drops it hands to its broker. Everything here is called with the broker's lock held.
"""

import heapq
import math
import time
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from bus.transport.base import Message, Queue


@dataclass(slots=True)
class Stored:
    """A message in a queue. `deaths`: the queues that dropped it for age or size since it was last rejected."""

    message: Message
    position: int
    deadline: float = math.inf
    redelivered: bool = False
    deaths: frozenset[str] = frozenset()


class Owner(Protocol):
    """What a queue needs of its broker."""

    def dead_letter(self, stored: Stored, exchange: str, deaths: frozenset[str]) -> None:
        """Route a dropped message to the dead-letter exchange."""

    def alarm(self, queue: "MemoryQueue", when: float) -> None:
        """Call the queue's `tick` at that `time.monotonic()`."""

    def remove(self, queue: "MemoryQueue") -> None:
        """Delete a queue that nobody uses any more."""


class Recipient(Protocol):
    """What a subscription needs of its connection."""

    def post(self, subscription: "Subscription", tag: int, stored: Stored) -> None:
        """Deliver soon, in order."""

    def cancelled(self, subscription: "Subscription") -> None:
        """Tell soon that the queue was deleted under the subscription."""


class Subscription:
    """One consumer's place at a queue, during one connection."""

    def __init__(self, queue: "MemoryQueue", recipient: Recipient, prefetch: int) -> None:
        self.queue = queue
        self.recipient = recipient
        self.alive = True
        self.unacked: dict[int, Stored] = {}
        self._credit = prefetch or math.inf
        self._tag = 0

    @property
    def has_credit(self) -> bool:
        """True if it may get one more."""
        return len(self.unacked) < self._credit

    def give(self, stored: Stored) -> None:
        """Hand it a message; it is unacked from now on."""
        self._tag += 1
        self.unacked[self._tag] = stored
        self.recipient.post(self, self._tag, stored)

    def ack(self, tag: int, *, multiple: bool) -> None:
        """Forget one delivery, or all up to it. What is settled already is ignored."""
        if not self.alive or tag not in self.unacked:
            return
        if not multiple:
            del self.unacked[tag]
        elif tag == self._tag:
            self.unacked.clear()
        else:
            for settled in [known for known in self.unacked if known <= tag]:
                del self.unacked[settled]
        self.queue.dispatch()

    def reject(self, tag: int, *, requeue: bool) -> None:
        """Put one delivery back, or drop it. What is settled already is ignored."""
        stored = self.unacked.pop(tag, None) if self.alive else None
        if stored is None:
            return
        if requeue:
            self.queue.put_back([stored])
        else:
            self.queue.drop(stored, frozenset())
        self.queue.dispatch()


class MemoryQueue:
    """Messages in order, and who takes them in turn."""

    def __init__(self, spec: Queue, owner: Owner, connection: object | None) -> None:
        self.spec = spec
        self.connection = connection
        """The connection that an exclusive queue belongs to."""
        self._owner = owner
        self._ready: deque[Stored] = deque()
        self._bytes = 0
        self._takers: deque[Subscription] = deque()
        self._position = 0
        self._alarm = math.inf
        self._idle_deadline = math.inf
        self.used()

    def __len__(self) -> int:
        return len(self._ready)

    def used(self) -> None:
        """Begin the time anew after which an unused queue is deleted."""
        if self.spec.expires_s is not None and not self._takers:
            self._idle_deadline = time.monotonic() + self.spec.expires_s
            self._set_alarm(self._idle_deadline)

    def put(self, message: Message, deaths: frozenset[str] = frozenset()) -> None:
        """Take a message."""
        self._position += 1
        stored = Stored(message, self._position, deaths=deaths)
        lifetime_s = self._lifetime_s(message)
        if lifetime_s is not None:
            stored.deadline = time.monotonic() + lifetime_s
        if not self._ready and (taker := self._next_taker()) is not None:
            taker.give(stored)
            return
        self._ready.append(stored)
        self._bytes += len(message.body)
        self._drop_overflow()
        if self._ready:
            self._set_alarm(self._ready[0].deadline)

    def put_back(self, returned: Iterable[Stored]) -> None:
        """Take back what was delivered and not acked, near its old place. Does not dispatch."""
        back = sorted(returned, key=_position)
        if not back:
            return
        for stored in back:
            stored.redelivered = True
            self._bytes += len(stored.message.body)
        if not self._ready or back[-1].position < self._ready[0].position:
            self._ready.extendleft(reversed(back))
        else:
            self._ready = deque(heapq.merge(back, self._ready, key=_position))
        self._drop_overflow()
        if self._ready:
            self._set_alarm(self._ready[0].deadline)

    def dispatch(self) -> None:
        """Give ready messages to the subscriptions with credit, in turn."""
        while self._ready:
            if self._ready[0].deadline < math.inf and self._drop_expired():
                continue
            taker = self._next_taker()
            if taker is None:
                self._set_alarm(self._ready[0].deadline)
                return
            taker.give(self._pop())

    def drop(self, stored: Stored, deaths: frozenset[str]) -> None:
        """Let go of a message; the dead-letter exchange gets it if there is one."""
        if self.spec.dead_letter is not None:
            self._owner.dead_letter(stored, self.spec.dead_letter, deaths)

    def subscribe(self, subscription: Subscription) -> None:
        """Let a subscription take part."""
        self._takers.append(subscription)
        self._idle_deadline = math.inf
        self.dispatch()

    def unsubscribe(self, subscription: Subscription) -> None:
        """Take back what it holds. Dispatches nothing: a connection that ends first takes back all it held."""
        subscription.alive = False
        self._takers.remove(subscription)
        self.put_back(subscription.unacked.values())
        subscription.unacked.clear()
        self.used()

    @property
    def is_abandoned(self) -> bool:
        """True if it goes with its last consumer, and that has gone."""
        return self.spec.auto_delete and not self._takers

    def forget_transient(self) -> None:
        """Drop what does not survive the broker."""
        self._ready = deque(stored for stored in self._ready if stored.message.persistent)
        self._bytes = sum(len(stored.message.body) for stored in self._ready)

    def delete(self) -> None:
        """Throw all away, and tell those who consume."""
        takers, self._takers = self._takers, deque()
        self._ready.clear()
        for subscription in takers:
            subscription.alive = False
            subscription.unacked.clear()
            subscription.recipient.cancelled(subscription)

    def tick(self, now: float) -> None:
        """The alarm went off: drop what is too old, and the queue itself if nobody used it for too long."""
        self._alarm = math.inf
        if not self._takers and now >= self._idle_deadline:
            self._owner.remove(self)
            return
        self._drop_expired()
        self._set_alarm(min(self._idle_deadline, self._ready[0].deadline if self._ready else math.inf))

    def _lifetime_s(self, message: Message) -> float | None:
        limits = [limit for limit in (self.spec.message_ttl_s, message.expiration_s) if limit is not None]
        return min(limits) if limits else None

    def _next_taker(self) -> Subscription | None:
        for _ in range(len(self._takers)):
            taker = self._takers[0]
            self._takers.rotate(-1)
            if taker.has_credit:
                return taker
        return None

    def _pop(self) -> Stored:
        stored = self._ready.popleft()
        self._bytes -= len(stored.message.body)
        return stored

    def _drop_expired(self) -> bool:
        """Like RabbitMQ's, a message past its time is dropped when it has come to the head of the queue."""
        now = time.monotonic()
        dropped = False
        while self._ready and self._ready[0].deadline <= now:
            stored = self._pop()
            self.drop(stored, stored.deaths | {self.spec.name})
            dropped = True
        return dropped

    def _drop_overflow(self) -> None:
        limit = self.spec.max_bytes
        while limit is not None and self._bytes > limit:
            stored = self._pop()
            self.drop(stored, stored.deaths | {self.spec.name})

    def _set_alarm(self, when: float) -> None:
        if when < self._alarm:
            self._alarm = when
            self._owner.alarm(self, when)


def _position(stored: Stored) -> int:
    return stored.position
