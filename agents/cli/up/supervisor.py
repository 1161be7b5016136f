# SPDX-License-Identifier: MIT
"""Several agents in one process: one that fails is made anew, its neighbours do not notice."""

import asyncio
import logging
from collections.abc import Callable
from typing import Literal

from bus.agent import Agent
from bus.errors import HostbusError

logger = logging.getLogger(__name__)

LOWEST_RESTART_S = 1.0
HIGHEST_RESTART_S = 30.0
CALM_S = 60.0
"""An agent that has worked for so long begins again with the lowest delay."""

State = Literal["starting", "working", "failed", "stopped"]


class Supervised:
    """One agent, restarted with backoff (1 s → 30 s) for as long as it fails.

    Args:
        name: for logs
        make: makes the agent, not started; called again for every restart
    """

    def __init__(self, name: str, make: Callable[[], Agent]) -> None:
        self.name = name
        self.state: State = "starting"
        self.agent: Agent | None = None
        self.restarts = 0
        self._make = make
        self._needed = False
        self._stopping = asyncio.Event()
        self._settled = asyncio.Event()
        self._first_error: Exception | None = None
        self._task: asyncio.Task[None] | None = None

    async def start(self, *, needed: bool = False) -> None:
        """Start; returns when it works or has failed once. With `needed` raises why it failed, and gives up.

        May be called twice.
        """
        self._needed = needed
        if self._task is None:
            self._task = asyncio.create_task(self._keep_alive(), name=f"supervise {self.name}")
        await self._settled.wait()
        if needed and self._first_error is not None:
            raise self._first_error

    async def stop(self) -> None:
        """Stop the agent, in order, and do not restart it. May be called twice, and before `start`."""
        self._stopping.set()
        if self._task is not None:
            await asyncio.wait({self._task})
        self.state = "stopped"

    async def _keep_alive(self) -> None:
        clock = asyncio.get_running_loop().time
        delay_s = LOWEST_RESTART_S
        while not self._stopping.is_set():
            began = clock()
            try:
                await self._live()
            except Exception as error:  # noqa: BLE001  # one bad agent must not stop its neighbours, whatever it raised
                if not self._settled.is_set():
                    self._first_error = error
                    if self._needed:
                        self._settled.set()
                        return
                if clock() - began > CALM_S:
                    delay_s = LOWEST_RESTART_S
                self._say(error, delay_s)
            else:
                if not self._stopping.is_set():
                    logger.warning("%s ended; it is started again in %g s", self.name, delay_s)
            self.state = "failed"
            self._settled.set()
            if self._stopping.is_set():
                return
            await self._pause(delay_s)
            delay_s = min(delay_s * 2, HIGHEST_RESTART_S)
            self.restarts += 1

    async def _live(self) -> None:
        """One life of the agent: until it fails (raises), ends, or `stop` is called."""
        self.state = "starting"
        agent = self.agent = self._make()
        stopping = asyncio.create_task(self._stopping.wait(), name=f"{self.name}: stopping")
        living = asyncio.create_task(self._connect_and_wait(agent), name=f"{self.name}: living")
        try:
            await asyncio.wait({stopping, living}, return_when=asyncio.FIRST_COMPLETED)
            if not living.done():
                await agent.stop()
            await living
        finally:
            stopping.cancel()
            if not living.done():
                living.cancel()
            await asyncio.gather(stopping, living, return_exceptions=True)

    async def _connect_and_wait(self, agent: Agent) -> None:
        await agent.connect()
        self.state = "working"
        self._settled.set()
        await agent.stopped()

    def _say(self, error: Exception, delay_s: float) -> None:
        known = isinstance(error, HostbusError)
        what = str(error) if known else f"{type(error).__name__}: {error}"
        logger.error(
            "%s failed: %s; it is started again in %g s", self.name, what, delay_s, exc_info=None if known else error
        )

    async def _pause(self, delay_s: float) -> None:
        try:
            async with asyncio.timeout(delay_s):
                await self._stopping.wait()
        except TimeoutError:
            pass
