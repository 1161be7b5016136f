# SPDX-License-Identifier: MIT
"""What remote-source can be told: the hosts, and how to get there."""

from collections.abc import Sequence
from typing import Annotated

from msgspec import Meta, field

from agents.host import HostConfig
from agents.remote.target import Address, HostWords, MonitorTarget
from bus.config import AgentConfig

Port = Annotated[int, Meta(ge=1, le=65535)]
Count = Annotated[int, Meta(ge=1)]
Timeout = Annotated[float, Meta(gt=0, le=300)]


class RemoteHost(AgentConfig, frozen=True, kw_only=True):
    """One host that needs more than its address. What is left out is as for all hosts."""

    host: Annotated[str, Meta(min_length=1, description="name, address, or alias in ~/.ssh/config; user@host:port")]
    name: Annotated[str, Meta(description="its word in metric names; default: the host up to the first dot")] = ""
    user: Annotated[str, Meta(description="whom to log in as")] = ""
    port: Annotated[Port | None, Meta(description="default: as ~/.ssh/config says, else 22")] = None
    key: Annotated[str, Meta(description="file of a private key; default: as for all hosts")] = ""
    jump: Annotated[
        str | list[str] | None, Meta(description="hosts on the way, the nearest to us first; 'none' for the direct way")
    ] = None
    parsers: Annotated[list[str] | None, Meta(description="names of parsers; default: as for all hosts")] = None
    core_count: Annotated[Count | None, Meta(description="its cores; default: asked from the host")] = None
    known_hosts: Annotated[list[str] | None, Meta(description="files of host keys; default: as for all hosts")] = None
    connect_timeout: Annotated[
        Timeout | None, Meta(description="seconds for a connection; default: as for all hosts")
    ] = None


class RemoteConfig(HostConfig, frozen=True):
    """What the source can be told. There are no passwords: hosts are logged in to with keys, or the SSH agent's."""

    local_only = frozenset(
        {"hosts", "parsers", "user", "keys", "jump", "known_hosts", "ssh_config", "connect_timeout", "modules"}
    )

    prefix: Annotated[
        str, Meta(description="first word or words of all metric names, before the hosts' own; default: none")
    ] = ""
    hosts: Annotated[
        list[str | RemoteHost],
        Meta(description="hosts to poll: user@host:port, an alias in ~/.ssh/config, or a table"),
    ] = field(default_factory=list)
    parsers: Annotated[
        list[str] | None, Meta(description="names of parsers for all hosts; default: all that are registered")
    ] = None
    user: Annotated[str, Meta(description="whom to log in as; default: as ~/.ssh/config says, else this user")] = ""
    keys: Annotated[
        list[str],
        Meta(
            description="files of private keys, unencrypted or loaded into the SSH agent; default: as ssh does; "
            "there are no passwords"
        ),
    ] = field(default_factory=list)
    jump: Annotated[
        list[str], Meta(description="hosts on the way, the nearest to us first; default: as ~/.ssh/config says")
    ] = field(default_factory=list)
    known_hosts: Annotated[
        list[str],
        Meta(description="files of host keys, which are always checked; default: ~/.ssh/known_hosts and the system's"),
    ] = field(default_factory=list)
    ssh_config: Annotated[
        str, Meta(description="OpenSSH configuration; default: ~/.ssh/config and /etc/ssh/ssh_config")
    ] = ""
    connect_timeout: Annotated[Timeout, Meta(description="seconds for a connection, jumps included")] = 10.0
    modules: Annotated[
        list[str], Meta(description="Python modules to import at the start, which call register_parsers")
    ] = field(default_factory=list)
    max_metrics: Annotated[
        int, Meta(ge=1, description="metrics at most, of all hosts; those that come after are refused and counted")
    ] = 200_000

    def __post_init__(self) -> None:
        """Raises ValueError that names the host."""
        super().__post_init__()
        HostWords().of(self.targets())

    @property
    def missing(self) -> str:
        """What must be configured first."""
        return "" if self.hosts else 'no hosts; list them under [remote-source] hosts = ["user@host", ...]'

    def targets(self) -> list[MonitorTarget]:
        """The hosts, without their parsers. Raises ValueError that names the host."""
        return [self._target(RemoteHost(host=host) if isinstance(host, str) else host) for host in self.hosts]

    def _target(self, host: RemoteHost) -> MonitorTarget:
        try:
            written = Address.parse(host.host)
            address = Address(written.host, host.user or written.user or self.user, host.port or written.port)
            return MonitorTarget(
                str(address),
                core_count=host.core_count,
                name=host.name,
                keys=tuple([host.key] if host.key else self.keys),
                jump=tuple(_list(self.jump if host.jump is None else host.jump)),
                known_hosts=tuple(self.known_hosts if host.known_hosts is None else host.known_hosts),
                ssh_config=self.ssh_config,
                connect_timeout_s=self.connect_timeout if host.connect_timeout is None else host.connect_timeout,
            )
        except ValueError as error:
            raise ValueError(f"hosts: {error}") from None

    def parsers_of(self) -> list[list[str] | None]:
        """The names of each host's parsers, in the order of `targets`; None for those that are registered."""
        return [self.parsers if isinstance(host, str) or host.parsers is None else host.parsers for host in self.hosts]


def _list(value: str | Sequence[str]) -> list[str]:
    return [value] if isinstance(value, str) else list(value)
