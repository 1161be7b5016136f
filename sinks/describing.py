# SPDX-License-Identifier: MIT
"""Keeps the metadata of an archive's metrics: asked of the manager soon after a metric is new, and again each hour."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Protocol

from bus.errors import HostbusError
from bus.rpc import Json

logger = logging.getLogger(__name__)

NAMES_PER_REQUEST = 1000
FIRST_QUESTION_S = 1.0
"""A source declares its metrics at about the time of its first points: give it a moment."""
LONGEST_PAUSE_S = 600.0
REFRESH_S = 3600.0
"""How often metadata that is known already is asked for again."""


class Described(Protocol):
    """An archive, as far as metadata goes."""

    async def metrics(self, pattern: str = "#") -> dict[str, dict[str, Any]]:
        """All metrics, with what is known of them."""

    async def metrics_without_metadata(self) -> list[str]:
        """Those of which nothing was ever told."""

    async def set_metadata(self, metadata: Mapping[str, Mapping[str, Any]], /) -> None:
        """Remember what was told."""


class Describer:
    """Storing points never waits for it.

    Args:
        archive: gives the archive, None while it is not open
        ask: asks the manager for the metadata of names
        name: whose log lines these are
    """

    def __init__(
        self,
        archive: Callable[[], Described | None],
        ask: Callable[[Sequence[str]], Awaitable[Mapping[str, Json]]],
        name: str,
    ) -> None:
        self._archive = archive
        self._ask = ask
        self._name = name
        self._new_names = asyncio.Event()

    def notice(self) -> None:
        """There are new metrics."""
        self._new_names.set()

    async def run(self) -> None:
        """Work until cancelled."""
        clock = asyncio.get_running_loop().time
        refresh_at = clock()
        pause_s = FIRST_QUESTION_S
        while True:
            if await self._has_new_names(pause_s):
                await asyncio.sleep(FIRST_QUESTION_S)
                pause_s = FIRST_QUESTION_S
            now = clock()
            try:
                unknown = await self._describe(everything=now >= refresh_at)
            except HostbusError as error:
                logger.debug("%s: no metadata for now, will ask again: %s", self._name, error)
                unknown = True
            else:
                refresh_at = now + REFRESH_S if now >= refresh_at else refresh_at
            pause_s = min(pause_s * 2, LONGEST_PAUSE_S) if unknown else refresh_at - clock()

    async def _has_new_names(self, timeout_s: float) -> bool:
        try:
            async with asyncio.timeout(timeout_s):
                await self._new_names.wait()
        except TimeoutError:
            return False
        self._new_names.clear()
        return True

    async def _describe(self, *, everything: bool) -> bool:
        """Ask the manager, and store what it tells; True if there are metrics that it knows nothing of."""
        archive = self._archive()
        if archive is None:
            return True
        names = list(await archive.metrics()) if everything else await archive.metrics_without_metadata()
        for start in range(0, len(names), NAMES_PER_REQUEST):
            await archive.set_metadata(await self._ask(names[start : start + NAMES_PER_REQUEST]))
        return bool(await archive.metrics_without_metadata())
