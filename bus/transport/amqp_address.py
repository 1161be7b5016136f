# SPDX-License-Identifier: MIT
"""Where an AMQP broker is, and in words for a person why it cannot be reached or what it refuses.

Owns every text that the AMQP transport shows. No password gets into any of them: they are made of the
host, the port, the vhost and the user's name, never of the URL itself.
"""

import asyncio
import errno
import os
import re
import socket
import ssl
from dataclasses import dataclass, field

from aiormq import exceptions as amqp
from yarl import URL

from bus.errors import ConfigError, Refused

HEARTBEAT_S = 10
DEFAULT_PORTS = {"amqp": 5672, "amqps": 5671}
RIGHT = "right is amqp://user:password@host:5672/vhost, or amqps:// for TLS"


@dataclass(frozen=True, slots=True)
class Address:
    """A broker's URL, taken apart. `url` holds the password and stays out of every text."""

    url: URL = field(repr=False)
    text: str

    def __str__(self) -> str:
        return self.text

    @classmethod
    def parse(cls, text: str) -> "Address":
        """Raises ConfigError if it is not an amqp:// or amqps:// URL with a host."""
        try:
            url = URL(text)
            port = url.port or DEFAULT_PORTS.get(url.scheme, 0)
        except ValueError:
            raise ConfigError(f"the broker's URL cannot be read; {RIGHT}") from None
        if url.scheme not in DEFAULT_PORTS:
            raise ConfigError(f"the broker's URL begins with {url.scheme or 'nothing'!r}; {RIGHT}")
        if not url.host:
            raise ConfigError(f"the broker's URL names no host; {RIGHT}")
        host = f"[{url.host}]" if ":" in url.host else url.host
        text = f"{url.scheme}://{host}:{port}{url.raw_path or '/'}"
        if "heartbeat" not in url.query:
            url = url.update_query(heartbeat=HEARTBEAT_S)
        return cls(url.with_port(port), text)

    @property
    def user(self) -> str:
        """Who logs in."""
        return self.url.user or "guest"

    @property
    def vhost(self) -> str:
        """The virtual host."""
        return self.url.path[1:] or "/"

    @property
    def place(self) -> str:
        """Host and port."""
        return f"{self.url.host}:{self.url.port}"


@dataclass(frozen=True, slots=True)
class Cause:
    """Why there is no connection. `fatal`: waiting will not mend it, somebody has to."""

    text: str
    fatal: bool = False


def why_not_connected(error: BaseException, address: Address, timeout_s: float) -> Cause:
    """What went wrong while connecting."""
    match error:
        case amqp.ProbableAuthenticationError():
            return Cause(
                f"login of user {address.user!r} refused: user name and password in the URL must be those of a "
                f"user whom the broker knows (rabbitmqctl list_users)",
                fatal=True,
            )
        case amqp.AuthenticationError():
            return Cause(f"the broker does not offer the URL's way to log in: {error}", fatal=True)
        case amqp.InvalidFrameError() if "Connection.OpenOk" in str(error):
            return Cause(
                f"vhost {address.vhost!r} refused: it must exist (rabbitmqctl add_vhost), and user "
                f"{address.user!r} must have permissions in it (rabbitmqctl set_permissions)",
                fatal=True,
            )
        case ssl.SSLCertVerificationError():
            return Cause(
                f"the certificate of {address.place} is not trusted: {error.verify_message}; the URL's host must be "
                f"named in it, and the authority that signed it in the system's store or in ?cafile=FILE",
                fatal=True,
            )
        case ssl.SSLError():
            return Cause(
                f"TLS with {address.place} failed ({error.reason or error}): amqps:// needs the broker's TLS port",
                fatal=True,
            )
        case OSError() if unreadable := _unreadable_file(address):
            return Cause(f"{unreadable} in the broker's URL cannot be read", fatal=True)
        case amqp.ProtocolSyntaxError():
            return Cause(f"what answers at {address.place} does not speak AMQP 0-9-1 (or only over TLS: amqps://)")
        case amqp.AMQPConnectionError() if isinstance(error.__cause__, asyncio.IncompleteReadError):
            return Cause(
                f"{address.place} hung up at once: it is starting, or it does not speak AMQP (or only over TLS: amqps://)"
            )
    return Cause(why_lost(error, timeout_s))


def _unreadable_file(address: Address) -> str:
    if address.url.scheme != "amqps":
        return ""
    for name in ("cafile", "certfile", "keyfile"):
        path = address.url.query.get(name)
        if path and not os.access(path, os.R_OK):
            return f"{name} {path!r}"
    return ""


def why_lost(error: BaseException | None, timeout_s: float) -> str:
    """What an error on the wire means, without its Python dress. `timeout_s`: how long a TimeoutError waited."""
    match error:
        case socket.gaierror():
            return f"host name not found: {error.strerror}"
        case amqp.AMQPConnectionError() if isinstance(error.__cause__, OSError):
            return why_lost(error.__cause__, timeout_s)
        case amqp.AMQPConnectionError() if isinstance(error.__cause__, asyncio.IncompleteReadError):
            return "the broker closed the connection"
        case amqp.ConnectionClosed():
            return f"the broker closed the connection: {error.args[-1] if error.args else 'no reason given'}"
        case TimeoutError() if error.errno is None:
            return f"no answer within {timeout_s:g} s"
        case OSError():
            # Several addresses of one name: "Multiple exceptions: [Errno 111] ..., [Errno 111] ...".
            numbers = (
                [error.errno] if error.errno else [int(number) for number in re.findall(r"Errno (\d+)", str(error))]
            )
            words = dict.fromkeys(os.strerror(number) for number in numbers if number in errno.errorcode)
            return ", ".join(words) or str(error) or type(error).__name__
        case asyncio.CancelledError() | None:
            return "the broker fell silent"
    return str(error) or type(error).__name__


_CODES: dict[type[Exception], int] = {
    amqp.ChannelAccessRefused: 403,
    amqp.ChannelNotFoundEntity: 404,
    amqp.ChannelLockedResource: 405,
    amqp.ChannelPreconditionFailed: 406,
    amqp.ConnectionCommandInvalid: 503,
    amqp.ConnectionNotAllowed: 530,
    amqp.ConnectionNotImplemented: 540,
    amqp.ConnectionInternalError: 541,
}

_REMEDIES = {
    403: "user {user!r} needs the permission (rabbitmqctl set_permissions)",
    404: "it must be declared first",
    405: "it is exclusive to another connection: take another name, or wait until that connection ends",
    406: "it exists with other arguments: delete it, or declare it as it is",
}


def refusal(error: Exception, what: str, address: Address) -> Refused | None:
    """The broker's no, with what was asked for and what would be right; None if the error is no such thing."""
    code = _CODES.get(type(error), 0)
    if not code:
        if not isinstance(error, amqp.ChannelClosed) or not isinstance(error.args[0], int):
            return None
        code = error.args[0]
    reply = str(error.args[-1]) if error.args else f"code {code}"
    remedy = _REMEDIES.get(code, "").format(user=address.user)
    return Refused(f"{what}: {reply}" + (f"; {remedy}" if remedy else ""), code)
