# SPDX-License-Identifier: MIT
"""A network between a client and a broker that can be absent, cut, or silent."""

import asyncio
import contextlib
import ssl
from typing import Self
from urllib.parse import urlsplit, urlunsplit

from tests.services.rabbitmq import _free_ports


class Relay:
    """Passes bytes between a port of its own and the server of `url`. Made closed: `open` it.

    tls: what it shows to clients, if it speaks TLS with them; the server behind it gets plain bytes.
    """

    def __init__(self, url: str, tls: ssl.SSLContext | None = None) -> None:
        parts = urlsplit(url)
        assert parts.hostname
        self._server = (parts.hostname, parts.port or 5672)
        self._tls = tls
        (self.port,) = _free_ports(1)
        login, at, _ = parts.netloc.rpartition("@")
        self.url = urlunsplit(
            ("amqps" if tls else "amqp", f"{login}{at}localhost:{self.port}", parts.path, parts.query, "")
        )
        self.accepted = 0
        self._listener: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._passing = asyncio.Event()
        self._passing.set()

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def open(self) -> None:
        """Listen."""
        self._listener = await asyncio.start_server(self._accept, "localhost", self.port, ssl=self._tls)

    async def close(self) -> None:
        """Listen no more, and cut every connection."""
        if self._listener is not None:
            self._listener.close()
        self.thaw()
        for writer in self._writers:
            writer.transport.abort()
        if self._tasks:
            await asyncio.wait(self._tasks)

    def freeze(self) -> None:
        """From now on no byte gets through, either way; connections stay and new ones are accepted."""
        self._passing.clear()

    def thaw(self) -> None:
        """Bytes get through again, those that were held too."""
        self._passing.set()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        task = asyncio.current_task()
        assert task
        self._tasks.add(task)
        self._writers.add(writer)
        try:
            await self._passing.wait()
            server_reader, server_writer = await asyncio.open_connection(*self._server)
            self._writers.add(server_writer)
            async with asyncio.TaskGroup() as both:
                both.create_task(self._pass(reader, server_writer))
                both.create_task(self._pass(server_reader, writer))
        except* OSError:
            pass
        finally:
            for one in (writer, server_writer) if "server_writer" in locals() else (writer,):
                one.transport.abort()
                self._writers.discard(one)
            self._tasks.discard(task)

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                await self._passing.wait()
                writer.write(data)
                await writer.drain()
        writer.transport.abort()
