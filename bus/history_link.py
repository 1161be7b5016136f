# SPDX-License-Identifier: MIT
"""`HistoryLink`: asks the archives on the bus, and matches what they answer.

A request goes to every archive that keeps the metric. All those that are known to keep it are waited for, a moment
longer than the first of them; an error waits for a better answer. Reading changes nothing, so that a request may be
sent again when the connection was lost.
"""

import asyncio
import logging
import uuid
from collections.abc import Iterable

from bus.errors import BadFrame, NotConnected, PublishFailed, RpcError, RpcTimeout, Unroutable
from bus.history_wire import HistoryRequest, HistoryResponse, decode_history_response, encode_history_request
from bus.transport.base import Consumer, Delivery, Message, Transport

logger = logging.getLogger(__name__)

ERROR_PATIENCE_S = 0.5
OTHERS_PATIENCE_S = 2.0
"""When one archive has answered, the others have so long to do so, too."""
SILENCE_S = 60.0
"""One that did not is not waited for again for so long, unless something comes from it."""
RETRY_S = 1.0
DECODED_AT_ONCE_BYTES = 256 * 1024
"""Longer answers are read in a thread: 16 MiB take a second."""


class HistoryLink:
    """The questions of one client, and their answers.

    Args:
        transport: where requests go
        token: of the client
        exchange: where archives get requests, by metric
        queue: where the answers come
    """

    def __init__(self, transport: Transport, token: str, *, exchange: str, queue: str) -> None:
        self._transport = transport
        self._token = token
        self._exchange = exchange
        self._queue = queue
        self._waiting: dict[str, asyncio.Queue[Message | None]] = {}
        self._silent_until: dict[str, float] = {}  # by the archive's token
        self._clock = asyncio.get_running_loop().time
        self._consumer: asyncio.Future[Consumer] = asyncio.get_running_loop().create_future()

    def consumes_with(self, consumer: Consumer) -> None:
        """What acknowledges the answers."""
        self._consumer.set_result(consumer)

    def on_delivery(self, delivery: Delivery) -> None:
        """An answer has come."""
        message = delivery.message
        self._silent_until.pop(message.app_id, None)
        if (arrivals := self._waiting.get(message.correlation_id)) is not None:
            arrivals.put_nowait(message)
        else:
            logger.debug("an answer of %s that nobody waits for", message.app_id or "an archive")
        if self._consumer.done():
            self._consumer.result().ack(delivery)

    def ask_again(self) -> None:
        """The connection was lost and is back: whatever is not answered yet is asked once more."""
        for arrivals in self._waiting.values():
            arrivals.put_nowait(None)

    async def ask(
        self, metric: str, request: HistoryRequest, timeout_s: float, archives: Iterable[str] = ()
    ) -> list[HistoryResponse]:
        """The good answers to a request, at least one; `archives` are the tokens of those that should answer.

        Raises Unroutable if no archive takes it, RpcError with the words of an archive that cannot answer,
        RpcTimeout if none does in time.
        """
        correlation_id = f"{self._token}-{uuid.uuid4().hex}"
        arrivals = self._waiting[correlation_id] = asyncio.Queue()
        message = Message(
            body=encode_history_request(request),
            exchange=self._exchange,
            routing_key=metric,
            correlation_id=correlation_id,
            reply_to=self._queue,
            app_id=self._token,
            mandatory=True,
            expiration_s=timeout_s,
        )
        good: list[HistoryResponse] = []
        try:
            async with asyncio.timeout(timeout_s):
                while not good:
                    patience_s = None if await self._is_sent(message) else RETRY_S
                    await self._gather(arrivals, patience_s, self._expected(archives), good)
        except TimeoutError:
            if not good:
                why = self._transport.last_error
                raise RpcTimeout(
                    f"no answer about {metric!r} within {timeout_s:g} s: "
                    + (f"no connection ({why})" if why else "is the archive that keeps it running?")
                ) from None
        finally:
            del self._waiting[correlation_id]
        return good

    async def _is_sent(self, message: Message) -> bool:
        """False if it has to be tried again. Raises Unroutable."""
        try:
            await self._transport.publish(message)
        except Unroutable:
            raise
        except (NotConnected, PublishFailed) as error:
            logger.debug("a history request was not sent, will try again: %s", error)
            return False
        return True

    def _expected(self, archives: Iterable[str]) -> set[str]:
        now = self._clock()
        return {token for token in archives if self._silent_until.get(token, now) <= now}

    async def _gather(
        self,
        arrivals: asyncio.Queue[Message | None],
        patience_s: float | None,
        expected: set[str],
        good: list[HistoryResponse],
    ) -> None:
        """Put the answers that are no errors into `good`; none: the request must be sent again. Raises RpcError."""
        refusal = ""
        while not good or expected:
            try:
                async with asyncio.timeout(patience_s):
                    message = await arrivals.get()
            except TimeoutError:
                if refusal and not good:
                    raise RpcError(refusal) from None
                if good:
                    self._silent_until.update(dict.fromkeys(expected, self._clock() + SILENCE_S))
                return
            if message is None:
                good.clear()
                return
            response = await _decoded(message.body)
            expected.discard(message.app_id)
            if response.error:
                refusal = refusal or (f"{message.app_id}: " if message.app_id else "") + response.error
            else:
                good.append(response)
            patience_s = OTHERS_PATIENCE_S if good else ERROR_PATIENCE_S


async def _decoded(body: bytes) -> HistoryResponse:
    try:
        if len(body) <= DECODED_AT_ONCE_BYTES:
            return decode_history_response(body)
        return await asyncio.to_thread(decode_history_response, body)
    except BadFrame as error:
        return HistoryResponse(error=f"an answer that cannot be read: {error}")
