# SPDX-License-Identifier: MIT
"""Handlers and how they are called; requests, replies, and what is neither."""

import asyncio
import json
import logging
from typing import Annotated, Any, Literal

import pytest
from msgspec import Meta

from bus import rpc
from bus.client import BROADCAST, MANAGEMENT, Client
from bus.errors import PublishFailed, RpcError, RpcTimeout
from bus.rpc import Json, RpcDispatcher, rpc_handler
from bus.transport import Consumption, Delivery, Message, Queue, Transport
from tests.bus.support import transport_at, until


class Calculator(RpcDispatcher):
    @rpc_handler("add", "plus")
    async def add(self, first: int, second_number: int = 1) -> Json:
        return {"sum": first + second_number}

    @rpc_handler("scale")
    async def scale(self, factor: Annotated[float, Meta(gt=0)], mode: Literal["up", "down"] = "up") -> Json:
        return {"factor": factor, "mode": mode}

    @rpc_handler("who")
    async def who(self, from_token: str) -> Json:
        return {"you": from_token}

    @rpc_handler("all")
    async def take_all(self, first_one: int = 0, **others: Any) -> Json:
        return {"first": first_one, "others": others}

    @rpc_handler("nothing")
    async def nothing(self) -> None:
        return None


# -- dispatch --------------------------------------------------------------------------------------------


async def test_a_handler_answers_to_each_of_its_names() -> None:
    calculator = Calculator()
    assert await calculator.rpc_dispatch("add", {"first": 1, "secondNumber": 2}) == {"sum": 3}
    assert await calculator.rpc_dispatch("plus", {"first": 1}) == {"sum": 2}


async def test_an_argument_may_be_spelled_as_in_metricq_or_as_in_python() -> None:
    # A configuration field is snake_case on the wire too: it was replaced by its default without a word.
    calculator = Calculator()
    assert await calculator.rpc_dispatch("add", {"first": 1, "second_number": 5}) == {"sum": 6}
    assert await calculator.rpc_dispatch("all", {"first_one": 7}) == {"first": 7, "others": {}}


async def test_a_handler_without_a_value_gives_an_empty_object() -> None:
    assert await Calculator().rpc_dispatch("nothing", {}) == {}


async def test_the_caller_is_who_the_transport_says_whatever_the_arguments_say() -> None:
    assert await Calculator().rpc_dispatch("who", {}, "me") == {"you": "me"}
    with pytest.raises(RpcError, match="from_token"):
        await Calculator().rpc_dispatch("who", {"from_token": "somebody else"}, "me")


async def test_other_arguments_go_to_a_handler_that_takes_them() -> None:
    answer = await Calculator().rpc_dispatch("all", {"firstOne": 1, "x": [1], "timeout": 2})
    assert answer == {"first": 1, "others": {"x": [1], "timeout": 2}}


async def test_an_argument_named_self_is_one_too_many() -> None:
    with pytest.raises(RpcError, match="'self'"):
        await Calculator().rpc_dispatch("all", {"self": 1})


@pytest.mark.parametrize(
    ("function", "arguments", "words"),
    [
        ("ad", {}, ["no such function", "'ad'", "did you mean 'add'?"]),
        ("subtract", {}, ["'subtract'", "known: add, all, nothing, plus, scale, who"]),
        ("add", {}, ["add", "missing argument", "first"]),
        ("add", {"first": 1, "secondnumber": 2}, ["add", "unknown argument 'secondnumber'", "'secondNumber'"]),
        ("add", {"first": "1"}, ["add", "first", "expected `int`", "got `str`"]),
        ("add", {"first": 1.5}, ["add", "first", "int"]),
        ("add", {"first": None}, ["add", "first", "null"]),
        ("add", {"first": 1, "second_number": "2"}, ["add", "secondNumber"]),
        ("scale", {"factor": 0}, ["scale", "factor", "> 0"]),
        ("scale", {"factor": 1, "mode": "sideways"}, ["scale", "mode", "sideways"]),
        ("nothing", {"x": 1}, ["nothing", "'x'", "takes none"]),
    ],
)
async def test_a_wrong_request_is_refused_in_words_that_name_what_is_wrong(
    function: str, arguments: Json, words: list[str]
) -> None:
    with pytest.raises(RpcError) as refusal:
        await Calculator().rpc_dispatch(function, arguments)
    text = str(refusal.value).lower()
    assert [word for word in words if word.lower() not in text] == []


