# SPDX-License-Identifier: MIT
"""`Membership`: a source registers after every connection, for the manager or the broker may have lost what it knew."""

import asyncio
import logging
from collections.abc import Awaitable, Callable

from bus.errors import RpcError
from bus.transport.base import Transport

logger = logging.getLogger(__name__)

REFUSED_S = 30.0
"""How long a source that is refused on its return waits before it asks again."""


class Membership:
    """That the manager knows of a source.

    Args:
        token: the source's, for logs
        transport: whose connections count
        join: registers, and does what belongs to it. Raises RpcError if the manager refuses
    """

    def __init__(self, token: str, transport: Transport, join: Callable[[], Awaitable[None]]) -> None:
        self._token = token
        self._transport = transport
        self._join = join
        self._joined = asyncio.Event()

    @property
    def is_begun(self) -> bool:
        """True once the source has joined for the first time."""
        return self._joined.is_set()

    async def begin(self) -> None:
        """Wait until the source has joined, while `keep` runs."""
        await self._joined.wait()

    async def keep(self) -> None:
        """Join after every connection, for ever.

        Raises RpcError if the manager refuses the first time. Later, points go on while it is asked again.
        """
        seen = 0
        while True:
            seen = await self._transport.connected(seen)
            try:
                await self._join()
                self._joined.set()
            except RpcError as error:
                if not self._joined.is_set():
                    raise
                logger.error("%s: refused on its return, asking again in %g s: %s", self._token, REFUSED_S, error)  # noqa: TRY400
                await asyncio.sleep(REFUSED_S)
                seen = 0
