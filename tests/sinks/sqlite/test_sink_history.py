# SPDX-License-Identifier: MIT
"""What the SQLite sink stored is read over the bus."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from bus.errors import RpcError
from bus.history import HistoryClient
from bus.manager import Manager
from bus.timestamp import Timedelta, Timestamp
from sinks import history as history_module
from sinks.sqlite import SqliteConfig, SqliteSink
from tests.bus.support import START_NS, HandSource, until

S = 10**9


@pytest.fixture(autouse=True)
def in_a_hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history_module, "GATHER_S", 0.01)


@pytest.fixture
async def network(any_url: str) -> AsyncIterator[str]:
    async with Manager("manager", any_url):
        yield any_url


async def test_what_a_source_sends_is_asked_for_over_the_bus_while_more_comes(network: str, tmp_path: Path) -> None:
    config = SqliteConfig(path=str(tmp_path / "archive.db"), batch_age=0)
    async with (
        SqliteSink("sink-sqlite", network, config=config) as sink,
        HandSource("source-a", network, prefix="web1") as source,
        HistoryClient("asker", network) as client,
    ):
        await source.declare_metrics({"web1.a": {"unit": "W", "interval": 1}, "web1.b": {}})

        async def is_there(last: int) -> bool:
            return await client.last("web1.a") == {"web1.a": (START_NS + last * S, float(last))}

        for second in range(100):
            source.tick(second, {"web1.a": float(second), "web1.b": 7.0})

        async def knows(*metrics: str) -> bool:
            return list(await client.metrics()) == list(metrics)

        await until(lambda: is_there(99))
        await until(lambda: knows("web1.a", "web1.b"))
        assert (await client.metrics("web1.a"))["web1.a"]["unit"] == "W"
        start = Timestamp(START_NS)
        chunk = await client.history_raw_timeline("web1.a", start + Timedelta(10 * S), start + Timedelta(20 * S))
        assert list(chunk.values) == [float(second) for second in range(10, 20)]
        found = await client.history_aggregate_timeline("web1.a", Timedelta(60 * S))
        assert sum(found.counts) == 100
        source.tick(100, {"web1.a": 100.0, "web1.b": 7.0, "web1.new": 1.0})
        await until(lambda: is_there(100))

        await until(lambda: knows("web1.a", "web1.b", "web1.new"))
        assert await client.history_last_value("web1.new") == (start + Timedelta(100 * S), 1.0)
        signs = (await client.discover(0.5))["sink-sqlite"]
        assert signs["historyMetrics"] == 3
        assert signs["historyAnswered"] > 0
        assert sink.points_stored == 203


async def test_an_archive_that_was_taken_away_and_came_back_answers_again(memory_url: str, tmp_path: Path) -> None:
    path = tmp_path / "archive.db"
    config = SqliteConfig(path=str(path), batch_age=0)
    async with (
        Manager("manager", memory_url),
        SqliteSink("sink-sqlite", memory_url, config=config),
        HandSource("source-a", memory_url, prefix="web1") as source,
        HistoryClient("asker", memory_url) as client,
    ):

        async def has(*seconds: int) -> bool:
            try:
                return [value async for page in client.points("web1.a") for value in page.values] == list(seconds)
            except RpcError:  # there is none, for a moment
                return False

        source.tick(1, {"web1.a": 1.0})
        await until(lambda: has(1))
        for file in tmp_path.glob("archive.db*"):
            file.unlink()
        source.tick(2, {"web1.a": 2.0})
        await until(lambda: has(2))
