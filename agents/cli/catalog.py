# SPDX-License-Identifier: MIT
"""Which agents exist: the entry points of the group ``hostbus.agents``, built in and third party.

Knowing an agent's name loads nothing of it; `KnownAgent.load` does.
"""

import logging
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import EntryPoint, entry_points

from bus.agent import Agent
from bus.config import AgentConfig, nearest
from bus.errors import ConfigError, HostbusError

logger = logging.getLogger(__name__)

GROUP = "hostbus.agents"
OURS = "hostbus"
"""The distribution whose names nobody else may take."""

ENDS = ("-source", "-sink")
"""What may be left out of an agent's name, if only one agent can be meant."""


class UnknownAgent(ConfigError):
    """A name that belongs to no agent."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownAgent:
    """An agent that can be started: its name, and where its class is."""

    name: str
    entry: EntryPoint

    @property
    def package(self) -> str:
        """The distribution that brings it."""
        return self.entry.dist.name if self.entry.dist else ""

    def load(self) -> type[Agent]:
        """Import its class. Raises HostbusError, with the cause, if that fails: it may be anybody's code."""
        try:
            found = self.entry.load()
        except Exception as error:
            raise HostbusError(
                f"{self.name} (package {self.package or '?'}, {self.entry.value}) cannot be loaded: "
                f"{type(error).__name__}: {error}"
            ) from error
        if not (isinstance(found, type) and issubclass(found, Agent)):
            raise HostbusError(f"{self.name} (package {self.package}, {self.entry.value}) is not a subclass of Agent")
        return found


@lru_cache(maxsize=1)
def known_agents() -> dict[str, KnownAgent]:
    """Every agent by name, ours first. Of two packages that claim one name the first keeps it."""
    found: dict[str, KnownAgent] = {}
    entries = sorted(entry_points(group=GROUP), key=lambda entry: entry.dist is None or entry.dist.name != OURS)
    for entry in entries:
        first = found.setdefault(entry.name, KnownAgent(name=entry.name, entry=entry))
        if first.entry.value != entry.value:
            logger.warning(
                "%s of package %s is ignored: %s is an agent of package %s",
                entry.value,
                entry.dist.name if entry.dist else "?",
                entry.name,
                first.package,
            )
    return found


def find_agent(name: str, others: Iterable[str] = ()) -> KnownAgent:
    """The agent of that name; ``cpu`` is cpu-source, where nothing is called cpu itself.

    Raises UnknownAgent with the nearest one that is known; `others` are names that would be right, too.
    """
    agents = known_agents()
    meant = [agents[full] for full in (name, *(name + end for end in ENDS)) if full in agents]
    if not meant:
        families = [known.removesuffix(end) for known in agents for end in ENDS if known.endswith(end)]
        raise UnknownAgent(f"there is no agent {name!r}; {nearest(name, [*agents, *others], also=families)}")
    if len(meant) > 1 and meant[0].name != name:
        raise UnknownAgent(f"{name!r} may be {' or '.join(known.name for known in meant)}: say which")
    return meant[0]


def config_of(agent: type[Agent]) -> type[AgentConfig]:
    """The configuration struct of an agent's class; an empty one if it cannot be configured."""
    return agent.Config or AgentConfig


def default_token(name: str) -> str:
    """The token of an agent without one of its own: ``cpu-source`` on web1 → ``source-cpu-web1``.

    There is one manager per network, so its token is just ``manager``.
    """
    from bus.names import short_host_name

    if name == "manager":
        return name
    words = name.split("-")
    return "-".join([words[-1], *words[:-1], short_host_name()])
