# SPDX-License-Identifier: MIT
"""From a source over the bus into the database: once, whole, whatever happens in between."""

import asyncio
import logging
import os
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace

import asyncpg
import pytest

from bus import sink as sink_module
from bus.archive import read_points
from bus.errors import ConfigError, RpcError, StorageError
from bus.history import HistoryClient
from bus.manager import Manager
from bus.source import Source
from bus.timestamp import Timestamp
from sinks import describing
from sinks.postgres import sink as postgres_module
from sinks.postgres.address import Address
from sinks.postgres.archive import PostgresArchive
from sinks.postgres.config import PostgresConfig
from sinks.postgres.shards import shard_of
from sinks.postgres.sink import PostgresSink
from tests.sinks.postgres.proxy import proxy
from tests.sinks.postgres.test_archive import NOW, SECOND, query


class HandSource(Source):
    """Sends from outside."""

    async def task(self) -> None:
        await self.task_stop_future

    ticks = 0

    def tick(self, index: int, **values: float) -> None:
        """One sample of ``web1.NAME`` each, `index` seconds after the start."""
        self.ticks += 1
        self.sample(Timestamp(NOW + index * SECOND), {f"web1.{name}": value for name, value in values.items()})


@pytest.fixture(autouse=True)
def in_a_hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sink_module, "LOWEST_RETRY_S", 0.02)
    monkeypatch.setattr(describing, "FIRST_QUESTION_S", 0.02)


@pytest.fixture
async def network(any_url: str) -> AsyncIterator[str]:
    """A broker with a manager on it; its URL."""
    async with Manager("manager", any_url):
        yield any_url


@pytest.fixture
async def amqp_network(amqp_url: str) -> AsyncIterator[str]:
    """The same, on RabbitMQ."""
    async with Manager("manager", amqp_url):
        yield amqp_url


@pytest.fixture(autouse=True)
def environment(address: Address, monkeypatch: pytest.MonkeyPatch) -> None:
    """How a sink finds its database."""
    for name, value in environment_of(address).items():
        monkeypatch.setenv(name, value)


def environment_of(address: Address) -> dict[str, str]:
    return {
        "POSTGRES_HOST": address.host,
        "POSTGRES_PORT": str(address.port),
        "POSTGRES_USER": address.user,
        "POSTGRES_PASSWORD": address.password,
        "POSTGRES_DB": address.database,
    }


def config(**others: object) -> PostgresConfig:
    return PostgresConfig.load({"metrics": ["web1.#"], "persist_period": 0, "live_period": 0, **others})


@asynccontextmanager
async def source(url: str) -> AsyncIterator[HandSource]:
    async with HandSource("source-web1", url, prefix="web1") as made:
        yield made


async def until(condition: Callable[[], Awaitable[bool] | bool], timeout_s: float = 30) -> None:
    async with asyncio.timeout(timeout_s):
        while True:
            answer = condition()
            if answer if isinstance(answer, bool) else await answer:
                return
            await asyncio.sleep(0.01)


