# SPDX-License-Identifier: MIT
"""Remote procedure calls between agents: MetricQ's management protocol.

A request is a JSON object with `function` and its arguments; the reply is a JSON object, ``{"error": "..."}``
if it went wrong. They travel over the `Transport`: a reply goes to the queue named in `reply_to`, with the
request's `correlation_id`; `app_id` is the sender's token.
(https://github.com/metricq/metricq-rpc-docs, "MetricQ Management Protocol")
"""

import asyncio
import inspect
import logging
import typing
import uuid
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, ClassVar, Protocol, TypeVar

import msgspec

from bus.config import error_in_words, nearest
from bus.errors import HostbusError, PublishFailed, RpcError, RpcTimeout
from bus.transport.base import DEFAULT_EXCHANGE, Consumer, Delivery, Message, Transport

logger = logging.getLogger(__name__)

Json = dict[str, Any]
"""A JSON object."""

Handler = Callable[..., Awaitable[Json | None]]
F = TypeVar("F", bound=Callable[..., Any])

MAX_BODY_BYTES = 64 * 1024 * 1024
"""A request or reply above this is refused; 100,000 metrics with metadata take about 20 MB."""

DEFAULT_TIMEOUT_S = 60.0
REPLY_PATIENCE_S = 10.0

MAX_QUOTED = 100
"""Characters of a name in a request that an error repeats and compares; a name may be megabytes long."""


def rpc_handler(*functions: str) -> Callable[[F], F]:
    """Mark an async method as the handler of one or several RPC functions.

    JSON arguments arrive as keyword arguments, checked against the method's annotations. An argument
    `data_queue` may be `dataQueue` on the wire, MetricQ's way, or `data_queue`. `from_token`, where the
    method has it, is the caller's token. A ``**name`` parameter takes all other arguments, unchecked.
    """

    def mark(handler: F) -> F:
        handler.__rpc_functions__ = functions  # type: ignore[attr-defined]
        return handler

    return mark


class RpcDispatcher:
    """An object whose methods marked with `rpc_handler` answer requests.

    A function may have several handlers along the class hierarchy: they run base class first, and at most
    one of them may return a value. A method that overrides a handler takes its place.
    """

    _handlers: ClassVar[dict[str, tuple[str, ...]]] = {}

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        found: dict[str, dict[str, None]] = {}
        for ancestor in reversed(cls.__mro__):
            for attribute, value in vars(ancestor).items():
                for function in getattr(value, "__rpc_functions__", ()):
                    found.setdefault(function, {})[attribute] = None
        cls._handlers = {function: tuple(attributes) for function, attributes in found.items()}

    async def rpc_dispatch(self, function: str, arguments: Mapping[str, Any], from_token: str = "") -> Json:
        """Call the handlers of `function`. Raises RpcError for an unknown function or bad arguments."""
        attributes = self._handlers.get(function)
        if attributes is None:
            raise RpcError(
                f"no such function: {function[:MAX_QUOTED]!r}; {nearest(function[:MAX_QUOTED], self._handlers)}"
            )
        handlers: list[Handler] = [getattr(self, attribute) for attribute in attributes]
        calls = [(handler, _checked(handler, function, arguments, from_token)) for handler in handlers]
        reply: Json | None = None
        for handler, keywords in calls:
            value = await handler(**keywords)
            if value is not None:
                if reply is not None:
                    raise TypeError(f"more than one handler of {function!r} returned a value")
                reply = value
        return reply or {}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Parameters:
    """What a handler takes: the struct that checks it, and whether it takes others and the caller's token."""

    struct: type[msgspec.Struct]
    names: Mapping[str, str]
    """Each name that an argument may have in a request, and the one that the struct knows it by."""
    takes_others: bool
    wants_token: bool


@cache
def _parameters(function: Callable[..., Any]) -> _Parameters:
    signature = inspect.signature(function)
    try:
        hints = typing.get_type_hints(function, include_extras=True)
    except NameError:
        hints = {}  # names imported for type checkers only: nothing to check against at run time
    fields: list[Any] = []
    takes_others = False
    for name, parameter in list(signature.parameters.items())[1:]:
        if parameter.kind is parameter.VAR_KEYWORD:
            takes_others = True
        elif name != "from_token":
            hint = hints.get(name, Any)
            required = parameter.default is parameter.empty
            fields.append((name, hint) if required else (name, hint, parameter.default))
    struct = msgspec.defstruct(f"{function.__qualname__}_arguments", fields, kw_only=True, rename="camel")
    names = dict(zip(struct.__struct_fields__, struct.__struct_encode_fields__, strict=True))
    return _Parameters(
        struct=struct,
        names={**names, **{name: name for name in names.values()}},
        takes_others=takes_others,
        wants_token="from_token" in signature.parameters,
    )


