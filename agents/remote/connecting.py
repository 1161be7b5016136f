# SPDX-License-Identifier: MIT
"""How a connection to a host is made: OpenSSH's configuration, keys, jump hosts, and the check of the host's key.

Jump hosts are connected to once for all hosts behind them.
"""

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import asyncssh

from agents.base.worker import CallHung, Worker
from agents.remote.hostkeys import SYSTEM_FILES, USER_FILES, HostKeyError, KnownHosts, Verifier
from agents.remote.target import NO_JUMP, Address, MonitorTarget
from bus.errors import HostbusError

USER_CONFIG = "~/.ssh/config"
SYSTEM_CONFIG = "/etc/ssh/ssh_config"
KEEPALIVE_S = 15.0
KEEPALIVES = 3
"""A connection whose peer has not answered so many keep-alives in a row is given up."""

FILES_S = 5.0
"""For reading configuration and host keys: a home may be on a file server that is dead."""

MAX_JUMPS = 8
MORE_ALGORITHMS = "+ssh-ed25519,ecdsa-sha2-nistp256,ecdsa-sha2-nistp384,ecdsa-sha2-nistp521,rsa-sha2-512,rsa-sha2-256"
"""After the kinds of the keys that are known, so that a host that has none of these shows what it has."""


class CannotConnect(HostbusError):
    """There is no connection to a host; says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """A host and how to get there, before OpenSSH's configuration was asked. Ways that are equal are shared."""

    address: Address
    jump: tuple[str, ...] = ()
    keys: tuple[str, ...] = ()
    known_hosts: tuple[str, ...] = ()
    ssh_config: str = ""

    @classmethod
    def to(cls, target: MonitorTarget) -> "Way":
        """The way to a target."""
        return cls(
            address=target.address,
            jump=tuple(target.jump),
            keys=tuple(target.keys),
            known_hosts=tuple(target.known_hosts),
            ssh_config=target.ssh_config,
        )


class Connector:
    """Makes connections, and shares those to jump hosts.

    Args:
        worker: reads files
    """

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._jumps: dict[Way, _Jump] = {}
        # INFO there is a line per connection and channel.
        if (log := logging.getLogger("asyncssh")).level == logging.NOTSET:
            log.setLevel(logging.WARNING)

    @asynccontextmanager
    async def connection(self, target: MonitorTarget) -> AsyncIterator[asyncssh.SSHClientConnection]:
        """A connection of the target's own, closed at the end. Raises CannotConnect or HostKeyError."""
        async with self._link(await self._route(Way.to(target))) as connection:
            yield connection

    async def _route(self, way: Way) -> list["_Hop"]:
        """The hosts on the way, the nearest to us first, and the one that is meant."""
        route: list[_Hop] = []
        here = way
        while len(route) <= MAX_JUMPS:
            try:
                hop = await self._worker.call(partial(_look_up, here), FILES_S)
                jump = _jump_of(hop)
            except (OSError, ValueError, asyncssh.Error, CallHung) as error:
                files = here.ssh_config or USER_CONFIG
                raise CannotConnect(f"{here.address}: {files} cannot be used: {error}") from error
            route.insert(0, hop)
            if jump is None:
                return route
            here = jump
        raise CannotConnect(f"{way.address} is behind more than {MAX_JUMPS} jump hosts; do they go in a circle?")

    @asynccontextmanager
    async def _link(self, route: Sequence["_Hop"]) -> AsyncIterator[asyncssh.SSHClientConnection]:
        *before, last = route
        async with AsyncExitStack() as stack:
            tunnel = await stack.enter_async_context(self._shared(before)) if before else None
            connection = await _open(last, tunnel)
            stack.push_async_callback(_close, connection)
            yield connection

    @asynccontextmanager
    async def _shared(self, route: Sequence["_Hop"]) -> AsyncIterator[asyncssh.SSHClientConnection]:
        """The connection to a jump host, which lasts until nobody uses it."""
        way = route[-1].way
        jump = self._jumps.get(way)
        if jump is None or jump.is_over:
            jump = self._jumps[way] = _Jump(way, self._link(route))
        jump.users += 1
        try:
            yield await jump.connection()
        finally:
            jump.users -= 1
            if not jump.users:
                jump.close()
                if self._jumps.get(way) is jump:
                    del self._jumps[way]
                await jump.ended()


@dataclass(frozen=True, slots=True)
class _Hop:
    """A way, what OpenSSH's configuration says about it, and the host keys that are known."""

    way: Way
    peek: asyncssh.SSHClientConnectionOptions
    known: KnownHosts


async def _open(hop: _Hop, tunnel: asyncssh.SSHClientConnection | None) -> asyncssh.SSHClientConnection:
    who = str(hop.way.address)
    verifier = Verifier(who, hop.known)
    settings = _settings(hop.way)
    if not hop.peek.config.get("HostKeyAlgorithms"):
        settings["server_host_key_algs"] = MORE_ALGORITHMS
    try:
        return await asyncssh.connect(
            **settings,
            tunnel=tunnel,
            known_hosts=hop.known.match,
            client_factory=lambda: verifier,
            keepalive_interval=KEEPALIVE_S,
            keepalive_count_max=KEEPALIVES,
        )
    except asyncssh.HostKeyNotVerifiable as error:
        raise verifier.problem or HostKeyError(f"{who}: {printable(str(error))}") from None
    except (OSError, ValueError, asyncssh.Error) as error:
        raise CannotConnect(f"{who}: {_in_words(error, hop.peek)}") from error


