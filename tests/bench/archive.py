# SPDX-License-Identifier: MIT
"""What an archive costs: inserts, bytes per point, queries; PostgreSQL if there is one.

    python tests/bench/archive.py [--days 7] [--recorded FILE] [--only inserts,size,queries,postgres]

Sizes are those of what this host's families really measured, recorded by `agent up` at 10 readings a second for
`--record` seconds and stamped as 1 Hz, unless an archive that was recorded before is named. Queries run on a file
of 200 metrics at 1 Hz, of which the last 48 h are rows and all before is compacted: making it takes minutes.
"""

import argparse
import asyncio
import os
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from array import array
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from random import Random

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from bus.archive import read_points  # noqa: E402
from bus.frame import Group, group_columns  # noqa: E402
from sinks.sqlite.archive import SqliteArchive  # noqa: E402
from sinks.sqlite.compaction import HOT_NS, Compaction  # noqa: E402
from sinks.sqlite.space import checkpoint, vacuum_step  # noqa: E402
from tests.bench import archive_insert  # noqa: E402

S = 10**9
DAY_S = 86400
METRICS = 200
TICKS_PER_GROUP = 50
BATCH_TICKS = 250
ROUNDS = 15


async def compact(archive: SqliteArchive, before_ns: int) -> tuple[int, float]:
    """Compact all that is older, and give the space back: points moved, and seconds for it."""
    compaction = Compaction()
    moved = 0
    begin = time.perf_counter()
    while part := await archive.database.write(compaction.step, before_ns):
        moved += part
    seconds = time.perf_counter() - begin
    while await archive.database.write(vacuum_step, 0.0):
        pass
    await archive.database.run(checkpoint)
    return moved, seconds


# -- size ----------------------------------------------------------------------------------------------


def record(folder: Path, seconds: float) -> Path:
    """An archive of what this host's families measure, 10 times a second."""
    path = folder / "recorded.db"
    agent = Path(sys.executable).with_name("agent")
    command = [str(agent), "up", "--period", "0.1", "--duration", f"{seconds}s", "--archive", str(path)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env={**os.environ, "XDG_STATE_HOME": str(folder)})
    return path


async def stamped(recorded: SqliteArchive, start_ns: int) -> list[Group]:
    """What was recorded, with one second between neighbours of the same metric's times."""
    ticks: dict[int, int] = {}
    chunks = [await read_points(recorded, metric) for metric in await recorded.metrics()]
    for time_ns in sorted({time_ns for chunk in chunks for time_ns in chunk.times}):
        ticks[time_ns] = start_ns + len(ticks) * S
    return group_columns(
        (chunk.metric, [ticks[time_ns] for time_ns in chunk.times], chunk.values.tolist()) for chunk in chunks
    )


async def size(recorded_path: Path, folder: Path) -> None:
    """Bytes per point, before and after compaction."""
    start_ns = (time.time_ns() - HOT_NS) // (DAY_S * S) * DAY_S * S - DAY_S * S
    async with await SqliteArchive.open(recorded_path, "read") as recorded:
        groups = await stamped(recorded, start_ns)
    points = sum(len(group.values) for group in groups)
    async with await SqliteArchive.open(folder / "size.db") as archive:
        empty = archive.database.size_bytes
        for group in groups:
            await archive.insert([group])
        await archive.database.run(checkpoint)
        rows = archive.database.size_bytes - empty
        moved, seconds = await compact(archive, time.time_ns() - HOT_NS)

        raw = await archive.database.read(bytes_of_points)
        whole = archive.database.size_bytes - empty
    print(
        f"size: {len({name for group in groups for name in group.metrics})} metrics of this host, {points} points: "
        f"{rows / points:.1f} B/point as rows with aggregates; compacted {raw / points:.2f} B/point "
        f"(goal 4), with all aggregates {whole / points:.2f} (goal 5); {moved / seconds / 1e3:.0f} k points/s"
    )


def bytes_of_points(connection: sqlite3.Connection) -> int:
    """What points take that are compacted; 40 bytes are about what a row has beside its blob."""
    query = "SELECT coalesce(sum(length({}) + 40), 0) FROM {} WHERE tier = 0"
    parts = (("columns", "series"), ("times", "block"))
    return sum(int(connection.execute(query.format(*part)).fetchone()[0]) for part in parts)


# -- queries -------------------------------------------------------------------------------------------


def batches(start_s: int, end_s: int) -> Iterator[list[Group]]:
    """200 metrics at 1 Hz with values of one decimal, in groups as a source that buffers sends them."""
    random = Random(1)
    pool = array("d", [round(random.random() * 100, 1) for _ in range(100_000)])
    names = tuple(f"web1.bench.metric{index:03}" for index in range(METRICS))
    width = METRICS * TICKS_PER_GROUP
    for batch_s in range(start_s, end_s, BATCH_TICKS):
        groups = []
        for first_s in range(batch_s, min(batch_s + BATCH_TICKS, end_s), TICKS_PER_GROUP):
            times = array("q", range(first_s * S, min(first_s + TICKS_PER_GROUP, end_s) * S, S))
            offset = random.randrange(len(pool) - width)
            groups.append(Group(names, times, pool[offset : offset + METRICS * len(times)]))
        yield groups


