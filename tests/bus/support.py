# SPDX-License-Identifier: MIT
"""What the tests of agents share: waiting for things, sending raw messages, breaking connections."""

import asyncio
from array import array
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager

from bus.frame import CONTENT_TYPE, Frame, Group, encode_frame
from bus.source import Source
from bus.timestamp import Timestamp
from bus.transport import Message, Transport, connect
from bus.transport.amqp import AmqpTransport
from bus.transport.memory import MemoryTransport

PATIENCE_S = 30.0
START_NS = 1_790_000_000 * 10**9


async def until(condition: Callable[[], bool | Awaitable[bool]], what: str = "the condition") -> None:
    """Wait until it is true; fails the test when it does not come."""
    try:
        async with asyncio.timeout(PATIENCE_S):
            while True:
                answer = condition()
                if answer if isinstance(answer, bool) else await answer:
                    return
                await asyncio.sleep(0.01)
    except TimeoutError:
        raise AssertionError(f"{what} did not come true in {PATIENCE_S:g} s") from None


@asynccontextmanager
async def transport_at(url: str) -> AsyncIterator[Transport]:
    """A transport of the test's own, connected."""
    transport = connect(url)
    await transport.open()
    try:
        await transport.connected()
        yield transport
    finally:
        await transport.aclose()


async def break_connection(transport: Transport) -> None:
    """Break it without a goodbye, and wait until it is back."""
    assert isinstance(transport, MemoryTransport | AmqpTransport)
    seen = await transport.connected()
    transport.drop_connections()
    await transport.connected(seen)


class HandSource(Source):
    """Sends from outside, by the test's hand."""

    async def task(self) -> None:
        await self.task_stop_future

    def tick(self, index: int, values: Mapping[str, float]) -> None:
        """A sample, `index` seconds after `START_NS`."""
        self.sample(Timestamp(START_NS + index * 10**9), values)


def frame_message(
    key: str, values: Mapping[str, float], *, index: int = 0, epoch: int = 1, sequence: int = 0, source: str = "s"
) -> Message:
    """A frame with one point each of some metrics, `index` seconds after `START_NS`."""
    times = array("q", [START_NS + index * 10**9])
    group = Group(tuple(values), times, array("d", values.values()))
    return Message(
        body=encode_frame(Frame(groups=(group,), epoch=epoch, sequence=sequence)),
        exchange="hostbus.data",
        routing_key=key,
        content_type=CONTENT_TYPE,
        app_id=source,
        persistent=True,
    )


def points_in(frames: Sequence[Frame]) -> list[tuple[str, int, float]]:
    """(metric, seconds after `START_NS`, value) of all points."""
    return [
        (chunk.metric, (time - START_NS) // 10**9, value)
        for frame in frames
        for chunk in frame.chunks()
        for time, value in zip(chunk.times, chunk.values, strict=True)
    ]