class _Jump:
    """A connection to a jump host, held by a task for those who use it."""

    def __init__(self, way: Way, link: Any) -> None:
        self.users = 0
        self._leave = asyncio.Event()
        self._made: asyncio.Future[asyncssh.SSHClientConnection] = asyncio.get_running_loop().create_future()
        self._task = asyncio.create_task(self._hold(link), name=f"jump host {way.address}")

    @property
    def is_over(self) -> bool:
        """True if it cannot be used any more."""
        if self._task.done() or self._leave.is_set():
            return True
        return self._made.done() and (self._made.exception() is not None or self._made.result().is_closed())

    async def connection(self) -> asyncssh.SSHClientConnection:
        """The connection, once it is made. Raises what kept it from being made."""
        return await asyncio.shield(self._made)

    def close(self) -> None:
        """Close the connection, or stop making it."""
        self._leave.set()
        if not self._made.done():
            self._task.cancel()

    async def ended(self) -> None:
        """Wait until it is closed."""
        await asyncio.wait({self._task})

    async def _hold(self, link: Any) -> None:
        try:
            async with link as connection:
                self._made.set_result(connection)
                await self._leave.wait()
        except BaseException as error:
            # Never a cancellation: who waits for the connection would take that for its own.
            if not self._made.done():
                self._made.set_exception(CannotConnect(f"on the way: {error}" if str(error) else "given up"))
                self._made.exception()  # nobody may be waiting any more
            if not isinstance(error, HostbusError):
                raise


def _look_up(way: Way) -> _Hop:
    """In a thread: what the files say about a host. Our own keys are left to asyncssh, which has threads for that."""
    settings = {**_settings(way), "client_keys": None, "known_hosts": b""}
    peek = asyncssh.SSHClientConnectionOptions(**settings)
    return _Hop(way, peek, _known_hosts(way, peek))


def _settings(way: Way) -> dict[str, Any]:
    settings: dict[str, Any] = {
        "host": way.address.host,
        "config": _config_files(way),
        "connect_timeout": None,  # the session that wants the connection has a time-out over all
        "password_auth": False,
        "kbdint_auth": False,
        "gss_kex": False,  # it would take the place of the host's key
        "gss_auth": False,  # its library blocks
        "host_based_auth": False,
        "x509_trusted_certs": None,
        "ignore_encrypted": True,  # the agent may have them
        "agent_forwarding": False,
        "compression_algs": ["none"],
    }
    if way.address.port:
        settings["port"] = way.address.port
    if way.address.user:
        settings["username"] = way.address.user
    if way.keys:
        settings["client_keys"] = [str(Path(key).expanduser()) for key in way.keys]
    return settings


def _config_files(way: Way) -> list[str]:
    files = [way.ssh_config] if way.ssh_config else [USER_CONFIG, SYSTEM_CONFIG]
    paths = [os.path.expanduser(file) for file in files]
    return paths if way.ssh_config else [path for path in paths if os.access(path, os.R_OK)]


def _jump_of(hop: _Hop) -> Way | None:
    """The way to the host from which this one is reached; None for the direct way."""
    way = hop.way
    hops: Sequence[str] = way.jump or str(hop.peek.tunnel or NO_JUMP).split(",")
    if list(hops) == [NO_JUMP]:
        return None
    *before, last = hops
    address = Address.parse(last)
    if not way.jump and (address.host, address.port) == (way.address.host, way.address.port):
        # "Host *" with a ProxyJump, and this is that host.
        return None
    return replace(way, address=address, jump=tuple(before))


def _known_hosts(way: Way, peek: asyncssh.SSHClientConnectionOptions) -> KnownHosts:
    """The files of the target, else those of OpenSSH's configuration. There is no way to have none checked."""
    if way.known_hosts:
        return KnownHosts(way.known_hosts)
    user: Any = peek.config.get("UserKnownHostsFile")
    system: Any = peek.config.get("GlobalKnownHostsFile")
    files = [*(USER_FILES if user is None else user), *(SYSTEM_FILES if system is None else system)]
    return KnownHosts(files or USER_FILES)


def _in_words(error: Exception, peek: asyncssh.SSHClientConnectionOptions) -> str:
    if isinstance(error, asyncssh.PermissionDenied):
        return (
            f"the host takes none of the keys that we have for user {peek.username!r}; "
            f"try: ssh -o BatchMode=yes {peek.username}@{peek.host}"
        )
    return f"{type(error).__name__}: {printable(str(error))}" if str(error) else type(error).__name__


def printable(text: str) -> str:
    """What a host says, fit for a log: one line, of characters that do nothing to a terminal."""
    return "".join(letter if letter.isprintable() else "?" for letter in text[:300])


async def _close(connection: asyncssh.SSHClientConnection) -> None:
    """At once: what the peer has not read yet is not waited for."""
    connection.abort()
    await connection.wait_closed()
