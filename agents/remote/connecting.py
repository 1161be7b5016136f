# SPDX-License-Identifier: MIT
"""How a connection to a host is made: OpenSSH's configuration, keys, jump hosts, and the check of the host's key.

Jump hosts are connected to once for all hosts behind them.
"""

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import asyncssh

from agents.remote.hostkeys import SYSTEM_FILES, USER_FILES, HostKeyError, KnownHosts, Verifier
from agents.remote.target import NO_JUMP, Address, MonitorTarget
from bus.errors import HostbusError

USER_CONFIG = "~/.ssh/config"
SYSTEM_CONFIG = "/etc/ssh/ssh_config"
KEEPALIVE_S = 15.0
KEEPALIVES = 3
"""A connection whose peer has not answered so many keep-alives in a row is given up."""

MAX_HOPS = 8
PACE_S = 0.01
"""Between the beginnings of two connections: keys are exchanged on the event loop, 5 ms each."""


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
    """Makes connections, and shares those to jump hosts."""

    def __init__(self) -> None:
        self._jumps: dict[Way, _Jump] = {}
        self._next_at = 0.0
        # INFO there is a line per connection and channel.
        if (log := logging.getLogger("asyncssh")).level == logging.NOTSET:
            log.setLevel(logging.WARNING)

    @asynccontextmanager
    async def connection(self, target: MonitorTarget) -> AsyncIterator[asyncssh.SSHClientConnection]:
        """A connection of the target's own, closed at the end. Raises CannotConnect or HostKeyError."""
        async with self._link(Way.to(target), MAX_HOPS) as connection:
            yield connection

    async def aclose(self) -> None:
        """Close the connections to jump hosts."""
        for jump in list(self._jumps.values()):
            jump.close()
        await asyncio.gather(*(jump.ended() for jump in self._jumps.values()))
        self._jumps.clear()

    @asynccontextmanager
    async def _link(self, way: Way, hops: int) -> AsyncIterator[asyncssh.SSHClientConnection]:
        who = str(way.address)
        if hops == 0:
            raise CannotConnect(f"{who} is behind more than {MAX_HOPS} jump hosts; is it its own?")
        try:
            peek = await _options(way, client_keys=None, known_hosts=b"")
            jump = _jump_of(way, peek)
        except (OSError, ValueError, asyncssh.Error) as error:
            raise CannotConnect(f"{who}: {_config_name(way)} or a key cannot be used: {error}") from error
        if jump is None:
            connection = await self._open(way, peek, None)
            try:
                yield connection
            finally:
                await _close(connection)
        else:
            async with self._shared(jump, hops - 1) as tunnel:
                connection = await self._open(way, peek, tunnel)
                try:
                    yield connection
                finally:
                    await _close(connection)

    @asynccontextmanager
    async def _shared(self, way: Way, hops: int) -> AsyncIterator[asyncssh.SSHClientConnection]:
        """The connection to a jump host, which lasts until nobody uses it."""
        jump = self._jumps.get(way)
        if jump is None or jump.is_over:
            jump = self._jumps[way] = _Jump(way, self._link(way, hops))
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

    async def _open(
        self, way: Way, peek: asyncssh.SSHClientConnectionOptions, tunnel: asyncssh.SSHClientConnection | None
    ) -> asyncssh.SSHClientConnection:
        await self._pace()
        who = str(way.address)
        verifier = Verifier(who, known := _known_hosts(way, peek))
        try:
            try:
                return await _connect(way, verifier, known, tunnel)
            except asyncssh.KeyExchangeFailed:
                # The host has no key of the kinds that are known for it: see which it has.
                return await _connect(way, verifier, known, tunnel, server_host_key_algs="default")
        except asyncssh.HostKeyNotVerifiable as error:
            raise verifier.problem or HostKeyError(f"{who}: {error}") from None
        except (OSError, ValueError, asyncssh.Error) as error:
            raise CannotConnect(f"{who}: {_in_words(error, peek)}") from error

    async def _pace(self) -> None:
        now = asyncio.get_running_loop().time()
        self._next_at = max(now, self._next_at + PACE_S)
        await asyncio.sleep(self._next_at - now)


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


async def _connect(
    way: Way,
    verifier: Verifier,
    known: KnownHosts,
    tunnel: asyncssh.SSHClientConnection | None,
    **more: Any,
) -> asyncssh.SSHClientConnection:
    settings = _settings(way)
    return await asyncssh.connect(
        **settings,
        tunnel=tunnel,
        known_hosts=known.match,
        client_factory=lambda: verifier,
        keepalive_interval=KEEPALIVE_S,
        keepalive_count_max=KEEPALIVES,
        **more,
    )


async def _options(way: Way, **more: Any) -> asyncssh.SSHClientConnectionOptions:
    """What OpenSSH's configuration says about a host. Reads files, in a thread."""
    return await asyncio.to_thread(lambda: asyncssh.SSHClientConnectionOptions(**_settings(way), **more))


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


def _config_name(way: Way) -> str:
    return way.ssh_config or USER_CONFIG


def _jump_of(way: Way, peek: asyncssh.SSHClientConnectionOptions) -> Way | None:
    """The way to the host from which this one is reached; None for the direct way."""
    hops: Sequence[str] = way.jump or str(peek.tunnel or NO_JUMP).split(",")
    if list(hops) == [NO_JUMP]:
        return None
    *before, last = hops
    return replace(way, address=Address.parse(last), jump=tuple(before))


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
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


async def _close(connection: asyncssh.SSHClientConnection) -> None:
    """At once: what the peer has not read yet is not waited for."""
    connection.abort()
    await connection.wait_closed()