def _checked(handler: Handler, function: str, arguments: Mapping[str, Any], from_token: str) -> Json:
    """Keyword arguments for the handler. Raises RpcError that names the argument that is wrong."""
    wanted = _parameters(getattr(handler, "__func__", handler))
    known: Json = {}
    others: Json = {}
    for name, value in arguments.items():
        if name in wanted.names:
            known[wanted.names[name]] = value
        elif wanted.takes_others and name != "self":
            others[name] = value
        else:
            name = name[:MAX_QUOTED]
            hint = nearest(name, wanted.names.values()) if wanted.names else "it takes none"
            raise RpcError(f"{function}: unknown argument {name!r}; {hint}")
    try:
        checked = msgspec.convert(known, wanted.struct)
    except msgspec.ValidationError as error:
        raise RpcError(
            f"{function}: {error_in_words(error).replace('object missing required field', 'missing argument')}"
        ) from None
    keywords = {**others, **{field: getattr(checked, field) for field in wanted.struct.__struct_fields__}}
    return {**keywords, "from_token": from_token} if wanted.wants_token else keywords


def _error_body(text: str) -> bytes:
    # A text may hold what UTF-8 cannot, such as a file name with foreign bytes.
    return msgspec.json.encode({"error": text.encode("utf-8", "backslashreplace").decode()})


class Spawn(Protocol):
    """Starts a named task that somebody owns and awaits."""

    def __call__(self, work: typing.Coroutine[Any, Any, None], *, name: str) -> object:
        """Start `work` as a task with this name."""


