# SPDX-License-Identifier: MIT
"""What the manager answers: metrics and their owners, sinks, configurations."""

import asyncio
import itertools
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Annotated, Any

import pytest
from msgspec import Meta

from bus import manager as manager_module
from bus.client import Client
from bus.config import AgentConfig
from bus.errors import ConfigError, HostbusError, PublishFailed, RpcError, StorageError, Unroutable
from bus.manager import Manager, ManagerConfig
from bus.rpc import Json
from bus.sink import DurableSink
from bus.transport import Consumption, Message, Transport
from tests.bus.support import HandSource, frame_message, points_in, transport_at, until


@pytest.fixture(autouse=True)
def in_a_hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(manager_module, "LIVENESS_WINDOW_S", 0.3)


@pytest.fixture
async def tool(manager: Manager) -> AsyncIterator[Client]:
    """A client of the manager."""
    async with Client("tool", manager.url) as made:
        yield made


def stored_at(path: Path) -> ManagerConfig:
    return ManagerConfig(store=str(path))


# -- what is written on the wire -------------------------------------------------------------------------


async def test_a_source_is_told_where_to_publish_and_how(any_url: str) -> None:
    async with Manager("manager", any_url), Client("tool", any_url) as tool:
        for function in ("source.register", "transformer.register"):
            reply = await tool.rpc(function, somethingElse=1)
            assert reply.keys() == {"dataServerAddress", "dataExchange", "frameExchange", "config"}
            assert (reply["dataExchange"], reply["frameExchange"]) == ("metricq.data", "hostbus.data")
            assert reply["dataServerAddress"].startswith("vhost:")
            assert reply["config"] == {}


async def test_a_network_of_stock_clients_names_no_exchange_for_frames(memory_url: str) -> None:
    async with (
        Manager("manager", memory_url, config=ManagerConfig(wire="metricq")),
        Client("tool", memory_url) as tool,
        transport_at(memory_url) as transport,
    ):
        assert "frameExchange" not in await tool.rpc("source.register")
        queue = (await tool.rpc("sink.subscribe", metrics=["#"]))["dataQueue"]
        arrived: list[Message] = []
        await transport.consume(Consumption(queue=queue, on_delivery=lambda delivery: arrived.append(delivery.message)))
        async with HandSource("source-a", memory_url, prefix="web1") as source:
            source.tick(0, {"web1.a": 1.0})
            await until(lambda: bool(arrived))
        assert (arrived[0].exchange, arrived[0].routing_key) == ("metricq.data", "web1.a")


async def test_the_vhost_is_told_to_sources_on_rabbitmq(amqp_url: str) -> None:
    async with Manager("manager", amqp_url), Client("tool", amqp_url) as tool:
        assert (await tool.rpc("source.register"))["dataServerAddress"] == "vhost:" + amqp_url.rpartition("/")[2]


async def test_declared_metrics_have_their_metadata_and_their_source(tool: Client) -> None:
    for number, function in enumerate(("source.declare_metrics", "transformer.declare_metrics")):
        assert await tool.rpc(function, metrics={f"web{number}.a": {"unit": "V", "source": "nonsense"}}) == {}
        assert await tool.rpc(function, metrics=[f"web{number}.b"]) == {}
        assert await tool.get_metrics(prefix=f"web{number}.") == {
            f"web{number}.a": {"unit": "V", "source": "tool"},
            f"web{number}.b": {"source": "tool"},
        }


async def test_a_sink_is_given_a_queue_of_its_own_and_a_registered_one_always_the_same(tool: Client) -> None:
    first = await tool.rpc("sink.subscribe", metrics=["web1.#"])
    assert first.keys() == {"dataServerAddress", "dataQueue", "metrics"}
    assert re.fullmatch(r"tool-live-[0-9a-f]{32}", first["dataQueue"])
    assert (await tool.rpc("sink.subscribe", metrics=[]))["dataQueue"] != first["dataQueue"]
    assert (await tool.rpc("sink.register", x=1)).keys() == {"dataServerAddress", "config"}
    for function in ("sink.subscribe", "transformer.subscribe"):
        assert (await tool.rpc(function, metrics=["web1.#"]))["dataQueue"] == "tool-data"


