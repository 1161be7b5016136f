# SPDX-License-Identifier: MIT
"""Whether a host is the one it says it is: known_hosts, and what to say about keys that are not in it."""

import logging
import shlex
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import asyncssh

from bus.errors import HostbusError

logger = logging.getLogger(__name__)

USER_FILES = ("~/.ssh/known_hosts", "~/.ssh/known_hosts2")
SYSTEM_FILES = ("/etc/ssh/ssh_known_hosts", "/etc/ssh/ssh_known_hosts2")
MAX_FILE_BYTES = 16 << 20

Match = tuple[Sequence[object], ...]


class HostKeyError(HostbusError):
    """A host's key is not known, or not the one that is known; says which it is and what can be done."""


class KnownHosts:
    """The keys of some known_hosts files; files that are missing count as empty.

    Args:
        files: the first is where a person is told to add keys
    """

    def __init__(self, files: Sequence[str]) -> None:
        self.files = [Path(file).expanduser() for file in files]
        self._loaded = _load(tuple((path, *_version(path)) for path in self.files))

    def match(self, host: str, address: str, port: int | None) -> Match:
        """What is known of a host, as asyncssh wants it: its keys, authorities, revoked keys, and so on."""
        return self._loaded.match(host.lower(), address, port)

    def keys(self, host: str, address: str, port: int | None) -> Sequence[asyncssh.SSHKey]:
        """The keys that a host may show; without the authorities that may sign others."""
        return self._loaded.match(host.lower(), address, port)[0]


class Verifier(asyncssh.SSHClient):
    """asyncssh asks it about keys that known_hosts does not have. It always says no, and remembers why.

    Args:
        who: the host, for messages
        known: what is known
    """

    def __init__(self, who: str, known: KnownHosts) -> None:
        self._who = who
        self._known = known
        self.problem: HostKeyError | None = None

    def validate_host_public_key(self, host: str, addr: str, port: int, key: asyncssh.SSHKey) -> bool:
        """No: the key is not among those that are known."""
        name = _known_name(host, port)
        place = _place(host, addr, port)
        shown = f"{key.get_algorithm()} {key.get_fingerprint()}"
        known = self._known.keys(host, addr, None if port == 22 else port)
        if known:
            self.problem = HostKeyError(
                f"{self._who}: THE HOST KEY OF {place} HAS CHANGED. Somebody may be listening in, or the host was "
                f"installed anew. It shows {shown}; known is "
                f"{', '.join(f'{one.get_algorithm()} {one.get_fingerprint()}' for one in known)}. "
                f"Only if you know why it changed, remove the old one with: {_removal(name, self._known.files)}"
            )
        else:
            self.problem = HostKeyError(
                f"{self._who}: the host key of {place} is not known: {shown}. If it is the right one (compare it on "
                f"the host: {_comparison(key)}), accept it with: {_acceptance(name, key, self._known.files)}"
            )
        return False

    def validate_host_ca_key(self, host: str, addr: str, port: int, key: asyncssh.SSHKey) -> bool:
        """No: the authority that signed the host's certificate is not among those that are known."""
        self.problem = HostKeyError(
            f"{self._who}: {_place(host, addr, port)} shows a certificate of an authority that is not known: "
            f"{key.get_algorithm()} {key.get_fingerprint()}. If it is the right one, accept it with: "
            f"{_acceptance(f'@cert-authority {_known_name(host, port)}', key, self._known.files)}"
        )
        return False


def _known_name(host: str, port: int) -> str:
    """What known_hosts calls a host."""
    return host.lower() if port == 22 else f"[{host.lower()}]:{port}"


def _place(host: str, address: str, port: int) -> str:
    where = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    return where if address in ("", host) else f"{where} ({address})"


def _comparison(key: asyncssh.SSHKey) -> str:
    """The command that shows a host's own key on the host."""
    kind = key.get_algorithm().removeprefix("ssh-").split("-", 1)[0]
    return f"ssh-keygen -lf /etc/ssh/ssh_host_{shlex.quote(kind)}_key.pub"


def _acceptance(name: str, key: asyncssh.SSHKey, files: Sequence[Path]) -> str:
    """A command for a POSIX shell that adds a key to the first known_hosts file."""
    algorithm, encoded = key.export_public_key().decode("ascii").split()[:2]
    folder = files[0].parent
    first = "" if folder.is_dir() else f"mkdir -p {shlex.quote(str(folder))} && "
    return f"{first}echo {shlex.quote(f'{name} {algorithm} {encoded}')} >> {shlex.quote(str(files[0]))}"


def _removal(name: str, files: Sequence[Path]) -> str:
    existing = [file for file in files if file.exists()]
    return "; ".join(f"ssh-keygen -R {shlex.quote(name)} -f {shlex.quote(str(file))}" for file in existing)


def _version(path: Path) -> tuple[int, int]:
    """What changes when a file does."""
    try:
        status = path.stat()
    except OSError:
        return (0, -1)
    return status.st_mtime_ns, status.st_size


@lru_cache(maxsize=64)
def _load(versions: tuple[tuple[Path, int, int], ...]) -> asyncssh.SSHKnownHosts:
    """The keys in one version of some files; a line that makes no sense is left out, and said once."""
    known = asyncssh.SSHKnownHosts()
    for path, _, size in versions:
        if size > MAX_FILE_BYTES:
            logger.warning("%s has more than %d MiB: it is not read", path, MAX_FILE_BYTES >> 20)
        elif size > 0:
            _load_file(known, path)
    return known


def _load_file(known: asyncssh.SSHKnownHosts, path: Path) -> None:
    try:
        lines = path.read_text(errors="replace").splitlines()
    except OSError as error:
        logger.warning("%s cannot be read: %s", path, error)
        return
    for number, line in enumerate(lines, 1):
        try:
            known.load(line)
        except ValueError as error:
            logger.warning("%s, line %d is left out: %s", path, number, str(error)[:200])
