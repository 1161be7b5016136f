# SPDX-License-Identifier: MIT
"""`HistoryLink`: asks the archives on the bus, and matches what they answer.

A request goes to every archive that keeps the metric. The first good answer is taken; an error waits a moment
for a better one. Reading changes nothing, so that a request may be sent again when the connection was lost.
"""

import asyncio
import logging
import uuid

from bus.errors import BadFrame, NotConnected, PublishFailed, RpcError, RpcTimeout, Unroutable
from bus.history_wire import HistoryRequest, HistoryResponse, decode_history_response, encode_history_request
from bus.transport.base import Consumer, Delivery, Message, Transport

logger = logging.getLogger(__name__)

ERROR_PATIENCE_S = 0.5
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
        self._consumer: asyncio.Future[Consumer] = asyncio.get_running_loop().create_future()

    def consumes_with(self, consumer: Consumer) -> None:
        """What acknowledges the answers."""
        self._consumer.set_result(consumer)

    def on_delivery(self, delivery: Delivery) -> None:
        """An answer has come."""
        message = delivery.message
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

    async def ask(self, metric: str, request: HistoryRequest, timeout_s: float) -> HistoryResponse:
        """The answer to a request.

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
        try:
            async with asyncio.timeout(timeout_s):
                while True:
                    patience_s = None if await self._is_sent(message) else RETRY_S
                    response = await self._first_good(arrivals, patience_s)
                    if response is not None:
                        return response
        except TimeoutError:
            why = self._transport.last_error
            raise RpcTimeout(
                f"no answer about {metric!r} within {timeout_s:g} s: "
                + (f"no connection ({why})" if why else "is the archive that keeps it running?")
            ) from None
        finally:
            del self._waiting[correlation_id]

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

    async def _first_good(
        self, arrivals: asyncio.Queue[Message | None], patience_s: float | None
    ) -> HistoryResponse | None:
        """The first answer that is no error, or None if the request must be sent again. Raises RpcError."""
        refusal = ""
        while True:
            try:
                async with asyncio.timeout(patience_s):
                    message = await arrivals.get()
            except TimeoutError:
                if refusal:
                    raise RpcError(refusal) from None
                return None
            if message is None:
                return None
            response = await _decoded(message.body)
            if not response.error:
                return response
            refusal = refusal or (f"{message.app_id}: " if message.app_id else "") + response.error
            patience_s = ERROR_PATIENCE_S


async def _decoded(body: bytes) -> HistoryResponse:
    try:
        if len(body) <= DECODED_AT_ONCE_BYTES:
            return decode_history_response(body)
        return await asyncio.to_thread(decode_history_response, body)
    except BadFrame as error:
        return HistoryResponse(error=f"an answer that cannot be read: {error}")