async def test_subscribe_answers_with_metadata_or_names(tool: Client) -> None:
    await tool.rpc("source.declare_metrics", metrics={"web1.a": {"unit": "V"}, "web2.a": {}})
    reply = await tool.rpc("sink.subscribe", metrics=["web1.*", "web9.x"])
    assert reply["metrics"] == {"web1.a": {"unit": "V", "source": "tool"}, "web9.x": {}}
    reply = await tool.rpc("sink.subscribe", metrics=["web1.*"], metadata=False, expires=60.5)
    assert reply["metrics"] == ["web1.*"]


async def test_unsubscribe_puts_an_end_into_the_queue_unless_told_not_to(manager: Manager, tool: Client) -> None:
    queue = (await tool.rpc("sink.subscribe", metrics=["web1.a"]))["dataQueue"]
    reply = await tool.rpc("sink.unsubscribe", dataQueue=queue, metrics=["web1.a"], end=False)
    assert reply.keys() == {"dataServerAddress", "dataQueue", "metrics"}
    messages = manager.transport.broker._queues[queue]._ready  # type: ignore[attr-defined]
    assert len(messages) == 0
    await tool.rpc("sink.unsubscribe", dataQueue=queue, metrics=["web1.a"])
    assert [stored.message.type for stored in messages] == ["end"]


async def test_release_deletes_the_queue(manager: Manager, tool: Client) -> None:
    queue = (await tool.rpc("sink.subscribe", metrics=["web1.a"]))["dataQueue"]
    assert queue in manager.transport.broker._queues  # type: ignore[attr-defined]
    assert await tool.rpc("sink.release", dataQueue=queue) == {}
    assert queue not in manager.transport.broker._queues  # type: ignore[attr-defined]


async def test_databases_and_their_clients_get_queues_for_history(any_url: str) -> None:
    async with Manager("manager", any_url), Client("tool", any_url) as tool, transport_at(any_url) as transport:
        reply = await tool.rpc("history.register")
        assert reply.keys() == {"dataServerAddress", "historyExchange", "historyQueue", "config"}
        assert (reply["historyExchange"], reply["historyQueue"]) == ("metricq.history", "tool-hrsp")
        reply = await tool.rpc("db.register")
        assert reply.keys() == {"dataServerAddress", "dataQueue", "historyQueue", "config"}
        assert (reply["dataQueue"], reply["historyQueue"]) == ("tool-data", "tool-hreq")
        reply = await tool.rpc(
            "db.subscribe", metrics=["web1.a", {"name": "web1.average", "input": "web1.b"}], metadata=False
        )
        assert reply.keys() == {"dataServerAddress", "dataQueue", "historyQueue", "metrics", "kept"}
        assert reply["metrics"] == ["web1.a", "web1.average"]
        for key in ("web1.a", "web1.b"):
            await transport.publish(Message(body=b"", exchange="metricq.data", routing_key=key))
        for key in ("web1.a", "web1.average"):
            await transport.publish(Message(body=b"", exchange="metricq.history", routing_key=key))
        assert await keys_in(transport, "tool-data") == ["web1.a", "web1.b"]
        assert await keys_in(transport, "tool-hreq") == ["web1.a", "web1.average"]


async def test_an_archive_that_gets_its_points_by_patterns_has_history_alone_bound(any_url: str) -> None:
    async with Manager("manager", any_url), Client("tool", any_url) as tool, transport_at(any_url) as transport:
        reply = await tool.rpc("db.register", data=False)
        assert reply.keys() == {"dataServerAddress", "historyQueue", "config"}
        names = [f"web1.metric{number}" for number in range(100)]
        reply = await tool.rpc("db.subscribe", metrics=names, metadata=False, data=False)
        assert reply.keys() == {"dataServerAddress", "historyQueue", "metrics", "kept"}
        assert (reply["metrics"], reply["kept"]) == (names, 100)
        with pytest.raises(PublishFailed):
            await transport.publish(Message(body=b"", routing_key="tool-data", mandatory=True))
        with pytest.raises(PublishFailed):
            await transport.publish(Message(body=b"", exchange="metricq.data", routing_key=names[0], mandatory=True))
        for name in names:
            await transport.publish(Message(body=b"", exchange="metricq.history", routing_key=name, mandatory=True))
        assert await keys_in(transport, "tool-hreq") == names