async def test_names_of_megabytes_are_not_repeated_in_the_error() -> None:
    for function, arguments in (("x" * 1_000_000, {}), ("add", {"y" * 1_000_000: 1})):
        with pytest.raises(RpcError) as refusal:
            await Calculator().rpc_dispatch(function, arguments)
        assert len(str(refusal.value)) < 500


class Base(RpcDispatcher):
    def __init__(self) -> None:
        self.calls: list[str] = []

    @rpc_handler("config")
    async def base_config(self, **_config: Any) -> None:
        self.calls.append("base")

    @rpc_handler("replaced")
    async def replaced(self) -> Json:
        return {"by": "base"}


class Middle(Base):
    @rpc_handler("config")
    async def middle_config(self, rate: int = 1, **_config: Any) -> Json:
        self.calls.append(f"middle {rate}")
        return {"from": "middle"}


class Leaf(Middle):
    @rpc_handler("config")
    async def leaf_config(self, **_config: Any) -> Json | None:
        self.calls.append("leaf")
        return None

    async def replaced(self) -> Json:
        return {"by": "leaf"}


class Greedy(Leaf):
    @rpc_handler("config")
    async def greedy_config(self, **_config: Any) -> Json:
        self.calls.append("greedy")
        return {}


async def test_handlers_of_base_classes_run_first_and_the_one_value_is_the_answer() -> None:
    leaf = Leaf()
    assert await leaf.rpc_dispatch("config", {"rate": 5}) == {"from": "middle"}
    assert leaf.calls == ["base", "middle 5", "leaf"]


async def test_handlers_of_a_subclass_are_not_those_of_its_base() -> None:
    middle = Middle()
    await middle.rpc_dispatch("config", {})
    assert middle.calls == ["base", "middle 1"]


async def test_only_one_handler_may_return_a_value() -> None:
    with pytest.raises(TypeError, match="more than one handler of 'config'"):
        await Greedy().rpc_dispatch("config", {})


async def test_arguments_are_checked_for_all_handlers_before_the_first_runs() -> None:
    leaf = Leaf()
    with pytest.raises(RpcError, match="rate"):
        await leaf.rpc_dispatch("config", {"rate": "fast"})
    assert leaf.calls == []


async def test_a_method_that_overrides_a_handler_takes_its_place() -> None:
    assert await Leaf().rpc_dispatch("replaced", {}) == {"by": "leaf"}


# -- over the bus ----------------------------------------------------------------------------------------


class Server(Client):
    def __init__(self, url: str | Transport, token: str = "server") -> None:
        super().__init__(token, url)
        self.gate = asyncio.Event()
        self.running = 0
        self.most = 0
        self.done = 0

    @rpc_handler("echo")
    async def echo(self, **arguments: Any) -> Json:
        self.done += 1
        return {"arguments": arguments}

    @rpc_handler("wait")
    async def wait(self, number: int) -> Json:
        self.running += 1
        self.most = max(self.most, self.running)
        await self.gate.wait()
        self.running -= 1
        return {"number": number}

    @rpc_handler("fail")
    async def fail(self, how: str) -> Json:
        raise {"bug": KeyError("rate"), "refusal": ValueError("too fast"), "type": TypeError("oh")}[how]

    @rpc_handler("foreign")
    async def foreign(self) -> Json:
        raise ValueError("no file \udcff")

    @rpc_handler("unencodable")
    async def unencodable(self, what: str) -> Any:
        return {"object": {"x": object()}, "list": [1], "text": {"x": "\udcff"}}[what]

    @rpc_handler("large")
    async def large(self, size: int) -> Json:
        return {"x": "x" * size}


async def test_a_request_reaches_the_agent_and_its_answer_the_caller(any_url: str) -> None:
    async with Server(any_url), Client("caller", any_url) as caller:
        answer = await caller.call("server", "echo", number=1, text="ü", nested={"a": [None, 1.5]})
        assert answer == {"arguments": {"number": 1, "text": "ü", "nested": {"a": [None, 1.5]}}}


