# SPDX-License-Identifier: MIT
"""One agent in the foreground: signals, a new file on SIGHUP, and what it waits for."""

import asyncio
import logging
import signal
from collections.abc import Callable

from bus.agent import Agent
from bus.client import Client
from bus.config import AgentConfig
from bus.errors import HostbusError

logger = logging.getLogger(__name__)

SILENT_S = 1.0
"""A start that takes no longer says nothing about waiting."""


async def run_agent(agent: Agent, reread: Callable[[], AgentConfig] | None = None) -> None:
    """Run until it ends by itself, fails (raises), or SIGINT or SIGTERM comes; SIGHUP puts `reread()` in force."""
    loop = asyncio.get_running_loop()
    reloads = asyncio.Event()
    ended = asyncio.create_task(_live(agent), name="agent")
    stopping: list[asyncio.Task[None]] = []

    def stop() -> None:
        if not stopping:
            logger.info("%s stops", agent.token)
            stopping.append(asyncio.create_task(agent.stop(), name="stop"))

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop)
    loop.add_signal_handler(signal.SIGHUP, reloads.set)
    helpers = [
        asyncio.create_task(_say_what_is_missing(agent), name="waiting"),
        asyncio.create_task(_reload(agent, reloads, reread), name="reload"),
    ]
    try:
        await ended
    finally:
        for helper in helpers:
            helper.cancel()
        await asyncio.gather(*helpers, *stopping, return_exceptions=True)


async def _live(agent: Agent) -> None:
    await agent.connect()
    logger.info("%s works, over %s", agent.token, agent.transport.url)
    await agent.stopped()


async def _say_what_is_missing(agent: Agent) -> None:
    """Say once that there is no broker; that there is no manager the agent says itself."""
    await asyncio.sleep(SILENT_S)
    if agent.transport.last_error:
        logger.warning(
            "%s waits for the broker at %s (%s) and begins when it is there",
            agent.token,
            agent.transport.url,
            agent.transport.last_error,
        )


async def _reload(agent: Agent, wanted: asyncio.Event, reread: Callable[[], AgentConfig] | None) -> None:
    while True:
        await wanted.wait()
        wanted.clear()
        if reread is None:
            logger.info("%s: SIGHUP ignored: it was started without --config", agent.token)
            continue
        try:
            config = reread()
            await reload(agent, config)
        except HostbusError as error:
            logger.error("%s keeps its configuration: %s", agent.token, error)  # noqa: TRY400  # known errors are one line
        else:
            logger.info("%s: the configuration file was read again", agent.token)


async def reload(agent: Agent, config: AgentConfig) -> None:
    """Put a configuration read from a file in force. Raises ConfigError if the agent refuses it."""
    if isinstance(agent, Client):
        await agent.reload(config)
    elif agent.Config is not None:
        await agent.reconfigure(config)
