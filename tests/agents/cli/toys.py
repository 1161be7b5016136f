# SPDX-License-Identifier: MIT
"""Families for tests of the command line: with tables, slow ones, broken ones, and such as have nothing to do."""

from collections.abc import Iterable
from importlib.metadata import EntryPoint
from typing import Annotated, ClassVar

from msgspec import Meta, field

from agents.cli.catalog import GROUP
from agents.host import HostConfig, HostSource, Metric, NothingFound, Reading
from bus.config import AgentConfig
from bus.errors import HostbusError
from bus.names import clean_word


def entries(families: Iterable[str]) -> list[EntryPoint]:
    """What makes these known to the command line: ``Idle`` is idle-source."""
    return [
        EntryPoint(name=f"{family.lower()}-source", value=f"{__name__}:{family}Source", group=GROUP)
        for family in families
    ]


class Host(AgentConfig, frozen=True):
    """One host of the family below."""

    host: Annotated[str, Meta(min_length=1, description="its name or address")]
    user: Annotated[str, Meta(description="who we are there")] = ""
    port: Annotated[int, Meta(ge=1, le=65535, description="where it listens")] = 22


class TalkConfig(HostConfig, frozen=True):
    """What the family can be told."""

    local_only: ClassVar[frozenset[str]] = frozenset({"hosts", "labels"})

    hosts: Annotated[list[str | Host], Meta(description="hosts to talk to")] = field(default_factory=list)
    labels: Annotated[dict[str, str], Meta(description="what else to say of them")] = field(default_factory=dict)


class TalkSource(HostSource):
    """Talks to hosts."""

    Config = TalkConfig
    config: TalkConfig
    family = "talk"
    metrics = (Metric("{host}.{user}.port", "1", "where the host listens"),)

    def read(self) -> Reading:
        hosts = [Host(host=host) if isinstance(host, str) else host for host in self.config.hosts]
        labels = {f"labels.{name}.port": 0.0 for name in self.config.labels}
        return {
            **labels,
            **{f"{clean_word(one.host)}.{clean_word(one.user or 'nobody')}.port": float(one.port) for one in hosts},
        }


class SlowSource(HostSource):
    """Has not got hold of what it samples before its third reading."""

    family = "slow"
    metrics = (Metric("readings", "1", "how many"), Metric("late", "1", "what it had to get hold of"))
    readings = 0

    @property
    def pending(self) -> bool:
        return self.readings < 3

    async def measure(self) -> None:
        self.readings += 1
        self.take(self.tick, {"readings": self.readings, **({} if self.pending else {"late": 1.0})})


class EndlessSource(SlowSource):
    """Never gets hold of it."""

    family = "endless"

    @property
    def pending(self) -> bool:
        return True


class HungSource(SlowSource):
    """Its first reading does not end."""

    family = "hung"
    pending = False

    async def measure(self) -> None:
        await self.task_stop_future


class BrokenSource(SlowSource):
    """Ends with an error."""

    family = "broken"
    pending = True

    async def start(self) -> None:
        await super().start()
        self.start_task(self._break(), name="break")

    async def _break(self) -> None:
        raise HostbusError("the toy is broken")


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
