# SPDX-License-Identifier: MIT
"""One transport's connection to a `MemoryBroker`: carries deliveries and news to the transport's event loop.

Owns the order of deliveries and the change of threads. A delivery is never made inside the call that
caused it: it is scheduled on the consumer's loop.
"""

import asyncio
import threading
from collections import deque
from collections.abc import Callable

from bus.transport.base import Delivery, OnDelivery
from bus.transport.memory_queue import Stored, Subscription


class Connection:
    """One transport's connection, on one event loop."""

    def __init__(self, generation: int, on_lost: Callable[[], None]) -> None:
        self.generation = generation
        self.closed = False
        self.subscriptions: dict[Subscription, tuple[OnDelivery, Callable[[], None]]] = {}
        self._on_lost = on_lost
        self._loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()
        self._inbox: deque[tuple[Subscription, int, Stored]] = deque()
        self._scheduled = False

    @property
    def is_stale(self) -> bool:
        """True if its event loop was closed without closing the connection."""
        return self._loop.is_closed()

    def call_soon(self, callback: Callable[[], None]) -> None:
        """Run a callback on the connection's own loop."""
        if self.is_stale:
            return
        if threading.get_ident() == self._thread:
            self._loop.call_soon(callback)
        else:
            self._loop.call_soon_threadsafe(callback)

    def call_later(self, delay_s: float, callback: Callable[[], None]) -> None:
        """Run a callback on the connection's own loop, some time from now."""

        def begin() -> None:
            self._loop.call_later(delay_s, callback)

        self.call_soon(begin)

    def post(self, subscription: Subscription, tag: int, stored: Stored) -> None:
        """See `Recipient`."""
        self._inbox.append((subscription, tag, stored))
        if not self._scheduled:
            self._scheduled = True
            self.call_soon(self._deliver)

    def cancelled(self, subscription: Subscription) -> None:
        """See `Recipient`."""
        _, on_cancelled = self.subscriptions.pop(subscription)
        self.call_soon(on_cancelled)

    def lose(self) -> None:
        """Tell the transport that the broker has closed the connection."""
        self.call_soon(self._on_lost)

    def _deliver(self) -> None:
        self._scheduled = False  # before the inbox is read: whoever appends from now on schedules again
        for _ in range(len(self._inbox)):
            subscription, tag, stored = self._inbox.popleft()
            receivers = self.subscriptions.get(subscription)
            if receivers is None:  # cancelled meanwhile: the message has gone back
                continue
            receivers[0](
                Delivery(message=stored.message, tag=tag, generation=self.generation, redelivered=stored.redelivered)
            )
