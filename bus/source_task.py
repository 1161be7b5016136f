# SPDX-License-Identifier: MIT
"""`SourceTask`: how a source's `task` ends: it is asked to, has a little time, and is cancelled then."""

import asyncio
import logging
from collections.abc import Awaitable, Callable

logger = logging.getLogger(__name__)

TASK_END_S = 2.0
"""How long `task()` has to end by itself after `task_stop_future` is set; then it is cancelled."""

SOON_S = 0.1
"""The same where a stop may cancel what it does: enough for what is about to end."""

CANCEL_S = 0.5
"""How long `task()` has to clean up when it is cancelled."""


class SourceTask:
    """One run of a source's `task`. To be made in the event loop.

    Args:
        token: the source's, for logs
        cancel_on_stop: it is cancelled soon, which is nothing to complain of
    """

    def __init__(self, token: str, *, cancel_on_stop: bool = False) -> None:
        self.stop_wanted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Done when it should end."""
        self._token = token
        self._cancel_on_stop = cancel_on_stop
        self._limit = asyncio.timeout(None)
        self._ended = asyncio.Event()

    async def run(self, work: Callable[[], Awaitable[None]]) -> None:
        """Do the work until it ends, or `end` has waited long enough."""
        try:
            async with self._limit:
                await work()
        except TimeoutError:
            if not self._limit.expired():
                raise
            if not self._cancel_on_stop:
                logger.warning("%s: task() did not end within %g s of its stop: cancelled", self._token, TASK_END_S)
        finally:
            self._ended.set()

    async def end(self) -> None:
        """Ask it to end; returns when it has, or does not let itself be cancelled."""
        if not self.stop_wanted.done():  # `wait_for` in a task may have cancelled it
            self.stop_wanted.set_result(None)
        if self._ended.is_set():
            return
        patience_s = SOON_S if self._cancel_on_stop else TASK_END_S
        self._limit.reschedule(asyncio.get_running_loop().time() + patience_s)
        try:
            async with asyncio.timeout(patience_s + CANCEL_S):
                await self._ended.wait()
        except TimeoutError:
            logger.warning("%s: task() does not let itself be cancelled", self._token)
