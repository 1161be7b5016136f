# SPDX-License-Identifier: MIT
"""What the tests of the AMQP transport share."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager

import pytest

from bus.errors import NotConnected, PublishFailed
from bus.transport import Exchange, Message, Queue, amqp_link
from bus.transport.amqp import AmqpTransport

PATIENCE_S = 20.0


def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Short waits between attempts to connect."""
    monkeypatch.setattr(amqp_link, "LOWEST_BACKOFF_S", 0.02)
    monkeypatch.setattr(amqp_link, "HIGHEST_BACKOFF_S", 0.05)
    monkeypatch.setattr(amqp_link, "FATAL_RETRY_S", 0.05)
    monkeypatch.setattr(amqp_link, "TEND_INTERVAL_S", 0.1)


@asynccontextmanager
async def opened(url: str) -> AsyncIterator[AmqpTransport]:
    """A transport, not necessarily connected. Checks that it closes in time."""
    transport = AmqpTransport(url)
    await transport.open()
    try:
        yield transport
    finally:
        async with asyncio.timeout(5.5):
            await transport.aclose()


@asynccontextmanager
async def nothing_left() -> AsyncIterator[None]:
    """Checks that no task is left which was not there before."""
    before = asyncio.all_tasks()
    yield
    left = asyncio.all_tasks() - before
    assert not [task for task in left if "Relay" not in str(task.get_coro())]


@asynccontextmanager
async def connected(url: str) -> AsyncIterator[AmqpTransport]:
    """A connected transport."""
    async with opened(url) as transport:
        await connection(transport)
        yield transport


async def connection(transport: AmqpTransport, after: int = 0) -> int:
    """Wait for a connection, but not for ever."""
    async with asyncio.timeout(2 * PATIENCE_S):
        return await transport.connected(after)


async def until(condition: Callable[[], bool]) -> None:
    """Wait until it holds."""
    async with asyncio.timeout(PATIENCE_S):
        while not condition():
            await asyncio.sleep(0.01)


def told(caplog: pytest.LogCaptureFixture, level: int) -> list[str]:
    """What was logged by the bus at this level."""
    return [record.getMessage() for record in caplog.records if record.levelno == level and record.name != "asyncio"]


async def topic(transport: AmqpTransport, queue: Queue, name: str = "topic") -> Exchange:
    """A queue that gets everything of a new exchange."""
    exchange = Exchange(name=name)
    await transport.declare_exchange(exchange)
    await transport.declare_queue(queue)
    await transport.bind(queue.name, name, "#")
    return exchange


async def publish_all(transport: AmqpTransport, bodies: Iterable[bytes], window: int = 64) -> None:
    """Publish durably with so many unconfirmed at once, each again until it is confirmed."""
    rest = iter(bodies)

    async def worker() -> None:
        for body in rest:
            while True:
                await transport.connected()
                try:
                    await transport.publish(
                        Message(body=body, routing_key="key", exchange="topic", persistent=True, mandatory=True)
                    )
                    break
                except (NotConnected, PublishFailed):
                    await asyncio.sleep(0.05)

    await asyncio.gather(*(worker() for _ in range(window)))


async def outcomes(publishes: Iterable[Awaitable[None]]) -> set[type]:
    """How publishes ended that all must end: the types of what they raised, NoneType for success."""
    async with asyncio.timeout(PATIENCE_S):
        return {type(outcome) for outcome in await asyncio.gather(*publishes, return_exceptions=True)}