async def build(path: Path, days: float) -> None:
    """A file of so many days, up to now."""
    end_s = time.time_ns() // S
    start_s = end_s - int(days * DAY_S)
    async with await SqliteArchive.open(path) as archive:
        compaction = Compaction()
        begin = time.perf_counter()
        for number, batch in enumerate(batches(start_s, end_s)):
            await archive.insert(batch)
            if number % 40 == 0:  # as the sink does it: a little at a time
                while await archive.database.write(compaction.step, batch[-1].times[-1] - HOT_NS):
                    pass
        seconds = time.perf_counter() - begin
        await compact(archive, time.time_ns() - HOT_NS)
        size_mb = archive.database.size_bytes / 1e6
    points = (end_s - start_s) * METRICS
    print(f"a file of {days:g} days: {points / 1e6:.0f} M points, {size_mb:.0f} MB, made in {seconds:.0f} s")


async def timed(what: str, goal_ms: float, ask: Callable[[str], Awaitable[int]]) -> None:
    """The median of several metrics, each asked for the first time."""
    spent = []
    for index in range(ROUNDS):
        begin = time.perf_counter()
        rows = await ask(f"web1.bench.metric{index * 13 % METRICS:03}")
        spent.append((time.perf_counter() - begin) * 1e3)
    print(f"  {what:<52} {statistics.median(spent):7.2f} ms (goal {goal_ms:g}), {min(spent):.2f} at best; {rows} rows")


async def queries(path: Path, days: float) -> None:
    """The questions that people ask."""
    now_ns = time.time_ns()
    day_ns = DAY_S * S
    spans = {"the last 24 h": (now_ns - day_ns, now_ns), "24 h in blocks": (now_ns - 4 * day_ns, now_ns - 3 * day_ns)}
    async with await SqliteArchive.open(path, "read") as archive:
        for where, (start_ns, end_ns) in spans.items():
            if now_ns - start_ns > days * day_ns:
                continue

            async def arrays(metric: str, start_ns: int = start_ns, end_ns: int = end_ns) -> int:
                return len(await read_points(archive, metric, start_ns, end_ns))

            async def tuples(metric: str, start_ns: int = start_ns, end_ns: int = end_ns) -> int:
                chunk = await read_points(archive, metric, start_ns, end_ns)
                return len(list(zip(chunk.times, chunk.values, strict=True)))

            async def minutes(metric: str, start_ns: int = start_ns, end_ns: int = end_ns) -> int:
                return len(await archive.aggregates(metric, start_ns, end_ns, 60 * S))

            async def whole(metric: str, start_ns: int = start_ns, end_ns: int = end_ns) -> int:
                return len(await archive.aggregates(metric, start_ns, end_ns))

            await timed(f"{where}, raw, as arrays", 20, arrays)
            await timed(f"{where}, raw, as tuples", 50, tuples)
            await timed(f"{where}, aggregates of one minute", 3, minutes)
            await timed(f"{where}, one aggregate", 3, whole)


# -- all -----------------------------------------------------------------------------------------------


def inserts() -> None:
    """Against plain executemany: points of now, as they come from agents, and of long ago, as they are imported."""
    print("inserts with aggregates, against plain executemany of the same points:")
    for batch_points, ticks_per_group in ((10_000, 1), (50_000, 1), (50_000, 50)):
        for live in (True, False):
            rate = archive_insert.measure(ticks_per_group=ticks_per_group, batch_points=batch_points, live=live)
            age = "of now " if live else "of past"
            print(
                f"  {age}, batches of {batch_points:6}, {ticks_per_group:2} ticks a group: "
                f"{rate.archive_per_s / 1e3:4.0f} k/s, plain {rate.plain_per_s / 1e3:4.0f} k/s: "
                f"{rate.ratio:.2f} x (goal 1.0)",
                flush=True,
            )


def main() -> None:
    """Run what was asked for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--days", type=float, default=7.0)
    parser.add_argument("--record", type=float, default=120.0, help="seconds")
    parser.add_argument("--recorded", type=Path)
    parser.add_argument("--only", default="inserts,size,queries,postgres")
    options = parser.parse_args()
    parts = options.only.split(",")
    with tempfile.TemporaryDirectory(prefix="archive-bench-") as name:
        folder = Path(name)
        if "inserts" in parts:
            inserts()
        if "size" in parts:
            asyncio.run(size(options.recorded or record(folder, options.record), folder))
        if "queries" in parts:
            asyncio.run(build(folder / "days.db", options.days))
            asyncio.run(queries(folder / "days.db", options.days))
        if "postgres" in parts:
            subprocess.run([sys.executable, "-m", "tests.bench.postgres"], check=True, cwd=ROOT)


if __name__ == "__main__":
    main()
