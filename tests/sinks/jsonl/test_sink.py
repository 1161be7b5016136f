# SPDX-License-Identifier: MIT
"""From a source over the bus into lines: none lost, none twice, whatever is killed when."""

import asyncio
import gzip
import json
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from bus import sink as sink_module
from bus.client import Client
from bus.errors import ConfigError, StorageError
from bus.manager import Manager
from bus.source import Source
from bus.timestamp import Timestamp
from sinks.formats.jsonl import FORMAT
from sinks.jsonl import JsonConfig, JsonSink
from sinks.jsonl.log import put_aside

START_NS = 1_790_000_000 * 10**9


class HandSource(Source):
    """Sends from outside."""

    async def task(self) -> None:
        await self.task_stop_future

    def tick(self, index: int, metrics: int = 1) -> None:
        """One sample of each metric, `index` seconds after the start."""
        self.sample(Timestamp(START_NS + index * 10**9), {f"web1.m{n}": float(index) for n in range(metrics)})


@pytest.fixture(autouse=True)
def in_a_hurry(monkeypatch):
    monkeypatch.setattr(sink_module, "LOWEST_RETRY_S", 0.02)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "points.jsonl"


@pytest.fixture
async def network(any_url):
    async with Manager("manager", any_url):
        yield any_url


def config(path: Path, **others: object) -> JsonConfig:
    return JsonConfig.load({"path": str(path), "metrics": ["web1.#"], "batch_age": 0, **others})


async def until(condition):
    async with asyncio.timeout(30):
        while not condition():
            await asyncio.sleep(0.01)


def lines(path: Path) -> list[dict]:
    """All whole lines, of the files put aside as well; none while one of them is being renamed."""
    found = {}
    try:
        for file in [*put_aside(path), path]:
            text = gzip.decompress(file.read_bytes()) if file.suffix == ".gz" else file.read_bytes()
            found[file.name.removesuffix(".gz")] = [json.loads(line) for line in text.split(b"\n")[:-1]]
    except FileNotFoundError:
        return []
    return [line for lines_of_file in found.values() for line in lines_of_file]


