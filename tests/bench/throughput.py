# SPDX-License-Identifier: MIT
"""What a point costs: source, sink and archive, over RabbitMQ and in memory.

    python tests/bench/throughput.py [--url amqp://...] [--points 1000000]

200 metrics per tick. Over RabbitMQ each stage is a process of its own with publisher confirms on: the
source fills a durable queue, then a sink (`on_chunk`) and then the archive empty one. Without --url a
private RabbitMQ is started. CPU is that of the whole process, all threads, without its start-up.
"""

import argparse
import asyncio
import json
import subprocess
import sys
import tempfile
import time
from array import array
from collections.abc import Awaitable, Callable
from contextlib import nullcontext
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from bus.agent import event_loop_factory  # noqa: E402
from bus.chunk import Chunk  # noqa: E402
from bus.manager import Manager, ManagerConfig  # noqa: E402
from bus.sink import DurableSink  # noqa: E402
from bus.source import Source  # noqa: E402
from bus.timestamp import Timestamp  # noqa: E402
from bus.transport import connect  # noqa: E402
from bus.transport.base import Transport  # noqa: E402

METRICS = [f"bench.load.core{index}.usage" for index in range(200)]
PREFIX = "bench.load"
START_NS = 1_790_000_000_000_000_000
IN_FLIGHT_POINTS = 200_000
CHUNK_SIZES = (1, 10, 1000)

Place = str | Transport
Result = dict[str, float]


class BenchSource(Source):
    """Sends from outside."""

    async def task(self) -> None:
        await self.task_stop_future


class CountingSink(DurableSink):
    """Counts points chunk by chunk."""

    def __init__(self, token: str, url: Place) -> None:
        super().__init__(token, url, metrics=["bench.#"])
        self.points = 0
        self.sum = 0.0

    async def on_chunk(self, chunk: Chunk) -> None:
        self.points += len(chunk.times)
        self.sum += chunk.values[0]


async def by_sample(source: BenchSource, ticks: int) -> None:
    values = {metric: float(index) for index, metric in enumerate(METRICS)}
    pause = IN_FLIGHT_POINTS // len(METRICS)
    for tick in range(ticks):
        source.sample(Timestamp(START_NS + tick * 1_000_000_000), values)
        if tick % pause == pause - 1:
            await source.drain()
        else:
            await asyncio.sleep(0)


async def by_send(source: BenchSource, ticks: int) -> None:
    values = {metric: float(index) for index, metric in enumerate(METRICS)}
    pause = IN_FLIGHT_POINTS // len(METRICS)
    for tick in range(ticks):
        now = Timestamp(START_NS + tick * 1_000_000_000)
        for metric, value in values.items():
            await source.send(metric, now, value)
        if tick % pause == pause - 1:
            await source.drain()
        else:
            await asyncio.sleep(0)


async def by_send_many(source: BenchSource, ticks: int) -> None:
    block = source.chunk_size or 1
    for start in range(0, ticks, block):
        times = array("q", [START_NS + tick * 1_000_000_000 for tick in range(start, start + block)])
        values = array("d", [1.5]) * block
        for metric in METRICS:
            source.send_many(metric, times, values)
        await (source.drain() if start * len(METRICS) % IN_FLIGHT_POINTS == 0 else asyncio.sleep(0))


WAYS: dict[str, Callable[[BenchSource, int], Awaitable[None]]] = {
    "sample": by_sample,
    "send": by_send,
    "send_many": by_send_many,
}


async def measured(points: int, work: Awaitable[None]) -> Result:
    wall, cpu = time.perf_counter(), time.process_time()
    await work
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    return {"points_per_s": points / wall, "cpu_us": cpu / points * 1e6}


async def run_source(place: Place, way: str, chunk_size: int, points: int) -> Result:
    ticks = max(points // len(METRICS) // chunk_size, 1) * chunk_size
    async with BenchSource("source-bench", place, chunk_size=chunk_size, prefix=PREFIX) as source:
        await source.declare_metrics(METRICS)

        async def work() -> None:
            await WAYS[way](source, ticks)
            await source.drain(300)

        return await measured(ticks * len(METRICS), work())


async def run_sink(place: Place, points: int) -> Result:
    sink = CountingSink("sink-bench", place)

    async def work() -> None:
        async with sink:
            while sink.points_received < points:  # the sink under test has no hook for it
                await asyncio.sleep(0.01)

    return await measured(points, work())


async def run_archive(place: Place, points: int) -> Result:
    from sinks.sqlite import SqliteConfig, SqliteSink

    with tempfile.TemporaryDirectory() as folder:
        config = SqliteConfig(path=f"{folder}/bench.db", metrics=["bench.#"], batch_age=0)
        sink = SqliteSink("archive-bench", place, config=config)

        async def work() -> None:
            async with sink:
                while sink.points_received < points:
                    await asyncio.sleep(0.01)

        return await measured(points, work())


async def make_queue(place: Place, sink: str) -> None:
    """Let a sink subscribe and go away: its queue stays."""
    from sinks.sqlite import SqliteConfig, SqliteSink

    with tempfile.TemporaryDirectory() as folder:
        agent = (
            CountingSink("sink-bench", place)
            if sink == "sink"
            else SqliteSink("archive-bench", place, config=SqliteConfig(path=f"{folder}/bench.db", metrics=["bench.#"]))
        )
        async with agent:
            await asyncio.sleep(0.1)


async def drop_queue(place: Place, queue: str) -> None:
    transport = connect(place) if isinstance(place, str) else place
    if isinstance(place, str):
        await transport.open()
    await transport.delete_queue(queue)
    if isinstance(place, str):
        await transport.aclose()


STAGES = {"source": run_source, "sink": run_sink, "archive": run_archive, "queue": make_queue, "drop": drop_queue}


def in_process(url: str, stage: str, *arguments: object) -> Result:
    """Run one stage in a process of its own."""
    command = [sys.executable, __file__, "--worker", json.dumps([url, stage, *arguments])]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, timeout=600)
    result: Result = json.loads(done.stdout.splitlines()[-1])
    return result


