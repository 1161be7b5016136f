# SPDX-License-Identifier: MIT
"""Families for tests of `agent start`: one with tables in its configuration, others that are slow."""

from typing import Annotated, ClassVar

from msgspec import Meta, field

from agents.host import HostConfig, HostSource, Metric, Reading
from bus.config import AgentConfig
from bus.errors import HostbusError
from bus.names import clean_word


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
