# SPDX-License-Identifier: MIT
"""A family with tables in its configuration, and two agents of one name."""

from typing import Annotated, ClassVar

from msgspec import Meta, field

from agents.host import HostConfig, HostSource, Metric, Reading
from bus.config import AgentConfig
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
