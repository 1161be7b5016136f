# SPDX-License-Identifier: MIT
"""hostbus.toml: one file for all agents of a host.

    [bus]                             # the network
    server = "amqp://host1:${BUS_PASSWORD}@broker/"

    [agent]                           # defaults, for every agent that has the option
    prefix = "${HOST_PREFIX:-web1}"
    period = 5.0

    [cpu-source]                      # one table per agent, named as `agent list` names it; [cpu] will do
    period = 1.0

    [second-archive]                  # another instance of an agent: any name, and which agent it is
    agent = "sqlite-sink"
    token = "sink-sqlite-second"      # in any agent's table; default: made of the name and the host
    path = "/data/second.db"

``${NAME}`` inside a string is an environment variable, ``${NAME:-text}`` one with a default, ``$${`` a plain
``${``. This file owns the shape; whether a value is right is up to each agent's `Config`.
"""

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from msgspec import Meta

from agents.cli.catalog import KnownAgent, UnknownAgent, config_of, default_token, find_agent, known_agents
from bus.agent import Agent
from bus.config import AgentConfig, unknown_key
from bus.errors import ConfigError, HostbusError
from bus.source import Source
from bus.transport.base import Transport

BUS = "bus"
DEFAULTS = "agent"
_VARIABLE = re.compile(r"\$\$\{|\$\{([A-Za-z_][A-Za-z0-9_]*)(:-([^}]*))?\}")


class BusSettings(AgentConfig, frozen=True, kw_only=True):
    """The table ``[bus]``."""

    server: Annotated[str, Meta(description="where the broker is: amqp://, amqps:// or memory://")] = ""
    wire: Annotated[
        Literal["frame", "metricq"] | None,
        Meta(description="how points travel: frames (default), or MetricQ's chunks, which stock sinks read"),
    ] = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Instance:
    """One agent to run: what it is, its token, and the values that a file gives its configuration."""

    name: str
    agent: KnownAgent
    token: str
    values: Mapping[str, Any]
    where: str = "options"
    wire: Literal["frame", "metricq"] | None = None

    def config(self, over: Mapping[str, Any] | None = None) -> AgentConfig:
        """Its configuration, with the values of `over` on top. Raises ConfigError."""
        return config_of(self.agent.load()).load({**self.values, **(over or {})}, where=self.where, strict=False)

    def make(self, token: str, url: str | Transport, config: AgentConfig) -> Agent:
        """The agent itself, not started. `url` may be empty: the broker of this user."""
        cls = self.agent.load()
        options: dict[str, Any] = {"config": config} if cls.Config else {}
        if self.wire == "metricq" and issubclass(cls, Source):
            options["wire"] = self.wire
        # A token that is not a valid name is a ValueError, a URL of no known kind too: both came from the user.
        try:
            return cls(token, url, **options)
        except ValueError as error:
            raise ConfigError(f"{self.name}: {error}") from error


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What a hostbus.toml says; without arguments, what an empty one says.

    tables: by the full names of the agents, or the names of the instances. headings: what the file calls those
    that it calls otherwise, ``[cpu]`` for cpu-source.
    """

    source: str = ""
    bus: BusSettings = field(default_factory=BusSettings)
    defaults: Mapping[str, Any] = field(default_factory=dict)
    tables: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    headings: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path | None) -> "Settings":
        """The file at `path`; no file if None. Raises ConfigError for the first thing that is wrong with it."""
        if path is None:
            return cls()
        content = _load(path)
        settings, problems = cls._shape(path, content)
        if problems:
            raise ConfigError(problems[0])
        return settings

    @classmethod
    def _shape(cls, path: Path, content: Mapping[str, Any]) -> tuple["Settings", list[str]]:
        """Tables and their names, but not what is in the agents' tables; and all that is wrong."""
        problems: list[str] = []
        tables: dict[str, Mapping[str, Any]] = {}
        headings: dict[str, str] = {}
        for name, value in content.items():
            if not isinstance(value, dict):
                problems.append(
                    f"{path}: {name} stands outside of any table; put it under [bus], [agent] or an agent's name"
                )
                continue
            try:
                table = _filled_in(value, f"{path}: [{name}]")
                full = name if name in (BUS, DEFAULTS) else _full_name(name, table, str(path))
            except ConfigError as error:
                problems.append(str(error))
                continue
            if full in tables:
                problems.append(
                    f"{path}: [{headings[full]}] and [{name}] are the same agent, {full}: put all into one of them, "
                    f'or make one of them another instance with a key agent = "{full}"'
                )
            tables.setdefault(full, table)
            headings.setdefault(full, name)
        bus = BusSettings()
        try:
            bus = BusSettings.load(tables.pop(BUS, {}), where=f"{path}: [{BUS}]")
        except ConfigError as error:
            problems.append(str(error))
        defaults = tables.pop(DEFAULTS, {})
        return cls(source=str(path), bus=bus, defaults=defaults, tables=tables, headings=headings), problems

    def find(self, name: str) -> tuple[str, KnownAgent]:
        """The full name of an agent or an instance, and which agent it is. Raises UnknownAgent."""
        if name in self.tables:
            return name, _agent_of(name, self.tables[name], self.source)
        agent = find_agent(name, self.tables)
        return agent.name, agent

    def instance(self, name: str) -> Instance:
        """The agent or instance called `name`. Raises UnknownAgent, and ConfigError for an unknown key in [agent]."""
        name, agent = self.find(name)
        table = dict(self.tables.get(name, {}))
        table.pop("agent", None)
        token = table.pop("token", None) or default_token(name)
        fields = config_of(agent.load()).__struct_fields__
        values = {key: value for key, value in self._all_defaults().items() if key in fields}
        for key in self.defaults:
            if key not in fields:
                self._check_default(key)
        where = f"{self.source}: [{self.headings.get(name, name)}]" if self.source else name
        values.update(table)
        return Instance(name=name, agent=agent, token=str(token), values=values, where=where, wire=self.bus.wire)

    def _all_defaults(self) -> dict[str, Any]:
        wire = {} if self.bus.wire is None else {"wire": self.bus.wire}
        return {**wire, **self.defaults}

    def _check_default(self, key: str) -> None:
        """Raises ConfigError if no agent at all has the option. Loads agents until one has."""
        fields: set[str] = set()
        for known in known_agents().values():
            try:
                fields.update(config_of(known.load()).__struct_fields__)
            except HostbusError:
                continue  # `agent list` shows it; here it cannot have the option
            if key in fields:
                return
        raise ConfigError(unknown_key(key, fields, f"{self.source}: [{DEFAULTS}]"))

    def problems(self) -> Iterator[str]:
        """What is wrong inside the agents' tables, one line each."""
        for key in self.defaults:
            try:
                self._check_default(key)
            except ConfigError as error:
                yield str(error)
        checked = replace(self, defaults={})
        for name in self.tables:
            try:
                instance = checked.instance(name)
                struct = config_of(instance.agent.load())
                yield from struct.problems(instance.values, where=instance.where, strict=False)
            except HostbusError as error:
                yield str(error)


