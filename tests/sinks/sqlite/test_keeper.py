# SPDX-License-Identifier: MIT
"""The upkeep beside the inserts: of a running sink, through errors, to its end."""

import asyncio
import logging
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from bus.client import Client
from bus.errors import ConfigError, RpcError
from bus.manager import Manager
from sinks.retention import Retention
from sinks.sqlite import database as database_module
from sinks.sqlite import keeper as keeper_module
from sinks.sqlite.archive import SqliteArchive
from sinks.sqlite.keeper import Keeper, Rules
from sinks.sqlite.sink import SqliteConfig, SqliteSink
from tests.sinks.sqlite.upkeep import NOW_NS, T0, H, S, count, findings, group, noise, points_of, seconds

D = 24 * H


@pytest.fixture(autouse=True)
def in_a_hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keeper_module, "PAUSE_S", 0.02)
    monkeypatch.setattr(database_module, "BUSY_TIMEOUT_S", 0.02)


@pytest.fixture
async def archive(tmp_path: Path) -> AsyncIterator[SqliteArchive]:
    async with await SqliteArchive.open(tmp_path / "archive.db") as made:
        yield made


def keeper(archive: SqliteArchive, hot_ns: int = 48 * H, **keep: str) -> Keeper:
    return Keeper("sink", lambda: archive, Rules(hot_ns=hot_ns, retention=Retention.load(keep)))


async def test_a_round_packs_removes_and_gives_space_back(archive: SqliteArchive) -> None:
    old = T0 - 4 * D
    for start in (old, T0):
        times = seconds(start, 20_000)
        await archive.insert([group(["a", "b"], times, noise(20_000), noise(20_000))])
    recent = seconds(NOW_NS // S * S - 100 * S, 100)
    await archive.insert([group(["a"], recent, noise(100))])
    before = archive.database.size_bytes
    one = keeper(archive)
    await one.round(archive)
    assert [when for when, _ in await points_of(archive, "a")] == seconds(T0, 20_000) + recent
    assert await count(archive, "point") == 100
    assert archive.size_bytes < before / 2
    assert await findings(archive) == []
    steps: list[object] = []
    archive.database.run = lambda work: steps.append(work)  # type: ignore[method-assign,assignment,return-value]
    await one.round(archive)
    assert steps == [], "there was nothing to do"


async def test_late_points_are_seen_to_in_the_next_round(archive: SqliteArchive) -> None:
    one = keeper(archive)
    await archive.insert([group(["a"], seconds(T0, 100, 60), noise(100))])
    await one.round(archive)
    late = [group(["a"], [T0 + 1], [5.0]), group(["a"], [NOW_NS], [6.0])]
    await archive.insert(late)
    one.stored(late)
    await one.round(archive)
    assert await count(archive, "point") == 1
    too_late = [group(["a"], [T0 - 10 * D], [7.0])]
    await archive.insert(too_late)
    one.stored(too_late)
    await one.round(archive)
    assert len(await points_of(archive, "a")) == 102
    assert await findings(archive) == []


async def test_other_rules_are_in_force_with_the_next_round(archive: SqliteArchive) -> None:
    one = keeper(archive, hot_ns=100 * D, raw="100d")
    await archive.insert([group(["a"], seconds(T0, 100, 60), noise(100))])
    await one.round(archive)
    assert await count(archive, "point") == 100
    one.rules = Rules(hot_ns=D, retention=Retention.load({"raw": "100d"}))
    await one.round(archive)
    assert await count(archive, "point") == 0
    one.rules = Rules(hot_ns=D, retention=Retention.load({"raw": "1d", "10s": "2d"}))
    await one.round(archive)
    assert await points_of(archive, "a") == []
    assert await count(archive, "series WHERE tier = 0") == 0


async def test_a_locked_file_is_said_once_and_tried_again(
    archive: SqliteArchive, caplog: pytest.LogCaptureFixture
) -> None:
    await archive.insert([group(["a"], seconds(T0, 100, 60), noise(100))])
    other = sqlite3.connect(archive.path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    running = asyncio.create_task(keeper(archive).run())
    async with asyncio.timeout(20):
        while not caplog.records:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.3)  # some more rounds
        assert len(caplog.records) == 1
        assert "sink: old points are not compacted or removed for now" in caplog.text
        assert "is locked by another program" in caplog.text
        other.execute("ROLLBACK")
        other.close()
        while await count(archive, "point"):
            await asyncio.sleep(0.01)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running


async def test_inserts_come_between_the_steps(archive: SqliteArchive, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keeper_module, "SHARE_OF_TIME", 0.5)
    times = seconds(T0, 6 * 3600)
    await archive.insert([group([f"m{number}" for number in range(4)], times, *([noise(len(times))] * 4))])
    one = asyncio.create_task(keeper(archive).round(archive))
    inserted = 0
    while not one.done():
        await archive.insert([group(["live"], [NOW_NS + inserted], [1.0])])
        inserted += 1
        await asyncio.sleep(0)
    await one
    assert inserted > 1
    assert await count(archive, "point") == inserted
    assert await findings(archive) == []


async def test_a_running_sink_keeps_its_archive_by_its_configuration(
    memory_url: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    path = tmp_path / "archive.db"
    async with await SqliteArchive.open(path) as archive:
        await archive.insert([group(["web1.a", "web1.b"], seconds(T0, 100, 60), noise(100), noise(100))])
    config = SqliteConfig.load({"path": str(path), "hot": "forever", "keep": {"raw": "forever"}})
    async with (
        Manager("manager", memory_url),
        SqliteSink("sink", memory_url, config=config) as sink,
        Client("tool", memory_url) as tool,
    ):

        async def rows(wanted: int) -> None:
            async with asyncio.timeout(20):
                while await count(sink._archive, "point") != wanted:  # type: ignore[arg-type]
                    await asyncio.sleep(0.01)

        await rows(200)
        with pytest.raises(RpcError, match=r"keep: 10s is kept for 1d, less than the finer raw \(2d\)"):
            await tool.rpc("config.set", token="sink", config={"keep": {"raw": "2d", "10s": "1d"}})
        with pytest.raises(RpcError, match="hot: 'soon' is not a duration"):
            await tool.rpc("config.set", token="sink", config={"hot": "soon"})
        await tool.rpc("config.set", token="sink", config={"keep_for": {"web1.a": {"raw": "1d"}}})
        await rows(100)
        await tool.rpc("config.set", token="sink", config={"hot": "1h"})
        await rows(0)
    assert caplog.records == []
    async with await SqliteArchive.open(path, "read") as archive:
        assert await archive.last() == {"web1.b": (T0 + 99 * 60 * S, (await points_of(archive, "web1.b"))[-1][1])}
        assert await findings(archive) == []


def test_a_wrong_retention_is_a_wrong_configuration() -> None:
    with pytest.raises(ConfigError, match="keep: 'wra' is no tier; did you mean 'raw'"):
        SqliteConfig.load({"keep": {"wra": "1d"}})
    with pytest.raises(ConfigError, match="keep"):
        SqliteConfig.load({"keep": "7d"})