async def test_requests_go_to_the_archive_that_keeps_the_metric_until_it_says_that_it_is_gone(any_url: str) -> None:
    async with (
        Manager("manager", any_url),
        Client("sink-a", any_url) as a,
        Client("sink-b", any_url) as b,
        transport_at(any_url) as transport,
    ):

        async def ask(*metrics: str) -> None:
            for metric in metrics:
                message = Message(body=b"", exchange="metricq.history", routing_key=metric, mandatory=True)
                await transport.publish(message)

        await a.rpc("db.subscribe", metrics=["web1.a", "web1.both"], data=False)
        await b.rpc("db.subscribe", metrics=["web1.b", "web1.both"], data=False)
        await ask("web1.a", "web1.b", "web1.both")
        assert await keys_in(transport, "sink-a-hreq") == ["web1.a", "web1.both"]
        assert await keys_in(transport, "sink-b-hreq") == ["web1.b", "web1.both"]
        assert list(await a.get_metrics(historic=True)) == ["web1.a", "web1.b", "web1.both"]

        assert await a.rpc("db.unsubscribe", metrics=["web1.a", "unknown"]) == {"kept": 1}
        with pytest.raises(Unroutable):
            await ask("web1.a")
        assert list(await a.get_metrics(historic=True)) == ["web1.b", "web1.both"]
        await b.rpc("db.subscribe", metrics=["web1.more", "web1.most"], data=False)
        assert await b.rpc("db.retain", metrics=["web1.b", "web1.both", "unknown"]) == {"kept": 2}
        assert list(await a.get_metrics(historic=True)) == ["web1.b", "web1.both"]
        await b.rpc("db.release")
        assert list(await a.get_metrics(historic=True)) == ["web1.both"]
        with pytest.raises(Unroutable):
            await ask("web1.b")
        await ask("web1.both")
        await b.rpc("sink.release", dataQueue="sink-a-data")
        assert await a.get_metrics(historic=True) == {}
        with pytest.raises(Unroutable):
            await ask("web1.both")


