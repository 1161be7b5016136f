# SPDX-License-Identifier: MIT
"""Clients that nobody here wrote, unchanged, in a network with our manager."""

import asyncio
import json
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from bus.chunk import Chunk
from bus.client import Client
from bus.errors import RpcError
from bus.interval import IntervalSource
from bus.manager import Manager, ManagerConfig
from bus.sink import Sink
from sinks.sqlite import SqliteConfig, SqliteSink
from tests.interop.clients import StockClients
from tests.services.rabbitmq import RabbitMq

START_NS = 1_790_000_000 * 10**9
METRIC = "stock.node1.power"
ABOUT = {"unit": "W", "description": "from outside", "chunkSize": 1}

pytestmark = pytest.mark.timeout(300)  # the first test may have to install MetricQ and start RabbitMQ


class Collector(Sink):
    """Keeps every point."""

    def __init__(self, token: str, url: str) -> None:
        super().__init__(token, url)
        self.points: list[tuple[str, int, float]] = []
        self.more = asyncio.Event()

    async def on_chunk(self, chunk: Chunk) -> None:
        self.points += [(chunk.metric, time, value) for time, value in zip(chunk.times, chunk.values, strict=True)]
        self.more.set()

    async def have(self, count: int) -> list[tuple[str, int, float]]:
        """The points, when there are that many."""
        async with asyncio.timeout(60):
            while len(self.points) < count:
                self.more.clear()
                await self.more.wait()
        return self.points


class Counter(IntervalSource):
    """Counts; three metrics under one prefix."""

    def __init__(self, token: str, url: str) -> None:
        super().__init__(token, url, period=0.05, prefix="ours.node1")
        self.sent: list[tuple[str, int, float]] = []

    async def start(self) -> None:
        await super().start()
        await self.declare_metrics({f"ours.node1.{name}": {"unit": "1"} for name in "abc"})

    async def update(self) -> None:
        values = {f"ours.node1.{name}": float(len(self.sent) + offset) for offset, name in enumerate("abc")}
        self.sample(self.tick, values)
        self.sent += [(metric, self.tick.posix_ns, value) for metric, value in values.items()]


def points(first: int, end: int, metric: str = METRIC) -> list[tuple[str, int, float]]:
    """What a stock source of these tests sends."""
    return [(metric, START_NS + index * 10**9, float(index)) for index in range(first, end)]


@pytest.fixture
async def network(amqp_url: str) -> AsyncIterator[str]:
    """A broker with our manager on it; its URL."""
    async with Manager("manager", amqp_url):
        yield amqp_url


@pytest.mark.parametrize("script", ["stock_source", "stock_interval_source", "stock_synchronous_source"])
async def test_our_sinks_store_the_points_of_a_stock_source(
    script: str, network: str, stock: StockClients, tmp_path: Path
) -> None:
    archive = SqliteConfig(path=str(tmp_path / "archive.db"), metrics=["stock.#"], batch_age=0)
    async with Collector("sink-ours", network) as sink, SqliteSink("sink-archive", network, config=archive) as stored:
        await sink.subscribe([METRIC])
        source = await stock.start(script, "source-stock", network, METRIC)
        heard = await source.hear()
        assert (heard if "declared" in heard else await source.hear()) == {"declared": METRIC}
        known = await sink.get_metrics(prefix="stock.")
        assert {key: known[METRIC][key] for key in ABOUT} == ABOUT
        assert known[METRIC]["source"] == "source-stock"
        source.order("send 100")
        assert await source.hear() == {"sent": 100}
        assert await sink.have(100) == points(0, 100)
        async with asyncio.timeout(60):
            while stored.points_stored < 100:
                await asyncio.sleep(0.05)
        await source.end()
    with sqlite3.connect(tmp_path / "archive.db") as database:
        rows = database.execute("SELECT metric, time, value FROM points ORDER BY time").fetchall()
    database.close()
    assert rows == points(0, 100)


async def test_a_stock_sink_gets_our_points_where_the_network_is_set_to_metricq(
    amqp_url: str, stock: StockClients
) -> None:
    async with Manager("manager", amqp_url, config=ManagerConfig(wire="metricq")):
        sink = await stock.start("stock_sink", "sink-stock", amqp_url, "ours.node1.a", "ours.*.c")
        assert (await sink.hear())["subscribed"].keys() == {"ours.node1.a"}
        async with Counter("source-ours", amqp_url) as source:
            got = await sink.hear_points(20)
        wanted = [point for point in source.sent if point[0] != "ours.node1.b"]
        assert got == wanted[:20]
        # The end of our source flushes, so that the rest comes too.
        assert await sink.hear_points(len(wanted) - 20) == wanted[20:]
        sink.order("unsubscribe ours.node1.a")
        assert await sink.hear() == {"unsubscribed": ["ours.node1.a"]}
        await sink.end()


