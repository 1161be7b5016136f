# SPDX-License-Identifier: MIT
"""`HistoryService`: how an archive answers requests for history that come over the bus.

A part that a sink *has*. It owns the queue of requests and its own view of the archive, tells the manager which
metrics the archive really has, and answers from any `History`. A request is answered once, with an error if need
be; what kills the archive is tried a second time and not a third.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterable
from contextlib import AbstractAsyncContextManager, nullcontext, suppress
from itertools import islice

from bus.archive import History
from bus.client import HIGHEST_BACKOFF_S, LOWEST_BACKOFF_S, REGISTER_TIMEOUT_S, Client
from bus.errors import HostbusError, NotConnected, PublishFailed, StorageBusy, StorageError, gist
from bus.frame import MAX_FRAME_BYTES
from bus.history_wire import (
    HistoryRequest,
    HistoryResponse,
    RequestType,
    decode_history_request,
    encode_history_response,
)
from bus.queues import HISTORY_TTL_S
from bus.rpc import Json
from bus.transport.base import Consumer, Consumption, Delivery, Message, Transport
from sinks.history_answers import answer

logger = logging.getLogger(__name__)

AT_ONCE = 4
PREFETCH = 64
ACK_HEAD_START_S = 0.1
ANSWER_TIMEOUT_S = 30.0
REPLY_PATIENCE_S = 10.0
REPLY_RETRY_S = 0.2
NAMES_PER_REQUEST = 1000
GATHER_S = 1.0
"""New metrics come in crowds: the manager is told of all of them together."""
CHECK_S = 60.0
"""How often it is made sure that the manager still knows what is kept."""
ENCODED_AT_ONCE = 4000
"""Longer answers are made into bytes in a thread: a million points take half a second."""

OpenHistory = Callable[[], Awaitable[History]]


class HistoryService:
    """Answers for an archive on the bus, from `begin` to `aclose`.

    Args:
        agent: the sink that has the archive
        open_history: opens the archive for reading, apart from the sink's own way to it; called when it is
            first needed, and again when it had to be closed. Raises StorageError
    """

    def __init__(self, agent: Client, open_history: OpenHistory) -> None:
        self._agent = agent
        self._open_history = open_history
        self._opened: History | None = None  # while it cannot be opened, too
        self._opening = asyncio.Lock()
        self._slots = asyncio.Semaphore(AT_ONCE)
        self._whole = asyncio.Lock()
        self._consumers: list[Consumer] = []  # one, when the manager has named the queue
        self._told: set[str] = set()
        self._is_registered = False
        self._news = asyncio.Event()
        self._trouble = ""
        self.answered = 0
        self.refused = 0

    def begin(self) -> None:
        """Start to answer: the sink has joined the bus."""
        self._agent.start_task(self._keep_known(), name="tell what history there is")
        self._agent.start_task(self._watch_connection(), name="tell it again after reconnects")

    def notice(self) -> None:
        """There are new metrics, or fewer."""
        self._news.set()

    async def reopen(self) -> None:
        """Let go of the archive; the next request opens it again. For when the sink did so."""
        await self._close(self._opened)
        self._news.set()

    async def aclose(self) -> None:
        """Stop to answer, and close the archive. May be called twice."""
        for consumer in self._consumers:
            await consumer.cancel()
        await self._close(self._opened)

    def vital_signs(self) -> Json:
        """Requests answered and refused, for `discover`."""
        return {"historyAnswered": self.answered, "historyRefused": self.refused, "historyMetrics": len(self._told)}

    # -- the archive -----------------------------------------------------------------------------------

    async def _history(self) -> History:
        async with self._opening:
            if self._opened is None:
                self._opened = await self._open_history()
            return self._opened

    async def _close(self, history: History | None) -> None:
        if history is None:
            return
        if self._opened is history:
            self._opened = None
        with suppress(StorageError):  # said when it was used
            await history.aclose()

    # -- what the manager knows ------------------------------------------------------------------------

    async def _watch_connection(self) -> None:
        seen = await self._agent.transport.connected()
        while True:
            seen = await self._agent.transport.connected(seen)
            self._is_registered = False
            self._news.set()

    async def _keep_known(self) -> None:
        """Register, and keep the manager informed, for ever."""
        backoff_s = LOWEST_BACKOFF_S
        while True:
            self._news.clear()
            try:
                await self._tell()
            except HostbusError as error:
                self._complain(error)
                pause_s, backoff_s = backoff_s, min(2 * backoff_s, HIGHEST_BACKOFF_S)
            else:
                self._trouble = ""
                pause_s, backoff_s = CHECK_S, LOWEST_BACKOFF_S
            with suppress(TimeoutError):
                async with asyncio.timeout(pause_s):
                    await self._news.wait()
            await asyncio.sleep(GATHER_S)

    def _complain(self, error: HostbusError) -> None:
        """Once for each cause."""
        if gist(error) != self._trouble:
            self._trouble = gist(error)
            logger.warning(
                "%s cannot tell the manager what history there is, will try again: %s", self._agent.token, error
            )

    async def _tell(self) -> None:
        if not self._is_registered:
            await self._register()
        names = set(await (await self._history()).metrics())
        kept = await self._subscribe(sorted(names - self._told))
        self._told = names
        if kept is None:  # MetricQ's manager
            return
        if kept > len(names):  # some are gone, or it was another file
            kept = (await self._agent.rpc("db.retain", metrics=sorted(names)))["kept"]
        if kept != len(names):  # the manager was started on another store
            self._told = set()
            self._news.set()

    async def _register(self) -> None:
        reply = await self._agent.rpc("db.register", data=False, timeout=REGISTER_TIMEOUT_S)
        if not self._consumers:
            await self._consume(str(reply["historyQueue"]), str(reply.get("dataServerAddress", "")))
        self._told = set()
        self._is_registered = True

    async def _consume(self, queue: str, address: str) -> None:
        transport = await self._agent.data_transport(address)
        consumer: asyncio.Future[Consumer] = asyncio.get_running_loop().create_future()

        def on_delivery(delivery: Delivery) -> None:
            self._agent.start_task(self._serve(delivery, time.monotonic(), transport, consumer), name="history request")

        consumer.set_result(
            await transport.consume(Consumption(queue=queue, on_delivery=on_delivery, prefetch=PREFETCH))
        )
        self._consumers.append(consumer.result())

    async def _subscribe(self, names: Iterable[str]) -> int | None:
        """Tell of metrics; how many the manager knows now, None if it does not say. Asked even if there are none."""
        remaining = iter(names)
        lot = list(islice(remaining, NAMES_PER_REQUEST))
        while True:
            reply = await self._agent.rpc("db.subscribe", metrics=lot, metadata=False, data=False)
            lot = list(islice(remaining, NAMES_PER_REQUEST))
            if not lot:
                kept = reply.get("kept")
                return kept if isinstance(kept, int) else None

    # -- requests --------------------------------------------------------------------------------------

    async def _serve(
        self, delivery: Delivery, arrived_s: float, transport: Transport, consumer: asyncio.Future[Consumer]
    ) -> None:
        message = delivery.message
        if delivery.redelivered:
            # It may be what killed us: the broker must know that it is settled before the archive is touched.
            (await consumer).ack(delivery)
            await asyncio.sleep(ACK_HEAD_START_S)
        body = await self._answer(message, arrived_s)
        if body and message.reply_to:
            await self._reply(transport, message, body)
        if not delivery.redelivered:
            (await consumer).ack(delivery)

    async def _answer(self, message: Message, arrived_s: float) -> bytes:
        """The body of the answer: whatever goes wrong, there is one. Empty if nobody waits for it."""
        metric = message.routing_key[:300]
        try:
            request = decode_history_request(message.body)
            async with self._gate(request), self._slots:
                if not message.reply_to or time.monotonic() - arrived_s > HISTORY_TTL_S:
                    return b""
                async with asyncio.timeout(ANSWER_TIMEOUT_S):
                    response = await self._read(message.routing_key, request)
                    body = await _encoded(response, in_columns=request.limit > 0)
            if len(body) > MAX_FRAME_BYTES:
                raise HostbusError(f"{metric}: the answer has {len(body)} bytes: ask for a shorter range")
        except TimeoutError:
            return self._refusal(message, f"{metric}: reading took more than {ANSWER_TIMEOUT_S:g} s: ask for less")
        except (HostbusError, ValueError) as error:
            return self._refusal(message, str(error))
        except Exception as error:
            # A request must not take the archive with it; the trace is for whoever mends it.
            logger.exception("%s: a history request about %r failed", self._agent.token, metric)
            return self._refusal(message, f"{metric}: {type(error).__name__}: {error}")
        self.answered += 1
        return body

    def _gate(self, request: HistoryRequest) -> AbstractAsyncContextManager[None]:
        """What may be large comes one at a time."""
        is_small = request.limit or request.type in (RequestType.LAST_VALUE, RequestType.AGGREGATE)
        return nullcontext() if is_small else self._whole

    def _refusal(self, message: Message, why: str) -> bytes:
        self.refused += 1
        logger.info("%s: refused history to %s: %s", self._agent.token, message.app_id or "a client", why)
        return encode_history_response(HistoryResponse(metric=message.routing_key, error=why))

    async def _read(self, metric: str, request: HistoryRequest) -> HistoryResponse:
        history = await self._history()
        try:
            return await answer(history, metric, request)
        except StorageBusy:
            raise
        except StorageError:
            await self._close(history)  # the next request finds a file that was put right
            raise

    async def _reply(self, transport: Transport, request: Message, body: bytes) -> None:
        reply = Message(
            body=body,
            routing_key=request.reply_to,
            correlation_id=request.correlation_id,
            app_id=self._agent.token,
        )
        try:
            async with asyncio.timeout(REPLY_PATIENCE_S):
                # The request may have come in on a connection that was back before the one for publishing.
                while not await self._is_sent(transport, reply):
                    await asyncio.sleep(REPLY_RETRY_S)
                    await transport.connected()
        except TimeoutError:
            logger.warning("%s: an answer to %s was not sent: no connection", self._agent.token, request.app_id)

    async def _is_sent(self, transport: Transport, reply: Message) -> bool:
        try:
            await transport.publish(reply)
        except (NotConnected, PublishFailed) as error:
            logger.debug("%s: an answer was not sent, will try again: %s", self._agent.token, error)
            return False
        return True


async def _encoded(response: HistoryResponse, *, in_columns: bool) -> bytes:
    if len(response.times) + len(response.aggregates) <= ENCODED_AT_ONCE:
        return encode_history_response(response, in_columns=in_columns)
    return await asyncio.to_thread(encode_history_response, response, in_columns=in_columns)
