# SPDX-License-Identifier: MIT
"""Full disks, locks of others, kill -9, a file that is taken away: nothing half, nothing lost, nothing doubled."""

import asyncio
import random
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from array import array
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from bus.archive import Event, read_points
from bus.errors import StorageBusy, StorageError
from bus.frame import Group
from sinks.sqlite import database as database_module
from sinks.sqlite.archive import SqliteArchive


def tick(index: int, metrics: int = 50, names: str = "m") -> Group:
    return Group(
        tuple(f"web1.{names}{number}" for number in range(metrics)),
        array("q", [1_790_000_000_000_000_000 + index]),
        array("d", [float(index)] * metrics),
    )


async def integrity(archive: SqliteArchive) -> str:
    return str((await archive._fetch("PRAGMA integrity_check"))[0][0])


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MiB."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(place)], capture_output=True, text=True, check=False
    )
    if mount.returncode:
        pytest.skip(f"a small file system cannot be mounted here: {mount.stderr.strip()}")
    yield place
    subprocess.run(["umount", str(place)], check=True)


async def fill(archive: SqliteArchive, limit: int = 2000) -> int:
    """Insert ticks until the archive cannot take one; its index."""
    for index in range(limit):
        try:
            await archive.insert([tick(index)])
        except StorageBusy:
            return index
    pytest.fail("the disk was never full")


async def test_a_full_disk_is_busy_and_the_same_batch_works_when_there_is_space(small_disk: Path) -> None:
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(300_000))
    async with await SqliteArchive.open(small_disk / "archive.db") as archive:
        full_at = await fill(archive)
        with pytest.raises(StorageBusy, match=r"the disk is full: free some space|may be full or broken"):
            await archive.insert([tick(full_at)])
        assert set((await archive.last()).values()) == {(tick(full_at - 1).times[0], float(full_at - 1))}
        ballast.unlink()
        assert await archive.insert([tick(full_at)]) == 50
        assert archive.points_stored == 50 * (full_at + 1)
        assert len(await read_points(archive, "web1.m7")) == full_at + 1
        assert await integrity(archive) == "ok"


async def test_a_full_file_rolls_back_new_names_too(tmp_path: Path) -> None:
    """Regression: ids of a transaction that was rolled back must not stay in the cache of names."""
    times = array("q", range(5000))
    many = Group(("web1.new1", "web1.new2"), times, array("d", [7.0] * 10_000))
    async with await SqliteArchive.open(tmp_path / "archive.db") as archive:
        await archive.insert([tick(0)])
        (pages,) = (await archive._fetch("PRAGMA page_count"))[0]
        await archive._fetch(f"PRAGMA max_page_count = {pages + 5}")  # enough for the names, not for the points
        with pytest.raises(StorageBusy, match="the disk is full"):
            await archive.insert([many])
        assert len(await archive.metrics()) == 50
        await archive._fetch("PRAGMA max_page_count = 1000000")
        # Other names take the ids first: a stale cache would file the points under them.
        await archive.insert([tick(0, metrics=10, names="other")])
        assert await archive.insert([many]) == 10_000
        assert len(await read_points(archive, "web1.new1")) == 5000
        assert len(await read_points(archive, "web1.other0")) == 1
        assert await archive.last("web1.new2") == {"web1.new2": (4999, 7.0)}


LOCK = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("BEGIN EXCLUSIVE")
print("locked", flush=True)
sys.stdin.readline()
connection.execute("ROLLBACK")
print("free", flush=True)
sys.stdin.readline()
"""


async def test_another_process_that_locks_the_file_makes_it_busy_and_the_same_batch_works_afterwards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database_module, "BUSY_TIMEOUT_S", 0.05)
    path = tmp_path / "archive.db"
    async with await SqliteArchive.open(path) as archive:
        await archive.insert([tick(0)])
        other = subprocess.Popen(
            [sys.executable, "-c", LOCK, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        with other:
            assert other.stdin is not None
            assert other.stdout is not None
            assert await asyncio.to_thread(other.stdout.readline) == "locked\n"
            with pytest.raises(StorageBusy, match=r"archive\.db is locked by another program, and is tried again"):
                await archive.insert([tick(1)])
            other.stdin.write("\n")
            other.stdin.flush()
            assert await asyncio.to_thread(other.stdout.readline) == "free\n"
            assert await archive.insert([tick(1)]) == 50
            other.stdin.write("\n")


async def test_a_file_that_was_removed_or_replaced_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "archive.db"
    async with await SqliteArchive.open(path) as archive:
        await archive.insert([tick(0)])
        path.rename(tmp_path / "moved.db")
        with pytest.raises(StorageError, match=r"archive\.db was removed or replaced while it was written") as caught:
            await archive.insert([tick(1)])
        assert not isinstance(caught.value, StorageBusy)
        path.touch()
        with pytest.raises(StorageError, match="removed or replaced"):
            await archive.insert([tick(1)])


async def test_the_event_loop_runs_while_sqlite_waits_for_a_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "archive.db"
    async with await SqliteArchive.open(path) as archive:
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        insert = asyncio.create_task(archive.insert([tick(0)]))
        for _ in range(100):
            await asyncio.sleep(0.001)
        assert not insert.done(), "it is still waiting for the lock, and the loop has turned 100 times"
        other.execute("ROLLBACK")
        other.close()
        assert await insert == 50


WRITE = """
import asyncio, sys
from array import array
from bus.frame import Group
from sinks.sqlite.archive import SqliteArchive
names = tuple(f"web1.m{number}" for number in range(310))
def tick(index):
    return Group(names, array("q", [1_790_000_000_000_000_000 + index]), array("d", [float(index)] * 310))
