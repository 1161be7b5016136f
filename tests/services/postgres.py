# SPDX-License-Identifier: MIT
"""A PostgreSQL of one's own: started when it is asked for, gone afterwards, whatever happens.

`postgres_for_tests()` chooses: the server in HOSTBUS_TEST_POSTGRES_URL (whose user may create databases); else a
private cluster from the postgresql package; else a container, if a Docker engine answers; else it raises
`NoPostgres`. Scripts use `private_postgres()`::

    with private_postgres() as postgres:
        url = postgres.url("postgres")
"""

import contextlib
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import urllib.parse
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

PACKAGES = Path("/usr/lib/postgresql")
BOOT_TIMEOUT_S = 60.0
IMAGE = "postgres:15-alpine"
USER = "tester"
PASSWORD = "tell-nobody"

_REAPER = 'cat >/dev/null; { kill -9 "$(head -n 1 "$1/data/postmaster.pid")"; } 2>/dev/null; sleep 0.3; rm -rf "$1"'
"""Waits until its standard input ends, which it does when the tests end in whatever way, then clears up."""


class NoPostgres(Exception):
    """There is no PostgreSQL to be had here; says how to get one."""


class Postgres(Protocol):
    """A server that tests may use. What an implementation cannot do raises `NotImplementedError`."""

    def url(self, database: str) -> str: ...
    def restart(self) -> None: ...
    def stop(self) -> None: ...
    def kill9(self) -> None: ...
    def start(self) -> None: ...


class PrivateCluster:
    """A cluster from the distribution's package, with its own directory, socket and port on 127.0.0.1.

    PostgreSQL refuses to run as root: then its processes belong to the user `postgres`, else `nobody`.
    """

    def __init__(self, base: Path, *, fsync: bool) -> None:
        self.port = _free_port()
        self.base = base
        self._settings = {
            "listen_addresses": "127.0.0.1",
            "port": str(self.port),
            "unix_socket_directories": str(base),
            "fsync": "on" if fsync else "off",
            "shared_buffers": "256MB",
            "max_wal_size": "4GB",
        }
        self._binaries = newest_binaries()
        self._owner = _unprivileged() if os.geteuid() == 0 else None
        self._server: subprocess.Popen[bytes] | None = None
        secret = base / "password"
        secret.write_text(PASSWORD)
        if self._owner is not None:
            for path in (base, secret):
                os.chown(path, self._owner.pw_uid, self._owner.pw_gid)
        self._run(
            "initdb",
            *("--pgdata", str(base / "data"), "--username", USER, "--pwfile", str(secret)),
            *("--auth", "scram-sha-256", "--encoding", "UTF8", "--locale", "C", "--no-sync"),
        )

    def url(self, database: str) -> str:
        """Where clients connect, as the superuser."""
        return f"postgresql://{USER}:{PASSWORD}@127.0.0.1:{self.port}/{database}"

    def start(self) -> None:
        """Start the server on the data that it has; wait until it is ready."""
        arguments = [f"--{name}={value}" for name, value in self._settings.items()]
        with (self.base / "log").open("ab") as log:
            self._server = subprocess.Popen(
                [str(self._binaries / "postgres"), "-D", str(self.base / "data"), *arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                **self._as_owner(),
            )
        deadline = time.monotonic() + BOOT_TIMEOUT_S
        while subprocess.run([self._binaries / "pg_isready", "-q", "-h", "127.0.0.1", "-p", str(self.port)]).returncode:
            if self._server.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"PostgreSQL did not start:\n{self.log()[-2000:]}")
            time.sleep(0.05)

    def stop(self) -> None:
        """End the server as an administrator does (mode fast: clients are cut off); its data stay."""
        self._end(signal.SIGINT)

    def kill9(self) -> None:
        """Crash the server, all of its processes; what it had on disk stays."""
        self._end(signal.SIGQUIT)

    def restart(self) -> None:
        """Stop and start again with the same data."""
        self.stop()
        self.start()

    def log(self) -> str:
        """What the server has written."""
        return (self.base / "log").read_text(errors="replace") if (self.base / "log").exists() else ""

    def _end(self, how: signal.Signals) -> None:
        server, self._server = self._server, None
        if server is not None:
            server.send_signal(how)
            try:
                server.wait(30)
            except subprocess.TimeoutExpired:
                os.killpg(server.pid, signal.SIGKILL)
                server.wait()

    def _run(self, program: str, *arguments: str) -> None:
        ended = subprocess.run(
            [str(self._binaries / program), *arguments], capture_output=True, text=True, check=False, **self._as_owner()
        )
        if ended.returncode:
            raise RuntimeError(f"{program} ended with {ended.returncode}:\n{ended.stdout}{ended.stderr}")

    def _as_owner(self) -> dict[str, object]:
        """Of a child: a session of its own, so that Ctrl-C is not for it; another user; a folder that one may enter."""
        options: dict[str, object] = {"start_new_session": True, "cwd": self.base}
        if self._owner is not None:
            options |= {"user": self._owner.pw_uid, "group": self._owner.pw_gid, "extra_groups": []}
        return options


