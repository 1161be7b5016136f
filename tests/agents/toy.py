# SPDX-License-Identifier: MIT
"""A family for tests, and what a source does without a bus."""

import pytest
from msgspec import field

from agents.host import HostConfig, HostSource, Metric, Reading
from bus.timestamp import NS_PER_S, Timestamp


class ToySource(HostSource):
    """A family as a newcomer writes it."""

    family = "toy"
    metrics = (
        Metric("plain", unit="1", description="a value"),
        Metric("{device}.level", unit="%", description="a value of each device"),
    )
    says: dict[str, float]

    def read(self) -> Reading:
        return self.says


class NeedyConfig(HostConfig, frozen=True):
    jobs: list[str] = field(default_factory=list)

    @property
    def missing(self) -> str:
        return "" if self.jobs else "no jobs; name them in jobs = [...]"


class NeedySource(ToySource):
    """Has nothing to do before it is told."""

    Config = NeedyConfig
    config: NeedyConfig

    def read(self) -> Reading:
        return {"plain": float(len(self.config.jobs))}


class Sampled:
    """What a source sampled and declared, without a bus."""

    def __init__(self, source: HostSource, monkeypatch: pytest.MonkeyPatch) -> None:
        self.points: list[tuple[Timestamp, dict[str, float]]] = []
        self.declared: list[dict[str, dict[str, object]]] = []
        monkeypatch.setattr(source, "sample", lambda time, values: self.points.append((time, dict(values))))
        monkeypatch.setattr(source, "declare_metrics_nowait", self.declared.append)

    @property
    def names(self) -> list[str]:
        """Everything that was declared, in this order."""
        return [name for metrics in self.declared for name in metrics]


def second(number: float) -> Timestamp:
    """A time, `number` seconds after some moment."""
    return Timestamp(1_790_000_000 * NS_PER_S + round(number * NS_PER_S))
