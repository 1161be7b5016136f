# SPDX-License-Identifier: MIT
"""What clients ask of the manager and of each other, and what they do while nobody answers."""

import asyncio
import json
import logging
from typing import Annotated, Any

import pytest
from msgspec import Meta

from bus import client as client_module
from bus.client import Client, data_url, hostbus_version
from bus.config import AgentConfig
from bus.errors import ConfigError, NotConnected, RpcError, RpcTimeout
from bus.manager import Manager
from bus.rpc import Json, rpc_handler
from bus.sink import DurableSink
from bus.transport import Consumption, Delivery, Message, Queue
from tests.bus.support import HandSource, break_connection, transport_at, until


@pytest.fixture(autouse=True)
def in_a_hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module, "LOWEST_BACKOFF_S", 0.05)


class TunableConfig(AgentConfig, frozen=True, kw_only=True):
    rate: Annotated[float, Meta(gt=0)] = 1.0
    chunk_size: int = 10
    password: str = ""


class Tunable(DurableSink):
    """A configurable agent that registers."""

    Config = TunableConfig

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.seen: list[AgentConfig] = []

    async def reconfigure(self, config: AgentConfig) -> None:
        assert isinstance(config, TunableConfig)
        if config.rate > 1000:
            raise ConfigError("rate: this machine cannot do more than 1000")
        await super().reconfigure(config)
        self.seen.append(config)


# -- discover ----------------------------------------------------------------------------------------------


async def test_discover_finds_everybody_and_says_how_they_are(any_url: str) -> None:
    async with Manager("manager", any_url), HandSource("source-a", any_url), Client("tool", any_url) as tool:
        wanted = {"manager", "source-a", "tool"}
        replies = await tool.discover(30, lambda replies: wanted <= replies.keys())
        assert replies.keys() == wanted
        about = replies["source-a"]
        assert about["alive"] is True
        assert about["type"] == "HandSource"
        assert about["metricqVersion"] == f"hostbus/{hostbus_version()}"
        assert about["uptime"] > 0
        assert about["currentTime"] > about["startingTime"]
        assert (about["pointsConfirmed"], about["pointsBuffered"], about["pointsDropped"]) == (0, 0, 0)
        assert {"pythonVersion", "hostname"} <= about.keys()


async def test_discover_ends_with_its_window(memory_url: str) -> None:
    async with Client("tool", memory_url) as tool:
        assert (await tool.discover(0.05)).keys() == {"tool"}


# -- the manager that is not there -----------------------------------------------------------------------


async def test_without_a_manager_a_request_fails_at_once_and_says_what_to_do(any_url: str) -> None:
    async with Client("tool", any_url) as tool:
        with pytest.raises(NotConnected, match="no manager takes requests: start one with 'agent start manager'"):
            await tool.get_metrics()


async def test_a_manager_that_went_leaves_requests_to_time_out(any_url: str) -> None:
    async with Client("tool", any_url) as tool:
        async with Manager("manager", any_url):
            assert await tool.get_metrics() == {}
        with pytest.raises(RpcTimeout, match="'get_metrics'"):
            await tool.get_metrics(timeout=0.2)


async def test_without_a_broker_a_request_fails_at_once(memory_url: str) -> None:
    async with Client("tool", memory_url) as tool:
        tool.transport.broker.stop()  # type: ignore[attr-defined]
        with pytest.raises(NotConnected):
            await tool.rpc("get_metrics")
        tool.transport.broker.start()  # type: ignore[attr-defined]
        await tool.transport.connected()


async def test_an_agent_that_registers_waits_for_the_manager_and_says_so_once(
    any_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "bus")
    sink = Tunable("sink-a", any_url)
    connecting = asyncio.create_task(sink.connect())
    await until(lambda: "sink-a is waiting for the manager to register" in caplog.text)
    await asyncio.sleep(0.3)  # several more attempts
    assert not connecting.done()
    async with Manager("manager", any_url):
        await connecting
        assert caplog.text.count("is waiting for the manager") == 1
        assert "sink-a: the manager answered after" in caplog.text
        await sink.stop()


async def test_an_agent_whose_broker_comes_late_starts_then(memory_url: str) -> None:
    async with transport_at(memory_url) as transport:
        transport.broker.stop()  # type: ignore[attr-defined]
        tool = Client("tool", memory_url)
        connecting = asyncio.create_task(tool.connect())
        await until(lambda: tool.transport.last_error == "the broker is stopped")
        transport.broker.start()  # type: ignore[attr-defined]
        await connecting
        await tool.stop()


