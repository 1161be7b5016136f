# SPDX-License-Identifier: MIT
"""What `agent up` tells about its families: which work, which found nothing, and how much they send."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from agents.cli.quantity import human_bytes
from agents.cli.settings import Instance
from agents.cli.up.supervisor import Supervised
from agents.cli.up.watch import ArchiveFile, FamilyWatch
from agents.host import HostSource
from bus.timestamp import Timestamp


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """A family of host metrics that runs: its watch and its agent."""

    watch: FamilyWatch
    runner: Supervised
    instance: Instance

    @property
    def absence(self) -> str:
        """Why it has nothing to measure; empty while it has something."""
        agent = self.runner.agent
        return agent.absence.reason if isinstance(agent, HostSource) else ""

    @property
    def trouble(self) -> str:
        """What is wrong with its agent, in a few words."""
        return {"failed": "failed; it is started again", "starting": "starting"}.get(self.runner.state, "")


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """All that is told.

    unconfigured: families that were not started because they were told nothing to do.
    archive: None if nothing is kept. where: the bus's URL.
    """

    families: Sequence[Family]
    unconfigured: Collection[str]
    archive: ArchiveFile | None
    where: str

    @property
    def found(self) -> list[Family]:
        """The families that have something to measure."""
        return [family for family in self.families if not family.absence]

    @property
    def absent(self) -> dict[str, str]:
        """The families that have nothing to measure, and why."""
        return {family.watch.family: family.absence for family in self.families if family.absence}

    @property
    def totals(self) -> str:
        """``170 metrics · 163.7 points/s · 4019 points so far · archive 346 kB``."""
        metrics, rate = _sums(self.families)
        points = sum(family.watch.points for family in self.families)
        kept = f"archive {human_bytes(self.archive.size())}" if self.archive else "no archive"
        return f"{metrics} metrics · {rate:.1f} points/s · {points} points so far · {kept}"

    def summary(self) -> str:
        """One line, for terminals that are none."""
        found = self.found
        working = sum(family.runner.state == "working" for family in found)
        metrics, rate = _sums(found)
        archive = f", archive {human_bytes(self.archive.size())}" if self.archive else ""
        clock = f"{Timestamp.now().datetime.astimezone():%H:%M:%S}"
        return f"{clock} {working} of {len(found)} families, {metrics} metrics, {rate:.1f} points/s{archive}"

    def remarks(self) -> list[str]:
        """A line for each family with nothing to measure, and one for those that are not configured."""
        lines = [f"{family}: nothing to measure: {why}" for family, why in sorted(self.absent.items())]
        if self.unconfigured:
            lines.append(f"not configured: {', '.join(sorted(self.unconfigured))} ('agent list NAME' says how)")
        return lines


def _sums(families: Iterable[Family]) -> tuple[int, float]:
    """How many metrics some families have, and how many points a second."""
    counts = [(len(family.watch.newest), family.watch.rate()) for family in families]
    return sum(metrics for metrics, _ in counts), sum(rate for _, rate in counts)
