# SPDX-License-Identifier: MIT
"""Which parsers there are, and which of them run on which remote host."""

import re
from collections.abc import Mapping
from types import MappingProxyType

from agents.remote import parsers as builtin
from agents.remote.parser import MetricParser
from bus.config import nearest
from bus.errors import ConfigError

DEFAULT_PARSERS: Mapping[str, MetricParser] = MappingProxyType(
    {
        "cpu": builtin.CpuParser(),
        "cpu_frequency": builtin.CpuFrequencyParser(),
        "memory": builtin.MemoryParser(),
        "load": builtin.LoadParser(),
        "processes": builtin.ProcessesParser(),
        "users": builtin.UsersParser(),
        "network": builtin.NetworkParser(),
        "disk": builtin.DiskParser(),
        "disk_network": builtin.DiskNetworkParser(),
        "disk_io": builtin.DiskIoParser(),
    }
)
"""What runs on every host that is not told otherwise."""

MORE_PARSERS: Mapping[str, MetricParser] = MappingProxyType({"nvidia_smi": builtin.NvidiaSmiParser()})
"""What runs where it is asked for by name."""

_NAME = re.compile(r"[A-Za-z0-9_-]+")


class ParserRegistry:
    """Parsers by name, for all hosts and for some.

    A host is called as in the configuration, without user and port, whatever its case.

    Args:
        defaults: run on every host
        more: known by name only
    """

    def __init__(
        self,
        defaults: Mapping[str, MetricParser] = DEFAULT_PARSERS,
        more: Mapping[str, MetricParser] = MORE_PARSERS,
    ) -> None:
        self._defaults = _checked(defaults)
        self._more = _checked(more)
        self._of_hosts: list[tuple[re.Pattern[str], dict[str, MetricParser | None]]] = []

    def register_parsers(self, parsers: Mapping[str, MetricParser]) -> None:
        """Run parsers on every host; one with a name that is taken replaces the other.

        Raises TypeError or ValueError for what is no parser; then nothing has changed.
        """
        self._defaults.update(_checked(parsers))

    def register_host_parsers(self, host: str | re.Pattern[str], parsers: Mapping[str, MetricParser | None]) -> None:
        """Run parsers on one host, or on those whose whole name a pattern matches; None: do not run what has that name.

        Of two registrations that concern a host the later one counts, and either before those for every host.
        Raises TypeError or ValueError for what is no host or no parser; then nothing has changed.
        """
        checked: dict[str, MetricParser | None] = dict.fromkeys(parsers)
        checked |= _checked({name: parser for name, parser in parsers.items() if parser is not None})
        for name in checked:
            _check_name(name)
        self._of_hosts.append((_pattern(host), checked))

    def parsers_for(self, host: str) -> dict[str, MetricParser]:
        """What runs on a host, by name."""
        found: dict[str, MetricParser | None] = {**self._defaults, **self._for_host(host)}
        return {name: parser for name, parser in found.items() if parser is not None}

    def find_parser(self, name: str, host: str = "") -> MetricParser:
        """The parser of a name, one for the host before one for all. Raises ConfigError that names the nearest."""
        parser = self._for_host(host).get(name) or self._defaults.get(name) or self._more.get(name)
        if parser is None:
            known = {**self._more, **self.parsers_for(host)}
            where = f" for {host}" if host else ""
            raise ConfigError(f"there is no parser {name[:100]!r}{where}; {nearest(name, known)}")
        return parser

    def _for_host(self, host: str) -> dict[str, MetricParser | None]:
        found: dict[str, MetricParser | None] = {}
        for pattern, parsers in self._of_hosts:
            if pattern.fullmatch(host):
                found.update(parsers)
        return found


def _pattern(host: str | re.Pattern[str]) -> re.Pattern[str]:
    """A pattern for hosts, which takes any case. Raises TypeError or ValueError."""
    if isinstance(host, re.Pattern):
        if not isinstance(host.pattern, str):
            raise TypeError(f"{host!r} is a pattern of bytes; the names of hosts are text")
        return re.compile(host.pattern, host.flags | re.IGNORECASE)
    if not isinstance(host, str):
        raise TypeError(f"a host is a name or a compiled pattern, not {host!r}")
    if not host:
        raise ValueError("the name of a host is empty; register_parsers is for every host")
    return re.compile(re.escape(host), re.IGNORECASE)


def _checked(parsers: Mapping[str, MetricParser]) -> dict[str, MetricParser]:
    """A copy, if all are what they should be. Raises TypeError or ValueError that names the parser."""
    for name, parser in parsers.items():
        _check_name(name)
        if not isinstance(parser, MetricParser):
            hint = f"; make one: {parser.__name__}()" if isinstance(parser, type) else ""
            raise TypeError(f"the parser {name!r} is {parser!r}, not an instance of a MetricParser{hint}")
        for attribute in ("family", "command"):
            if not isinstance(getattr(parser, attribute, None), str):
                raise TypeError(f"the parser {name!r}: {type(parser).__name__} has no {attribute}")
        if not _NAME.fullmatch(parser.family):
            raise ValueError(f"the parser {name!r}: its family {parser.family!r} is not one word of A-Z a-z 0-9 _ -")
        if not parser.command.strip() or "\n" in parser.command or "\0" in parser.command:
            raise ValueError(f"the parser {name!r}: its command must be one line, not {parser.command[:100]!r}")
    return dict(parsers)


def _check_name(name: str) -> None:
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise ValueError(f"{name!r} is not a name for a parser: one word of A-Z a-z 0-9 _ -")


_registry = ParserRegistry()

register_parsers = _registry.register_parsers
register_host_parsers = _registry.register_host_parsers
parsers_for = _registry.parsers_for
find_parser = _registry.find_parser
