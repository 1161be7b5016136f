# SPDX-License-Identifier: MIT
"""A network between a client and a broker that can be absent, cut, or silent."""

import asyncio
import contextlib
import socket
import ssl
from typing import Self
from urllib.parse import urlsplit, urlunsplit


class Relay:
    """Passes bytes between a port of its own and the broker at a URL.

    tls: it speaks TLS with its clients; the broker behind it gets plain bytes. refusing: connections are
    refused until `open`.
    """

    def __init__(self, url: str, *, tls: ssl.SSLContext | None = None, refusing: bool = False) -> None:
        parts = urlsplit(url)
        self._broker = (parts.hostname, parts.port or 5672)
        self._tls = tls
        self._refusing = refusing
        self._socket = socket.socket()
        self._socket.bind(("127.0.0.1", 0))  # bound, but nobody listens: connections are refused
        login = parts.netloc.rpartition("@")[0]
        netloc = f"{login}@localhost:{self._socket.getsockname()[1]}"
        self.url = urlunsplit(("amqps" if tls else "amqp", netloc, parts.path, parts.query, ""))
        self.accepted = 0
        self._listener: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._passing = asyncio.Event()
        self._passing.set()

    async def __aenter__(self) -> Self:
        if not self._refusing:
            await self.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def open(self) -> None:
        """Listen."""
        self._listener = await asyncio.start_server(self._accept, sock=self._socket, ssl=self._tls)

    async def close(self) -> None:
        """Listen no more, and cut every connection."""
        if self._listener is not None:
            self._listener.close()
        self._socket.close()
        self.thaw()
        self.cut()
        if self._tasks:
            await asyncio.wait(self._tasks)

    def cut(self) -> None:
        """Cut every connection; new ones are accepted."""
        for writer in self._writers:
            writer.transport.abort()

    def freeze(self) -> None:
        """From now on no byte gets through, either way. Connections stay, and new ones are accepted."""
        self._passing.clear()

    def thaw(self) -> None:
        """Bytes get through again, also those that were held."""
        self._passing.set()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self._writers.add(writer)
        try:
            with contextlib.suppress(OSError):
                await self._passing.wait()
                from_broker, to_broker = await asyncio.open_connection(*self._broker)
                self._writers.add(to_broker)
                await asyncio.gather(self._pass(reader, to_broker), self._pass(from_broker, writer))
        finally:
            writer.transport.abort()
            self._tasks.discard(task)

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Pass bytes on until one side ends, then cut the other."""
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                await self._passing.wait()
                writer.write(data)
                await writer.drain()
        writer.transport.abort()
