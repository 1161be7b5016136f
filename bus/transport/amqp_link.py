# SPDX-License-Identifier: MIT
"""One connection to an AMQP broker that comes back by itself.

A `Link` is the loop: connect, hold, wait a little, connect again, for ever. A `Session` is one connection
from its beginning to its loss. It knows nothing of what is published or consumed.

Built on aiormq, the layer below aio-pika: there the socket's writer can be kept, and a connection that got
stuck can be aborted. Without that, closing it took 33 to 95 s.
"""

import asyncio
import logging
import random
import socket
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, cast

from aiormq.channel import Channel
from aiormq.connection import Connection, TransportFactory
from aiormq.exceptions import AMQPError, ConnectionClosed
from yarl import URL

from bus.errors import NotConnected
from bus.transport.amqp_address import Address, Cause, refusal, why_lost, why_not_connected

logger = logging.getLogger(__name__)

# Every state of the connection is reported here, once; aiormq would add an error per attempt.
if logging.getLogger("aiormq").level == logging.NOTSET:
    logging.getLogger("aiormq").setLevel(logging.CRITICAL)

CONNECT_TIMEOUT_S = 5.0
ANSWER_TIMEOUT_S = 30.0
CLOSE_TIMEOUT_S = 1.5
USER_TIMEOUT_MS = 8_000
LOWEST_BACKOFF_S = 0.5
HIGHEST_BACKOFF_S = 30.0
FATAL_RETRY_S = 30.0
STEADY_S = 10.0
"""A connection that lasted so long resets the backoff."""
TEND_INTERVAL_S = 2.0
READ_LIMIT_BYTES = 512 * 1024
FRAME_BUFFER = 512
"""Frames between aiormq's reader and a channel. With its default of 10 the two tasks switch at every third message."""


class Backoff:
    """Ever longer waits, each a random part of its span (full jitter), so that a herd of agents spreads out."""

    def __init__(self, lowest_s: float, highest_s: float) -> None:
        self._lowest = lowest_s
        self._highest = highest_s
        self._span = lowest_s

    def reset(self) -> None:
        """Begin again with the shortest."""
        self._span = self._lowest

    def limit(self, highest_s: float) -> None:
        """Let the next wait be no longer than this."""
        self._span = min(self._span, highest_s)

    def next_s(self) -> float:
        """How long to wait now; the next time it may be twice as long."""
        span, self._span = self._span, min(self._span * 2, self._highest)
        return random.uniform(0, span)


