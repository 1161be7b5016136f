# SPDX-License-Identifier: MIT
"""How fast the archive takes points, against plain executemany of the same points in the order of arrival.

Run it with ``python -m tests.bench.archive_insert``; tests/bench/throughput.py calls `measure`.
"""

import asyncio
import sqlite3
import tempfile
import time
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

from bus.frame import Group
from sinks.sqlite.archive import SqliteArchive

LONG_AGO_NS = 1_790_000_000 * 10**9
METRICS = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class InsertRate:
    """Points per second of wall-clock time and CPU ns per point (all threads), ours and plain executemany's."""

    ticks_per_group: int
    batch_points: int
    points: int
    archive_per_s: float
    archive_cpu_ns: float
    plain_per_s: float
    plain_cpu_ns: float

    @property
    def ratio(self) -> float:
        """How many times as many points per second as plain executemany."""
        return self.archive_per_s / self.plain_per_s


def ticks(points: int, ticks_per_group: int, start_ns: int) -> list[Group]:
    """Groups of 200 metrics at 1 Hz with values of one decimal, in the order of arrival; names are new objects."""
    random = Random(1)
    groups = []
    for first in range(0, points // METRICS, ticks_per_group):
        times = array("q", [start_ns + (first + tick) * 10**9 for tick in range(ticks_per_group)])
        values = array("d", [round(random.random() * 100, 1) for _ in range(METRICS * ticks_per_group)])
        groups.append(Group(tuple(f"web1.bench.metric{index:03}" for index in range(METRICS)), times, values))
    return groups


def measure(
    *,
    ticks_per_group: int,
    batch_points: int,
    points: int = 400_000,
    rounds: int = 3,
    live: bool = True,
    directory: Path | None = None,
) -> InsertRate:
    """Insert the same batches into an archive and plainly into the same table, in turns; the best of `rounds`.

    Live, the clock goes with the points, as it does for what agents send; else they are of the past.
    """
    start_ns = time.time_ns() // 10**9 * 10**9 if live else LONG_AGO_NS
    groups = ticks(points, ticks_per_group, start_ns)
    size = max(1, batch_points // (METRICS * ticks_per_group))
    batches = [groups[start : start + size] for start in range(0, len(groups), size)]
    ours, plain = [], []
    for _ in range(rounds):
        with tempfile.TemporaryDirectory(dir=directory) as folder:
            plain.append(asyncio.run(_plain(Path(folder) / "plain.db", batches)))
            ours.append(asyncio.run(_archive(Path(folder) / "archive.db", batches, live=live)))
    return InsertRate(
        ticks_per_group=ticks_per_group,
        batch_points=batch_points,
        points=points,
        archive_per_s=points / min(wall for wall, _ in ours),
        archive_cpu_ns=min(cpu for _, cpu in ours) / points * 1e9,
        plain_per_s=points / min(wall for wall, _ in plain),
        plain_cpu_ns=min(cpu for _, cpu in plain) / points * 1e9,
    )


async def _archive(path: Path, batches: Sequence[Sequence[Group]], *, live: bool) -> tuple[float, float]:
    now_ns = time.time_ns()
    async with await SqliteArchive.open(path, clock=lambda: now_ns) as archive:
        await archive.insert([Group(batches[0][0].metrics, array("q", [0]), array("d", [0.0] * METRICS))])
        wall, cpu = time.perf_counter(), time.process_time()
        for batch in batches:
            now_ns = batch[-1].times[-1] if live else now_ns
            await archive.insert(batch)
        return time.perf_counter() - wall, time.process_time() - cpu


async def _plain(path: Path, batches: Sequence[Sequence[Group]]) -> tuple[float, float]:
    """The same table with the same settings, one transaction per batch; making the rows is not counted."""
    async with await SqliteArchive.open(path) as archive:
        await archive.insert([Group(batches[0][0].metrics, array("q", [0]), array("d", [0.0] * METRICS))])
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA synchronous = FULL")
    ids = dict(connection.execute("SELECT name, id FROM metric"))
    wall = cpu = 0.0
    for batch in batches:
        rows = list(_arrivals(batch, ids))
        start = time.perf_counter(), time.process_time()
        connection.execute("BEGIN IMMEDIATE")
        connection.executemany("INSERT OR IGNORE INTO point (metric, time, value) VALUES (?,?,?)", rows)
        connection.execute("COMMIT")
        wall += time.perf_counter() - start[0]
        cpu += time.process_time() - start[1]
    connection.close()
    return wall, cpu


def _arrivals(batch: Sequence[Group], ids: dict[str, int]) -> Iterator[tuple[int, int, float]]:
    """Tick by tick, metric by metric: as a source samples them."""
    for group in batch:
        length = len(group.times)
        for tick, time_ns in enumerate(group.times):
            for index, metric in enumerate(group.metrics):
                yield ids[metric], time_ns, group.values[index * length + tick]


def main() -> None:
    """Print one line per batch size and chunk size."""
    for batch_points, ticks_per_group in ((1_000, 1), (10_000, 1), (10_000, 10), (50_000, 1), (50_000, 50)):
        rate = measure(ticks_per_group=ticks_per_group, batch_points=batch_points)
        print(
            f"batches of {batch_points:6}, {ticks_per_group:3} ticks a group: archive "
            f"{rate.archive_per_s / 1e3:5.0f} k/s "
            f"({rate.archive_cpu_ns:5.0f} ns CPU a point), plain {rate.plain_per_s / 1e3:5.0f} k/s "
            f"({rate.plain_cpu_ns:5.0f} ns): {rate.ratio:.2f} x"
        )


if __name__ == "__main__":
    main()