async def test_stock_clients_find_each_other_through_our_manager(network: str, stock: StockClients) -> None:
    sink = await stock.start("stock_sink", "sink-stock", network, METRIC)
    await sink.hear()
    source = await stock.start("stock_source", "source-stock", network, METRIC)
    assert [await source.hear(), await source.hear()] == [{"config": {}}, {"declared": METRIC}]
    source.order("send 10")
    assert await sink.hear_points(10) == points(0, 10)


async def test_a_stock_durable_sink_is_configured_by_our_manager_and_misses_nothing_while_away(
    network: str, stock: StockClients
) -> None:
    async with Client("operator", network) as operator:
        await operator.rpc("config.set", token="sink-durable", config={"metrics": [METRIC]})
    source = await stock.start("stock_source", "source-stock", network, METRIC)
    assert [await source.hear(), await source.hear()] == [{"config": {}}, {"declared": METRIC}]

    sink = await stock.start("stock_durable_sink", "sink-durable", network)
    queue = await sink.hear()
    source.order("send 5")
    assert await sink.hear_points(5) == points(0, 5)
    await sink.end()

    assert await source.hear() == {"sent": 5}
    source.order("send 5")
    assert await source.hear() == {"sent": 10}
    again = await stock.start("stock_durable_sink", "sink-durable", network)
    heard = [await again.hear() for _ in range(6)]
    assert [fact for fact in heard if "queue" in fact] == [queue]
    assert [(fact["metric"], fact["time"], fact["value"]) for fact in heard if "time" in fact] == points(5, 10)


async def test_a_stock_subscriber_drains_what_came_while_nobody_was_connected(
    network: str, stock: StockClients
) -> None:
    source = await stock.start("stock_source", "source-stock", network, METRIC)
    assert [await source.hear(), await source.hear()] == [{"config": {}}, {"declared": METRIC}]
    subscriber = await stock.start("stock_subscriber", "subscriber-stock", network, METRIC)
    subscribed = await subscriber.hear()
    assert subscribed["metadata"][METRIC]["unit"] == "W"
    source.order("send 50")
    assert await source.hear() == {"sent": 50}
    # A stock source does not wait for confirms; when it has left, all that it sent is in the queue.
    await source.end()
    subscriber.order("drain")
    assert await subscriber.hear_points(50) == points(0, 50)
    assert await subscriber.hear() == {"drained": True}
    await subscriber.end()


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        ({}, ["a.x", "a.y", "b.x"]),
        ({"selector": "x$"}, ["a.x", "b.x"]),
        ({"selector": ["a.y", "unknown"]}, ["a.y"]),
        ({"prefix": "a."}, ["a.x", "a.y"]),
        ({"infix": ".y"}, ["a.y"]),
        ({"limit": 2}, ["a.x", "a.y"]),
        ({"hidden": True}, ["b.x"]),
        ({"historic": True}, []),
    ],
    ids=str,
)
async def test_a_stock_client_gets_metrics(
    question: dict[str, Any], answer: list[str], network: str, stock: StockClients
) -> None:
    async with Counter("source-ours", network) as source:
        await source.declare_metrics({"a.x": {"unit": "W"}, "a.y": {}, "b.x": {"hidden": True}})
        client = await stock.start("stock_get_metrics", "client-stock", network)
        only_ours = question if question else {"selector": r"^[ab]\."}
        client.order(json.dumps(only_ours))
        metrics = (await client.hear())["metrics"]
        assert list(metrics) == answer
        assert all(about["source"] == "source-ours" for about in metrics.values())
        client.order(json.dumps({**only_ours, "metadata": False}))
        assert (await client.hear())["metrics"] == {metric: {} for metric in answer}
        await client.end()


async def test_a_bad_question_of_a_stock_client_is_refused_in_words(network: str, stock: StockClients) -> None:
    client = await stock.start("stock_get_metrics", "client-stock", network)
    client.order(json.dumps({"selector": "("}))
    assert "'(' is not a regular expression" in (await client.hear())["refused"]


