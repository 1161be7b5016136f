# SPDX-License-Identifier: MIT
"""How an endpoint is entered: its secrets and certificates, which are files and may change at any time."""

import base64
import os
import ssl
from dataclasses import dataclass, field

from agents.prometheus.endpoint import Endpoint

MAX_SECRET = 65536
"""Bytes of a file with a password or token."""


class ScrapeError(OSError):
    """An endpoint was not scraped; the message says why.

    Args:
        reason: what is the same each time, for as long as nothing changes
        detail: what may differ each time
    """

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Access:
    """What a request takes with it. authorization: the header, empty for none; tls: None where nothing is special."""

    authorization: str = field(default="", repr=False)
    tls: ssl.SSLContext | None = None


class AccessFiles:
    """Reads the files that an endpoint names. Blocks: for a thread."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self._certificates = [name for name in (endpoint.ca_file, endpoint.cert_file, endpoint.key_file) if name]
        self._seen: list[tuple[int, int, int]] = []
        self._tls: ssl.SSLContext | None = None

    @property
    def is_needed(self) -> bool:
        """False if the endpoint names no file, so that there is nothing to read."""
        return bool(self._certificates or self._endpoint.password_file or self._endpoint.token_file)

    def read(self) -> Access:
        """What the files hold now. Raises ScrapeError that names the file, and never what is in it."""
        return Access(self._authorization(), self._trust() if self._certificates else None)

    def _authorization(self) -> str:
        endpoint = self._endpoint
        if endpoint.token_file:
            return f"Bearer {_secret('token_file', endpoint.token_file)}"
        if endpoint.password_file:
            pair = f"{endpoint.user}:{_secret('password_file', endpoint.password_file)}"
            return f"Basic {base64.b64encode(pair.encode()).decode()}"
        return ""

    def _trust(self) -> ssl.SSLContext:
        """Made anew only when a file has changed: it takes 10 ms or more with the system's certificates."""
        endpoint = self._endpoint
        try:
            stats = [os.stat(name) for name in self._certificates]
        except OSError as error:
            raise ScrapeError(f"{error.filename} cannot be read: {error.strerror}") from None
        seen = [(stat.st_ino, stat.st_mtime_ns, stat.st_size) for stat in stats]
        if self._tls is None or seen != self._seen:
            self._tls, self._seen = _context(endpoint.ca_file, endpoint.cert_file, endpoint.key_file), seen
        return self._tls


def _secret(option: str, path: str) -> str:
    """The first line of a file, without the spaces around it."""
    try:
        with open(path, "rb") as file:
            data = file.read(MAX_SECRET + 1)
    except OSError as error:
        raise ScrapeError(f"{option} {path} cannot be read: {error.strerror}") from None
    try:
        text = data.decode().strip()
    except UnicodeDecodeError:
        text = ""
    if not text or len(data) > MAX_SECRET or not text.isprintable():
        raise ScrapeError(f"{option} {path} must hold one line of printable characters, and nothing else")
    return text


def _context(ca_file: str, cert_file: str, key_file: str) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=ca_file or None)
    except (OSError, ValueError) as error:
        raise ScrapeError(f"ca_file {ca_file} cannot be used: {_reason(error)}") from None
    if cert_file:
        try:
            # The empty password keeps OpenSSL from asking for one at the terminal.
            context.load_cert_chain(cert_file, key_file or None, password="")
        except (OSError, ValueError) as error:
            raise ScrapeError(f"cert_file {cert_file} cannot be used: {_reason(error)}") from None
    return context


def _reason(error: Exception) -> str:
    return getattr(error, "reason", None) or getattr(error, "strerror", None) or "no certificate in PEM format"