def ticks(path: Path, metric: str = "web1.m0") -> list[int]:
    return [(line["time"] - START_NS) // 10**9 for line in lines(path) if line.get("metric") == metric]


def last_tick(path: Path) -> int:
    """The newest tick in the file, read without reading it all."""
    content = path.read_bytes()[-20_000:] if path.exists() else b""
    found = [line for line in content.split(b"\n")[1:-1] if line.startswith(b'{"metric":"web1.m19"')]
    return (json.loads(found[-1])["time"] - START_NS) // 10**9 if found else -1


async def test_what_a_source_sends_is_in_the_file_and_can_be_imported(network, path):
    async with JsonSink("sink", network, config=config(path)) as sink, HandSource("s", network, prefix="web1") as web1:
        for index in range(10):
            web1.tick(index, 2)
        await until(lambda: sink.points_stored == 20)
        signs = sink.vital_signs()
        assert (signs["pointsStored"], signs["fileBytes"]) == (20, path.stat().st_size)
    assert ticks(path) == ticks(path, "web1.m1") == list(range(10))
    read = [chunk async for batch in FORMAT.read(path) for chunk in batch.chunks]
    assert sum(map(len, read)) == 20


async def test_what_comes_again_is_not_written_again(network, path):
    """The acknowledgement is lost between the write and the broker."""
    async with HandSource("s", network, prefix="web1") as web1:
        async with JsonSink("sink", network, config=config(path)) as first:
            first._consumers[0].ack = lambda *_args, **_more: None
            for index in range(5):
                web1.tick(index)
                await web1.drain()
            await until(lambda: first.points_stored == 5)
        async with JsonSink("sink", network, config=config(path, rotate_bytes=1)) as sink:
            web1.tick(5)
            await until(lambda: sink.points_received == 6)
            assert (sink.points_stored, sink.frames_again) == (1, 5)
    assert ticks(path) == list(range(6))


async def test_a_file_that_is_moved_away_is_followed_by_another_that_knows_the_same(network, path, tmp_path):
    async with JsonSink("sink", network, config=config(path)) as sink, HandSource("s", network, prefix="web1") as web1:
        web1.tick(0)
        await until(lambda: sink.points_stored == 1)
        path.rename(tmp_path / "moved")
        web1.tick(1)
        await until(lambda: sink.points_stored == 2)
    assert ticks(path) == [1]
    assert b'"seen":[["s","web1",[[' in path.read_bytes().splitlines()[0]


async def test_a_file_that_cannot_be_written_pauses_the_sink(network, path, caplog):
    async with JsonSink("sink", network, config=config(path)) as sink, HandSource("s", network, prefix="web1") as web1:
        web1.tick(0)
        await until(lambda: sink.points_stored == 1)
        content = path.read_bytes()
        path.unlink()
        path.mkdir()
        web1.tick(1)
        await until(lambda: "sink pauses" in caplog.text)
        path.rmdir()
        path.write_bytes(content)
        await until(lambda: sink.points_stored == 2)
    assert ticks(path) == [0, 1]


async def test_one_writer_per_file_and_the_path_stays(network, path):
    async with JsonSink("sink", network, config=config(path)) as sink:
        with pytest.raises(StorageError, match="is being written by this process already"):
            async with JsonSink("other", network, config=config(path)):
                pass
        with pytest.raises(ConfigError, match="path: sink has its file open"):
            await sink.reconfigure(config(path.with_name("else")))
        await sink.reconfigure(config(path, keep=7, metrics=["web2.#"]))
        assert (sink.config.keep, sink.metrics) == (7, ["web2.#"])


async def test_files_are_put_aside_compressed_and_bounded_while_points_come(network, path):
    rotating = config(path, rotate_bytes=2000, compress=True, keep=3)
    async with JsonSink("sink", network, config=rotating) as sink, HandSource("s", network, prefix="web1") as web1:
        for index in range(200):
            web1.tick(index)
            await web1.drain()
            if index % 10 == 0:
                await until(lambda: sink.points_stored > index)  # noqa: B023  # it is awaited here
        await until(lambda: sink.points_stored == 200)
        await until(lambda: [file.suffix for file in put_aside(path)] == [".gz"] * 3)
    found = ticks(path)
    assert found == list(range(200))[-len(found) :]


async def test_a_link_to_the_file_stays_one(network, path, tmp_path):
    link = tmp_path / "link.jsonl"
    link.symlink_to(path)
    async with (
        JsonSink("sink", network, config=config(link, rotate_bytes=1)) as sink,
        HandSource("s", network, prefix="web1") as web1,
    ):
        for index in range(3):
            web1.tick(index)
            await until(lambda: sink.points_stored == index + 1)  # noqa: B023
    assert link.readlink() == path
    assert len(put_aside(path)) == 2
    assert ticks(path) == [0, 1, 2]


async def test_what_is_missing_is_in_the_file(network, path):
    async with JsonSink("sink", network, config=config(path)) as sink, HandSource("s", network, prefix="web1") as web1:
        for index in range(2):
            web1.tick(index)
            await web1.drain()
        await until(lambda: sink.points_stored == 2)
        sink._gaps._expected["s", "web1"] = (sink._gaps._expected["s", "web1"][0], -3)
        web1.tick(2)
        await until(lambda: sink.points_stored == 3)
    (missing,) = [line["missing"] for line in lines(path) if "missing" in line]
    assert (missing["source"], missing["key"], missing["first"], missing["last"]) == ("s", "web1", -3, 1)


async def test_killed_again_and_again_no_point_is_lost_and_none_is_there_twice(amqp_url, path):
    """SIGKILL at any moment: while a batch is written, between write and acknowledgement, in a rotation."""
    agent = str(Path(sys.executable).with_name("agent"))
    command = [agent, "start", "json-sink", "--server", amqp_url, "--token", "sink", "--path", str(path)]
    command += ["--rotate-bytes", "50000", "--batch-age", "0", "--compress"]
    chance = random.Random(7)
    total = 0
    async with Manager("manager", amqp_url), HandSource("s", amqp_url, prefix="web1") as web1, Client("c", amqp_url):

        async def send() -> None:
            nonlocal total
            while True:
                web1.tick(total, 20)
                total += 1
                await asyncio.sleep(0.002)

        sending = asyncio.create_task(send())
        for _ in range(4):
            before = last_tick(path)
            running = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            try:
                await until(lambda: running.poll() is not None or last_tick(path) > before)  # noqa: B023
                await asyncio.sleep(chance.random() * 0.3)
            finally:
                running.send_signal(signal.SIGKILL)
                assert await asyncio.to_thread(running.wait) == -signal.SIGKILL
        sending.cancel()
        await web1.drain()
        running = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            await until(lambda: last_tick(path) == total - 1)
        finally:
            running.terminate()
            assert await asyncio.to_thread(running.wait) == 0
    assert len(put_aside(path)) > 2
    found: dict[str, list[int]] = {}
    for line in await asyncio.to_thread(lines, path):
        if "metric" in line:
            found.setdefault(line["metric"], []).append((line["time"] - START_NS) // 10**9)
    first = found["web1.m0"][0]  # nobody had subscribed to those before
    assert total - first > 100
    assert found == {f"web1.m{number}": list(range(first, total)) for number in range(20)}
