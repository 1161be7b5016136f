# SPDX-License-Identifier: MIT
"""OpenSSH servers of one's own, on loopback: with their own keys, to be killed, frozen and misconfigured.

They run as whoever runs the tests, and let that user in with the key of the `SshHome` that they belong to.
"""

import contextlib
import getpass
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

START_S = 20.0

_REAPER = 'cat >/dev/null; for f in "$1"/*/sshd.pid "$1"/agent.pid; do kill -9 "$(cat "$f")"; done 2>/dev/null'
"""Waits until its standard input ends, which it does when the tests end in whatever way, then clears up."""


class NoSshd(Exception):
    """There is no sshd to be had here; says how to get one."""


def program(name: str) -> str:
    """Where one of OpenSSH's programs is. Raises NoSshd."""
    path = shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin:/usr/local/sbin")
    if path is None:
        raise NoSshd(f"no {name} for the tests: install it (sudo apt install openssh-server)")
    return path


class SshHome:
    """A user's home with a key in .ssh, and the servers that let that key in."""

    def __init__(self, base: Path) -> None:
        self.base = base
        self.user = getpass.getuser()
        self.ssh = base / "home" / ".ssh"
        self.ssh.mkdir(parents=True, mode=0o700)
        self.key = self.new_key("id_ed25519")
        self.known_hosts = self.ssh / "known_hosts"
        self._servers: list[Sshd] = []
        self._reaper = subprocess.Popen(
            ["sh", "-c", _REAPER, "reaper", str(base)], stdin=subprocess.PIPE, start_new_session=True
        )
        self._agent: subprocess.Popen[bytes] | None = None

    def new_key(self, name: str, kind: str = "ed25519", folder: Path | None = None, passphrase: str = "") -> Path:
        """A fresh private key."""
        path = (folder or self.ssh) / name
        subprocess.run(
            [program("ssh-keygen"), "-q", "-t", kind, "-N", passphrase, "-f", str(path)], check=True, timeout=30
        )
        return path

    def server(self, *settings: str, known: bool = True, kind: str = "ed25519") -> "Sshd":
        """A server that is running, with more lines of sshd_config, its key known or not."""
        server = Sshd(self, self.base / f"sshd{len(self._servers)}", settings, kind)
        self._servers.append(server)
        server.start()
        if known:
            self.know(server)
        return server

    def know(self, server: "Sshd", name: str = "127.0.0.1") -> None:
        """Add a server's key to known_hosts."""
        with self.known_hosts.open("a") as file:
            file.write(f"[{name}]:{server.port} {server.public_key}\n")

    def agent(self, *keys: Path) -> Path:
        """The socket of an SSH agent that holds these keys."""
        path = self.base / "agent.sock"
        self._agent = subprocess.Popen([program("ssh-agent"), "-D", "-a", str(path)], stdout=subprocess.DEVNULL)
        (self.base / "agent.pid").write_text(str(self._agent.pid))
        wait_until(path.exists)
        environment = {**os.environ, "SSH_AUTH_SOCK": str(path)}
        subprocess.run([program("ssh-add"), "-q", *map(str, keys)], env=environment, check=True, timeout=30)
        return path

    def close(self) -> None:
        """End all that was started."""
        for server in self._servers:
            server.kill9()
        if self._agent is not None:
            self._agent.kill()
            self._agent.wait()
        self._reaper.communicate()


