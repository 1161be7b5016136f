# SPDX-License-Identifier: MIT
"""Several sinks fill one archive: they share a queue, or each has a part of the metrics."""

import signal
from contextlib import AsyncExitStack

import pytest

from sinks.postgres.address import Address
from sinks.postgres.shards import shard_of
from sinks.postgres.sink import PostgresSink
from tests.sinks.postgres.support import HandSource, config, count, environment_of, process, source, stored, until
from tests.sinks.postgres.test_archive import query


@pytest.fixture(autouse=True)
def environment(address: Address, monkeypatch: pytest.MonkeyPatch) -> None:
    """How a sink finds its database."""
    for name, value in environment_of(address).items():
        monkeypatch.setenv(name, value)


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
        for index in range(200):
            web1.tick(index, **dict.fromkeys(names, float(index)))
            await web1.drain()
            if index in (60, 140):  # each of them once
                wanted = index * 10
                await until(lambda: _at_least(database_url, wanted))  # noqa: B023  # it is awaited here
                victim = killed % 2
                sinks[victim].send_signal(signal.SIGKILL)
                killed += 1
                again = process(amqp_network, address, f"sink-{victim}", "--persist-period", "0.05", *share[victim])
                sinks[victim] = await stack.enter_async_context(again)
        await until(lambda: _at_least(database_url, 200 * len(names)), 60)
        await until(lambda: _both_run(web1))
        for sink in sinks:
            sink.send_signal(signal.SIGTERM)
            assert await sink.wait() == 0
    assert killed == 2
    rows = await query(
        database_url, "SELECT metric, count(*), count(DISTINCT ns), sum(value) FROM hostbus.points GROUP BY metric"
    )
    assert sorted(tuple(row) for row in rows) == [
        (f"web1.{name}", 200, 200, float(sum(range(200)))) for name in sorted(names)
    ]
    assert len(await query(database_url, "SELECT * FROM hostbus.newest")) == len(names)


async def _both_run(client: HandSource) -> bool:
    return {"sink-0", "sink-1"} <= (await client.discover(0.2)).keys()


async def _at_least(url: str, points: int) -> bool:
    return await count(url) >= points
