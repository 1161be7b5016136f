# SPDX-License-Identifier: MIT
"""What it takes to ask an archive over RabbitMQ, beside what reading it takes in the same process.

Run it with ``python -m tests.bench.history``. The archive is SQLite: some metrics at 1 Hz for some days.
"""

import asyncio
import statistics
import tempfile
import time
from array import array
from collections.abc import Awaitable, Callable
from pathlib import Path

from bus.archive import History, read_points
from bus.frame import Group
from bus.history import HistoryClient
from bus.manager import Manager, ManagerConfig
from sinks.sqlite import SqliteConfig, SqliteSink
from sinks.sqlite.archive import SqliteArchive
from tests.services.rabbitmq import private_rabbitmq

S = 10**9
DAY = 86400
DAYS = 3
METRICS = tuple(f"web1.metric{number:02}" for number in range(20))
START_NS = 1_790_000_000 // DAY * DAY * S
RUNS = 9


async def fill(path: Path) -> None:
    """Points that look like a host's."""
    async with await SqliteArchive.open(path) as archive:
        for hour in range(DAYS * 24):
            times = array("q", range(START_NS + hour * 3600 * S, START_NS + (hour + 1) * 3600 * S, S))
            values = array("d", [20 + (second * 7919 % 1000) / 10 for second in range(3600)])
            await archive.insert([Group(METRICS, times, values * len(METRICS))])


async def milliseconds(ask: Callable[[], Awaitable[object]]) -> float:
    """The median of some runs."""
    spent = []
    for _ in range(RUNS):
        begin = time.perf_counter()
        await ask()
        spent.append((time.perf_counter() - begin) * 1000)
    return statistics.median(spent)


async def report(name: str, history: History) -> None:
    """One line."""
    start, end = START_NS + DAY * S, START_NS + 2 * DAY * S
    metric = METRICS[7]
    raw = await milliseconds(lambda: read_points(history, metric, start, end))
    assert len(await read_points(history, metric, start, end)) == DAY
    minutes = await milliseconds(lambda: history.aggregates(metric, start, end, 60 * S))
    assert len(await history.aggregates(metric, start, end, 60 * S)) == 1440
    whole = await milliseconds(lambda: history.aggregates(metric, start, end))
    last = await milliseconds(lambda: history.last(metric))
    every = await milliseconds(lambda: history.last())
    print(f"{name:<16}{raw:>12.1f}{minutes:>16.1f}{whole:>12.1f}{last:>12.1f}{every:>16.1f}")


async def main() -> None:
    """Print a table."""
    with tempfile.TemporaryDirectory() as folder, private_rabbitmq() as rabbitmq:
        path = Path(folder) / "archive.db"
        await fill(path)
        url = rabbitmq.url()
        print(f"{'ms':<16}{'24 h raw':>12}{'1440 minutes':>16}{'24 h as 1':>12}{'newest':>12}{'newest of 20':>16}")
        async with await SqliteArchive.open(path, "read") as archive:
            await report("in process", archive)
        async with (
            Manager("manager", url, config=ManagerConfig(store=":memory:")),
            SqliteSink("sink-sqlite", url, config=SqliteConfig(path=str(path))),
            HistoryClient("bench", url) as client,
        ):
            while len(await client.metrics()) < len(METRICS):
                await asyncio.sleep(0.1)
            await report("over RabbitMQ", client)


if __name__ == "__main__":
    asyncio.run(main())
