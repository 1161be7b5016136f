# SPDX-License-Identifier: MIT
"""A RabbitMQ of one's own: started when it is asked for, gone afterwards, whatever happens.

`rabbitmq_for_tests()` chooses: the server in HOSTBUS_TEST_AMQP_URL; else a private node from the
rabbitmq-server package; else a container, if a Docker engine answers; else it raises `NoRabbitMq`.
Scripts use `private_rabbitmq()`::

    with private_rabbitmq() as rabbitmq:
        url = rabbitmq.url()
"""

import base64
import contextlib
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

SERVER = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")
"""Not /usr/sbin/rabbitmq-server: that one changes the user."""
BOOT_TIMEOUT_S = 90.0
IMAGE = "rabbitmq:4-management-alpine"

_REAPER = 'cat >/dev/null; for f in "$1"/*.pid; do kill -9 "$(cat "$f")"; done 2>/dev/null; sleep 0.2; rm -rf "$1"'
"""Waits until its standard input ends, which it does when the tests end in whatever way, then clears up."""


class NoRabbitMq(Exception):
    """There is no RabbitMQ to be had here; says how to get one."""


class RabbitMq(Protocol):
    """A broker that tests may use. What an implementation cannot do raises `NotImplementedError`."""

    def url(self, vhost: str = "/") -> str: ...
    def add_vhost(self, vhost: str) -> None: ...
    def delete_vhost(self, vhost: str) -> None: ...
    def close_connections(self) -> int: ...
    def restart(self) -> None: ...
    def stop(self) -> None: ...
    def kill9(self) -> None: ...
    def start(self) -> None: ...
    def wait_ready(self) -> None: ...


class Managed:
    """What can be done through a broker's AMQP port and its management API, both on this machine."""

    def __init__(self, port: int, management_port: int) -> None:
        self.port = port
        self.management_port = management_port

    def url(self, vhost: str = "/") -> str:
        """Where clients connect."""
        return f"amqp://guest:guest@127.0.0.1:{self.port}/{urllib.parse.quote(vhost.removeprefix('/'), safe='')}"

    def add_vhost(self, vhost: str) -> None:
        """A fresh virtual host."""
        name = urllib.parse.quote(vhost, safe="")
        self.api("PUT", f"vhosts/{name}", {})
        self.api("PUT", f"permissions/{name}/guest", {"configure": ".*", "write": ".*", "read": ".*"})

    def delete_vhost(self, vhost: str) -> None:
        """Remove it, and cut off who uses it."""
        self.api("DELETE", f"vhosts/{urllib.parse.quote(vhost, safe='')}")

    def close_connections(self) -> int:
        """Sever every client's connection from the broker's side; how many there were."""
        # By user: this list is up to date, where the plain one learns of new connections only every 5 s.
        open_now = len(self.api("GET", "connections/username/guest"))
        self.api("DELETE", "connections/username/guest")
        return open_now

    def wait_ready(self) -> None:
        """Until AMQP and the management API answer."""
        deadline = time.monotonic() + BOOT_TIMEOUT_S
        while not (_speaks_amqp(self.port) and self._manages()):
            self.check_alive()
            if time.monotonic() > deadline:
                raise TimeoutError(f"RabbitMQ at port {self.port} was not ready after {BOOT_TIMEOUT_S:g} s")
            time.sleep(0.1)

    def check_alive(self) -> None:
        """Raise if it cannot become ready any more."""

    def api(self, method: str, path: str, body: Any = None) -> Any:
        """One request to the management API."""
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.management_port}/api/{path}",
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={
                "Authorization": "Basic " + base64.b64encode(b"guest:guest").decode(),
                "Content-Type": "application/json",
            },
        )
        with urllib.request.urlopen(request, timeout=30) as answer:
            text = answer.read()
        return json.loads(text) if text else None

    def _manages(self) -> bool:
        try:
            self.api("GET", "vhosts")
        except OSError:
            return False
        return True