async def main():
    async with await SqliteArchive.open(sys.argv[1]) as archive:
        for index in range(int(sys.argv[2]), 10**9):
            await archive.insert([tick(index * 3 + part) for part in range(3)])
            print(index, flush=True)
asyncio.run(main())
"""


def test_kill_9_in_the_middle_of_inserts_leaves_whole_batches_and_all_that_was_done(tmp_path: Path) -> None:
    """Ten writers one after the other, each killed at a random moment."""
    path = tmp_path / "archive.db"
    done = -1
    for _ in range(10):
        writer = subprocess.Popen(
            [sys.executable, "-c", WRITE, str(path), str(done + 1)], stdout=subprocess.PIPE, text=True
        )
        with writer:
            assert writer.stdout is not None
            done = max(done, int(writer.stdout.readline() or -1))
            time.sleep(random.uniform(0, 0.1))
            writer.send_signal(signal.SIGKILL)
            lines = writer.stdout.read().split("\n")
            done = max([done, *(int(line) for line in lines[:-1])])
        rows = asyncio.run(batches_in(path))
        assert {count for _, count in rows} == {930}, "a batch is there whole or not at all"
        batches = [batch for batch, _ in rows]
        assert batches == list(range(len(batches)))
        assert len(batches) in {done + 1, done + 2}, "at most the last one was not reported any more"
        done = len(batches) - 1


async def batches_in(path: Path) -> list[tuple[int, int]]:
    """(batch, points) of what the writers left, in an archive that is whole."""
    async with await SqliteArchive.open(path) as archive:
        assert await integrity(archive) == "ok"
        rows = await archive._fetch("SELECT (time - 1790000000000000000) / 3, count(*) FROM point GROUP BY 1")
        return [tuple(row) for row in rows]


class Gated:
    """A connection on which the next COMMIT waits, and then fails if that is wanted."""

    def __init__(self, connection: sqlite3.Connection, *, fails: bool) -> None:
        self._connection = connection
        self._fails = fails
        self.reached, self.go_on = threading.Event(), threading.Event()

    def __getattr__(self, name: str) -> object:
        return getattr(self._connection, name)

    def execute(self, statement: str, parameters: Sequence[str | int] = ()) -> sqlite3.Cursor:
        if statement == "COMMIT" and not self.go_on.is_set():
            self.reached.set()
            assert self.go_on.wait(10)
            if self._fails:
                raise sqlite3.OperationalError("disk I/O error")
        return self._connection.execute(statement, parameters)


def gate(archive: SqliteArchive, monkeypatch: pytest.MonkeyPatch, *, fails: bool) -> Gated:
    gated = Gated(archive.database._connection, fails=fails)
    monkeypatch.setattr(archive.database, "_connection", gated)
    return gated


async def test_a_commit_that_fails_after_the_caller_was_cancelled_leaves_no_metric_without_a_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with await SqliteArchive.open(tmp_path / "archive.db") as archive:
        gated = gate(archive, monkeypatch, fails=True)
        insert = asyncio.create_task(archive.insert([tick(0)]))
        assert await asyncio.to_thread(gated.reached.wait, 10)
        insert.cancel()
        await asyncio.wait({insert})
        gated.go_on.set()
        assert await archive.insert([tick(1)]) == 50
        assert len(await archive.metrics()) == 50
        assert len(await read_points(archive, "web1.m7")) == 1


async def test_who_is_cancelled_while_closing_leaves_neither_the_file_open_nor_work_undone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "archive.db"
    archive = await SqliteArchive.open(path)
    gated = gate(archive, monkeypatch, fails=False)
    insert = asyncio.create_task(archive.insert([tick(0)]))
    assert await asyncio.to_thread(gated.reached.wait, 10)
    closing = asyncio.create_task(archive.aclose())
    await asyncio.sleep(0)
    closing.cancel()
    await asyncio.wait({closing})
    with pytest.raises(StorageError, match="is being written by this process already"):
        await SqliteArchive.open(path)
    gated.go_on.set()
    assert await insert == 50
    await asyncio.to_thread(archive.database._thread.shutdown)
    with pytest.raises(sqlite3.ProgrammingError, match="closed"):
        gated.execute("SELECT 1")
    async with await SqliteArchive.open(path) as again:
        assert len(await again.metrics()) == 50


async def test_an_event_waits_for_its_turn_beside_a_busy_writer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database_module, "BUSY_TIMEOUT_S", 0.05)
    path = tmp_path / "archive.db"
    async with await SqliteArchive.open(path) as archive, await SqliteArchive.open(path, "events") as beside:
        gated = gate(archive, monkeypatch, fails=False)
        insert = asyncio.create_task(archive.insert([tick(0)]))
        assert await asyncio.to_thread(gated.reached.wait, 10)
        adding = asyncio.create_task(beside.add_event(Event(time=1, label="a")))
        await asyncio.sleep(0.3)
        assert not adding.done()
        gated.go_on.set()
        assert (await insert, await adding) == (50, 1)