async def test_who_keeps_a_metric_is_said_of_archives_that_were_heard_of_lately(
    memory_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with Manager("manager", memory_url), Client("sink-a", memory_url) as a, Client("sink-b", memory_url) as b:
        await a.rpc("db.subscribe", metrics=["web1.a", "web1.both"], data=False)
        await b.rpc("db.subscribe", metrics=["web1.both"], data=False)
        names = ["web1.a", "web1.both", "web1.none"]
        expected = {"web1.a": ["sink-a"], "web1.both": ["sink-a", "sink-b"], "web1.none": []}
        assert (await a.rpc("history.archives", metrics=names))["archives"] == expected
        monkeypatch.setattr(manager_module, "ARCHIVE_HEARD_S", 0.0)
        assert (await a.rpc("history.archives", metrics=["web1.both"]))["archives"] == {"web1.both": []}
        monkeypatch.setattr(manager_module, "ARCHIVE_HEARD_S", 150.0)
        await b.rpc("db.release")
        assert (await a.rpc("history.archives", metrics=["web1.both"]))["archives"] == {"web1.both": ["sink-a"]}


async def keys_in(transport: Transport, queue: str) -> list[str]:
    keys: list[str] = []
    await transport.consume(
        Consumption(queue=queue, on_delivery=lambda delivery: keys.append(delivery.message.routing_key))
    )
    await transport.publish(Message(body=b"", routing_key=queue, mandatory=True))
    await until(lambda: keys[-1:] == [queue])
    return keys[:-1]


@pytest.mark.parametrize(
    ("function", "arguments", "words"),
    [
        ("source.declare", {}, "did you mean 'source.declare_metrics'"),
        ("source.declare_metrics", {}, "missing argument `metrics`"),
        ("source.declare_metrics", {"metrics": "web1.a"}, "metrics"),
        ("source.declare_metrics", {"metrics": {"web1.a": "V"}}, "metrics"),
        ("source.declare_metrics", {"metrics": ["web1..a"]}, "'web1..a' is not a metric name"),
        ("source.declare_metrics", {"metrics": ["web1.#"]}, "'web1.#' is not a metric name"),
        ("sink.subscribe", {"metrics": ["a b"]}, "'a b' is not a metric name or pattern"),
        ("sink.subscribe", {"metrics": [1]}, "sink.subscribe: metrics[0]: expected `str`, got `int`"),
        ("sink.subscribe", {"metrics": [], "expires": 0}, "expires"),
        ("sink.subscribe", {"metrics": [], "expires": 1e10}, "expires"),
        ("sink.subscribe", {"metrics": [], "expire": 1}, "unknown argument 'expire'; did you mean 'expires'"),
        ("sink.subscribe", {"metrics": [], "dataQueue": "management"}, "'management' is not the queue of a sink"),
        ("sink.unsubscribe", {"metrics": []}, "missing argument `dataQueue`"),
        ("sink.release", {"dataQueue": "manager-rpc"}, "'manager-rpc' is not the queue of a sink"),
        ("db.subscribe", {"metrics": [{"input": "web1.a"}]}, "'name'"),
        ("db.subscribe", {"metrics": ["web1.#"]}, "'web1.#' is not a metric name"),
        ("db.unsubscribe", {"metrics": ["web1.#"]}, "'web1.#' is not a metric name"),
        ("get_metrics", {"selector": "("}, "selector '(' is not a regular expression"),
        ("get_metrics", {"selector": "x" * 1001}, "the selector is too long"),
        ("get_metrics", {"selector": 5}, "selector"),
        ("get_metrics", {"limit": -1}, "limit"),
        ("get_metrics", {"format": "xml"}, "format"),
        ("get_metrics", {"historic": "yes"}, "historic"),
        ("get_configs", {"selector": "("}, "not a regular expression"),
        ("config.get", {}, "missing argument `token`"),
        ("config.set", {"token": "a b", "config": {}}, "'a b' is not an agent token"),
        ("config.set", {"token": "a", "config": 5}, "config"),
        ("config.set", {"token": "a", "config": {"function": 1}}, "'function' cannot be a key"),
        ("config.rollback", {"token": "a"}, "'a' has no version"),
    ],
)
async def test_a_wrong_request_is_refused_in_words_that_name_what_is_wrong(
    tool: Client, function: str, arguments: Json, words: str
) -> None:
    with pytest.raises(RpcError, match=re.escape(words)):
        await tool.rpc(function, **arguments)
    assert await tool.get_metrics() == {}


# -- owners ----------------------------------------------------------------------------------------------


async def test_a_metric_of_a_source_that_is_alive_is_refused_to_another(any_url: str) -> None:
    async with (
        Manager("manager", any_url),
        HandSource("source-a", any_url) as first,
        HandSource("source-b", any_url) as second,
    ):
        await first.declare_metrics(["web1.a", "web1.b"])
        refused = r"'web1\.[ab]' \(and 1 more\) belongs to 'source-a', which is alive: stop it, or .* another --prefix"
        with pytest.raises(RpcError, match=refused):
            await second.declare_metrics(["web1.a", "web1.b", "web1.c"])
        # All or nothing: what nobody has is not half declared.
        assert {name: about["source"] for name, about in (await second.get_metrics()).items()} == {
            "web1.a": "source-a",
            "web1.b": "source-a",
        }
        await second.declare_metrics(["web1.c"])


async def test_a_metric_of_a_source_that_is_gone_goes_to_the_next_with_a_warning(
    any_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with Manager("manager", any_url):
        async with HandSource("source-a", any_url) as first:
            await first.declare_metrics({"web1.a": {"unit": "V"}})
        async with HandSource("source-b", any_url) as second:
            await second.declare_metrics({"web1.a": {"unit": "A"}})
            about = (await second.get_metrics())["web1.a"]
            assert (about["unit"], about["source"]) == ("A", "source-b")
    assert "source-b takes over 1 metrics (web1.a, ...) from source-a, which does not answer" in caplog.text


async def test_the_owner_declares_again_whatever_it_likes(manager: Manager, caplog: pytest.LogCaptureFixture) -> None:
    for unit in ("V", "A"):
        async with HandSource("source-a", manager.url) as source:
            await source.declare_metrics({"web1.a": {"unit": unit}})
            assert (await source.get_metrics())["web1.a"]["unit"] == unit
    assert "takes over" not in caplog.text


async def test_of_two_sources_that_take_over_at_once_one_wins(manager: Manager) -> None:
    async with HandSource("source-old", manager.url) as old:
        await old.declare_metrics(["web1.a"])
    async with HandSource("source-a", manager.url) as first, HandSource("source-b", manager.url) as second:
        outcomes = await asyncio.gather(
            first.declare_metrics(["web1.a"]), second.declare_metrics(["web1.a"]), return_exceptions=True
        )
    assert sorted(map(type, outcomes), key=str) == sorted([type(None), RpcError], key=str)


async def test_owners_are_known_after_a_restart(memory_url: str, tmp_path: Path) -> None:
    config = stored_at(tmp_path / "m.db")
    async with Client("holder", memory_url):
        async with Manager("manager", memory_url, config=config), HandSource("source-a", memory_url) as first:
            await first.declare_metrics(["web1.a"])
            async with HandSource("source-b", memory_url) as second:
                with pytest.raises(RpcError, match="belongs to 'source-a'"):
                    await second.declare_metrics(["web1.a"])
        async with Manager("manager", memory_url, config=config) as manager:
            assert manager._registry.metrics["web1.a"].owner == "source-a"


# -- get_metrics -----------------------------------------------------------------------------------------

CATALOGUE: dict[str, Json] = {
    "web1.cpu.usage": {"unit": "%"},
    "web1.cpu.secret": {"hidden": True},
    "web1.mem.used": {},
    "web2.cpu.usage": {"hidden": True},
    "web2.mem.used": {"hidden": False, "historic": False},
    "x.web1.cpu": {"historic": True},
}
KEPT = ["web1.mem.used", "web2.cpu.usage"]


def expected(
    selector: str | list[str] | None,
    prefix: str | None,
    infix: str | None,
    historic: bool | None,
    hidden: bool | None,
    limit: int | None,
) -> list[str]:
    """The plain reading of the filters: each on its own, all together."""
    names = []
    for name, about in sorted(CATALOGUE.items()):
        if isinstance(selector, list) and name not in selector:
            continue
        if isinstance(selector, str) and not re.search(selector, name):
            continue
        if prefix is not None and not name.startswith(prefix):
            continue
        if infix is not None and infix not in name:
            continue
        if historic is not None and (name in KEPT) != historic:
            continue
        if hidden is not None and about.get("hidden", False) != hidden:
            continue
        names.append(name)
    return names[:limit]


async def test_get_metrics_filters_in_all_combinations_and_both_formats(tool: Client) -> None:
    await tool.rpc("source.declare_metrics", metrics=CATALOGUE)
    await tool.rpc("db.subscribe", metrics=KEPT)
    # What a source says of archives is not believed.
    about = {
        name: {key: value for key, value in known.items() if key != "historic"} for name, known in CATALOGUE.items()
    }
    about |= {name: {**about[name], "historic": True} for name in KEPT}
    combinations = itertools.product(
        (None, r"web\d\.cpu", "^web1", ["web2.mem.used", "web1.cpu.usage", "unknown"]),
        (None, "web1", ""),
        (None, "cpu", ".mem."),
        (None, True, False),
        (None, True, False),
        (None, 0, 1, 100),
    )
    found_any = False
    for selector, prefix, infix, historic, hidden, limit in combinations:
        names = expected(selector, prefix, infix, historic, hidden, limit)
        found = await tool.get_metrics(
            selector, prefix=prefix, infix=infix, historic=historic, hidden=hidden, limit=limit
        )
        assert found == {name: {**about[name], "source": "tool"} for name in names}
        assert list(found) == names
        found_any = found_any or bool(names)
    assert found_any
    assert await tool.rpc("get_metrics") == {"metrics": sorted(CATALOGUE)}
    assert await tool.rpc("get_metrics", format="array", prefix="x") == {"metrics": ["x.web1.cpu"]}
    assert await tool.rpc("get_metrics", format="object", prefix="x") == {"metrics": {"x.web1.cpu": {"source": "tool"}}}


async def test_what_a_database_keeps_is_historic_whenever_it_is_declared(tool: Client) -> None:
    await tool.rpc("source.declare_metrics", metrics=["web1.before"])
    reply = await tool.rpc("db.subscribe", metrics=["web1.before", "web1.after"])
    assert reply["metrics"]["web1.before"] == {"source": "tool", "historic": True}
    assert await tool.get_metrics(historic=True) == {
        "web1.after": {"historic": True},
        "web1.before": {"source": "tool", "historic": True},
    }
    assert list(await tool.get_metrics()) == ["web1.before"]
    await tool.rpc("source.declare_metrics", metrics=["web1.after", "web1.before", "web1.other"])
    assert list(await tool.get_metrics(historic=True)) == ["web1.after", "web1.before"]
    assert list(await tool.get_metrics(historic=False)) == ["web1.other"]


async def test_a_catalogue_of_many_metrics_comes_in_one_answer(any_url: str) -> None:
    async with Manager("manager", any_url), Client("tool", any_url) as tool:
        metrics = {
            f"host{number}.cpu.usage": {"unit": "%", "description": "how busy it is"} for number in range(20_000)
        }
        await tool.rpc("source.declare_metrics", metrics=metrics)
        assert (await tool.get_metrics()).keys() == metrics.keys()


# -- configurations --------------------------------------------------------------------------------------


class TunableConfig(AgentConfig, frozen=True, kw_only=True):
    rate: Annotated[float, Meta(gt=0)] = 1.0
    timeout: float = 5.0
    token: str = ""


class Tunable(DurableSink):
    Config = TunableConfig

    async def reconfigure(self, config: AgentConfig) -> None:
        assert isinstance(config, TunableConfig)
        if config.rate > 1000:
            raise ConfigError("rate: this machine cannot do more than 1000")
        await super().reconfigure(config)


async def test_a_configuration_is_pushed_stored_and_numbered(any_url: str) -> None:
    async with (
        Manager("manager", any_url),
        Client("tool", any_url) as tool,
        Tunable("sink-a", any_url) as sink,
    ):
        assert await tool.rpc("config.get", token="sink-a") == {"version": 0, "config": {}}
        reply = await tool.rpc("config.set", token="sink-a", config={"rate": 5})
        assert reply == {"version": 1, "config": {"rate": 5}, "applied": True}
        assert sink.config == TunableConfig(rate=5)
        # What is not named stays; what is null goes; names may be those of our own arguments.
        reply = await tool.rpc("config.set", token="sink-a", config={"timeout": 7, "token": "x"})
        assert reply["config"] == {"rate": 5, "timeout": 7, "token": "x"}
        assert sink.config == TunableConfig(rate=5, timeout=7, token="x")
        reply = await tool.rpc("config.set", token="sink-a", config={"rate": None})
        assert reply == {"version": 3, "config": {"timeout": 7, "token": "x"}, "applied": True}
        assert sink.config == TunableConfig(timeout=7, token="x")
        reply = await tool.rpc("config.set", token="sink-a", config={"rate": 2}, merge=False)
        assert reply["config"] == {"rate": 2}
        assert sink.config == TunableConfig(rate=2)
        assert await tool.rpc("config.get", token="sink-a") == {"version": 4, "config": {"rate": 2}}
        assert await tool.rpc("get_configs") == {"sink-a": {"rate": 2}}
        assert await tool.rpc("get_configs", selector=["other"]) == {}


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"rate": -5}, "rate"),
        ({"rate": "fast"}, "rate: expected `float`, got `str`"),
        ({"rte": 5}, "unknown key 'rte'; did you mean 'rate'?"),
        ({"rate": 5000}, "rate: this machine cannot do more than 1000"),
    ],
)
async def test_a_configuration_that_the_agent_rejects_changes_nothing_in_agent_or_store(
    any_url: str, config: Json, words: str
) -> None:
    async with (
        Manager("manager", any_url),
        Client("tool", any_url) as tool,
        Tunable("sink-a", any_url) as sink,
    ):
        await tool.rpc("config.set", token="sink-a", config={"rate": 5})
        with pytest.raises(RpcError) as refused:
            await tool.rpc("config.set", token="sink-a", config=config)
        assert str(refused.value).startswith("'sink-a' rejected the configuration, the old one stays: ")
        assert words in str(refused.value)
        assert sink.config == TunableConfig(rate=5)
        assert await tool.rpc("config.get", token="sink-a") == {"version": 1, "config": {"rate": 5}}


