# SPDX-License-Identifier: MIT
"""A transport that shows what goes through it: for ``--once``, ``--dry-run`` and the live table."""

from collections.abc import Callable

from bus.frame import CONTENT_TYPE, Frame, decode_frame
from bus.metricq_wire import decode_metricq
from bus.transport.base import DEFAULT_EXCHANGE, Consumer, Consumption, Exchange, Message, Queue, Transport

_DATA_EXCHANGES_END = ".data"


class Tap:
    """Another transport, with `on_data` called for every message of points that the broker has confirmed."""

    def __init__(self, inner: Transport, on_data: Callable[[Message], None]) -> None:
        self._inner = inner
        self._on_data = on_data

    @property
    def url(self) -> str:
        """See `Transport`."""
        return self._inner.url

    @property
    def last_error(self) -> str:
        """See `Transport`."""
        return self._inner.last_error

    async def open(self) -> None:
        """See `Transport`."""
        await self._inner.open()

    async def aclose(self) -> None:
        """See `Transport`."""
        await self._inner.aclose()

    async def connected(self, after: int = 0) -> int:
        """See `Transport`."""
        return await self._inner.connected(after)

    async def declare_exchange(self, exchange: Exchange) -> None:
        """See `Transport`."""
        await self._inner.declare_exchange(exchange)

    async def declare_queue(self, queue: Queue) -> None:
        """See `Transport`."""
        await self._inner.declare_queue(queue)

    async def delete_queue(self, name: str) -> None:
        """See `Transport`."""
        await self._inner.delete_queue(name)

    async def bind(self, queue: str, exchange: str, key: str) -> None:
        """See `Transport`."""
        await self._inner.bind(queue, exchange, key)

    async def unbind(self, queue: str, exchange: str, key: str) -> None:
        """See `Transport`."""
        await self._inner.unbind(queue, exchange, key)

    async def publish(self, message: Message) -> None:
        """See `Transport`."""
        await self._inner.publish(message)
        if message.exchange != DEFAULT_EXCHANGE and message.exchange.endswith(_DATA_EXCHANGES_END):
            self._on_data(message)

    async def consume(self, consumption: Consumption) -> Consumer:
        """See `Transport`."""
        return await self._inner.consume(consumption)


def frame_of(message: Message) -> Frame:
    """The points of a message, whichever way they travel. Raises BadFrame."""
    if message.content_type == CONTENT_TYPE:
        return decode_frame(message.body, source=message.app_id, key=message.routing_key)
    return decode_metricq(message.body, message.routing_key, message.app_id)