class RpcLink:
    """The requests and replies of one agent: sends requests, matches replies, serves what is asked of it."""

    MAX_CONCURRENT = 64

    def __init__(self, transport: Transport, token: str, dispatcher: RpcDispatcher, spawn: Spawn) -> None:
        self._transport = transport
        self._token = token
        self._dispatcher = dispatcher
        self._spawn = spawn
        self._slots = asyncio.Semaphore(self.MAX_CONCURRENT)
        self._waiting: dict[str, Callable[[str, Json], None]] = {}

    @property
    def queue(self) -> str:
        """The name of the queue on which this agent gets requests and replies."""
        return f"{self._token}-rpc"

    def receiver(self, consumer: asyncio.Future[Consumer]) -> Callable[[Delivery], None]:
        """What to do with each delivery of a queue that carries RPCs; `consumer` settles them, once it is there."""

        def on_delivery(delivery: Delivery) -> None:
            self._spawn(self._receive(delivery, consumer), name="rpc")

        return on_delivery

    async def _receive(self, delivery: Delivery, consumer: asyncio.Future[Consumer]) -> None:
        body = self._parse(delivery.message)
        if body is None:
            (await consumer).reject(delivery)
            return
        if "function" in body:
            await self._serve(delivery.message, body)
        elif (waiting := self._waiting.get(delivery.message.correlation_id)) is not None:
            waiting(delivery.message.app_id, body)
        else:
            logger.debug("late reply from %s", delivery.message.app_id)
        # Acknowledged when it is done: a manager that is killed over a request gets it again.
        (await consumer).ack(delivery)

    @staticmethod
    def _parse(message: Message) -> Json | None:
        try:
            if len(message.body) > MAX_BODY_BYTES:
                raise ValueError(f"{len(message.body)} bytes are too many")  # one place that logs
            body = msgspec.json.decode(message.body)
            if not isinstance(body, dict) or not isinstance(body.get("function", ""), str):
                raise ValueError("not a JSON object")  # noqa: TRY004  # the sender's mistake, not ours
        except (ValueError, RecursionError) as error:
            logger.warning("dropped an RPC message from %r that cannot be read: %s", message.app_id, error)
            return None
        return body

    async def _serve(self, request: Message, body: Json) -> None:
        function = body.pop("function")
        if not request.reply_to:
            logger.warning("ignored the request %r from %r: it has no reply_to", function, request.app_id)
            return
        async with self._slots:
            reply = await self._answer(function, body, request.app_id)
        await self._reply(request, function, reply)

    async def _answer(self, function: str, arguments: Json, from_token: str) -> bytes:
        try:
            return self._encode_reply(await self._dispatcher.rpc_dispatch(function, arguments, from_token))
        except (HostbusError, ValueError) as error:
            # What the caller did wrong, or cannot have: he is told, and that is all.
            logger.info("refused %s from %s: %s", function[:MAX_QUOTED], from_token, error)
            return _error_body(str(error))
        except Exception as error:
            # A handler that breaks must not take the agent with it; the trace is for whoever mends it.
            logger.exception("the handler of %s from %s failed", function, from_token)
            return _error_body(f"{function} failed: {type(error).__name__}: {error}")

    @staticmethod
    def _encode_reply(reply: Json) -> bytes:
        if not isinstance(reply, dict):
            raise TypeError(f"a handler returned {type(reply).__name__}, not a JSON object")
        body = msgspec.json.encode(reply)
        if len(body) > MAX_BODY_BYTES:
            raise RpcError(f"the reply has {len(body)} bytes, at most {MAX_BODY_BYTES} are allowed: ask for less")
        return body

    async def _reply(self, request: Message, function: str, body: bytes) -> None:
        try:
            # The request may have come in on a connection that was back before the one for publishing.
            async with asyncio.timeout(REPLY_PATIENCE_S):
                await self._transport.connected()
            await self._transport.publish(
                Message(
                    body=body,
                    routing_key=request.reply_to,
                    correlation_id=request.correlation_id,
                    content_type="application/json",
                    app_id=self._token,
                )
            )
        except (HostbusError, TimeoutError) as error:
            why = str(error) or f"no connection within {REPLY_PATIENCE_S:g} s"
            logger.warning("the reply to %s from %s was not delivered: %s", function, request.app_id, why)

    async def request(
        self,
        function: str,
        arguments: Json,
        *,
        exchange: str = DEFAULT_EXCHANGE,
        routing_key: str,
        timeout_s: float = DEFAULT_TIMEOUT_S,
    ) -> Json:
        """Ask, and wait for the first reply.

        Raises RpcError with the text of an error reply, RpcTimeout if none came in time, NotConnected, and
        PublishFailed if nobody takes the request.
        """
        answered: asyncio.Future[Json] = asyncio.get_running_loop().create_future()

        def on_reply(_token: str, body: Json) -> None:
            if not answered.done():
                answered.set_result(body)

        correlation_id = self._expect(on_reply)
        try:
            async with asyncio.timeout(timeout_s):
                await self._publish(function, arguments, exchange, routing_key, correlation_id, timeout_s)
                body = await answered
        except TimeoutError:
            raise RpcTimeout(f"no answer to {function!r} from {routing_key!r} within {timeout_s:g} s") from None
        finally:
            del self._waiting[correlation_id]
        if "error" in body:
            raise RpcError(str(body["error"]))
        return body

    async def gather(
        self,
        function: str,
        arguments: Json,
        *,
        exchange: str,
        window_s: float,
        until: Callable[[Mapping[str, Json]], bool] | None = None,
    ) -> dict[str, Json]:
        """Ask everybody; all replies that come within `window_s`, by token, or fewer once `until` is true."""
        replies: dict[str, Json] = {}
        enough = asyncio.Event()

        def on_reply(token: str, body: Json) -> None:
            replies[token] = body
            if until is not None and until(replies):
                enough.set()

        correlation_id = self._expect(on_reply)
        try:
            async with asyncio.timeout(window_s):
                await self._publish(function, arguments, exchange, function, correlation_id, window_s)
                await enough.wait()
        except TimeoutError:
            pass  # the window is over: what has come has come
        finally:
            del self._waiting[correlation_id]
        return replies

    def _expect(self, on_reply: Callable[[str, Json], None]) -> str:
        correlation_id = f"{self._token}-{uuid.uuid4().hex}"
        self._waiting[correlation_id] = on_reply
        return correlation_id

    async def _publish(
        self, function: str, arguments: Json, exchange: str, routing_key: str, correlation_id: str, timeout_s: float
    ) -> None:
        try:
            await self._transport.publish(
                Message(
                    body=msgspec.json.encode({**arguments, "function": function}),
                    exchange=exchange,
                    routing_key=routing_key,
                    correlation_id=correlation_id,
                    reply_to=self.queue,
                    content_type="application/json",
                    app_id=self._token,
                    mandatory=True,
                    # A request that nobody answered in time must not wait in a queue for a server to come.
                    expiration_s=timeout_s,
                )
            )
        except PublishFailed as error:
            raise PublishFailed(f"{function!r} was not delivered to {routing_key!r}: {error}") from error