async def test_history_tells_who_set_what_and_when_and_rollback_puts_it_in_force_again(
    manager: Manager, tool: Client
) -> None:
    async with Tunable("sink-a", manager.url) as sink:
        for rate in (1, 2, 3):
            await tool.rpc("config.set", token="sink-a", config={"rate": rate})
        versions = (await tool.rpc("config.history", token="sink-a"))["versions"]
        assert [(old["version"], old["config"], old["by"]) for old in versions] == [
            (number, {"rate": number}, "tool") for number in (1, 2, 3)
        ]
        assert [old["time"] for old in versions] == sorted(old["time"] for old in versions)
        assert await tool.rpc("config.rollback", token="sink-a") == {
            "version": 4,
            "config": {"rate": 2},
            "applied": True,
        }
        assert sink.config == TunableConfig(rate=2)
        await tool.rpc("config.rollback", token="sink-a", version=1)
        assert sink.config == TunableConfig(rate=1)
        with pytest.raises(RpcError, match=r"no version 9 of its configuration: it has 5, counted from 1"):
            await tool.rpc("config.rollback", token="sink-a", version=9)
        assert (await tool.rpc("config.get", token="sink-a"))["version"] == 5


async def test_a_configuration_for_an_agent_that_is_not_there_waits_for_it(any_url: str) -> None:
    async with Manager("manager", any_url), Client("tool", any_url) as tool:
        reply = await tool.rpc("config.set", token="sink-a", config={"rate": 5})
        assert reply == {"version": 1, "config": {"rate": 5}, "applied": False}
        async with Tunable("sink-a", any_url) as sink:
            assert sink.config == TunableConfig(rate=5)