def find(name: str, path: str) -> KnownAgent:
    """Which agent an agent's or an instance's name means, if the file at `path` is used. Raises ConfigError."""
    return Settings.read(Path(path)).find(name)[1]


def check(path: Path) -> list[str]:
    """Everything that is wrong with a file, one line each; empty if it is good."""
    try:
        settings, problems = Settings._shape(path, _load(path))  # noqa: SLF001  # the same file
    except ConfigError as error:
        return [str(error)]
    return [*problems, *settings.problems()]


def _load(path: Path) -> dict[str, Any]:
    import tomllib

    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not valid TOML: byte {error.start} is not UTF-8") from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: not valid TOML: {error}") from error


def _agent_of(name: str, table: Mapping[str, Any], source: str) -> KnownAgent:
    """Which agent a table is about: its key `agent`, else its name."""
    wanted = table.get("agent", name)
    if not isinstance(wanted, str):
        raise ConfigError(f"{source}: [{name}]: agent: expected the name of an agent, like 'cpu-source'")
    try:
        return find_agent(wanted, (BUS, DEFAULTS))
    except UnknownAgent as error:
        raise ConfigError(f'{source}: [{name}]: {error} (another name needs a key agent = "...")') from None


def _full_name(name: str, table: Mapping[str, Any], source: str) -> str:
    """What a table is kept under: its name if that is an instance's, else the full name of its agent."""
    agent = _agent_of(name, table, source)
    return name if "agent" in table else agent.name


def _filled_in(value: Any, where: str, path: str = "") -> Any:
    """`value` with the variables in its strings replaced. Raises ConfigError that names the key, never a value."""
    if isinstance(value, str):
        return _VARIABLE.sub(lambda match: _variable(match, f"{where} {path}"), value)
    if isinstance(value, dict):
        return {key: _filled_in(inner, where, f"{path}.{key}".lstrip(".")) for key, inner in value.items()}
    if isinstance(value, list):
        return [_filled_in(inner, where, f"{path}[{position}]") for position, inner in enumerate(value)]
    return value


def _variable(match: re.Match[str], where: str) -> str:
    name, has_default, default = match.groups()
    if name is None:
        return "${"
    found = os.environ.get(name)
    if found or (found is not None and not has_default):
        return found
    if has_default:
        return str(default)
    raise ConfigError(
        f"{where}: the environment variable {name} is not set; set it, or give a default: ${{{name}:-...}}"
    )
