# SPDX-License-Identifier: MIT
"""Sees all data on a bus, frames and MetricQ's chunks, as they come."""

import asyncio
import uuid
from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from bus.frame import CONTENT_TYPE, Frame, decode_frame
from bus.metricq_wire import decode_metricq
from bus.queues import CHUNKS, FRAMES
from bus.transport import Binding, Consumption, Delivery, Queue, connect


class Wiretap:
    """What has come so far."""

    def __init__(self) -> None:
        self.frames: list[Frame] = []
        self.exchanges: set[str] = set()
        self._arrived = asyncio.Event()

    def on_delivery(self, delivery: Delivery) -> None:
        """Take a message."""
        message = delivery.message
        decode = decode_frame if message.content_type == CONTENT_TYPE else decode_metricq
        self.frames.append(decode(message.body, key=message.routing_key, source=message.app_id))
        self.exchanges.add(message.exchange)
        self._arrived.set()

    @property
    def points(self) -> dict[str, list[tuple[int, float]]]:
        """(ns, value) of all points by metric, in the order in which they came."""
        found: dict[str, list[tuple[int, float]]] = defaultdict(list)
        for frame in self.frames:
            for chunk in frame.chunks():
                found[chunk.metric] += zip(chunk.times, chunk.values, strict=True)
        return dict(found)

    async def until(self, condition: Callable[["Wiretap"], object], timeout_s: float = 30) -> None:
        """Wait for messages until the condition holds."""
        async with asyncio.timeout(timeout_s):
            while not condition(self):
                self._arrived.clear()
                await self._arrived.wait()

    async def until_points(self, count: int, timeout_s: float = 30) -> None:
        """Wait until so many points have come."""
        await self.until(lambda tap: sum(frame.points for frame in tap.frames) >= count, timeout_s)


@asynccontextmanager
async def wiretap(url: str) -> AsyncIterator[Wiretap]:
    """Listen, from when the body begins, until it ends."""
    tap = Wiretap()
    transport = connect(url)
    await transport.open()
    try:
        queue = Queue(name=f"wiretap-{uuid.uuid4().hex}", durable=False, exclusive=True)
        bindings = [Binding(exchange=FRAMES, key="#"), Binding(exchange=CHUNKS, key="#")]
        await transport.consume(Consumption(queue=queue, bindings=bindings, on_delivery=tap.on_delivery, prefetch=0))
        yield tap
    finally:
        await transport.aclose()
