# SPDX-License-Identifier: MIT
"""What is to be monitored: `MonitorTarget`, and the addresses of hosts as people write them."""

import ipaddress
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from typing import Self

from agents.remote.parser import MetricParser
from bus.names import clean_word, is_metric

_HOST = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
_USER = re.compile(r"[^\s:@\-\x00-\x1f\x7f][^\s:@\x00-\x1f\x7f]*")
_WRITTEN = re.compile(
    r"(?:ssh://)?(?:(?P<user>[^@]*)@)?(?:\[(?P<bracketed>[^\]]*)\]|(?P<host>[^:\[\]]*))(?::(?P<port>[^:]*))?"
)

NO_JUMP = "none"
"""In place of a jump host: none, whatever ~/.ssh/config says."""


@dataclass(frozen=True, slots=True)
class Address:
    """Where a host is: a name, an address or an alias in ~/.ssh/config; user and port if they were given."""

    host: str
    user: str = ""
    port: int = 0

    def __post_init__(self) -> None:
        """Raises ValueError for what cannot be a host, a user or a port."""
        if not _HOST.fullmatch(self.host) and not _is_ip_address(self.host):
            raise ValueError(f"{self.host[:100]!r} is not a host name, an address or an alias in ~/.ssh/config")
        if self.user and not _USER.fullmatch(self.user):
            raise ValueError(f"{self.user[:100]!r} is not a user name")
        if not 0 <= self.port <= 65535:
            raise ValueError(f"{self.port} is not a port: 1 to 65535")

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read ``user@host:port``, where only the host must be there; an IPv6 address with a port is in brackets.

        Raises ValueError.
        """
        if text.count(":") > 1 and "[" not in text and "/" not in text:  # an IPv6 address and no port
            user, _, host = text.rpartition("@")
            return cls(host, user)
        match = _WRITTEN.fullmatch(text.strip())
        port = match["port"] if match else None
        if match is None or match["user"] == "" or (port is not None and not re.fullmatch(r"[1-9][0-9]{0,4}", port)):
            raise ValueError(f"{text[:100]!r} is not a host: write it like 'db1', 'user@db1:2222' or '[::1]:2222'")
        host = match["bracketed"] if match["host"] is None else match["host"]
        return cls(host, match["user"] or "", int(port or 0))

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host and self.port else self.host
        return f"{self.user}@" * bool(self.user) + host + f":{self.port}" * bool(self.port)

    def word(self) -> str:
        """What the host is called in metric names: its name up to the first dot, or its address as one word."""
        return clean_word(self.host if _is_ip_address(self.host) else self.host.split(".", 1)[0])


@dataclass(frozen=True, slots=True)
class MonitorTarget:
    """A host to monitor, with what, and how to get there.

    What is left out is as ~/.ssh/config says, else as `ssh` would do it.

    host: ``user@host:port`` or an alias in ~/.ssh/config. parsers: by name; default: those of the registry for
    this host. core_count: default: asked from the host. name: the host's word in metric names. keys: files of
    private keys. jump: hosts on the way, the nearest to us first, or "none". known_hosts: files of host keys.
    ssh_config: a configuration of OpenSSH in place of the user's and the system's.
    """

    host: str
    parsers: Mapping[str, MetricParser] | None = None
    core_count: int | None = None
    _: KW_ONLY
    name: str = ""
    keys: Sequence[str] = ()
    jump: Sequence[str] = ()
    known_hosts: Sequence[str] = ()
    ssh_config: str = ""
    connect_timeout_s: float = 10.0
    address: Address = field(init=False)

    def __post_init__(self) -> None:
        """Raises ValueError that names what is wrong."""
        object.__setattr__(self, "address", Address.parse(self.host))
        for hop in self.jump:
            if hop != NO_JUMP:
                Address.parse(hop)
        if self.name and (not is_metric(self.name) or "." in self.name):
            raise ValueError(f"the name {self.name[:100]!r} is not one word of A-Z a-z 0-9 _ -")
        if self.core_count is not None and self.core_count < 1:
            raise ValueError(f"{self.host}: core_count must be at least 1, not {self.core_count}")
        if not self.connect_timeout_s > 0:
            raise ValueError(f"{self.host}: connect_timeout_s must be more than 0, not {self.connect_timeout_s}")


class HostWords:
    """One word per target, and never one word for two.

    A target without a name gets the host's first label; if that is taken, ``db1-2`` and so on. Words are kept for
    as long as the source runs, so that a host that is removed and listed again is called what it was called.
    """

    def __init__(self) -> None:
        self._words: dict[Address, str] = {}

    def of(self, targets: Iterable[MonitorTarget]) -> dict[str, MonitorTarget]:
        """The targets by their words. Raises ValueError for two of one name, or one host twice without names."""
        found: dict[str, MonitorTarget] = {}
        unnamed: dict[Address, MonitorTarget] = {}
        for target in targets:
            if target.name in found or (not target.name and target.address in unnamed):
                known = target.name or target.address
                raise ValueError(f"{known} is listed twice; if both are meant, give each a name of its own")
            if target.name:
                found[target.name] = target
            else:
                unnamed[target.address] = target
        self._words = {address: word for address, word in self._words.items() if word not in found}
        for address, target in unnamed.items():
            if address not in self._words:
                self._words[address] = _free(address.word(), {*found, *self._words.values()})
            found[self._words[address]] = target
        return found


def _is_ip_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _free(base: str, taken: set[str]) -> str:
    word, number = base, 1
    while word in taken:
        number += 1
        word = f"{base}-{number}"
    return word
