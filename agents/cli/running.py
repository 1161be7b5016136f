# SPDX-License-Identifier: MIT
"""One agent in the foreground: it ends on SIGINT and SIGTERM, and reads its file again on SIGHUP."""

import asyncio
import logging
import signal
from collections.abc import Callable

from bus.agent import Agent
from bus.client import Client
from bus.config import AgentConfig
from bus.errors import HostbusError

logger = logging.getLogger(__name__)


async def run_agent(agent: Agent, reread: Callable[[], AgentConfig] | None = None) -> None:
    """Run until it ends by itself, fails (raises), or SIGINT or SIGTERM comes; SIGHUP puts `reread()` in force."""
    loop = asyncio.get_running_loop()
    reloads = asyncio.Event()
    stopping: list[asyncio.Task[None]] = []

    async def live() -> None:
        await agent.connect()
        if not stopping:
            logger.info("%s works, over %s", agent.token, agent.transport.url)
        await agent.stopped()

    def stop() -> None:
        if not stopping:
            logger.info("%s stops", agent.token)
            stopping.append(asyncio.create_task(agent.stop(), name="stop"))

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop)
    loop.add_signal_handler(signal.SIGHUP, reloads.set)
    reloading = asyncio.create_task(_reload(agent, reloads, reread), name="reload")
    try:
        await live()
    finally:
        reloading.cancel()
        await asyncio.gather(reloading, *stopping, return_exceptions=True)


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