async def test_a_stock_source_takes_configurations_and_may_reject_them(network: str, stock: StockClients) -> None:
    source = await stock.start("stock_source", "source-stock", network, METRIC)
    assert [await source.hear(), await source.hear()] == [{"config": {}}, {"declared": METRIC}]
    async with Client("operator", network) as operator:
        reply = await operator.rpc("config.set", token="source-stock", config={"power": "some"})
        assert reply["applied"] is True
        assert await source.hear() == {"config": {"power": "some"}}
        with pytest.raises(RpcError, match="no more than 5 kW"):
            await operator.rpc("config.set", token="source-stock", config={"power": "too much"})
        assert (await operator.rpc("config.get", token="source-stock"))["config"] == {"power": "some"}


async def test_a_metric_of_a_living_stock_source_is_refused_to_another_until_it_ends(
    network: str, stock: StockClients
) -> None:
    first = await stock.start("stock_source", "source-first", network, METRIC)
    assert [await first.hear(), await first.hear()] == [{"config": {}}, {"declared": METRIC}]
    second = await stock.start("stock_source", "source-second", network, METRIC)
    assert await second.hear() == {"config": {}}
    assert "belongs to 'source-first', which is alive" in (await second.hear())["refused"]
    await first.end()
    second.order(f"declare {METRIC}")
    assert await second.hear() == {"declared": METRIC}


async def test_stock_clients_outlive_a_restart_of_our_manager(
    amqp_url: str, stock: StockClients, tmp_path: Path
) -> None:
    config = ManagerConfig(store=str(tmp_path / "manager.db"))
    async with Manager("manager", amqp_url, config=config):
        source = await stock.start("stock_source", "source-stock", amqp_url, METRIC)
        assert [await source.hear(), await source.hear()] == [{"config": {}}, {"declared": METRIC}]
        sink = await stock.start("stock_sink", "sink-stock", amqp_url, METRIC)
        await sink.hear()
    # Nobody is there to answer, and points go on; who registers now waits for the next manager.
    source.order("send 5")
    assert await sink.hear_points(5) == points(0, 5)
    late = await stock.start("stock_source", "source-late", amqp_url, "stock.late")
    assert await source.hear() == {"sent": 5}
    source.order("declare stock.node1.more")
    async with Manager("manager", amqp_url, config=config) as manager:
        assert await source.hear() == {"declared": "stock.node1.more"}
        assert [await late.hear(), await late.hear()] == [{"config": {}}, {"declared": "stock.late"}]
        known = await manager.get_metrics(prefix="stock.")
        assert {name: about["source"] for name, about in known.items()} == {
            "stock.late": "source-late",
            "stock.node1.more": "source-stock",
            METRIC: "source-stock",
        }
        source.order("send 5")
        assert await sink.hear_points(5) == points(5, 10)


async def test_stock_clients_come_back_after_their_connections_were_cut(
    amqp_url: str, stock: StockClients, rabbitmq: RabbitMq
) -> None:
    async with (
        Manager("manager", amqp_url, config=ManagerConfig(wire="metricq")),
        Counter("source-ours", amqp_url) as source,
    ):
        sink = await stock.start("stock_sink", "sink-stock", amqp_url, "ours.node1.a", METRIC)
        await sink.hear()
        stock_source = await stock.start("stock_source", "source-stock", amqp_url, METRIC)
        assert [await stock_source.hear(), await stock_source.hear()] == [{"config": {}}, {"declared": METRIC}]
        heard = await sink.hear_points(5)
        await asyncio.to_thread(rabbitmq.close_connections)
        cut_at = source.sent[-1][1]
        # The sink subscribes again, to the queue that it had, in which the points of our source have gathered.
        while heard[-1][1] <= cut_at:
            heard += await sink.hear_points(1)
        sent = [point for point in source.sent if point[0] == "ours.node1.a" and point[1] >= heard[0][1]]
        assert list(dict.fromkeys(heard)) == sent[: len(set(heard))]
        # An answer tells that the source is back. A stock source that publishes while its connection is cut waits
        # for ever.
        stock_source.order("declare stock.node1.more")
        assert await stock_source.hear() == {"declared": "stock.node1.more"}
        stock_source.order("send 5")
        assert await stock_source.hear() == {"sent": 5}
        theirs: list[tuple[str, int, float]] = []
        while len(theirs) < 5:
            theirs += [point for point in await sink.hear_points(1) if point[0] == METRIC]
        assert theirs == points(0, 5)
