# SPDX-License-Identifier: MIT
"""`Declarations`: what a source has told the manager of its metrics, and what it has yet to tell."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping

from bus.names import check_metric
from bus.rpc import Json

Metrics = Mapping[str, Json] | Iterable[str]
"""Metric names, with or without metadata."""

Tell = Callable[[dict[str, Json]], Awaitable[object]]
"""Tells the manager of metrics. Raises RpcError if it refuses."""


class Declarations:
    """The metrics of a source, on their way to the manager.

    Args:
        tell: once; raises RpcTimeout or NotConnected if there is no answer
        insist: for as long as it takes to get an answer
        chunk_size: of a metric
    """

    def __init__(self, tell: Tell, insist: Tell, chunk_size: Callable[[str], int | None]) -> None:
        self._tell = tell
        self._insist = insist
        self._chunk_size = chunk_size
        self._told: dict[str, Json] = {}
        self._pending: dict[str, Json] = {}
        self._wanted = asyncio.Event()

    def __len__(self) -> int:
        """How many metrics the manager was told of."""
        return len(self._told)

    async def declare(self, metrics: Metrics) -> None:
        """Tell the manager, and wait for its answer. Raises as `tell` does."""
        described = self._described(metrics)
        await self._tell(described)
        self._told.update(described)

    def declare_soon(self, metrics: Metrics) -> None:
        """Have `run` tell the manager."""
        self._pending.update(self._described(metrics))
        self._wanted.set()

    async def run(self) -> None:
        """Tell the manager what is to be told, for ever. Raises RpcError if it refuses."""
        while True:
            await self._wanted.wait()
            self._wanted.clear()
            pending, self._pending = self._pending, {}
            await self._insist(pending)
            self._told.update(pending)

    async def repeat(self) -> None:
        """Tell the manager all over again: it may have lost what it knew. Raises RpcError if it refuses."""
        if self._told:
            await self._insist(self._told)

    def _described(self, metrics: Metrics) -> dict[str, Json]:
        if isinstance(metrics, str):
            raise TypeError(f"metrics must be a mapping or a list of names, not the name {metrics!r} alone")
        named = metrics if isinstance(metrics, Mapping) else {metric: {} for metric in metrics}
        for name, about in named.items():
            if not isinstance(about, Mapping):
                raise TypeError(f"{name}: the metadata must be a mapping, not {type(about).__name__}")
        return {check_metric(name): {"chunkSize": self._chunk_size(name), **about} for name, about in named.items()}
