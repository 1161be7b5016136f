# SPDX-License-Identifier: MIT
"""SIGKILL during inserts, compaction and expiry, a full disk during compaction: no point lost, none doubled."""

import asyncio
import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from bus.errors import StorageBusy
from sinks.retention import Retention
from sinks.sqlite.archive import SqliteArchive
from sinks.sqlite.compaction import WINDOW_NS, Compaction
from sinks.sqlite.retention import expire_step
from tests.sinks.sqlite.upkeep import NOW_NS, T0, S, compact, count, findings, group, noise, points_of, seconds

KILLS = 20
METRICS = 4
BATCH = 300
LATE = 20

# Inserts a batch that lies days back, reports it, and then compacts and expires some; on and on. Every third batch
# is late: its window is compacted already. A metric of its own has its points expired, from a window on.
WORKER = f"""
import asyncio, sys
from array import array
from bus.frame import Group
from sinks.retention import Retention
from sinks.sqlite.archive import SqliteArchive
from sinks.sqlite.compaction import WINDOW_NS, Compaction
from sinks.sqlite.retention import Expiry
from sinks.sqlite.space import checkpoint, vacuum_step

path, first, t0, now = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
names = tuple(f"m{{number}}" for number in range({METRICS}))
retention = Retention.load({{"raw": "forever"}}, {{"gone": {{"raw": "1d"}}}})

def batch(index):
    late, place = index % 3 == 2, index // 3
    start = t0 + place * {BATCH} * 20 * 10**9 + (5 * 10**9 if late else (index % 3) * {BATCH} * 10**10)
    count = {LATE} if late else {BATCH}
    times = array("q", [start + number * 10**10 for number in range(count)])
    groups = [Group(names, times, array("d", [float(index)] * (count * len(names))))]
    return groups if late else [*groups, Group(("gone",), times[:20], array("d", [1.0] * 20))]

async def main():
    async with await SqliteArchive.open(path) as archive:
        compaction, expiry = Compaction(), Expiry(now, retention)
        print("open", flush=True)
        for index in range(first, 10**9):
            await archive.insert(batch(index))
            print(index, flush=True)
            compaction.late(names, t0)
            compaction.late(["gone"], t0)
            for _ in range(3):
                if await archive.database.write(compaction.step, now, 1000) is None:
                    break
            if await archive.database.write(expiry.step) is None:
                expiry = Expiry(now, retention)
            await archive.database.write(vacuum_step, 0.0)
            if index % 5 == 0:
                await archive.database.run(checkpoint)

asyncio.run(main())
"""


def expected(batches: int) -> dict[int, float]:
    """The points of each metric after so many batches."""
    found: dict[int, float] = {}
    for index in range(batches):
        start = T0 + index // 3 * BATCH * 20 * S + (5 * S if index % 3 == 2 else index % 3 * BATCH * 10 * S)
        for number in range(LATE if index % 3 == 2 else BATCH):
            found.setdefault(start + number * 10 * S, float(index))
    return found


def test_kill_9_during_inserts_and_compaction_loses_and_doubles_nothing(tmp_path: Path) -> None:
    path = tmp_path / "archive.db"
    done = killed_after_open = 0
    for _ in range(KILLS):
        arguments = [sys.executable, "-c", WORKER, str(path), str(done), str(T0), str(NOW_NS)]
        with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) as worker:
            assert worker.stdout is not None
            assert worker.stdout.readline() == "open\n"
            time.sleep(random.uniform(0, 0.4))
            worker.send_signal(signal.SIGKILL)
            reported = worker.stdout.read().split("\n")[:-1]
        killed_after_open += bool(reported)
        done = max([done, *(int(line) + 1 for line in reported)])
        done = asyncio.run(check_batches(path, done))
    assert killed_after_open > KILLS // 2, "most were killed while they worked"
    assert asyncio.run(check_whole(path, done)) > 0, "something was packed"


async def check_batches(path: Path, done: int) -> int:
    """All that was reported is there, once; the number of batches with the one that could not be reported."""
    async with await SqliteArchive.open(path) as archive:
        there = await points_of(archive, "m0")
        for batches in (done, done + 1):
            if there == sorted(expected(batches).items()):
                return batches
    pytest.fail(f"{len(there)} points are there, of {done} batches {len(expected(done))} were reported")


async def check_whole(path: Path, batches: int) -> int:
    """Every metric has its points, and verification finds nothing; how many series there are."""
    async with await SqliteArchive.open(path) as archive:
        wanted = sorted(expected(batches).items())
        for number in range(METRICS):
            assert await points_of(archive, f"m{number}") == wanted
        assert await findings(archive) == []
        prompt = sum(index % 3 < 2 for index in range(batches))
        assert await archive._fetch("SELECT sum(count) FROM rollup_1d WHERE metric = 'gone'") == [(20 * prompt,)]
        await compact(archive)
        assert await findings(archive) == []
        return await count(archive, "series")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 4 MiB."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(place)], capture_output=True, text=True, check=False
    )
    if mount.returncode:
        pytest.skip(f"a small file system cannot be mounted here: {mount.stderr.strip()}")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def fill(ballast: Path) -> None:
    """Take all the space that is left."""
    with ballast.open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(bytes(4096))


async def test_a_disk_that_is_full_during_compaction_and_expiry_changes_nothing_and_all_goes_on_with_space(
    small_disk: Path,
) -> None:
    times = seconds(T0, 3 * 3600)
    columns = [noise(len(times)) for _ in range(3)]
    async with await SqliteArchive.open(small_disk / "archive.db") as archive:
        await archive.insert([group(["a", "b", "c"], times, *columns)])
        ballast = small_disk / "ballast"
        fill(ballast)
        with pytest.raises(StorageBusy, match="full"):
            await compact(archive)
        with pytest.raises(StorageBusy, match="full"):
            await archive.database.write(expire_step, NOW_NS, Retention.load({"raw": "1d"}))
        for name, column in zip(("a", "b", "c"), columns, strict=True):
            assert await points_of(archive, name) == list(zip(times, column, strict=True))
        assert await findings(archive) == []
        ballast.unlink()
        assert await compact(archive) == 3 * len(times)
        assert await findings(archive) == []
        assert await points_of(archive, "b") == list(zip(times, columns[1], strict=True))


async def test_a_step_that_fails_in_the_middle_has_done_nothing(tmp_path: Path) -> None:
    times = seconds(T0, WINDOW_NS // S)
    async with await SqliteArchive.open(tmp_path / "archive.db") as archive:
        await archive.insert([group(["a"], times, noise(len(times)))])
        before = await points_of(archive, "a")

        def broken(connection: sqlite3.Connection) -> int:
            Compaction().step(connection, NOW_NS)
            raise MemoryError

        with pytest.raises(MemoryError):
            await archive.database.write(broken)
        assert await count(archive, "series") == 0
        assert await points_of(archive, "a") == before