class ContainerServer:
    """PostgreSQL in a container, on a port that stays the same when it is restarted."""

    def __init__(self) -> None:
        self.port = _free_port()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from testcontainers.core.container import DockerContainer
        container = DockerContainer(IMAGE).with_bind_ports(5432, self.port)
        self._container = container.with_env("POSTGRES_USER", USER).with_env("POSTGRES_PASSWORD", PASSWORD)
        self._container.start()
        self._wait_ready()

    def url(self, database: str) -> str:
        """Where clients connect, as the superuser."""
        return f"postgresql://{USER}:{PASSWORD}@127.0.0.1:{self.port}/{database}"

    def start(self) -> None:
        """Start it again."""
        self._container.get_wrapped_container().start()
        self._wait_ready()

    def stop(self) -> None:
        """End it cleanly; its data stay."""
        self._container.get_wrapped_container().stop()

    def kill9(self) -> None:
        """Crash it; its data stay."""
        self._container.get_wrapped_container().kill()

    def restart(self) -> None:
        """Stop and start again with the same data."""
        self.stop()
        self.start()

    def close(self) -> None:
        """Remove it."""
        self._container.stop()

    def _wait_ready(self) -> None:
        # Over TCP: while its first start sets the cluster up, the server listens on its socket only.
        command = ["pg_isready", "-q", "-h", "127.0.0.1"]
        deadline = time.monotonic() + BOOT_TIMEOUT_S
        while self._container.get_wrapped_container().exec_run(command).exit_code:
            if time.monotonic() > deadline:
                raise TimeoutError(f"PostgreSQL in its container was not ready after {BOOT_TIMEOUT_S:g} s")
            time.sleep(0.2)


class ForeignServer:
    """A server that somebody else runs: tests make databases of their own on it, and never stop it."""

    def __init__(self, url: str) -> None:
        self._url = urllib.parse.urlsplit(url)

    def url(self, database: str) -> str:
        """Where clients connect."""
        return urllib.parse.urlunsplit(self._url._replace(path=f"/{database}"))

    def restart(self) -> None:
        """Not ours to do."""
        raise NotImplementedError("the server in HOSTBUS_TEST_POSTGRES_URL is not ours to disturb")

    stop = kill9 = start = restart


@contextlib.contextmanager
def private_postgres(*, fsync: bool = False) -> Iterator[PrivateCluster]:
    """A cluster of one's own from the postgresql package; processes and files are gone afterwards."""
    base = Path(tempfile.mkdtemp(prefix="hostbus-postgres-"))
    reaper = subprocess.Popen(["sh", "-c", _REAPER, "reaper", str(base)], stdin=subprocess.PIPE, start_new_session=True)
    assert reaper.stdin is not None
    try:
        cluster = PrivateCluster(base, fsync=fsync)
        try:
            cluster.start()
            yield cluster
        finally:
            cluster.kill9()
    finally:
        (base / "data" / "postmaster.pid").unlink(missing_ok=True)  # of a process that has ended: not to be killed
        reaper.stdin.close()
        reaper.wait()


@contextlib.contextmanager
def postgres_for_tests() -> Iterator[Postgres]:
    """The PostgreSQL that this machine has to offer. Raises `NoPostgres`."""
    if url := os.environ.get("HOSTBUS_TEST_POSTGRES_URL"):
        yield ForeignServer(url)
    elif any(PACKAGES.glob("*/bin/initdb")):
        with private_postgres() as cluster:
            yield cluster
    elif _docker_answers():
        container = ContainerServer()
        try:
            yield container
        finally:
            container.close()
    else:
        raise NoPostgres(
            "PostgreSQL is not here: install it (apt-get install postgresql; it need not run), "
            "or start a Docker engine, or name a server in HOSTBUS_TEST_POSTGRES_URL"
        )


def newest_binaries() -> Path:
    """The programs of the newest version that is installed."""
    return max((found.parent for found in PACKAGES.glob("*/bin/initdb")), key=lambda path: float(path.parent.name))


def _unprivileged() -> pwd.struct_passwd:
    for name in ("postgres", "nobody"):
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(name)
    raise NoPostgres("PostgreSQL refuses to run as root, and there is neither a user postgres nor nobody")


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port


def _docker_answers() -> bool:
    docker = shutil.which("docker")
    return docker is not None and subprocess.run([docker, "info"], capture_output=True, timeout=20).returncode == 0
