# SPDX-License-Identifier: MIT
"""From a source over the bus into the database: once, whole, whatever happens in between."""

import asyncio
import logging
import os
import sys
from dataclasses import replace

import pytest

from bus import sink as sink_module
from bus.archive import read_points
from bus.errors import ConfigError, RpcError, StorageError
from bus.history import HistoryClient
from sinks import describing
from sinks.postgres import sink as postgres_module
from sinks.postgres.address import Address
from sinks.postgres.sink import PostgresSink
from tests.sinks.postgres.proxy import proxy
from tests.sinks.postgres.support import config, count, environment_of, process, source, stored, until
from tests.sinks.postgres.test_archive import NOW, SECOND, query


@pytest.fixture(autouse=True)
def in_a_hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sink_module, "LOWEST_RETRY_S", 0.02)
    monkeypatch.setattr(describing, "FIRST_QUESTION_S", 0.02)


@pytest.fixture(autouse=True)
def environment(address: Address, monkeypatch: pytest.MonkeyPatch) -> None:
    """How a sink finds its database."""
    for name, value in environment_of(address).items():
        monkeypatch.setenv(name, value)


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
