# SPDX-License-Identifier: MIT
"""What a source samples and declares, without a bus."""

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from agents.host import HostSource
from bus.timestamp import NS_PER_S, Timestamp


class Sampled:
    """Takes the place of the bus below a source; names are without ``PREFIX.FAMILY.``."""

    def __init__(self, source: HostSource, monkeypatch: pytest.MonkeyPatch) -> None:
        self.points: list[tuple[float, str, float]] = []
        """Time in seconds, name and value, in the order in which they came."""
        self.declared: list[dict[str, Mapping[str, Any]]] = []
        self._source = source
        self._prefix = source.prefix + "."
        monkeypatch.setattr(source, "sample", self._sample)
        monkeypatch.setattr(source, "declare_metrics_nowait", self._declare)

    async def tick(self, second: int) -> dict[str, float]:
        """One update at a second; the points that came with it."""
        before = len(self.points)
        self._source.tick = Timestamp(second * NS_PER_S)
        await self._source.update()
        return {name: value for _, name, value in self.points[before:]}

    def of(self, name: str) -> list[tuple[float, float]]:
        """Times and values of one metric."""
        return [(time, value) for time, found, value in self.points if found == name]

    def about(self, name: str) -> Mapping[str, Any]:
        """What was last declared about a metric."""
        return next(batch[name] for batch in reversed(self.declared) if name in batch)

    def _sample(self, time: Timestamp, values: Mapping[str, float]) -> None:
        self.points += [(time.posix, name.removeprefix(self._prefix), value) for name, value in values.items()]

    def _declare(self, metrics: Mapping[str, Mapping[str, Any]]) -> None:
        self.declared.append({name.removeprefix(self._prefix): about for name, about in metrics.items()})


async def until(condition: Callable[[], object]) -> None:
    """Wait for a condition, for 20 s at most."""
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.005)
