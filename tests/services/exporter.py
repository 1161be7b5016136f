# SPDX-License-Identifier: MIT
"""An HTTP server for what a scraper may meet: any bytes, at any pace, over TLS or not."""

import asyncio
import gzip
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

Request = dict[str, str]
"""Its first line as ``""``, and the headers by their names in lower case."""

Behaviour = Callable[[Request, asyncio.StreamWriter], Awaitable[None]]
TEXT = "text/plain; version=0.0.4; charset=utf-8"


def response(body: bytes | str, *, status: str = "200 OK", kind: str = TEXT, **headers: str) -> bytes:
    """A whole answer. Headers are written like Python names: ``content_encoding="gzip"``."""
    data = body.encode() if isinstance(body, str) else body
    fields = {"content_type": kind, "content_length": str(len(data)), **headers}
    head = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in fields.items() if value)
    return f"HTTP/1.1 {status}\r\n{head}\r\n".encode() + data


def packed(text: str) -> bytes:
    """An answer in gzip."""
    return response(gzip.compress(text.encode()), content_encoding="gzip")


class Exporter:
    """What it does is `behaviour`, which a test may change at any time."""

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self.connections = 0
        self.port = 0
        self.behaviour: Behaviour = self._answer
        self.answer = response("")
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def address(self) -> str:
        """Its host and port."""
        return f"127.0.0.1:{self.port}"

    @property
    def open_connections(self) -> int:
        """How many clients are connected now."""
        return len(self._writers)

    def say(self, text: str) -> None:
        """Answer with these metrics from now on."""
        self.answer = response(text)
        self.behaviour = self._answer

    async def _answer(self, request: Request, writer: asyncio.StreamWriter) -> None:
        writer.write(self.answer)
        await writer.drain()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, request by request."""
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self._writers.add(writer)
        self.connections += 1
        try:
            while head := await _head(reader):
                self.requests.append(head)
                await self.behaviour(head, writer)
        except (ConnectionError, asyncio.CancelledError):
            pass  # the client went, or the test ends
        finally:
            self._writers.discard(writer)
            self._tasks.discard(task)
            writer.close()

    def end(self) -> None:
        """Cut off all that are connected."""
        for task in self._tasks:
            task.cancel()
        for writer in self._writers:
            writer.transport.abort()


async def _head(reader: asyncio.StreamReader) -> Request:
    try:
        text = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    except asyncio.IncompleteReadError:
        return {}
    first, *lines = text.strip().split("\r\n")
    fields = (line.partition(": ") for line in lines)
    return {"": first, **{name.lower(): value for name, _, value in fields}}


@asynccontextmanager
async def exporter(tls: ssl.SSLContext | None = None) -> AsyncIterator[Exporter]:
    """One that listens on a free port of this machine."""
    made = Exporter()
    server = await asyncio.start_server(made.serve, "127.0.0.1", 0, ssl=tls)
    made.port = server.sockets[0].getsockname()[1]
    try:
        yield made
    finally:
        server.close()
        made.end()
        await asyncio.sleep(0)