class PrivateNode(Managed):
    """A node from the distribution's package, with its own directory, ports, cookie and epmd."""

    def __init__(self, base: Path) -> None:
        amqp, management, distribution, epmd = _free_ports(4)
        super().__init__(amqp, management)
        self._base = base
        self._pid_file = base / "node.pid"
        self._server: subprocess.Popen[bytes] | None = None
        home = base / "home"
        home.mkdir()
        cookie = home / ".erlang.cookie"
        cookie.write_text(secrets.token_hex(16))
        cookie.chmod(0o400)
        (base / "log").mkdir()
        (base / "enabled_plugins").write_text("[rabbitmq_management,rabbitmq_consistent_hash_exchange].\n")
        (base / "rabbitmq.conf").write_text(
            f"loopback_users = none\nvm_memory_high_watermark.absolute = 3GB\ndisk_free_limit.absolute = 200MB\n"
            f"management.tcp.ip = 127.0.0.1\nmanagement.tcp.port = {management}\n"
        )
        self._environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(home),
            "RABBITMQ_NODENAME": f"hostbus{amqp}@localhost",
            "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODE_PORT": str(amqp),
            "RABBITMQ_DIST_PORT": str(distribution),
            "RABBITMQ_MNESIA_BASE": str(base / "mnesia"),
            "RABBITMQ_LOG_BASE": str(base / "log"),
            "RABBITMQ_LOGS": str(base / "log" / "node.log"),
            "RABBITMQ_PID_FILE": str(self._pid_file),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(base / "enabled_plugins"),
            "RABBITMQ_CONFIG_FILE": str(base / "rabbitmq.conf"),
            "RABBITMQ_CONF_ENV_FILE": "/dev/null",
            "RABBITMQ_GENERATED_CONFIG_DIR": str(base / "generated"),
            "RABBITMQ_FEATURE_FLAGS_FILE": str(base / "feature_flags"),
            "ERL_EPMD_PORT": str(epmd),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
        }
        # In the foreground and as our child: left to itself it would outlive the node.
        self._epmd = subprocess.Popen(
            ["epmd", "-port", str(epmd), "-address", "127.0.0.1"],
            start_new_session=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        (base / "epmd.pid").write_text(str(self._epmd.pid))

    def start(self) -> None:
        """Start the node on the data that it has; wait until it is ready."""
        self._pid_file.unlink(missing_ok=True)
        with (self._base / "log" / "out").open("ab") as log:
            self._server = subprocess.Popen(
                [str(SERVER)],
                env=self._environment,
                start_new_session=True,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        (self._base / "script.pid").write_text(str(self._server.pid))
        self.wait_ready()

    def stop(self) -> None:
        """End the node cleanly; its data stay."""
        self._end(signal.SIGTERM)

    def kill9(self) -> None:
        """Crash the node; what it had on disk stays."""
        self._end(signal.SIGKILL)

    def restart(self) -> None:
        """Stop cleanly and start again with the same data."""
        self.stop()
        self.start()

    def close(self) -> None:
        """End the node and its epmd."""
        self.kill9()
        self._epmd.kill()
        self._epmd.wait()

    def check_alive(self) -> None:
        """See `Managed`."""
        if self._server is not None and self._server.poll() is not None:
            log = (self._base / "log" / "out").read_text(errors="replace")
            raise RuntimeError(f"RabbitMQ ended while starting, code {self._server.returncode}:\n{log[-2000:]}")

    def _end(self, how: signal.Signals) -> None:
        server, self._server = self._server, None
        if server is None:
            return
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            os.kill(int(self._pid_file.read_text()), how)
        if how == signal.SIGKILL:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(server.pid, how)
        try:
            server.wait(30)
        except subprocess.TimeoutExpired:
            os.killpg(server.pid, signal.SIGKILL)
            server.wait()


class ContainerNode(Managed):
    """RabbitMQ in a container, on ports that stay the same when it is restarted."""

    def __init__(self) -> None:
        super().__init__(*_free_ports(2))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from testcontainers.core.container import DockerContainer
        self._container = DockerContainer(IMAGE).with_bind_ports(5672, self.port)
        self._container.with_bind_ports(15672, self.management_port)
        self._container.start()
        self.wait_ready()

    def start(self) -> None:
        """Start it again."""
        self._container.get_wrapped_container().start()
        self.wait_ready()

    def stop(self) -> None:
        """End it cleanly; its data stay."""
        self._container.get_wrapped_container().stop()

    def kill9(self) -> None:
        """Crash it; its data stay."""
        self._container.get_wrapped_container().kill()

    def restart(self) -> None:
        """Stop cleanly and start again with the same data."""
        self.stop()
        self.start()

    def close(self) -> None:
        """Remove it."""
        self._container.stop()


class ForeignServer:
    """A broker that somebody else runs: it is used as it is, and neither stopped nor changed."""

    def __init__(self, url: str) -> None:
        self._url = url

    def url(self, vhost: str = "/") -> str:
        """Always its own vhost."""
        return self._url

    def add_vhost(self, vhost: str) -> None:
        """The one in its URL is used as it is."""

    def delete_vhost(self, vhost: str) -> None:
        """Nothing was added."""

    def close_connections(self) -> int:
        """Not ours to do."""
        raise NotImplementedError("the server in HOSTBUS_TEST_AMQP_URL is not ours to disturb")

    def restart(self) -> None:
        """Not ours to do."""
        self.close_connections()

    stop = kill9 = start = restart

    def wait_ready(self) -> None:
        """It has to be ready."""


@contextlib.contextmanager
def private_rabbitmq() -> Iterator[PrivateNode]:
    """A node of one's own from the rabbitmq-server package; node, epmd and files are gone afterwards."""
    base = Path(tempfile.mkdtemp(prefix="hostbus-rabbitmq-"))
    reaper = subprocess.Popen(["sh", "-c", _REAPER, "reaper", str(base)], stdin=subprocess.PIPE, start_new_session=True)
    assert reaper.stdin is not None
    try:
        node = PrivateNode(base)
        try:
            node.start()
            yield node
        finally:
            node.close()
    finally:
        for pid_file in base.glob("*.pid"):  # of processes that have ended: their numbers may be others' by now
            pid_file.unlink()
        reaper.stdin.close()
        reaper.wait()


@contextlib.contextmanager
def rabbitmq_for_tests() -> Iterator[RabbitMq]:
    """The RabbitMQ that this machine has to offer. Raises `NoRabbitMq`."""
    if url := os.environ.get("HOSTBUS_TEST_AMQP_URL"):
        yield ForeignServer(url)
    elif SERVER.exists():
        with private_rabbitmq() as node:
            yield node
    elif _docker_answers():
        container = ContainerNode()
        try:
            yield container
        finally:
            container.close()
    else:
        raise NoRabbitMq(
            "RabbitMQ is not here: install it (apt-get install rabbitmq-server; it need not run), "
            "or start a Docker engine, or name a server in HOSTBUS_TEST_AMQP_URL"
        )


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


def _speaks_amqp(port: int) -> bool:
    """Whether a protocol header is answered with a method frame (Connection.Start)."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=2) as peer:
            peer.sendall(b"AMQP\0\0\x09\x01")
            return peer.recv(1) == b"\x01"
    except OSError:
        return False


def _docker_answers() -> bool:
    docker = shutil.which("docker")
    return docker is not None and subprocess.run([docker, "info"], capture_output=True, timeout=20).returncode == 0