def worker(job: str) -> None:
    url, stage, *arguments = json.loads(job)
    with asyncio.Runner(loop_factory=event_loop_factory()) as runner:
        print(json.dumps(runner.run(STAGES[stage](url, *arguments))))


def row(where: str, stage: str, chunk_size: int, result: Result) -> None:
    print(
        f"{where:<9} {stage:<22} chunk size {chunk_size:<5} {result['points_per_s']:>12,.0f} points/s "
        f"{result['cpu_us']:>8.3f} µs CPU/point",
        flush=True,
    )


def over_rabbitmq(url: str, points: int) -> None:
    manager = subprocess.Popen([sys.executable, __file__, "--manager", url])
    try:
        for chunk_size in CHUNK_SIZES:
            some = points if chunk_size > 1 else points // 4
            exact = max(some // len(METRICS) // chunk_size, 1) * chunk_size * len(METRICS)
            for way in WAYS:
                row("rabbitmq", f"source, {way}", chunk_size, in_process(url, "source", way, chunk_size, some))
            for stage, queue in (("sink", "sink-bench-data"), ("archive", "archive-bench-data")):
                in_process(url, "queue", stage)
                in_process(url, "source", "sample", chunk_size, some)
                name = "sink, on_chunk" if stage == "sink" else "archive"
                row("rabbitmq", name, chunk_size, in_process(url, stage, exact))
                in_process(url, "drop", queue)
    finally:
        manager.terminate()
        manager.wait(20)


async def in_memory(points: int) -> None:
    transport = connect("memory://bench")
    await transport.open()
    async with Manager("manager", transport, config=ManagerConfig(store=":memory:")):
        for chunk_size in CHUNK_SIZES:
            some = points if chunk_size > 1 else points // 4
            exact = max(some // len(METRICS) // chunk_size, 1) * chunk_size * len(METRICS)
            for way in WAYS:
                row("memory", f"source, {way}", chunk_size, await run_source(transport, way, chunk_size, some))
            for stage, queue in (("sink", "sink-bench-data"), ("archive", "archive-bench-data")):
                await make_queue(transport, stage)
                await run_source(transport, "sample", chunk_size, some)
                result = await (run_sink if stage == "sink" else run_archive)(transport, exact)
                row("memory", "sink, on_chunk" if stage == "sink" else "archive", chunk_size, result)
                await transport.delete_queue(queue)
    await transport.aclose()


def against_executemany(points: int) -> None:
    """The archive alone, against plain executemany of the same points in the order of arrival."""
    from tests.bench.archive_insert import measure

    for chunk_size in CHUNK_SIZES:
        ticks = min(chunk_size, points // len(METRICS))
        rate = measure(ticks_per_group=ticks, batch_points=50_000, points=points)
        print(
            f"archive   {rate.archive_per_s:>12,.0f} points/s, plain executemany {rate.plain_per_s:>12,.0f} points/s: "
            f"{rate.ratio:.2f} x (chunk size {chunk_size}, batches of 50,000)",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--url", help="a RabbitMQ; default: a private one")
    parser.add_argument("--points", type=int, default=1_000_000)
    parser.add_argument("--only", choices=("rabbitmq", "memory", "archive"))
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    parser.add_argument("--manager", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        worker(arguments.worker)
    elif arguments.manager:
        Manager("manager", arguments.manager, config=ManagerConfig(store=":memory:")).run()
    else:
        if arguments.only in (None, "archive"):
            against_executemany(min(arguments.points, 400_000))
        if arguments.only in (None, "memory"):
            with asyncio.Runner(loop_factory=event_loop_factory()) as runner:
                runner.run(in_memory(arguments.points))
        if arguments.only in (None, "rabbitmq"):
            sys.path.insert(0, str(ROOT / "tests"))
            from services.rabbitmq import private_rabbitmq

            with nullcontext(arguments.url) if arguments.url else private_rabbitmq() as broker:
                over_rabbitmq(broker if isinstance(broker, str) else broker.url(), arguments.points)


if __name__ == "__main__":
    main()
