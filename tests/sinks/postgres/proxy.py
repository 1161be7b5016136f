# SPDX-License-Identifier: MIT
"""A TCP connection that can be cut, or go silent, in the middle."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager


class Proxy:
    """Passes bytes on to a server on 127.0.0.1; while `is_silent`, it swallows them. `sent` counts the clients'.

    When a client sends what has `unanswered` in it, the server gets that, and all is cut before its answer comes.
    """

    def __init__(self, port: int) -> None:
        self._target = port
        self._writers: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server | None = None
        self._cut_at = -1
        self.port = 0
        self.sent = 0
        self.is_silent = False
        self.unanswered = b""
        self._cut_answer = False

    def cut_after(self, sent: int) -> None:
        """Cut all connections as soon as the clients have sent so many bytes more."""
        self._cut_at = self.sent + sent

    def stay(self) -> None:
        """Cut nothing."""
        self._cut_at = -1

    def cut(self) -> None:
        """Reset all connections, as when a cable is pulled between two switches that notice."""
        self._cut_at = -1
        for writer in list(self._writers):
            writer.transport.abort()

    async def close(self) -> None:
        """Refuse connections from now on."""
        if self._server is not None:
            self._server.close()
            self.cut()
            await self._server.wait_closed()

    async def open(self) -> None:
        """Take connections (again)."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._target)
        except OSError:
            writer.transport.abort()
            return
        self._writers |= {writer, far_writer}
        await asyncio.gather(
            self._pass_on(reader, far_writer, self._note_request), self._pass_on(far_reader, writer, self._note_answer)
        )
        self._writers -= {writer, far_writer}

    def _note_request(self, data: bytes) -> None:
        self.sent += len(data)
        if 0 <= self._cut_at < self.sent:
            self.cut()
        self._cut_answer = bool(self.unanswered) and self.unanswered in data

    def _note_answer(self, data: bytes) -> None:
        if self._cut_answer:
            self._cut_answer = False
            self.cut()

    async def _pass_on(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, note: Callable[[bytes], None]
    ) -> None:
        try:
            while data := await reader.read(16384):
                note(data)
                if not self.is_silent:
                    writer.write(data)
                    await writer.drain()
        except OSError:
            pass  # cut
        finally:
            writer.close()


@asynccontextmanager
async def proxy(port: int) -> AsyncIterator[Proxy]:
    """A proxy to that port, until the body ends."""
    made = Proxy(port)
    await made.open()
    try:
        yield made
    finally:
        await made.close()
