# SPDX-License-Identifier: MIT
"""Families for tests of the command line."""

from msgspec import field

from agents.host import HostConfig, HostSource, Metric, NothingFound, Reading


class EmptySource(HostSource):
    """Finds nothing."""

    family = "empty"
    metrics = (Metric("value", "1", "never seen"),)

    def read(self) -> Reading:
        raise NothingFound("no such thing in this machine")


class IdleConfig(HostConfig, frozen=True):
    """What the family can be told."""

    jobs: list[str] = field(default_factory=list)

    @property
    def missing(self) -> str:
        return "" if self.jobs else "no jobs; name them under [idle-source] jobs = [...]"


class IdleSource(HostSource):
    """Has nothing to do before it is told."""

    Config = IdleConfig
    config: IdleConfig
    family = "idle"
    metrics = (Metric("jobs", "1", "how many"),)

    def read(self) -> Reading:
        return {"jobs": len(self.config.jobs)}