async def test_errors_come_back_in_words_and_the_server_lives_on(
    memory_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with Server(memory_url), Client("caller", memory_url) as caller:
        for function, arguments, words in [
            ("eco", {}, "did you mean 'echo'?"),
            ("wait", {}, "number"),
            ("fail", {"how": "refusal"}, "^too fast$"),
            ("fail", {"how": "bug"}, "fail failed: KeyError: 'rate'"),
            ("foreign", {}, "no file"),
            ("unencodable", {"what": "object"}, "TypeError"),
            ("unencodable", {"what": "list"}, "list, not a JSON object"),
            ("unencodable", {"what": "text"}, "surrogates"),
        ]:
            with pytest.raises(RpcError, match=words):
                await caller.call("server", function, **arguments)
        assert (await caller.call("server", "echo"))["arguments"] == {}
    bugs = [record for record in caplog.records if record.exc_info]
    assert "KeyError" in caplog.text
    assert len(bugs) == 3, "a bug is logged with its trace, a refusal is not"


async def test_a_request_to_nobody_fails_at_once(any_url: str) -> None:
    async with Client("caller", any_url) as caller:
        with pytest.raises(PublishFailed, match=r"'echo' was not delivered to 'server-rpc'"):
            await caller.call("server", "echo", timeout=60)


async def test_concurrent_requests_get_each_its_own_answer(any_url: str) -> None:
    async with Server(any_url) as server, Client("caller", any_url) as caller:
        calls = [asyncio.create_task(caller.call("server", "wait", number=number)) for number in range(50)]
        await until(lambda: server.running == 50)
        server.gate.set()
        assert [answer["number"] for answer in await asyncio.gather(*calls)] == list(range(50))


async def test_no_more_than_64_requests_are_served_at_once_and_all_are_answered(memory_url: str) -> None:
    async with Server(memory_url) as server, Client("caller", memory_url) as caller:
        calls = [asyncio.create_task(caller.call("server", "wait", number=number)) for number in range(150)]
        await until(lambda: server.running == 64)
        server.gate.set()
        assert len(await asyncio.gather(*calls)) == 150
        assert server.most == 64


async def test_no_answer_in_time_is_a_timeout_that_names_function_and_agent(
    any_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "bus.rpc")
    async with Server(any_url) as server, Client("caller", any_url) as caller:
        with pytest.raises(RpcTimeout, match=r"no answer to 'wait' from 'server-rpc' within 0\.2 s"):
            await caller.call("server", "wait", number=1, timeout=0.2)
        server.gate.set()
        await until(lambda: "late reply from server" in caplog.text)
        assert await caller.call("server", "echo", a=1) == {"arguments": {"a": 1}}


async def test_a_request_that_nobody_read_in_time_is_not_read_later(any_url: str) -> None:
    async with transport_at(any_url) as transport, Client("caller", any_url) as caller:
        await transport.declare_queue(Queue(name="server-rpc", durable=False, exclusive=False))
        with pytest.raises(RpcTimeout):
            await caller.call("server", "echo", timeout=0.1)
        arrived: list[Delivery] = []
        await transport.consume(Consumption(queue="server-rpc", on_delivery=arrived.append))
        await transport.publish(Message(body=b"last", routing_key="server-rpc"))
        await until(lambda: bool(arrived))
        assert [delivery.message.body for delivery in arrived] == [b"last"]


async def test_a_request_without_reply_to_is_ignored_with_a_warning(
    any_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with Server(any_url) as server, transport_at(any_url) as transport:
        request = Message(body=b'{"function": "echo"}', routing_key="server-rpc", app_id="rude", mandatory=True)
        await transport.publish(request)
        await until(lambda: "no reply_to" in caplog.text)
        assert "'echo' from 'rude'" in caplog.text
        assert server.done == 0


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\x00\xff\xfe",
        b"{",
        b"null",
        b'"text"',
        b"[1, 2]",
        b'{"function": 5}',
        b'{"function": ["echo"]}',
        b"[" * 200_000,
        b'{"function": "echo", "x": "\xff"}',
        b'{"function": "echo"} trailing',
    ],
    ids=repr,
)
async def test_garbage_is_dropped_with_a_warning_and_the_next_request_is_answered(
    memory_url: str, caplog: pytest.LogCaptureFixture, body: bytes
) -> None:
    async with (
        Server(memory_url) as server,
        Client("caller", memory_url) as caller,
        transport_at(memory_url) as transport,
    ):
        await transport.publish(Message(body=body, routing_key="server-rpc", reply_to="caller-rpc", app_id="rude"))
        assert await caller.call("server", "echo") == {"arguments": {}}
        await until(lambda: "from 'rude' that cannot be read" in caplog.text)
        assert server.done == 1


