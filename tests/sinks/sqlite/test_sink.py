# SPDX-License-Identifier: MIT
"""From a source over the bus into the file: once, whole, whatever happens in between."""

import asyncio
import logging
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from bus import agent as agent_module
from bus import sink as sink_module
from bus.archive import read_points
from bus.client import Client
from bus.errors import ConfigError, RpcError, StorageError
from bus.manager import Manager
from bus.source import Source
from bus.timestamp import Timestamp
from sinks import describing
from sinks.sqlite import database as database_module
from sinks.sqlite.archive import SqliteArchive
from sinks.sqlite.sink import SqliteConfig, SqliteSink, default_path

START_NS = 1_790_000_000 * 10**9


class HandSource(Source):
    """Sends from outside."""

    async def task(self) -> None:
        await self.task_stop_future

    def tick(self, index: int, **values: float) -> None:
        """One sample of ``web1.NAME`` each, `index` seconds after the start."""
        self.sample(Timestamp(START_NS + index * 10**9), {f"web1.{name}": value for name, value in values.items()})


@pytest.fixture(autouse=True)
def in_a_hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sink_module, "LOWEST_RETRY_S", 0.02)
    monkeypatch.setattr(database_module, "BUSY_TIMEOUT_S", 0.02)
    monkeypatch.setattr(describing, "FIRST_QUESTION_S", 0.02)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "archive.db"


@pytest.fixture
async def network(any_url: str) -> AsyncIterator[str]:
    """A broker with a manager on it; its URL."""
    async with Manager("manager", any_url):
        yield any_url


def config(path: Path, **others: object) -> SqliteConfig:
    return SqliteConfig.load({"path": str(path), "metrics": ["web1.#"], "batch_age": 0, **others})


@asynccontextmanager
async def source(url: str) -> AsyncIterator[HandSource]:
    async with HandSource("source-web1", url, prefix="web1") as made:
        yield made


async def until(condition: Callable[[], Awaitable[bool] | bool]) -> None:
    async with asyncio.timeout(30):
        while True:
            answer = condition()
            if answer if isinstance(answer, bool) else await answer:
                return
            await asyncio.sleep(0.01)


