# SPDX-License-Identifier: MIT
"""The exchanges for data and the queues of sinks: declared by the manager, never by the sinks themselves."""

import asyncio
import re
import uuid
from collections.abc import Awaitable, Callable, Collection, Iterable
from itertools import product
from typing import Literal

from bus.errors import Refused, RpcError
from bus.names import binding_keys, check_pattern
from bus.transport.base import Exchange, Message, Queue, Transport

FRAMES = Exchange(name="hostbus.data", kind="topic")
CHUNKS = Exchange(name="metricq.data", kind="topic")
HISTORY = Exchange(name="metricq.history", kind="topic")
DEAD = Exchange(name="hostbus.dead", kind="fanout")

DAY_S = 86400.0
DEAD_QUEUE = Queue(name="hostbus.dead", max_bytes=64 * 1024 * 1024, message_ttl_s=7 * DAY_S)
"""What sinks rejected: the newest 64 MiB of a week."""

DURABLE_BYTES = 1024 * 1024 * 1024
LIVE_BYTES = 128 * 1024 * 1024
LIVE_EXPIRES_S = 300.0
HISTORY_TTL_S = 60.0
"""MetricQ's clients wait so long for an answer: what is older is a question, or an answer, for nobody."""

DATA_SUFFIX = "-data"
_DURABLE = re.compile(r"[A-Za-z0-9_.-]{1,200}" + DATA_SUFFIX)
_LIVE = re.compile(r"[A-Za-z0-9_.-]{1,200}-live-[0-9a-f]{32}")

MAX_REMEMBERED = 10_000
AT_ONCE = 32


def durable_name(token: str) -> str:
    """The queue of a sink that is registered."""
    return token + DATA_SUFFIX


def live_name(token: str) -> str:
    """A new queue for a sink that comes and goes."""
    return f"{token}-live-{uuid.uuid4().hex}"


def history_name(token: str, kind: Literal["hreq", "hrsp"]) -> str:
    """The queue on which an archive gets history requests (``hreq``), or a client the responses (``hrsp``)."""
    return f"{token}-{kind}"


class DataQueues:
    """Declares, binds and deletes the queues of sinks."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        # What each queue is subscribed to, as far as this run of the manager knows: only needed to see which
        # bindings of a queue are still wanted when some of its metrics are unsubscribed.
        self._patterns: dict[str, set[str]] = {}

    async def declare_exchanges(self) -> None:
        """Everything that must be there before the first message."""
        for exchange in (FRAMES, CHUNKS, HISTORY, DEAD):
            await self._transport.declare_exchange(exchange)
        await self._declare_queue(DEAD_QUEUE)
        await self._transport.bind(DEAD_QUEUE.name, DEAD.name, "#")

    async def subscribe(
        self, name: str, patterns: Collection[str], expires_s: float | None = None, *, frames: bool
    ) -> None:
        """Make sure that the queue exists and gets all chunks, and all `frames`, with metrics of `patterns`.

        A stock MetricQ sink cannot read frames: it would requeue each of them for ever. Raises RpcError for a
        queue that is no sink's, or what is not a pattern.
        """
        keys = _keys(patterns)
        await self._declare(name, expires_s)
        frame_keys = product([FRAMES.name], keys if frames else ())
        await self._for_each(self._transport.bind, name, [*frame_keys, *product([CHUNKS.name], patterns)])
        if len(self._patterns) >= MAX_REMEMBERED:
            self._patterns.pop(next(iter(self._patterns)))
        self._patterns.setdefault(name, set()).update(patterns)

    async def _declare(self, name: str, expires_s: float | None) -> None:
        if _DURABLE.fullmatch(name):
            queue = Queue(name=name, expires_s=expires_s, max_bytes=DURABLE_BYTES, dead_letter=DEAD.name)
        else:
            _check_live(name)
            queue = Queue(name=name, expires_s=expires_s or LIVE_EXPIRES_S, max_bytes=LIVE_BYTES)
        await self._declare_queue(queue)

    async def _declare_queue(self, queue: Queue) -> None:
        try:
            await self._transport.declare_queue(queue)
        except Refused as error:
            # It exists, with arguments that an operator or an earlier version chose: good enough.
            if error.code != 406:
                raise

    async def unsubscribe(self, name: str, patterns: Collection[str]) -> None:
        """The queue gets no more of `patterns`, but still what its other patterns select."""
        _check_known(name)
        gone = _keys(patterns)
        remaining = self._patterns.get(name, set())
        remaining.difference_update(patterns)
        frame_keys = product([FRAMES.name], gone - _keys(remaining))
        await self._for_each(self._transport.unbind, name, [*frame_keys, *product([CHUNKS.name], patterns)])

    async def _for_each(
        self,
        change: Callable[[str, str, str], Awaitable[None]],
        name: str,
        bindings: Collection[tuple[str, str]],
    ) -> None:
        """Bind or unbind a queue, several (exchange, key) at a time: each takes some round trips to the broker."""
        remaining = iter(bindings)

        async def work_off() -> None:
            for exchange, key in remaining:
                await change(name, exchange, key)

        try:
            async with asyncio.TaskGroup() as group:
                for number in range(min(AT_ONCE, len(bindings))):
                    group.create_task(work_off(), name=f"bindings of {name}, {number}")
        except ExceptionGroup as group_of_errors:
            raise group_of_errors.exceptions[0] from None

    async def send_end(self, name: str, app_id: str) -> None:
        """Put a message of type ``end`` into the queue: nothing comes after it."""
        await self._transport.publish(Message(body=b"", routing_key=name, type="end", app_id=app_id))

    async def release(self, name: str) -> None:
        """Delete the queue."""
        _check_known(name)
        self._patterns.pop(name, None)
        await self._transport.delete_queue(name)

    async def declare_history(self, token: str, kind: Literal["hreq", "hrsp"]) -> str:
        """The queue on which a client (``hrsp``) gets history replies or an archive (``hreq``) requests."""
        queue = Queue(
            name=history_name(token, kind),
            expires_s=LIVE_EXPIRES_S,
            max_bytes=LIVE_BYTES,
            message_ttl_s=HISTORY_TTL_S,
        )
        await self._declare_queue(queue)
        return queue.name

    async def bind_history(self, name: str, metrics: Collection[str]) -> None:
        """Route history requests for these metrics to an archive's queue."""
        await self._for_each(self._transport.bind, name, list(product([HISTORY.name], metrics)))

    async def unbind_history(self, name: str, metrics: Collection[str]) -> None:
        """No more history requests for these metrics."""
        await self._for_each(self._transport.unbind, name, list(product([HISTORY.name], metrics)))

    async def release_history(self, token: str) -> None:
        """Delete the queue on which an archive gets requests: what is asked then is refused at once."""
        await self._transport.delete_queue(history_name(token, "hreq"))


def _keys(patterns: Iterable[str]) -> set[str]:
    try:
        return {key for pattern in patterns for key in binding_keys(check_pattern(pattern))}
    except ValueError as error:
        raise RpcError(str(error)) from None


def _check_live(name: str) -> None:
    if not _LIVE.fullmatch(name):
        raise RpcError(
            f"dataQueue {name[:300]!r} is not the queue of a sink: "
            "leave it out, or name the one that sink.subscribe gave"
        )


def _check_known(name: str) -> None:
    if not _DURABLE.fullmatch(name):
        _check_live(name)
