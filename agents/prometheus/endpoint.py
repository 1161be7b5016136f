# SPDX-License-Identifier: MIT
"""The endpoints that prometheus-source can be told to scrape."""

import re
from collections.abc import Iterable
from typing import Annotated
from urllib.parse import SplitResult, urlsplit

from msgspec import Meta, field

from bus.config import AgentConfig
from bus.names import clean_word

_NAME = re.compile(r"[A-Za-z0-9_-]{1,60}")
_PORTS = {"http": 80, "https": 443}
MIB = 2**20


class Endpoint(AgentConfig, frozen=True, kw_only=True):
    """One endpoint. Secrets are in files, which are read again for each scrape."""

    url: Annotated[
        str,
        Meta(description="http:// or https:// URL; without a path, /metrics is meant; what is behind ? is not shown"),
    ]
    name: Annotated[str, Meta(description="word of the metric names; default: host and port, like localhost-9100")] = ""
    include: Annotated[
        list[str], Meta(description="Prometheus names to take, globs like 'node_cpu_*'; default: all")
    ] = field(default_factory=list)
    exclude: Annotated[list[str], Meta(description="Prometheus names to leave out, globs like '*_created'")] = field(
        default_factory=list
    )
    timeout: Annotated[
        float | None, Meta(description="seconds for a scrape; default: 0.9 periods, but at most 30 s")
    ] = None
    honor_timestamps: Annotated[
        bool,
        Meta(description="keep the times that samples bring, up to 60 s from now; else they are of now"),
    ] = True
    user: Annotated[str, Meta(description="user name, for basic authentication")] = ""
    password_file: Annotated[str, Meta(description="file with the password of the user")] = ""
    token_file: Annotated[str, Meta(description="file with a bearer token")] = ""
    ca_file: Annotated[str, Meta(description="certificates to trust, PEM; default: those the system trusts")] = ""
    cert_file: Annotated[str, Meta(description="this agent's certificate, PEM")] = ""
    key_file: Annotated[str, Meta(description="the certificate's key, PEM; default: it is in cert_file")] = ""
    max_size: Annotated[int, Meta(ge=1, le=1024 * MIB, description="bytes of an answer at most, uncompressed")] = (
        16 * MIB
    )
    max_samples: Annotated[
        int, Meta(ge=1, le=1_000_000, description="samples of an answer at most; with more it is refused")
    ] = 50_000

    def __post_init__(self) -> None:
        """Checks that msgspec's limits cannot express. Raises ValueError."""
        parts = _check_url(self.url)
        if self.name and not _NAME.fullmatch(self.name):
            raise ValueError(f"name must be 1 to 60 of A-Z a-z 0-9 _ -, not {self.name[:80]!r}")
        if self.timeout is not None and not 0 < self.timeout < float("inf"):
            raise ValueError(f"timeout must be more than 0 seconds, not {self.timeout!r}")
        if bool(self.user) != bool(self.password_file):
            raise ValueError("user and password_file go together: give both or neither")
        if ":" in self.user or not self.user.isprintable():
            raise ValueError("user must be printable characters without ':'")
        if self.user and self.token_file:
            raise ValueError("give user and password_file, or token_file, not both")
        if self.key_file and not self.cert_file:
            raise ValueError("key_file needs the cert_file that it is the key of")
        if parts.scheme == "http" and (self.ca_file or self.cert_file):
            raise ValueError("ca_file and cert_file are for https:// URLs")

    def __repr__(self) -> str:
        """Without the query, which may hold a token."""
        return f"Endpoint(name={self.word!r}, url={without_query(self.url)!r})"

    @property
    def address(self) -> str:
        """The URL to ask."""
        parts = urlsplit(self.url)
        return parts._replace(path="/metrics" if parts.path in ("", "/") else parts.path).geturl()

    @property
    def word(self) -> str:
        """What the endpoint is called in metric names."""
        if self.name:
            return self.name
        parts = urlsplit(self.url)
        port = parts.port or _PORTS[parts.scheme]
        host = clean_word(parts.hostname or "")
        return (host if port == _PORTS[parts.scheme] else f"{host}-{port}")[:60]

    @property
    def where(self) -> str:
        """The host and port, for people."""
        parts = urlsplit(self.url)
        host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
        return f"{host}:{parts.port or _PORTS[parts.scheme]}"


def endpoints_of(items: Iterable[str | Endpoint]) -> list[Endpoint]:
    """Endpoints from tables and from URLs, where ``localhost:9100`` is short for ``http://localhost:9100/metrics``.

    Raises ValueError for what is no URL, and for two that have one name.
    """
    endpoints = [item if isinstance(item, Endpoint) else _from_text(item) for item in items]
    words = [endpoint.word for endpoint in endpoints]
    for word in words:
        if words.count(word) > 1:
            raise ValueError(f"two endpoints are called {word!r}: give one of them another name")
    return endpoints


def without_query(url: str) -> str:
    """A URL as it may be shown."""
    path, mark, _ = url.partition("?")
    return f"{path}?..." if mark else path


def _from_text(text: str) -> Endpoint:
    return Endpoint(url=text if "://" in text else f"http://{text}")


def _check_url(url: str) -> SplitResult:
    """The parts of a URL. Raises ValueError, which shows nothing of the URL that may be a secret."""
    if "@" in url.partition("?")[0]:
        raise ValueError(
            "the URL of an endpoint must not hold a user or a password, because it is shown: "
            "give user and password_file, or token_file"
        )
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError as error:
        raise ValueError(f"the URL of an endpoint makes no sense: {error}") from None
    if parts.scheme not in _PORTS or not parts.hostname or not url.isprintable() or " " in url or parts.fragment:
        raise ValueError(
            f"{without_query(url)[:200]!r} is not the URL of an endpoint, like 'http://localhost:9100/metrics'"
        )
    return parts
