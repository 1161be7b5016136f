# SPDX-License-Identifier: MIT
"""`Subscriber`: live points, in an ``async for``."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Iterable, Iterator
from itertools import repeat
from typing import Unpack

from bus.agent import AgentOptions
from bus.chunk import Chunk
from bus.names import Selection
from bus.rpc import Json
from bus.sink import Sink, pattern_list
from bus.timestamp import Timedelta, Timestamp
from bus.transport.base import Transport

MAX_BUFFERED_CHUNKS = 1000
"""What the program does not take stays with the broker, where the queue has its own bounds."""


class Subscriber(Sink):
    """Points of some metrics from now on.

    ::

        async with Subscriber(["web1.#"]) as points:
            async for metric, time, value in points:
                ...

    or, at a fraction of the cost, ``async for chunk in points.chunks()``.

    Args:
        metrics: names and patterns
        url: where the broker is, or a shared `Transport`
        token: a name on the bus, to which a random part is added
        expires: seconds after which the broker drops the queue if this program is gone
        options: see `AgentOptions`
    """

    def __init__(
        self,
        metrics: Iterable[str],
        url: str | Transport = "",
        *,
        token: str = "subscriber",
        expires: float | Timedelta = 60,
        **options: Unpack[AgentOptions],
    ) -> None:
        super().__init__(token, url, **options)
        self._metrics = Selection(pattern_list(metrics)).patterns
        self._expires_s = expires.s if isinstance(expires, Timedelta) else float(expires)
        if not self._metrics:
            raise ValueError("metrics must name at least one metric or pattern, like 'web1.#'")
        if self._expires_s <= 0:
            raise ValueError(f"expires must be more than 0 s, not {expires}")
        self._chunks: deque[Chunk] = deque()
        self._points: Iterator[tuple[str, Timestamp, float]] = iter(())
        self._arrived = asyncio.Event()
        self._room = asyncio.Event()
        self._leaving = False
        self.metadata: dict[str, Json] = {}
        """Metadata of the metrics known when the subscription was made."""

    async def start(self) -> None:
        """Subscribe."""
        await super().start()
        reply = await self.subscribe(self._metrics, expires=self._expires_s, metadata=True)
        known = reply.get("metrics")
        self.metadata = known if isinstance(known, dict) else {}

    async def on_chunk(self, chunk: Chunk) -> None:
        """Hand over to whoever iterates; waits while he is behind."""
        while len(self._chunks) >= MAX_BUFFERED_CHUNKS and not self._leaving:
            self._room.clear()
            await self._room.wait()
        if not self._leaving:
            self._chunks.append(chunk)
            self._arrived.set()

    async def wind_down(self) -> None:
        """Nobody need take any more: a program that left its loop must not hold up the end."""
        self._leaving = True
        self._room.set()
        await super().wind_down()

    async def chunks(self) -> AsyncIterator[Chunk]:
        """Whole chunks, as they come. Ends when the subscriber stops; raises what made it fail."""
        while True:
            while self._chunks:
                self._room.set()
                yield self._chunks.popleft()
            if self._life is None or self._life.done():
                await self.stopped()
                return
            self._arrived.clear()
            arrival = asyncio.ensure_future(self._arrived.wait())
            try:
                await asyncio.wait({arrival, self._life}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                arrival.cancel()

    async def __aiter__(self) -> AsyncIterator[tuple[str, Timestamp, float]]:
        """Point by point: ``(metric, time, value)``. Who leaves the loop and comes back gets the next point."""
        for point in self._points:
            yield point
        async for chunk in self.chunks():
            self._points = zip(repeat(chunk.metric), map(Timestamp, chunk.times), chunk.values, strict=False)
            for point in self._points:
                yield point
