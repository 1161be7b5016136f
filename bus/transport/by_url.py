# SPDX-License-Identifier: MIT
"""Which transport a URL means, and what is wrong with one that means none.

No text made here holds a password, not even when the URL is so wrong that nobody can tell where it begins.
"""

import re
from urllib.parse import urlsplit

from bus.errors import ConfigError
from bus.transport.base import Transport

RIGHT = "right is amqp://user:password@host:5672/vhost, amqps:// for TLS, or memory:// for this process alone"

_SECRETS = re.compile(r"^([A-Za-z][A-Za-z0-9+.-]*://)?.*@", re.DOTALL)


def connect(url: str) -> Transport:
    """The transport for a broker's URL, not yet opened. Raises ConfigError: what is wrong, what would be right."""
    scheme = _checked_scheme(url)
    if scheme == "memory":
        from bus.transport.memory import MemoryTransport

        return MemoryTransport(url)
    # The AMQP library is memory and start-up time that a process without a network need not pay for.
    from bus.transport.amqp import AmqpTransport

    return AmqpTransport(url)


def _checked_scheme(url: str) -> str:
    if "://" not in url:
        raise ConfigError(f"{without_secrets(url)!r} is not a broker's URL; {RIGHT}")
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise ConfigError(f"the broker's URL {without_secrets(url)!r} cannot be read: {error}; {RIGHT}") from None
    if parts.scheme == "memory":
        return parts.scheme
    if parts.scheme not in ("amqp", "amqps"):
        raise ConfigError(f"the broker's URL {without_secrets(url)!r} begins with {parts.scheme!r}; {RIGHT}")
    if not parts.hostname:
        raise ConfigError(f"the broker's URL {without_secrets(url)!r} names no host; {RIGHT}")
    try:
        bad_port = parts.port == 0
    except ValueError:
        bad_port = True
    if bad_port:
        # What stands after the colon may be the end of a password with a '/' in it, or one whose host is missing.
        raise ConfigError(
            f"the broker's URL for host {parts.hostname!r} has a port that is not a number from 1 to 65535 "
            f"(in a password, '/' is written %2F); {RIGHT}"
        )
    return parts.scheme


def without_secrets(url: str) -> str:
    """A URL, or what was meant as one, without all that may be user or password, and without its query."""
    return _SECRETS.sub(r"\1", url).partition("?")[0][:200]
