# SPDX-License-Identifier: MIT
"""Where a database is and who asks: from options, POSTGRES_... in the environment, or a URL.

What none of them says is left to the driver, which knows PGHOST, PGUSER, ..., ~/.pgpass and the local socket as
psql does. The password is in no repr and no label.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from bus.errors import ConfigError

SCHEMES = ("postgresql", "postgres")
_EXAMPLE = "postgresql://USER@HOST/DATABASE"


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """A database; empty is what the driver has as its default. `ssl` is libpq's sslmode."""

    host: str = ""
    port: int = 0
    user: str = ""
    password: str = field(default="", repr=False)
    database: str = ""
    ssl: str = ""

    @classmethod
    def from_options(
        cls,
        *,
        host: str = "",
        port: int = 0,
        user: str = "",
        database: str = "",
        environment: Mapping[str, str] = os.environ,
    ) -> Address:
        """What the options say, else POSTGRES_HOST, _PORT, _USER, _PASSWORD and _DB. Raises ConfigError."""
        return cls(
            host=host or environment.get("POSTGRES_HOST", ""),
            port=port or _port(environment.get("POSTGRES_PORT", ""), "the environment variable POSTGRES_PORT"),
            user=user or environment.get("POSTGRES_USER", ""),
            password=environment.get("POSTGRES_PASSWORD", ""),
            database=database or environment.get("POSTGRES_DB", ""),
        )

    @classmethod
    def from_url(cls, url: str, environment: Mapping[str, str] = os.environ) -> Address:
        """``postgresql://USER:PASSWORD@HOST:PORT/DATABASE?sslmode=require``; what it leaves out is as above.

        Raises ConfigError, which does not repeat the URL: it may have a password in it.
        """
        try:
            parts = urlsplit(url)
            port = parts.port or 0
        except ValueError:
            raise ConfigError(f"the URL of the database has no valid host and port: expected {_EXAMPLE}") from None
        if parts.scheme not in SCHEMES:
            raise ConfigError(f"the URL of a database begins with {SCHEMES[0]}://, like {_EXAMPLE}")
        others = cls.from_options(environment=environment)
        return cls(
            host=_hosts(parts) or others.host,
            port=port or others.port,
            user=unquote(parts.username or "") or others.user,
            password=unquote(parts.password or "") or others.password,
            database=unquote(parts.path.removeprefix("/")) or others.database,
            ssl=_ssl(parts.query),
        )

    @property
    def label(self) -> str:
        """The address for people: a URL without the password."""
        user = f"{self.user}@" if self.user else ""
        port = f":{self.port}" if self.port else ""
        return f"postgresql://{user}{self.host}{port}/{self.database}"


def _hosts(parts: SplitResult) -> str:
    """The host; a folder with the server's socket is written as %2Fvar%2Frun%2Fpostgresql."""
    return unquote(parts.hostname or "")


def _port(text: str, where: str) -> int:
    if not text:
        return 0
    if not (text.isascii() and text.isdecimal() and 0 < int(text) < 65536):
        raise ConfigError(f"{where}: expected a port, 1 to 65535, not {text!r}")
    return int(text)


def _ssl(query: str) -> str:
    options = dict(parse_qsl(query, keep_blank_values=True))
    ssl = options.pop("sslmode", "")
    if options:
        raise ConfigError(f"the URL of the database has an option {min(options)!r}: only sslmode is known")
    return ssl