async def test_requests_work_again_after_every_lost_connection(any_url: str) -> None:
    async with Manager("manager", any_url) as manager, Client("tool", any_url) as tool:
        for _ in range(2):
            await break_connection(tool.transport)
            assert await tool.rpc("get_metrics", timeout=20) == {"metrics": []}
            await break_connection(manager.transport)
            assert await tool.rpc("get_metrics", timeout=20) == {"metrics": []}


# -- configuration ---------------------------------------------------------------------------------------


async def test_an_agent_takes_the_configuration_that_the_manager_holds(memory_url: str) -> None:
    async with Manager("manager", memory_url), Client("tool", memory_url) as tool:
        await tool.rpc("config.set", token="sink-a", config={"rate": 5})
        async with Tunable("sink-a", memory_url, config=TunableConfig(chunk_size=7)) as sink:
            assert sink.config == TunableConfig(rate=5, chunk_size=7)


async def test_a_configuration_that_is_not_valid_is_logged_and_the_agents_own_stays(
    memory_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with Manager("manager", memory_url), Client("tool", memory_url) as tool:
        for config, words in [
            ({"rate": -1}, "rate"),
            ({"rte": 1}, "did you mean 'rate'?"),
            ({"rate": 5000}, "cannot do more than 1000"),
            ({"self": 1}, "self"),
        ]:
            caplog.clear()
            await tool.rpc("config.set", token="sink-a", config=config, merge=False)
            if "self" in config:
                with pytest.raises(RpcError, match="'self'"):
                    async with Tunable("sink-a", memory_url):
                        pass
                continue
            async with Tunable("sink-a", memory_url) as sink:
                assert sink.config == TunableConfig()
            assert "sink-a refused the configuration that the manager holds for it" in caplog.text
            assert words in caplog.text


async def test_values_that_are_pushed_do_not_reach_the_log(memory_url: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    async with (
        Manager("manager", memory_url),
        Tunable("sink-a", memory_url) as sink,
        Client("tool", memory_url) as tool,
    ):
        await tool.rpc("config.set", token="sink-a", config={"password": "hunter2"})
        assert isinstance(sink.config, TunableConfig)
        assert sink.config.password == "hunter2"
    assert "a new configuration is in force, with password" in caplog.text
    assert "hunter2" not in caplog.text


async def test_a_configuration_set_while_the_connection_was_away_is_in_force_after_it(memory_url: str) -> None:
    async with (
        Manager("manager", memory_url) as manager,
        Client("tool", memory_url) as tool,
        Tunable("sink-a", memory_url) as sink,
    ):
        await manager._registry.set_config("sink-a", TunableConfig(rate=9).to_dict(), "tool")
        await break_connection(sink.transport)
        await until(lambda: sink.config == TunableConfig(rate=9))
        # A push and the reply to the registration after a reconnect cross: the newer one must stay.
        for rate in range(20, 40):
            sink.transport.drop_connections()  # type: ignore[attr-defined]
            await tool.rpc("config.set", token="sink-a", config={"rate": rate})
            await until(lambda rate=rate: sink.config == TunableConfig(rate=rate))


async def test_a_handler_of_config_may_declare_metrics_while_the_manager_waits_for_it(any_url: str) -> None:
    class Stock(HandSource):
        """As MetricQ's own documentation writes sources."""

        @rpc_handler("config")
        async def _on_config(self, **config: Any) -> None:
            await self.declare_metrics({f"a.{name}": {"rate": rate} for name, rate in config.items()})

    async with Manager("manager", any_url), Client("tool", any_url) as tool, Stock("source-a", any_url):
        assert (await tool.rpc("config.set", token="source-a", config={"x": 5}))["applied"] is True
        metrics = await tool.get_metrics()
        assert metrics["a.x"]["rate"] == 5
        assert metrics["a.x"]["source"] == "source-a"


async def test_a_refused_declaration_in_a_config_handler_ends_the_source(memory_url: str) -> None:
    class Stock(HandSource):
        @rpc_handler("config")
        async def on_config(self, **_config: Any) -> None:
            await self.declare_metrics(["a.x"])

    async with Manager("manager", memory_url), Stock("source-a", memory_url):
        with pytest.raises(RpcError, match="belongs to 'source-a', which is alive"):
            await Stock("source-b", memory_url).connect()


async def test_another_local_configuration_leaves_what_was_pushed_on_top(memory_url: str) -> None:
    async with (
        Manager("manager", memory_url),
        Tunable("sink-a", memory_url, config=TunableConfig(chunk_size=7)) as sink,
        Client("tool", memory_url) as tool,
    ):
        await tool.rpc("config.set", token="sink-a", config={"rate": 5})
        await sink.reload(TunableConfig(chunk_size=8, password="x"))
        assert sink.config == TunableConfig(rate=5, chunk_size=8, password="x")
        await tool.rpc("config.set", token="sink-a", config={"rate": None})
        assert sink.config == TunableConfig(chunk_size=8, password="x")


async def test_what_is_pushed_during_a_reload_is_put_in_force_after_it(memory_url: str) -> None:
    began, gate = asyncio.Event(), asyncio.Event()

    class Slow(Tunable):
        async def reconfigure(self, config: AgentConfig) -> None:
            began.set()
            await gate.wait()
            await super().reconfigure(config)

    async with (
        Manager("manager", memory_url),
        Slow("sink-a", memory_url, config=TunableConfig(chunk_size=7)) as sink,
        Client("tool", memory_url) as tool,
        asyncio.TaskGroup() as group,
    ):
        group.create_task(sink.reload(TunableConfig(chunk_size=8)))
        await began.wait()
        before = sink._configurations
        push = group.create_task(tool.rpc("config.set", token="sink-a", config={"rate": 5}))
        await until(lambda: sink._configurations > before)
        gate.set()
        await push
        assert sink.config == TunableConfig(rate=5, chunk_size=8)


async def test_an_agent_without_a_configuration_takes_any_and_ignores_it(memory_url: str) -> None:
    async with Manager("manager", memory_url), Client("plain", memory_url), Client("tool", memory_url) as tool:
        assert (await tool.rpc("config.set", token="plain", config={"x": 1}))["applied"] is True


# -- get_metrics -----------------------------------------------------------------------------------------


async def test_get_metrics_sends_metricqs_fields_and_only_those_that_were_given(memory_url: str) -> None:
    async with transport_at(memory_url) as transport, Client("tool", memory_url) as tool:
        asked: list[Json] = []
        await transport.declare_queue(Queue(name="fake"))
        await transport.bind("fake", "metricq.management", "#")

        replies: list[asyncio.Task[None]] = []

        def answer(delivery: Delivery) -> None:
            request = json.loads(delivery.message.body)
            asked.append(request)
            reply = Message(
                body=b'{"metrics": {"a": {"unit": "V"}}}' if request["format"] == "object" else b'{"metrics": ["a"]}',
                routing_key=delivery.message.reply_to,
                correlation_id=delivery.message.correlation_id,
            )
            replies.append(asyncio.create_task(transport.publish(reply)))

        await transport.consume(Consumption(queue="fake", on_delivery=answer))
        assert await tool.get_metrics() == {"a": {"unit": "V"}}
        assert asked == [{"function": "get_metrics", "format": "object"}]
        found = await tool.get_metrics(
            ("a", "b"), metadata=False, historic=True, timeout=5, prefix="a", infix="b", limit=3, hidden=False
        )
        assert found == {"a": {}}
        assert asked[1] == {
            "function": "get_metrics",
            "format": "array",
            "selector": ["a", "b"],
            "historic": True,
            "prefix": "a",
            "infix": "b",
            "limit": 3,
            "hidden": False,
        }
        await asyncio.gather(*replies)


# -- the data server -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("own", "address", "url"),
    [
        ("memory://x", "vhost:/", "memory://x"),
        ("", "amqp://elsewhere/", ""),
        ("amqp://u:p@host/", "", "amqp://u:p@host/"),
        ("amqp://u:p@host/", "vhost:/", "amqp://u:p@host/"),
        ("amqp://u:p@host:5672", "vhost:/", "amqp://u:p@host:5672"),
        ("amqp://u:p@host/data?cafile=x", "vhost:data", "amqp://u:p@host/data?cafile=x"),
        ("amqp://u:p@host/", "vhost:data", "amqp://u:p@host/data"),
        ("amqps://u:p@host:1/?cafile=x", "vhost:/data", "amqps://u:p@host:1/data?cafile=x"),
        ("amqp://u:p@host/", "amqp://host:5672/", "amqp://u:p@host/"),
        ("amqp://u:p@host/", "amqp://other:7/data", "amqp://u:p@other:7/data"),
        ("amqp://u:p@host/", "amqp://them:secret@other/", "amqp://u:p@other/"),
    ],
)
def test_the_data_servers_address_is_read_as_metricq_writes_it(own: str, address: str, url: str) -> None:
    assert data_url(own, address) == url
