# SPDX-License-Identifier: MIT
"""The connection of a one-shot command: made soon or not at all."""

import asyncio
import uuid
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import typer

from agents.cli import log
from bus.agent import Agent, default_url, event_loop_factory
from bus.client import Client
from bus.errors import ConnectTimeout
from bus.timestamp import Timedelta
from bus.transport import connect
from bus.transport.base import Transport

T = TypeVar("T")

_LOOK_EVERY_S = 0.05


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run to the end on the event loop that agents use; Ctrl-C raises KeyboardInterrupt."""
    with asyncio.Runner(loop_factory=event_loop_factory()) as runner:
        return runner.run(work)


def seconds(text: str, option: str) -> float:
    """A span of time from the command line. Raises typer.BadParameter that names the option."""
    try:
        span = Timedelta.from_string(text).s
    except ValueError as error:
        raise typer.BadParameter(f"{option}: {error}") from None
    if span <= 0:
        raise typer.BadParameter(f"{option}: {text!r} is not more than 0 s")
    return span


@asynccontextmanager
async def broker(server: str, timeout_s: float) -> AsyncIterator[Transport]:
    """A connected transport. Raises ConnectTimeout, with the reason, at the first refusal or after `timeout_s`."""
    transport = connect(server or default_url())
    try:
        with log.hushed():
            await transport.open()
            await _reach(transport, timeout_s)
        yield transport
    finally:
        await transport.aclose()


@asynccontextmanager
async def client(server: str, timeout_s: float, purpose: str) -> AsyncIterator[Client]:
    """A client of its own token, ``agent-PURPOSE.UUID``, on the bus."""
    async with broker(server, timeout_s) as transport, Client(f"agent-{purpose}", transport, add_uuid=True) as one:
        yield one


async def _reach(transport: Transport, timeout_s: float) -> None:
    waiting = asyncio.create_task(_connected(transport))
    end = asyncio.get_running_loop().time() + timeout_s
    try:
        while not waiting.done():
            left = end - asyncio.get_running_loop().time()
            if transport.last_error or left <= 0:
                reason = transport.last_error or f"no answer within {timeout_s:g} s"
                raise ConnectTimeout(f"no connection to the broker at {transport.url}: {reason}")
            await asyncio.wait({waiting}, timeout=min(_LOOK_EVERY_S, left))
        waiting.result()
    finally:
        waiting.cancel()


async def _connected(transport: Transport) -> None:
    await transport.connected()


async def begin(agent: Agent, timeout_s: float) -> None:
    """Start an agent. Raises ConnectTimeout if it has not begun to work after `timeout_s`."""
    try:
        with log.hushed():
            async with asyncio.timeout(timeout_s):
                await agent.connect()
    except TimeoutError:
        raise ConnectTimeout(
            f"no manager at {agent.transport.url} answered within {timeout_s:g} s: start one with 'agent start manager'"
        ) from None


@asynccontextmanager
async def own_bus() -> AsyncIterator[Transport]:
    """A bus of this process, with a manager that forgets everything: for what must work without a broker."""
    from bus.manager import Manager

    url = f"memory://{uuid.uuid4().hex}"
    transport = connect(url)
    await transport.open()
    try:
        async with Manager("manager", transport, config=Manager.Config(store=":memory:")):
            yield transport
    finally:
        await transport.aclose()
