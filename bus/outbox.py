# SPDX-License-Identifier: MIT
"""What is not yet confirmed: the messages of a source between its chunks and the broker.

`Outbox` holds them, in order and bounded; `Sender` is the task that publishes them. A message leaves only
when the broker has confirmed it: after a lost connection everything unconfirmed is sent again, in order.
"""

import asyncio
import logging
from collections import OrderedDict, deque
from dataclasses import dataclass

from bus.errors import HostbusError, NotConnected
from bus.transport.base import Message, Transport

logger = logging.getLogger(__name__)

DEFAULT_LIMIT_POINTS = 1_000_000
"""About 16 MB of points."""

WINDOW_MESSAGES = 128
WINDOW_BYTES = 4 * 1024 * 1024
"""Unconfirmed at once. More brings nothing; less wastes the round trip."""

DROP_LOG_INTERVAL_S = 60.0
LOWEST_RETRY_S = 0.1
HIGHEST_RETRY_S = 30.0


@dataclass(frozen=True, slots=True)
class Parcel:
    """A message and how many points it carries."""

    message: Message
    points: int


class Outbox:
    """Messages that wait for the broker's confirm: at most `limit_points` points, then the oldest are dropped.

    Two kinds are never dropped: those in flight, which are few, and the newest.
    """

    def __init__(self, name: str, limit_points: int = DEFAULT_LIMIT_POINTS) -> None:
        self._name = name
        self._limit = limit_points
        self._waiting: deque[Parcel] = deque()
        self._in_flight: OrderedDict[int, Parcel] = OrderedDict()
        self._next_number = 0
        self._filled = asyncio.Event()
        self._empty = asyncio.Event()
        self._empty.set()
        self._logged_at = -DROP_LOG_INTERVAL_S
        self._logged_points = 0
        self.points = 0
        """Points not yet confirmed."""
        self.points_confirmed = 0
        self.points_dropped = 0

    def put(self, parcel: Parcel) -> None:
        """Add at the end. Never waits; past the limit the oldest that are not in flight are dropped."""
        self._waiting.append(parcel)
        self.points += parcel.points
        self._filled.set()
        self._empty.clear()
        if self.points > self._limit:
            self._drop()

    def _drop(self) -> None:
        while self.points > self._limit and len(self._waiting) > 1:
            parcel = self._waiting.popleft()
            self.points -= parcel.points
            self.points_dropped += parcel.points
        now = asyncio.get_running_loop().time()
        if self.points_dropped > self._logged_points and now - self._logged_at >= DROP_LOG_INTERVAL_S:
            logger.warning(
                "%s: the buffer is full at %d points, dropped the oldest %d (%d since the start): "
                "reach the broker again, or raise buffer_limit",
                self._name,
                self._limit,
                self.points_dropped - self._logged_points,
                self.points_dropped,
            )
            self._logged_at = now
            self._logged_points = self.points_dropped

    async def next(self) -> tuple[int, Parcel]:
        """Wait for the oldest that is not in flight; it is from now on. Its number confirms it."""
        while not self._waiting:
            self._filled.clear()
            await self._filled.wait()
        number = self._next_number
        self._next_number += 1
        parcel = self._in_flight[number] = self._waiting.popleft()
        return number, parcel

    def confirm(self, number: int) -> None:
        """The broker has it."""
        parcel = self._in_flight.pop(number)
        self.points -= parcel.points
        self.points_confirmed += parcel.points
        if not self._in_flight and not self._waiting:
            self._empty.set()

    def withdraw(self) -> list[Parcel]:
        """Take back everything, in order; nothing may be in flight."""
        withdrawn = list(self._waiting)
        self._waiting.clear()
        self.points = 0
        self._empty.set()
        return withdrawn

    def rewind(self) -> None:
        """Nothing is in flight any more: what was not confirmed comes first again, in order."""
        self._waiting.extendleft(reversed(self._in_flight.values()))
        self._in_flight.clear()
        if self._waiting:
            self._filled.set()

    async def drained(self) -> None:
        """Wait until everything is confirmed (or dropped)."""
        await self._empty.wait()


class Sender:
    """Publishes an outbox in order, with a bounded window of unconfirmed messages, for ever."""

    def __init__(self, transport: Transport, outbox: Outbox, name: str) -> None:
        self._transport = transport
        self._outbox = outbox
        self._name = name
        self._window_bytes = 0
        self._window_messages = 0
        self._room = asyncio.Event()
        self._retry_s = LOWEST_RETRY_S
        self._failing = ""

    async def run(self) -> None:
        """Publish until cancelled. Failures are logged once per cause and tried again, 0.1 → 30 s apart."""
        while True:
            await self._transport.connected()
            try:
                await self._publish_all()
            except* HostbusError as group:
                self._outbox.rewind()
                self._note(_leaves(group)[0])
            await asyncio.sleep(self._retry_s)
            self._retry_s = min(self._retry_s * 2, HIGHEST_RETRY_S)

    async def _publish_all(self) -> None:
        """Feed the window; ends with the first publish that fails, which cancels the others."""
        self._window_bytes = self._window_messages = 0
        async with asyncio.TaskGroup() as window:
            while True:
                number, parcel = await self._outbox.next()
                size = len(parcel.message.body)
                while self._window_messages >= WINDOW_MESSAGES or (
                    self._window_messages and self._window_bytes + size > WINDOW_BYTES
                ):
                    self._room.clear()
                    await self._room.wait()
                self._window_messages += 1
                self._window_bytes += size
                window.create_task(self._publish(number, parcel), name=f"{self._name}: publish")

    async def _publish(self, number: int, parcel: Parcel) -> None:
        await self._transport.publish(parcel.message)
        self._outbox.confirm(number)
        self._window_messages -= 1
        self._window_bytes -= len(parcel.message.body)
        self._room.set()
        if self._failing:
            logger.info("%s: publishing again", self._name)
            self._failing = ""
        self._retry_s = LOWEST_RETRY_S

    def _note(self, error: BaseException) -> None:
        """Log a cause once. A lost connection is the transport's to report."""
        cause = str(error)
        if not isinstance(error, NotConnected) and cause != self._failing:
            logger.warning("%s: cannot publish, will try again: %s", self._name, cause)
        self._failing = cause


def _leaves(group: BaseExceptionGroup[HostbusError]) -> list[HostbusError]:
    found: list[HostbusError] = []
    for error in group.exceptions:
        found += _leaves(error) if isinstance(error, BaseExceptionGroup) else [error]
    return found