async def stored(url: str, metric: str = "web1.a") -> list[tuple[int, float]]:
    """(seconds after the start, value) of a metric in the database."""
    async with await PostgresArchive.open(Address.from_url(url, {})) as archive:
        chunk = await read_points(archive, metric)
    return [((time - NOW) // SECOND, value) for time, value in zip(chunk.times, chunk.values, strict=True)]


async def test_what_a_source_sends_is_in_the_database(network: str, database_url: str) -> None:
    async with PostgresSink("sink", network, config=config()) as sink, source(network) as web1:
        for index in range(10):
            web1.tick(index, a=index, b=-index)
        await until(lambda: sink.points_stored == 20)
        assert sink.vital_signs()["pointsStored"] == 20
    assert await stored(database_url) == [(index, float(index)) for index in range(10)]
    assert await stored(database_url, "web1.b") == [(index, float(-index)) for index in range(10)]


async def test_points_are_acknowledged_when_they_are_stored_and_not_before(
    amqp_network: str, database_url: str, address: Address
) -> None:
    async with source(amqp_network) as web1:
        async with process(amqp_network, address, "sink", "--persist-period", "60") as doomed:
            web1.tick(0, a=0)

            async def shown() -> bool:
                web1.tick(web1.ticks, a=web1.ticks)
                return await count(database_url, "hostbus.newest") == 1

            await until(shown)
            doomed.kill()
            await doomed.wait()
        assert await count(database_url) == 0
        async with PostgresSink("sink", amqp_network, config=config()) as successor:
            await web1.drain()
            await until(lambda: successor.points_stored > 0 and successor._intake._points == 0)
    points = await stored(database_url)
    assert points == [(index, float(index)) for index in range(points[0][0], web1.ticks)]


async def test_the_newest_values_are_there_long_before_the_batch(network: str, database_url: str) -> None:
    settings = config(persist_period=60, live_period=0.02)
    async with PostgresSink("sink", network, config=settings) as sink, source(network) as web1:
        for index in range(5):
            web1.tick(index, a=index, b=-index)
            await web1.drain()

        async def shown() -> bool:
            rows = await query(database_url, "SELECT metric, value FROM hostbus.newest ORDER BY metric")
            return [tuple(row) for row in rows] == [("web1.a", 4.0), ("web1.b", -4.0)]

        await until(shown)
        assert await stored(database_url) == []
        assert sink.points_stored == 0
    assert len(await stored(database_url)) == 5


async def test_metadata_and_aggregates_follow(network: str, database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgres_module, "UPKEEP_S", 0.05)
    async with PostgresSink("sink", network, config=config()), source(network) as web1:
        await web1.declare_metrics({"web1.a": {"unit": "W", "interval": 1.0}})
        web1.tick(0, a=1)

        async def described() -> bool:
            rows = await query(database_url, "SELECT hold FROM hostbus.metric WHERE metadata LIKE '%\"W\"%'")
            return [row["hold"] for row in rows] == [3 * SECOND]

        async def kept() -> bool:
            rows = await query(database_url, "SELECT relid::text FROM pg_partition_tree('hostbus.point') WHERE isleaf")
            return len(rows) >= 4

        await until(described)
        await until(kept)


async def test_it_answers_for_its_history_over_the_bus(network: str) -> None:
    async with PostgresSink("sink", network, config=config()) as sink, source(network) as web1:
        for index in range(10):
            web1.tick(index, a=index)
        await until(lambda: sink.points_stored == 10)
        async with HistoryClient("client", network) as client:

            async def answered() -> bool:
                return bool(await client.get_metrics(historic=True))

            await until(answered)
            chunk = await read_points(client, "web1.a")
            assert list(chunk.values) == list(range(10))
            (row,) = (await client.aggregates("web1.a", NOW, NOW + 60 * SECOND, 60 * SECOND)).rows()
            assert (row.count, row.sum) == (10, 45.0)


async def test_a_database_that_goes_away_pauses_the_sink_which_then_carries_on_with_nothing_lost(
    network: str, database_url: str, address: Address, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    async with proxy(address.port) as wire:
        monkeypatch.setenv("POSTGRES_PORT", str(wire.port))
        async with PostgresSink("sink", network, config=config()) as sink, source(network) as web1:
            web1.tick(0, a=0)
            await until(lambda: sink.points_stored == 1)
            await wire.close()
            for index in range(1, 30):
                web1.tick(index, a=index)
            await web1.drain()
            await until(lambda: "sink pauses: postgresql://tester@127.0.0.1" in caplog.text)
            await wire.open()
            await until(lambda: "sink goes on" in caplog.text)
            await until(lambda: sink.points_stored == 30)
        assert await stored(database_url) == [(index, float(index)) for index in range(30)]
        assert address.password not in caplog.text


async def test_it_starts_before_its_database_does(
    network: str, database_url: str, address: Address, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with proxy(address.port) as wire:
        monkeypatch.setenv("POSTGRES_PORT", str(wire.port))
        await wire.close()
        async with PostgresSink("sink", network, config=config()) as sink, source(network) as web1:
            web1.tick(0, a=0)
            await web1.drain()
            await wire.open()
            await until(lambda: sink.points_stored == 1)
        assert await stored(database_url) == [(0, 0.0)]


async def test_a_table_that_somebody_drops_is_made_anew_and_no_point_is_lost(network: str, database_url: str) -> None:
    async with PostgresSink("sink", network, config=config()) as sink, source(network) as web1:
        web1.tick(0, a=0)
        await until(lambda: sink.points_stored == 1)
        await query(database_url, "DROP SCHEMA hostbus CASCADE")
        web1.tick(1, a=1)
        await until(lambda: sink.points_stored == 2)
    assert await stored(database_url) == [(1, 1.0)]


async def test_a_mistake_in_how_to_reach_it_ends_the_start(memory_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POSTGRES_DB", "no_such")
    with pytest.raises(StorageError, match="/no_such does not exist"):
        await PostgresSink("sink", memory_url, config=config()).connect()


async def test_what_is_open_already_cannot_be_changed_and_the_rest_can(network: str, database_url: str) -> None:
    async with PostgresSink("sink", network, config=config()) as sink, source(network) as web1:
        for key, value in {"database": "x", "queue": "q", "shard": "1/2", "port": 1}.items():
            with pytest.raises(
                ConfigError, match=f"{key}: sink works with it already: restart it with another --{key}"
            ):
                await sink.reconfigure(config(**{key: value}))
        with pytest.raises(RpcError, match="cannot be set over the bus"):
            await web1.rpc("config.set", token="sink", config={"host": "evil.example"}, merge=True)
        await sink.reconfigure(config(metrics=["web1.b"], batch_points=10, persist_period=0.01))
        assert (sink.batch_points, sink.batch_age_s) == (10, 0.01)
        web1.tick(0, a=0, b=1)
        await until(lambda: sink.points_stored == 1)
    assert await stored(database_url, "web1.b") == [(0, 1.0)]


async def test_gaps_are_noted_but_not_by_those_who_share_a_queue(network: str, database_url: str) -> None:
    for settings, wanted in ((config(queue="archive"), 0), (config(), 1)):
        async with PostgresSink("sink", network, config=settings) as sink, source(network) as web1:
            web1.tick(0, a=0)
            await until(lambda: sink.points_received == 1)
            web1._outflow._encoder._sequences["web1"] += 3  # type: ignore[attr-defined]
            web1.tick(1, a=1)
            await until(lambda: sink.points_received == 2)
        assert len(await query(database_url, "SELECT * FROM hostbus.gap")) == wanted


# -- many hosts ----------------------------------------------------------------------------------------------------


async def test_two_sinks_share_a_queue(amqp_network: str, database_url: str) -> None:
    async with (
        PostgresSink("sink-1", amqp_network, config=config(queue="archive")) as first,
        PostgresSink("sink-2", amqp_network, config=config(queue="archive")) as second,
        source(amqp_network) as web1,
    ):
        for index in range(100):
            web1.tick(index, a=index, b=-index)
            await web1.drain()
        await until(lambda: first.points_stored + second.points_stored == 200)
        assert first.points_stored > 50
        assert second.points_stored > 50
    assert await stored(database_url) == [(index, float(index)) for index in range(100)]


async def test_two_shards_store_one_part_each(amqp_network: str, database_url: str) -> None:
    names = [f"m{number}" for number in range(30)]
    async with (
        PostgresSink("sink-1", amqp_network, config=config(shard="1/2", live_period=0.02)) as first,
        PostgresSink("sink-2", amqp_network, config=config(shard="2/2")) as second,
        source(amqp_network) as web1,
    ):
        for index in range(20):
            web1.tick(index, **dict.fromkeys(names, float(index)))
        await until(lambda: first.points_stored + second.points_stored == 600)
        mine = {f"web1.{name}" for name in names if shard_of(f"web1.{name}", 2) == 1}
        assert first.points_stored == len(mine) * 20

        async def shown() -> bool:
            return {row["metric"] for row in await query(database_url, "SELECT metric FROM hostbus.newest")} == mine

        await until(shown)
    rows = await query(database_url, "SELECT metric, count(*), count(DISTINCT ns) FROM hostbus.points GROUP BY metric")
    assert sorted(tuple(row) for row in rows) == [(f"web1.{name}", 20, 20) for name in sorted(names)]


async def test_shards_of_one_token_do_not_take_each_others_points(amqp_network: str, database_url: str) -> None:
    names = [f"m{number}" for number in range(30)]
    async with source(amqp_network) as web1:
        for shard in ("1/2", "2/2"):  # their queues are there from now on
            async with PostgresSink("sink", amqp_network, config=config(shard=shard)):
                pass
        web1.tick(0, **dict.fromkeys(names, 1.0))
        await web1.drain()
        for shard in ("1/2", "2/2"):
            async with PostgresSink("sink", amqp_network, config=config(shard=shard)) as sink:
                await until(lambda: sink.points_stored > 0)
    (row,) = await query(database_url, "SELECT count(*) FROM hostbus.point")
    assert row["count"] == 30


@asynccontextmanager
async def process(url: str, address: Address, token: str, *options: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """``agent start postgres-sink`` in a process of its own."""
    started = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "agents.cli", "start", "postgres-sink", "--token", token, "--server", url),
        *("--live-period", "0.1", *options),
        env={**os.environ, **environment_of(address)},
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        yield started
    finally:
        if started.returncode is None:
            started.kill()
        _, errors = await started.communicate()
        assert address.password.encode() not in errors


async def count(url: str, table: str = "hostbus.point") -> int:
    """How many rows it has; 0 if there is no archive yet."""
    try:
        (row,) = await query(url, f"SELECT count(*) FROM {table}")
    except asyncpg.UndefinedTableError:
        return 0
    return int(row[0])


@pytest.mark.parametrize("kind", ["shared queue", "shards"])
async def test_a_sink_that_is_killed_in_the_middle_loses_and_doubles_nothing(
    amqp_network: str, database_url: str, address: Address, kind: str
) -> None:
    share = [["--queue", "archive"]] * 2 if kind == "shared queue" else [["--shard", "1/2"], ["--shard", "2/2"]]
    names = [f"m{number}" for number in range(40)]
    killed = 0
    async with source(amqp_network) as web1, AsyncExitStack() as stack:
        sinks = [
            await stack.enter_async_context(
                process(amqp_network, address, f"sink-{n}", "--persist-period", "0.05", *options)
            )
            for n, options in enumerate(share)
        ]
        await until(lambda: _both_run(web1))
        for index in range(300):
            web1.tick(index, **dict.fromkeys(names, float(index)))
            await web1.drain()
            if index in (50, 120, 190) or (index == 280 and kind == "shards"):
                wanted = index * 10
                await until(lambda: _at_least(database_url, wanted))  # noqa: B023  # it is awaited here
                victim = killed % 2
                sinks[victim].send_signal(signal.SIGKILL)
                killed += 1
                again = process(amqp_network, address, f"sink-{victim}", "--persist-period", "0.05", *share[victim])
                sinks[victim] = await stack.enter_async_context(again)
        await until(lambda: _at_least(database_url, 300 * len(names)), 60)
        await until(lambda: _both_run(web1))
        for sink in sinks:
            sink.send_signal(signal.SIGTERM)
            assert await sink.wait() == 0
    assert killed >= 3
    rows = await query(
        database_url, "SELECT metric, count(*), count(DISTINCT ns), sum(value) FROM hostbus.points GROUP BY metric"
    )
    assert sorted(tuple(row) for row in rows) == [
        (f"web1.{name}", 300, 300, float(sum(range(300)))) for name in sorted(names)
    ]
    assert len(await query(database_url, "SELECT * FROM hostbus.newest")) == len(names)


async def _both_run(client: HandSource) -> bool:
    return {"sink-0", "sink-1"} <= (await client.discover(0.2)).keys()


async def _at_least(url: str, points: int) -> bool:
    return await count(url) >= points


async def test_a_mistake_is_one_line_on_the_command_line(address: Address, memory_url: str) -> None:
    wrong = replace(address, password="wrong-one")
    started = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "agents.cli", "start", "postgres-sink", "--server", memory_url),
        env={**os.environ, **environment_of(wrong)},
        stderr=asyncio.subprocess.PIPE,
    )
    _, errors = await started.communicate()
    assert started.returncode == 1
    (line,) = errors.decode().splitlines()
    assert line.startswith("agent: error: postgresql://tester@127.0.0.1:")
    assert "refuses the password: set POSTGRES_PASSWORD" in line
    assert "wrong-one" not in line