class Sshd:
    """A private sshd; see `SshHome.server`."""

    def __init__(self, home: SshHome, folder: Path, settings: tuple[str, ...], kind: str) -> None:
        folder.mkdir()
        self.home = home
        self.port = free_port()
        self._folder = folder
        self._settings = settings
        self._process: subprocess.Popen[bytes] | None = None
        self.new_host_key(kind)
        (folder / "authorized_keys").write_text(Path(f"{home.key}.pub").read_text())

    @property
    def address(self) -> str:
        """Where it is, for a `MonitorTarget`."""
        return f"{self.home.user}@127.0.0.1:{self.port}"

    @property
    def public_key(self) -> str:
        """Its host key: the kind and the key."""
        return " ".join(Path(f"{self._host_key}.pub").read_text().split()[:2])

    @property
    def fingerprint(self) -> str:
        """``SHA256:...``, as ssh-keygen shows it."""
        command = [program("ssh-keygen"), "-lf", f"{self._host_key}.pub"]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout.split()[1]

    def new_host_key(self, kind: str = "ed25519") -> None:
        """Another key from the next start on."""
        self._host_key = self._folder / f"host_key_{kind}"
        for path in (self._host_key, Path(f"{self._host_key}.pub")):
            path.unlink(missing_ok=True)
        self.home.new_key(self._host_key.name, kind, self._folder)

    def allow(self, key: Path, options: str = "") -> None:
        """Let another key in, or the same one with options of authorized_keys; those before are forgotten."""
        line = f"{options} {Path(f'{key}.pub').read_text()}".lstrip()
        (self._folder / "authorized_keys").write_text(line)

    def start(self) -> None:
        """Start it; returns when it listens."""
        config = self._folder / "sshd_config"
        lines = [
            *self._settings,  # of two lines about one thing the first counts
            f"Port {self.port}",
            "ListenAddress 127.0.0.1",
            f"HostKey {self._host_key}",
            f"PidFile {self._folder / 'own.pid'}",
            f"AuthorizedKeysFile {self._folder / 'authorized_keys'}",
            "UsePAM no",
            "StrictModes no",
            "PasswordAuthentication no",
            "KbdInteractiveAuthentication no",
            "PermitRootLogin yes",
            "MaxStartups 1000",
            "LogLevel VERBOSE",
            "SetEnv SHLVL=2",  # or bash, as a login shell, reads the user's ~/.bashrc, which may take seconds
        ]
        config.write_text("\n".join(lines) + "\n")
        if os.geteuid() == 0:
            Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
        command = [program("sshd"), "-f", str(config)]
        new = ["-o", "PerSourcePenalties=no"]  # since 9.8, and an error before
        if subprocess.run([*command, "-t", *new], capture_output=True, timeout=30).returncode == 0:
            command += new
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [*command, "-D", "-e"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        (self._folder / "sshd.pid").write_text(str(self._process.pid))
        wait_until(self._listens)

    def kill9(self) -> None:
        """End it and all its sessions at once, without a good-bye."""
        process, self._process = self._process, None
        if process is None:
            return
        sessions = self.sessions(process.pid)
        for pid in (process.pid, *sessions):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        process.wait()

    def freeze(self) -> None:
        """Stop it and all its sessions: connections stay, and nothing answers."""
        assert self._process is not None
        for pid in (self._process.pid, *self.sessions()):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        assert self._process is not None
        for pid in (self._process.pid, *self.sessions()):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)

    def sessions(self, pid: int | None = None) -> list[int]:
        """Its descendants: processes for connections, and what they run."""
        if pid is None:
            assert self._process is not None
            pid = self._process.pid
        parents = dict(_parents())
        found, grew = {pid}, True
        while grew:
            more = {child for child, parent in parents.items() if parent in found} - found
            found |= more
            grew = bool(more)
        return sorted(found - {pid})

    @property
    def log(self) -> str:
        """What it said."""
        return (self._folder / "log").read_text(errors="replace")

    def _listens(self) -> bool:
        if self._process is None or self._process.poll() is not None:
            raise RuntimeError(f"sshd ended while starting:\n{self.log[-2000:]}")
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=5):
            return True
        return False


@contextlib.contextmanager
def silent_listener() -> Iterator[int]:
    """The port of somebody who takes connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0), backlog=128) as listener:
        yield listener.getsockname()[1]


def free_port() -> int:
    """A port on which nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def wait_until(condition: Callable[[], object], timeout_s: float = START_S) -> None:
    """Poll until it is so."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{condition} was not so within {timeout_s:g} s")
        time.sleep(0.02)


def _parents() -> Iterator[tuple[int, int]]:
    """Each process and its parent."""
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with contextlib.suppress(OSError, IndexError, ValueError):
                yield int(folder.name), int((folder / "stat").read_text().rpartition(") ")[2].split()[1])