async def test_garbage_is_not_delivered_again(any_url: str, caplog: pytest.LogCaptureFixture) -> None:
    async with Server(any_url), Client("caller", any_url) as caller, transport_at(any_url) as transport:
        for _ in range(250):  # more than may be outstanding
            await transport.publish(Message(body=b"garbage", routing_key="server-rpc"))
        assert await caller.call("server", "echo") == {"arguments": {}}
        assert caplog.text.count("cannot be read") == 250


async def test_a_body_of_megabytes_comes_and_goes(any_url: str) -> None:
    async with Server(any_url), Client("caller", any_url) as caller:
        text = "x" * 12_000_000
        assert (await caller.call("server", "echo", text=text))["arguments"] == {"text": text}


async def test_a_body_above_the_limit_is_refused_by_name_of_the_limit(
    memory_url: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(rpc, "MAX_BODY_BYTES", 1000)
    async with Server(memory_url), Client("caller", memory_url) as caller:
        with pytest.raises(RpcError, match=r"1\d\d\d bytes, at most 1000 are allowed: ask for less"):
            await caller.call("server", "large", size=1500)
        with pytest.raises(RpcTimeout):
            await caller.call("server", "echo", text="x" * 1500, timeout=0.2)
        assert "bytes are too many" in caplog.text


async def test_requests_and_replies_look_as_metricq_says(any_url: str) -> None:
    async with transport_at(any_url) as transport, Client("caller", any_url) as caller:
        seen: list[Message] = []
        await transport.declare_queue(Queue(name="fake-rpc", durable=False, exclusive=True))
        consumer = await transport.consume(
            Consumption(queue="fake-rpc", on_delivery=lambda delivery: seen.append(delivery.message))
        )
        call = asyncio.create_task(caller.call("fake", "some.function", dataQueue="q"))
        await until(lambda: bool(seen))
        request = seen[0]
        assert json.loads(request.body) == {"function": "some.function", "dataQueue": "q"}
        assert (request.app_id, request.reply_to, request.content_type) == ("caller", "caller-rpc", "application/json")
        assert request.correlation_id
        await transport.publish(
            Message(
                body=b'{"answer": 1}',
                routing_key=request.reply_to,
                correlation_id=request.correlation_id,
                app_id="fake",
            )
        )
        assert await call == {"answer": 1}
        await consumer.cancel()


async def test_a_reply_goes_to_reply_to_with_the_correlation_id_of_the_request(any_url: str) -> None:
    async with Server(any_url), transport_at(any_url) as transport:
        seen: list[Message] = []
        await transport.declare_queue(Queue(name="mine", durable=False, exclusive=True))
        await transport.consume(Consumption(queue="mine", on_delivery=lambda delivery: seen.append(delivery.message)))
        await transport.publish(
            Message(
                body=b'{"function": "nonsense"}',
                routing_key="server-rpc",
                reply_to="mine",
                correlation_id="request-7",
                app_id="stock",
            )
        )
        await until(lambda: bool(seen))
        assert (seen[0].correlation_id, seen[0].app_id) == ("request-7", "server")
        assert list(json.loads(seen[0].body)) == ["error"]


async def test_a_reply_to_a_queue_that_is_gone_harms_nobody(any_url: str) -> None:
    async with Server(any_url) as server, transport_at(any_url) as transport, Client("caller", any_url) as caller:
        await transport.publish(
            Message(body=b'{"function": "echo"}', routing_key="server-rpc", reply_to="gone", correlation_id="1")
        )
        await until(lambda: server.done == 1)
        assert await caller.call("server", "echo") == {"arguments": {}}


async def test_the_exchanges_have_metricqs_names_and_kinds(any_url: str) -> None:
    assert (MANAGEMENT.name, MANAGEMENT.kind, MANAGEMENT.durable) == ("metricq.management", "topic", True)
    assert (BROADCAST.name, BROADCAST.kind, BROADCAST.durable) == ("metricq.broadcast", "fanout", True)
    async with Client("caller", any_url), transport_at(any_url) as transport:
        # Declaring what is there with the same arguments is no error; with others it would be.
        await transport.declare_exchange(MANAGEMENT)
        await transport.declare_exchange(BROADCAST)