async def stored(path: Path, metric: str = "web1.a") -> list[tuple[int, float]]:
    """(seconds after the start, value) of a metric in the file."""
    async with await SqliteArchive.open(path, access="read") as archive:
        chunk = await read_points(archive, metric)
    return [((time - START_NS) // 10**9, value) for time, value in zip(chunk.times, chunk.values, strict=True)]


async def test_what_a_source_sends_is_in_the_file(network: str, path: Path) -> None:
    async with SqliteSink("sink", network, config=config(path)) as sink, source(network) as web1:
        for index in range(10):
            web1.tick(index, a=index, b=-index)
        await until(lambda: sink.points_stored == 20)
        assert sink.size_bytes > 0
        assert sink.vital_signs()["pointsStored"] == 20
    assert await stored(path) == [(index, float(index)) for index in range(10)]
    assert await stored(path, "web1.b") == [(index, float(-index)) for index in range(10)]


async def test_a_batch_is_one_transaction_and_the_end_does_not_wait_for_its_age(network: str, path: Path) -> None:
    async with SqliteSink("sink", network, config=config(path, batch_age=60)) as sink, source(network) as web1:
        for index in range(20):
            web1.tick(index, a=index)
            await web1.drain()
        assert await stored(path) == []
        batches: list[int] = []
        inner = sink.on_frames

        async def counted(frames: list[object]) -> None:
            batches.append(len(frames))
            await inner(frames)  # type: ignore[arg-type]

        sink.on_frames = counted  # type: ignore[method-assign,assignment]
        await until(lambda: sink._intake._points == 20)
    assert batches == [20]
    assert len(await stored(path)) == 20


async def test_points_that_come_while_the_sink_is_away_are_there_when_it_returns(network: str, path: Path) -> None:
    async with source(network) as web1:
        async with SqliteSink("sink", network, config=config(path)) as sink:
            web1.tick(0, a=0)
            await until(lambda: sink.points_stored == 1)
        for index in range(1, 50):
            web1.tick(index, a=index)
        await web1.drain()
        assert await stored(path) == [(0, 0.0)]
        async with SqliteSink("sink", network, config=config(path)) as sink:
            await until(lambda: sink.points_stored == 49)
    assert await stored(path) == [(index, float(index)) for index in range(50)]


async def test_a_locked_file_pauses_the_sink_which_then_carries_on_with_nothing_lost(
    network: str, path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    async with SqliteSink("sink", network, config=config(path)) as sink, source(network) as web1:
        web1.tick(0, a=0)
        await until(lambda: sink.points_stored == 1)
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        for index in range(1, 30):
            web1.tick(index, a=index)
        await web1.drain()
        await until(lambda: "sink pauses" in caplog.text)
        assert sink.points_stored == 1
        other.execute("ROLLBACK")
        other.close()
        await until(lambda: sink.points_stored == 30)
        await until(lambda: "sink goes on" in caplog.text)
    assert caplog.text.count("sink pauses") == 1
    assert await stored(path) == [(index, float(index)) for index in range(30)]


async def test_what_was_not_acknowledged_comes_again_to_the_next_sink(
    network: str, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first sink ends while its file is locked: its frames are redelivered, and stored once."""
    monkeypatch.setattr(agent_module, "WIND_DOWN_S", 0.3)
    async with source(network) as web1:
        async with SqliteSink("sink", network, config=config(path)):
            other = sqlite3.connect(path, isolation_level=None)
            other.execute("BEGIN IMMEDIATE")
            for index in range(5):
                web1.tick(index, a=index)
            await web1.drain()
        other.close()
        async with SqliteSink("sink", network, config=config(path)) as sink:
            await until(lambda: sink.points_stored == 5)
    assert await stored(path) == [(index, float(index)) for index in range(5)]


async def test_a_redelivery_of_what_is_stored_doubles_nothing(network: str, path: Path) -> None:
    """The acknowledgement is lost between the commit and the broker."""
    first = SqliteSink("sink", network, config=config(path))
    async with source(network) as web1:
        async with first:
            first._consumers[0].ack = lambda *_args, **_more: None  # type: ignore[method-assign]
            for index in range(5):
                web1.tick(index, a=index)
            await until(lambda: first.points_stored == 5)
        async with SqliteSink("sink", network, config=config(path)) as sink:
            web1.tick(5, a=5)
            await until(lambda: sink.points_received == 6)
            assert sink.points_stored == 1
    assert await stored(path) == [(index, float(index)) for index in range(6)]


async def test_a_file_that_is_taken_away_is_made_anew(network: str, path: Path) -> None:
    async with SqliteSink("sink", network, config=config(path)) as sink, source(network) as web1:
        web1.tick(0, a=0)
        await until(lambda: sink.points_stored == 1)
        for file in path.parent.glob("archive.db*"):
            file.unlink()
        web1.tick(1, a=1)
        await until(lambda: sink.points_stored == 2)
    assert await stored(path) == [(1, 1.0)]


async def test_a_file_that_breaks_costs_no_point(network: str, path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Nothing is rejected for it: the sink waits until a person has put another file there."""
    async with SqliteSink("sink", network, config=config(path)) as sink, source(network) as web1:
        web1.tick(0, a=0)
        await until(lambda: sink.points_stored == 1)
        for file in path.parent.glob("archive.db*"):
            file.unlink()
        path.write_text("this is no archive\n" * 100)
        web1.tick(1, a=1)
        await until(lambda: "sink pauses" in caplog.text)
        path.unlink()
        await until(lambda: sink.points_stored == 2)
        assert sink.vital_signs()["framesRejected"] == 0
    assert await stored(path) == [(1, 1.0)]


async def test_missing_frames_are_stored_as_gaps(network: str, path: Path) -> None:
    async with SqliteSink("sink", network, config=config(path)) as sink, source(network) as web1:
        web1.tick(0, a=0)
        await until(lambda: sink.points_stored == 1)
        web1._outflow._encoder._sequences["web1"] += 3  # type: ignore[attr-defined]
        web1.tick(1, a=1)
        await until(lambda: sink.points_stored == 2)
        epoch = web1.started.posix_ns
    async with await SqliteArchive.open(path, access="read") as archive:
        (missing,) = await archive.missing()
    assert (missing.source, missing.key, missing.epoch) == ("source-web1", "web1", epoch)
    assert (missing.first, missing.last) == (1, 3)


async def test_the_metadata_of_metrics_is_stored_when_the_manager_knows_it(network: str, path: Path) -> None:
    async def described() -> dict[str, object]:
        async with await SqliteArchive.open(path, access="read") as archive:
            return {name: about.get("unit") for name, about in (await archive.metrics()).items()}

    async with SqliteSink("sink", network, config=config(path)) as sink, source(network) as web1:
        web1.tick(0, a=0)  # points first: storing does not wait for a declaration
        await until(lambda: sink.points_stored == 1)
        assert await described() == {"web1.a": None}
        await web1.declare_metrics({"web1.a": {"unit": "%"}, "web1.b": {"unit": "B/s"}})

        async def first_known() -> bool:
            return await described() == {"web1.a": "%"}

        await until(first_known)
        web1.tick(1, b=1)

        async def both_known() -> bool:
            return await described() == {"web1.a": "%", "web1.b": "B/s"}

        await until(both_known)


async def test_metrics_and_batches_change_at_run_time_and_the_path_does_not(network: str, path: Path) -> None:
    async with (
        SqliteSink("sink", network, config=config(path, metrics=["web1.a"])) as sink,
        source(network) as web1,
        Client("tool", network) as tool,
    ):
        await tool.rpc("config.set", token="sink", config={"metrics": ["web1.b"], "batch_points": 7})
        assert sink.batch_points == 7
        web1.tick(0, a=1, b=2)
        await until(lambda: sink.points_stored == 1)
        assert await stored(path, "web1.a") == []
        assert await stored(path, "web1.b") == [(0, 2.0)]
        with pytest.raises(RpcError, match="path: sink has its archive open: restart it with another --path"):
            await tool.rpc("config.set", token="sink", config={"path": "/elsewhere.db"})
        assert sink.config.path == str(path)


async def test_two_sinks_on_one_path_are_one_too_many(network: str, path: Path) -> None:
    async with SqliteSink("sink", network, config=config(path)):
        with pytest.raises(StorageError, match="is being written by this process already"):
            await SqliteSink("other", network, config=config(path)).connect()


async def test_a_sink_whose_file_is_locked_at_the_start_begins_to_store_later(network: str, path: Path) -> None:
    async with await SqliteArchive.open(path):
        pass
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    async with SqliteSink("sink", network, config=config(path)) as sink, source(network) as web1:
        web1.tick(0, a=0)
        await web1.drain()
        other.close()
        await until(lambda: sink.points_stored == 1)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"metrics": ["web1..a"]}, "not a metric name or pattern"),
        ({"metrics": []}, "metrics"),
        ({"path": ""}, "path"),
        ({"batch_age": -1}, "batch_age"),
        ({"batch_pionts": 5}, "did you mean 'batch_points'"),
    ],
)
def test_a_configuration_that_cannot_be_is_refused_by_name(values: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        SqliteConfig.load(values)


def test_the_default_path_is_under_the_users_state_directory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert default_path() == str(tmp_path / "hostbus" / "archive.db")
    monkeypatch.setenv("XDG_STATE_HOME", "relative")
    monkeypatch.setenv("HOME", "/home/somebody")
    assert SqliteConfig().path == "/home/somebody/.local/state/hostbus/archive.db"


async def test_the_directory_of_the_default_path_is_made(
    memory_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "new"))
    async with Manager("manager", memory_url), SqliteSink("sink", memory_url):
        assert (tmp_path / "new" / "hostbus" / "archive.db").exists()
