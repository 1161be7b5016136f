# SPDX-License-Identifier: MIT
"""The intake of a sink: deliveries, decoded once as they arrive and gathered into batches."""

import asyncio
import logging
import sys
from collections.abc import Callable

from bus.errors import BadFrame
from bus.frame import CONTENT_TYPE, Frame, decode_frame
from bus.metricq_wire import decode_metricq
from bus.transport.base import Delivery

logger = logging.getLogger(__name__)

Batch = list[tuple[Delivery, Frame | None]]
"""Deliveries in order, each with its frame; None for one that cannot be decoded."""

_END = "end"
"""The type of MetricQ's message that follows the last one of a subscription: empty, and not data."""


class Intake:
    """Takes deliveries without waiting, hands them out in batches.

    A batch is complete when it holds `batch_points` points or half the `prefetch` of messages (so that the
    broker goes on to send while it is worked off), or when it is old enough.

    Args:
        prefetch: messages that may be outstanding without an ack
        on_arrival: is called with each frame as soon as it is decoded; must neither wait nor raise
    """

    def __init__(self, prefetch: int, on_arrival: Callable[[Frame], None] | None = None) -> None:
        self._prefetch = prefetch
        self._on_arrival = on_arrival
        self._batch: Batch = []
        self._points = 0
        self._batch_points = sys.maxsize
        self._arrived = asyncio.Event()
        self._full = asyncio.Event()
        self._closing = False
        self._idle = asyncio.Event()
        self._idle.set()
        self.rejected = 0

    def on_delivery(self, delivery: Delivery) -> None:
        """Decode a delivery into the batch; once closing, leave it: unacknowledged, it stays with the broker."""
        if self._closing:
            return
        frame = self._decode(delivery)
        self._batch.append((delivery, frame))
        self._points += frame.points if frame is not None else 0
        if self._on_arrival is not None and frame is not None:
            self._on_arrival(frame)
        self._idle.clear()
        self._arrived.set()
        self._check_full()

    def _check_full(self) -> None:
        if self._points >= self._batch_points or len(self._batch) * 2 >= self._prefetch:
            self._full.set()

    def _decode(self, delivery: Delivery) -> Frame | None:
        message = delivery.message
        if message.type == _END:
            return Frame(groups=(), source=message.app_id, key=message.routing_key)
        try:
            if message.content_type == CONTENT_TYPE:
                return decode_frame(message.body, source=message.app_id, key=message.routing_key)
            return decode_metricq(message.body, key=message.routing_key, source=message.app_id)
        except BadFrame as error:
            self.rejected += 1
            logger.warning("rejected a message of %r under %r: %s", message.app_id, message.routing_key, error)
            return None

    async def next_batch(self, points: int, age_s: float) -> Batch:
        """Wait for deliveries, and for at most `age_s` more until they are `points` points.

        Asking for the next batch says that the one before is done with.
        """
        self._batch_points = points
        if not self._batch:
            self._idle.set()
        await self._arrived.wait()
        self._check_full()
        if age_s and not self._full.is_set() and not self._closing:
            try:
                async with asyncio.timeout(age_s):
                    await self._full.wait()
            except TimeoutError:
                pass  # old enough
        batch, self._batch = self._batch, []
        self._points = 0
        self._arrived.clear()
        self._full.clear()
        return batch

    async def finish(self) -> None:
        """Wait until all that has arrived is worked off; batches do not wait for their age any more."""
        self._closing = True
        self._full.set()
        await self._idle.wait()
