# SPDX-License-Identifier: MIT
"""`Outflow`: the way of a source's points from their chunks to the broker.

Chunks that get ready in one turn of the event loop leave together, as messages, for the outbox, from where a
task of its own publishes them.
"""

import asyncio

from bus.buffers import Buffers
from bus.encoder import Column, Encoder
from bus.frame import decode_frame
from bus.outbox import Outbox, Sender
from bus.transport.base import Transport


class Outflow:
    """Buffers, an encoder and an outbox, and when what goes from one to the next.

    Args:
        token: the source's
        encoder: makes frames of chunks
        chunk_size, limit: see `Buffers`; limit is in points, and the outbox's, too
    """

    def __init__(self, token: str, encoder: Encoder, chunk_size: int | None, limit: int) -> None:
        self.buffers = Buffers(chunk_size, limit, self._on_ready)
        self.outbox = Outbox(token, limit)
        self.max_delay_s: float | None = None
        """How long a chunk waits at most for its points."""
        self._token = token
        self._encoder = encoder
        self._collecting = False
        self._ageing = False

    def age(self) -> None:
        """Points have come: from now on time runs for them."""
        if self.max_delay_s is not None and not self._ageing and self.buffers.points:
            asyncio.get_running_loop().call_later(self.max_delay_s, self._collect_aged)
            self._ageing = True

    def flush(self) -> None:
        """All that is buffered leaves now, full chunk or not."""
        self._emit(self.buffers.take_all())

    def use(self, encoder: Encoder) -> None:
        """Another encoder from now on; what was made into frames before is made anew. Not while `run` publishes."""
        self._encoder = encoder
        for parcel in self.outbox.withdraw():
            chunks = decode_frame(parcel.message.body).chunks()
            self._emit([(chunk.metric, list(chunk.times), list(chunk.values)) for chunk in chunks])

    async def run(self, transport: Transport) -> None:
        """Publish what leaves, for ever."""
        await Sender(transport, self.outbox, self._token).run()

    def _on_ready(self) -> None:
        """Collect once per turn of the event loop, so that all chunks that get ready in it share a frame.

        At once if the buffers are full: a loop that samples without ever waiting must not fill the memory.
        """
        if self.buffers.is_full:
            self._emit(self.buffers.take_ready())
        elif not self._collecting:
            asyncio.get_running_loop().call_soon(self._collect)
            self._collecting = True

    def _collect(self) -> None:
        self._collecting = False
        self._emit(self.buffers.take_ready())

    def _collect_aged(self) -> None:
        # All chunks go, the younger ones too: that is simpler than a timer per chunk, and fewer messages.
        self._ageing = False
        self._emit(self.buffers.take_all(manual=False))

    def _emit(self, columns: list[Column]) -> None:
        if columns:
            for parcel in self._encoder.encode(columns):
                self.outbox.put(parcel)