class Wire(TransportFactory):
    """The socket under a connection: TCP or TLS, with time-outs that notice a dead network in 8 to 12 s."""

    def __init__(self) -> None:
        self._writer: asyncio.StreamWriter | None = None

    async def create(self, url: URL, **kwargs: Any) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Called by aiormq."""
        options: dict[str, Any] = {}
        if url.scheme == "amqps":
            options = {
                "ssl": await kwargs["ssl_context_provider"].get_context(),
                "ssl_handshake_timeout": CONNECT_TIMEOUT_S,
                "ssl_shutdown_timeout": CLOSE_TIMEOUT_S,
            }
        reader, writer = await asyncio.open_connection(url.host, url.port, limit=READ_LIMIT_BYTES, **options)
        self._writer = writer
        self._set(socket.SOL_SOCKET, "SO_KEEPALIVE", 1)
        self._set(socket.IPPROTO_TCP, "TCP_KEEPIDLE", 4)
        self._set(socket.IPPROTO_TCP, "TCP_KEEPINTVL", 2)
        self._set(socket.IPPROTO_TCP, "TCP_KEEPCNT", 4)
        self.expect_progress(True)
        return reader, writer

    def expect_progress(self, expected: bool) -> None:
        """Whether unacknowledged bytes break the connection after 8 s.

        A broker in a memory alarm stops reading: to TCP that looks like a dead network.
        """
        self._set(socket.IPPROTO_TCP, "TCP_USER_TIMEOUT", USER_TIMEOUT_MS if expected else 0)

    def abort(self) -> None:
        """Break it off, now: no goodbye, no flush."""
        if self._writer is not None:
            self._writer.transport.abort()

    def _set(self, level: int, option: str, value: int) -> None:
        # Not every system has every option (macOS lacks TCP_USER_TIMEOUT): heartbeats notice too, only later.
        if self._writer is not None and hasattr(socket, option) and not self._writer.is_closing():
            self._writer.get_extra_info("socket").setsockopt(level, getattr(socket, option), value)


class Session:
    """One connection, from its beginning to its loss."""

    def __init__(self, address: Address, connection: Connection, wire: Wire) -> None:
        self.address = address
        self.wire = wire
        self._connection = connection
        self._aborted_because = ""
        self._lost = connection.closing

    @property
    def is_lost(self) -> bool:
        """Whether it is over."""
        return self._lost.done() or bool(self._aborted_because)

    @property
    def why(self) -> str:
        """Why it was lost, for a person."""
        if self._aborted_because or not self._lost.done():
            return self._aborted_because or "closed"
        return why_lost(None if self._lost.cancelled() else self._lost.exception(), ANSWER_TIMEOUT_S)

    def abort(self, because: str) -> None:
        """Break it off. Whatever waits for the broker fails at once."""
        self._aborted_because = self._aborted_because or because
        self.wire.abort()

    async def lost(self, timeout_s: float | None = None) -> bool:
        """Wait until it is lost, at most so long; whether it is."""
        await asyncio.wait({self._lost}, timeout=timeout_s)
        return self._lost.done()

    async def unless_lost(self, work: Coroutine[None, None, None]) -> None:
        """Do this, but stop when the session is lost."""
        task = asyncio.create_task(work)
        try:
            await asyncio.wait({task, self._lost}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            task.cancel()
            await asyncio.wait({task})
        if not task.cancelled():
            task.result()

    async def is_blocked(self) -> bool:
        """Whether the broker has announced that it takes no publishes for now (memory or disk alarm)."""
        try:
            async with asyncio.timeout(0.05):
                await self._connection.ready()
        except TimeoutError:
            return True
        return False

    async def channel(self, *, confirms: bool = False) -> Channel:
        """Open a channel."""
        channel = await self._connection.channel(publisher_confirms=confirms, frame_buffer_size=FRAME_BUFFER)
        return cast("Channel", channel)

    @contextmanager
    def asking(self, what: str, timeout_s: float = ANSWER_TIMEOUT_S) -> Iterator[None]:
        """Around questions to the broker. Raises Refused for its no, NotConnected if the connection is lost.

        A broker that gives no answer at all within `timeout_s` loses the connection.
        """
        task = asyncio.current_task()
        cancels = task.cancelling() if task else 0
        timer = asyncio.get_running_loop().call_later(timeout_s, self.abort, f"no answer about {what}")
        try:
            yield
        except asyncio.CancelledError:
            # On a silent network aiormq raises CancelledError although nobody cancelled us.
            if task is None or task.cancelling() > cancels:
                raise
            self.abort("the broker fell silent")
            raise NotConnected(f"{what}: the connection was lost") from None
        except (AMQPError, RuntimeError, OSError) as error:
            refused = refusal(error, what, self.address)
            if refused is not None:
                raise refused from None
            self.abort(why_lost(error, ANSWER_TIMEOUT_S))
            raise NotConnected(f"{what}: the connection was lost: {self.why}") from None
        finally:
            timer.cancel()

    async def aclose(self) -> None:
        """Say goodbye, for at most 1.5 s, or break it off. Leaves nothing running."""
        closing = asyncio.ensure_future(self._connection.close(ConnectionClosed(0, "closed")))
        timer = asyncio.get_running_loop().call_later(CLOSE_TIMEOUT_S, self.wire.abort)
        try:
            await asyncio.wait({closing}, timeout=2 * CLOSE_TIMEOUT_S)
        finally:
            timer.cancel()
            closing.cancel()
            self.wire.abort()
            await _let_end(self._connection)


async def _let_end(connection: Connection) -> None:
    """Give what aiormq has left behind on a dead connection the turns of the loop that it needs to end.

    Whoever waits for room in its queue to the writer would wait for ever, for the writer is gone: make room.
    Its last tasks belong to nobody, so nobody can wait for them.
    """
    turns = 20
    while turns or not connection.write_queue.empty():
        turns = max(0, turns - 1)
        while not connection.write_queue.empty():
            connection.write_queue.get_nowait()
        await asyncio.sleep(0)


class Outage:
    """Tells people about the connection: each cause once, and once that it is back."""

    def __init__(self, address: Address) -> None:
        self._address = address
        self._since: float | None = None
        self._told: set[str] = set()
        self.last_error = ""

    def note(self, cause: Cause) -> None:
        """There is no connection, because of this."""
        if self._since is None:
            self._since = asyncio.get_running_loop().time()
        self.last_error = cause.text
        if cause.text not in self._told:
            self._told.add(cause.text)
            level = logging.ERROR if cause.fatal else logging.WARNING
            logger.log(level, "waiting for broker at %s: %s", self._address, cause.text)

    def over(self) -> None:
        """Everything is connected."""
        if self._since is None:
            logger.info("connected to broker at %s", self._address)
        else:
            away_s = asyncio.get_running_loop().time() - self._since
            logger.info("connected to broker at %s, after %.1f s without", self._address, away_s)
        self._since = None
        self._told.clear()
        self.last_error = ""


class Link:
    """A connection that is made again whenever it is lost.

    on_change: called when `ready` changes. prepare: awaited when a session begins, before `ready`. tend:
    awaited every 2 s while a session lives.
    """

    def __init__(
        self,
        address: Address,
        purpose: str,
        outage: Outage,
        *,
        on_change: Callable[[], None],
        prepare: Callable[[Session], Coroutine[None, None, None]] | None = None,
        tend: Callable[[Session], Awaitable[None]] | None = None,
    ) -> None:
        self._address = address
        self._purpose = purpose
        self._outage = outage
        self._on_change = on_change
        self._prepare = prepare
        self._tend = tend
        self._connecting: Wire | None = None
        self._session: Session | None = None
        self._came = asyncio.Event()
        self._hurried = asyncio.Event()
        self._closed = False
        self.ready = False

    @property
    def session(self) -> Session:
        """The living session. Raises NotConnected if there is none."""
        if self._session is None or self._session.is_lost:
            because = self._outage.last_error or (self._session.why if self._session else "not connected yet")
            raise NotConnected(f"no connection to the broker at {self._address}: {because}")
        return self._session

    async def up(self) -> Session:
        """Wait for a living session. Raises NotConnected if the link is closed for good."""
        while self._session is None or self._session.is_lost:
            if self._closed:
                raise NotConnected(f"the connection to the broker at {self._address} is closed")
            self._came.clear()
            await self._came.wait()
        return self._session

    def close(self) -> None:
        """No more sessions: who waits for one gets NotConnected; a connection that is being made is dropped."""
        self._closed = True
        self._came.set()
        if self._connecting is not None:
            self._connecting.abort()

    async def run(self) -> None:
        """Connect, hold, and connect again, until cancelled."""
        backoff = Backoff(LOWEST_BACKOFF_S, HIGHEST_BACKOFF_S)
        loop = asyncio.get_running_loop()
        while True:
            try:
                session = await self._connect()
            except Exception as error:  # noqa: BLE001 - reported; whatever it is, the answer is to try again
                cause = why_not_connected(error, self._address, CONNECT_TIMEOUT_S)
                self._outage.note(cause)
                await self._pause(FATAL_RETRY_S if cause.fatal else backoff.next_s())
                continue
            began = loop.time()
            try:
                await self._hold(session)
            finally:
                self._session = None
                why = session.why
                self._change(ready=False)
                await session.aclose()
            self._outage.note(Cause(why))
            if loop.time() - began >= STEADY_S:
                backoff.reset()
            await self._pause(backoff.next_s())

    def hurry(self) -> None:
        """The broker is there, as somebody else has seen: cut the present wait short."""
        self._hurried.set()

    async def _pause(self, seconds: float) -> None:
        self._hurried.clear()
        try:
            async with asyncio.timeout(seconds):
                await self._hurried.wait()
        except TimeoutError:
            pass  # nobody knew better

    async def _connect(self) -> Session:
        self._connecting = wire = Wire()
        name = f"{self._address.url.query.get('name', 'hostbus')}: {self._purpose}"
        url = self._address.url.update_query(name=name)
        connection = Connection(url, transport_factory=wire, client_properties={"product": "hostbus"})
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                await connection.connect()
        except BaseException:
            wire.abort()
            await _let_end(connection)
            raise
        finally:
            self._connecting = None
        return Session(self._address, connection, wire)

    async def _hold(self, session: Session) -> None:
        self._session = session
        self._came.set()
        if self._prepare is not None:
            await session.unless_lost(self._prepare(session))
        if not session.is_lost:
            self._change(ready=True)
        while not await session.lost(TEND_INTERVAL_S if self._tend else None):
            if self._tend is not None:
                await self._tend(session)

    def _change(self, *, ready: bool) -> None:
        if self.ready != ready:
            self.ready = ready
            self._on_change()
