# SPDX-License-Identifier: MIT
"""Names of hosts → addresses, for aiohttp: a look-up that hangs holds up nobody.

The event loop's own look-ups share a few threads, in which they wait for each other (and the broker's for them),
and for which the process waits at its end.
"""

import socket
from functools import partial
from typing import TYPE_CHECKING

from agents.base.worker import CallHung, Worker

if TYPE_CHECKING:
    from aiohttp.abc import AbstractResolver, ResolveResult

LOOKUP_S = 30.0
NUMERIC = socket.AI_NUMERICHOST | socket.AI_NUMERICSERV


def make_resolver() -> "AbstractResolver":
    """Looks up each name in a thread of its own, which costs 0.1 ms. Loads aiohttp."""
    from aiohttp.abc import AbstractResolver

    class Resolver(AbstractResolver):
        async def resolve(
            self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
        ) -> "list[ResolveResult]":
            return await look_up(host, port, family)

        async def close(self) -> None:
            pass

    return Resolver()


async def look_up(host: str, port: int, family: socket.AddressFamily) -> "list[ResolveResult]":
    """The addresses of a host. Raises OSError."""
    worker = Worker(f"look up {host}")
    ask = partial(socket.getaddrinfo, host, port, family, socket.SOCK_STREAM, flags=socket.AI_ADDRCONFIG)
    try:
        found = await worker.call(ask, LOOKUP_S)
    except CallHung as error:
        raise OSError(str(error)) from None
    finally:
        worker.close()
    return [
        {"hostname": host, "host": str(address[0]), "port": port, "family": kind, "proto": protocol, "flags": NUMERIC}
        for kind, _, protocol, _, address in found
    ]