async def test_an_agent_that_does_not_answer_keeps_its_configuration_and_the_store_the_old(
    manager: Manager, tool: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(manager_module, "PUSH_TIMEOUT_S", 0.1)

    class Hanging(Tunable):
        async def reconfigure(self, config: AgentConfig) -> None:
            await asyncio.Event().wait()

    async with Hanging("sink-a", manager.url):
        with pytest.raises(RpcError, match=r"'sink-a' did not answer within 0\.1 s: nothing was changed"):
            await tool.rpc("config.set", token="sink-a", config={"rate": 5})
        assert (await tool.rpc("config.get", token="sink-a"))["version"] == 0


async def test_configurations_that_are_set_at_once_do_not_lose_one_another(manager: Manager, tool: Client) -> None:
    async with Tunable("sink-a", manager.url) as sink:
        await asyncio.gather(
            tool.rpc("config.set", token="sink-a", config={"rate": 5}),
            tool.rpc("config.set", token="sink-a", config={"timeout": 7}),
            tool.rpc("config.set", token="sink-a", config={"token": "x"}),
        )
        assert sink.config == TunableConfig(rate=5, timeout=7, token="x")
        assert (await tool.rpc("config.get", token="sink-a"))["version"] == 3


async def test_the_store_survives_a_restart(memory_url: str, tmp_path: Path) -> None:
    config = stored_at(tmp_path / "m.db")
    async with Client("tool", memory_url) as tool:
        async with Manager("manager", memory_url, config=config):
            await tool.rpc("config.set", token="sink-a", config={"rate": 5})
            await tool.rpc("source.declare_metrics", metrics={"web1.a": {"unit": "V"}})
        async with Manager("manager", memory_url, config=config):
            assert await tool.rpc("config.get", token="sink-a") == {"version": 1, "config": {"rate": 5}}
            assert (await tool.get_metrics())["web1.a"]["unit"] == "V"
            assert (await tool.rpc("config.set", token="sink-a", config={"rate": 6}))["version"] == 2


# -- the manager itself ----------------------------------------------------------------------------------


async def test_the_manager_can_be_configured_like_any_agent(memory_url: str, tmp_path: Path) -> None:
    config = stored_at(tmp_path / "m.db")
    async with Client("tool", memory_url) as tool:
        async with Manager("manager", memory_url, config=config):
            await tool.rpc("config.set", token="manager", config={"wire": "metricq"})
            assert "frameExchange" not in await tool.rpc("source.register")
            with pytest.raises(RpcError, match="the store of a running manager cannot change"):
                await tool.rpc("config.set", token="manager", config={"store": "other.db"})
            with pytest.raises(RpcError, match="wire"):
                await tool.rpc("config.set", token="manager", config={"wire": "morse"})
        async with Manager("manager", memory_url, config=config):
            assert "frameExchange" not in await tool.rpc("source.register"), "it holds after a restart too"


async def test_a_store_that_cannot_be_opened_keeps_the_manager_from_starting(memory_url: str, tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"cannot use the store .*missing"):
        await Manager("manager", memory_url, config=stored_at(tmp_path / "missing" / "m.db")).connect()
    (tmp_path / "notes").write_text("not a database, " * 100)
    with pytest.raises(StorageError, match="--store"):
        await Manager("manager", memory_url, config=stored_at(tmp_path / "notes")).connect()


async def test_the_store_may_be_below_the_users_home(
    memory_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    async with Manager("manager", memory_url, config=ManagerConfig(store="~/m.db")):
        assert (tmp_path / "m.db").exists()


async def test_a_store_that_cannot_be_written_refuses_and_the_manager_lives_on(manager: Manager, tool: Client) -> None:
    await manager._registry._connection.execute_fetchall("PRAGMA query_only = ON")
    with pytest.raises(RpcError, match="cannot write the store"):
        await tool.rpc("source.declare_metrics", metrics=["web1.a"])
    assert await tool.get_metrics() == {}
    await manager._registry._connection.execute_fetchall("PRAGMA query_only = OFF")
    await tool.rpc("source.declare_metrics", metrics=["web1.a"])


async def test_points_go_on_while_the_manager_is_away(any_url: str) -> None:
    class Store(DurableSink):
        def __init__(self, url: str) -> None:
            super().__init__("store", url, metrics=["web1.#"])
            self.points: list[tuple[str, int, float]] = []

        async def on_frames(self, frames: Any) -> None:
            self.points += points_in(frames)

    async with transport_at(any_url) as transport:
        manager = Manager("manager", any_url)
        await manager.connect()
        async with Store(any_url) as store:
            await manager.stop()
            await transport.publish(frame_message("web1", {"web1.a": 1.0}))
            await until(lambda: len(store.points) == 1)


async def test_the_exchanges_are_declared_again_when_the_broker_has_lost_everything(memory_url: str) -> None:
    manager = Manager("manager", memory_url)
    async with manager:
        broker = manager.transport.broker  # type: ignore[attr-defined]
        broker._routers.clear()
        manager.transport.drop_connections()  # type: ignore[attr-defined]
        wanted = {"hostbus.data", "metricq.data", "metricq.history", "hostbus.dead", "metricq.management"}
        await until(lambda: wanted <= broker._routers.keys())


async def test_requests_that_came_while_the_manager_was_away_are_answered_by_the_next(any_url: str) -> None:
    async with Client("tool", any_url) as tool:
        async with Manager("manager", any_url):
            pass
        asking = asyncio.create_task(tool.get_metrics(timeout=30))
        await until(lambda: bool(tool._link._waiting))
        async with Manager("manager", any_url):
            assert await asking == {}


async def test_a_second_manager_on_a_broker_is_refused_until_the_first_is_gone(any_url: str) -> None:
    async with transport_at(any_url) as transport:
        async with Manager("manager", transport):
            with pytest.raises(HostbusError, match="has a manager already"):
                await Manager("another", transport).connect()
        async with Manager("another", transport) as next_one:
            assert await next_one.has_manager()
