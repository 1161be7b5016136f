# SPDX-License-Identifier: MIT
"""Which files may be opened as archives, by how many, and what is said about the others."""

import asyncio
import os
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from bus.errors import StorageBusy, StorageError
from sinks.sqlite import schema
from sinks.sqlite.archive import SqliteArchive


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "archive.db"


@pytest.fixture
def unprivileged() -> Iterator[Path]:
    """A directory that anybody may use, while this process is not root: root may write everything."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o777)
        root = os.geteuid() == 0
        if root:
            os.seteuid(65534)
        try:
            yield Path(folder)
        finally:
            if root:
                os.seteuid(0)


async def make(path: Path) -> None:
    async with await SqliteArchive.open(path):
        pass


async def test_a_new_archive_has_its_mark_its_version_and_write_ahead_logging(path: Path) -> None:
    await make(path)
    file = sqlite3.connect(path)
    assert file.execute("PRAGMA application_id").fetchone() == (schema.APPLICATION_ID,)
    assert file.execute("PRAGMA user_version").fetchone() == (len(schema.MIGRATIONS),)
    assert file.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert file.execute("PRAGMA auto_vacuum").fetchone() == (2,), "incremental: later it gives space back"
    file.close()


async def test_an_empty_file_becomes_an_archive(path: Path) -> None:
    path.touch()
    await make(path)
    async with await SqliteArchive.open(path, access="read") as archive:
        assert (await archive._fetch("PRAGMA user_version"))[0][0] == len(schema.MIGRATIONS)


async def test_an_older_schema_is_migrated_when_opened_for_writing(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    await make(path)
    newer = (*schema.MIGRATIONS, ("CREATE TABLE later (x)", "INSERT INTO later VALUES (1)"))
    monkeypatch.setattr(schema, "MIGRATIONS", newer)
    with pytest.raises(
        StorageError, match=f"has schema {len(schema.MIGRATIONS) - 1}, older than the {len(schema.MIGRATIONS)}"
    ):
        await SqliteArchive.open(path, access="read")
    await make(path)
    await make(path)  # a migration runs once
    async with await SqliteArchive.open(path, access="read") as archive:
        assert (await archive._fetch("PRAGMA user_version"))[0][0] == len(newer)
    file = sqlite3.connect(path)
    assert file.execute("SELECT x FROM later").fetchall() == [(1,)]
    file.close()


async def test_a_migration_that_fails_leaves_the_file_as_it_was(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    await make(path)
    bad = (*schema.MIGRATIONS, ("CREATE TABLE later (x)",), ("INSERT INTO nowhere VALUES (1)",))
    with monkeypatch.context() as patch:
        patch.setattr(schema, "MIGRATIONS", bad)
        with pytest.raises(StorageError, match="no such table: nowhere"):
            await SqliteArchive.open(path)
    file = sqlite3.connect(path)
    assert file.execute("PRAGMA user_version").fetchone() == (len(schema.MIGRATIONS),)
    assert not file.execute("SELECT 1 FROM sqlite_master WHERE name = 'later'").fetchall()
    file.close()
    await make(path)


@pytest.mark.parametrize("access", ["write", "events", "read"])
async def test_an_archive_of_a_newer_hostbus_is_refused_and_left_alone(path: Path, access: str) -> None:
    await make(path)
    file = sqlite3.connect(path)
    file.execute("PRAGMA user_version = 7")
    file.close()
    before = path.read_bytes()
    with pytest.raises(
        StorageError,
        match=r"archive\.db was made by a newer hostbus \(schema 7; this one reads up to 2\): "
        r"upgrade hostbus or choose another file",
    ):
        await SqliteArchive.open(path, access=access)
    assert path.read_bytes() == before


@pytest.mark.parametrize("access", ["write", "events", "read"])
async def test_a_file_that_is_not_sqlite_is_refused_and_left_alone(path: Path, access: str) -> None:
    path.write_text("name,time,value\n" * 1000)
    with pytest.raises(StorageError, match=r"archive\.db is not an SQLite file: choose another file"):
        await SqliteArchive.open(path, access=access)
    assert path.read_text() == "name,time,value\n" * 1000


@pytest.mark.parametrize("access", ["write", "events", "read"])
@pytest.mark.parametrize("application_id", [0, 12345])
async def test_the_sqlite_file_of_another_program_is_refused_and_left_alone(
    path: Path, access: str, application_id: int
) -> None:
    file = sqlite3.connect(path)
    file.executescript(f"CREATE TABLE bookmarks (url); PRAGMA application_id = {application_id}")
    file.close()
    before = path.read_bytes()
    with pytest.raises(StorageError, match="SQLite file of another program, not a hostbus archive"):
        await SqliteArchive.open(path, access=access)
    assert path.read_bytes() == before


async def test_a_damaged_archive_is_said_to_be_damaged(path: Path) -> None:
    await make(path)
    content = bytearray(path.read_bytes())
    content[100:4096] = b"\xff" * 3996  # the root page of the list of tables; the file's header stays
    path.write_bytes(content)
    with pytest.raises(StorageError, match=r"archive\.db is damaged: keep a copy"):
        await SqliteArchive.open(path)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        (".", "is a directory: an archive is a file, like .*archive.db"),
        ("no/such/place.db", "no/such is not a directory: make it"),
        ("file/place.db", "not a directory"),
        ("pipe", "is not a regular file"),
        ("nul\0byte.db", "is not a path for an archive"),
        ("loop/archive.db", "not a"),
        ("~nobody-has-this-name/a.db", "is not a path for an archive"),
    ],
)
async def test_a_path_that_cannot_be_an_archive_is_named_with_what_would_be_right(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("file").touch()
    os.mkfifo("pipe")
    Path("loop").symlink_to("loop")
    before = sorted(os.listdir())
    with pytest.raises(StorageError, match=said) as caught:
        await SqliteArchive.open(name)
    assert "\n" not in str(caught.value)
    assert sorted(os.listdir()) == before


async def test_reading_makes_no_file(path: Path) -> None:
    with pytest.raises(StorageError, match=r"there is no archive at .*archive\.db"):
        await SqliteArchive.open(path, access="read")
    assert not list(path.parent.iterdir())


async def test_a_directory_that_may_not_be_written_is_named(unprivileged: Path) -> None:
    locked = unprivileged / "locked"
    locked.mkdir(mode=0o555)
    with pytest.raises(StorageError, match=r"locked/archive\.db cannot be written .*Permission denied"):
        await SqliteArchive.open(locked / "archive.db")


async def test_a_file_that_may_not_be_written_is_refused_at_the_opening(unprivileged: Path) -> None:
    path = unprivileged / "archive.db"
    await make(path)
    path.chmod(0o444)
    with pytest.raises(StorageError, match=r"archive\.db may not be written by this user") as caught:
        await SqliteArchive.open(path)
    assert not isinstance(caught.value, StorageBusy)
    path.chmod(0o644)
    await make(path)  # the refusal gave the lock back


async def test_the_second_writer_in_this_process_is_refused_and_then_welcome(path: Path) -> None:
    link = path.parent / "other-name.db"
    link.symlink_to(path)
    async with await SqliteArchive.open(path):
        for name in (path, link):
            with pytest.raises(StorageError, match="is being written by this process already") as caught:
                await SqliteArchive.open(name)
            assert not isinstance(caught.value, StorageBusy), "it does not pass by itself"
    await make(link)


HOLD = """
import asyncio, sys
from sinks.sqlite.archive import SqliteArchive
async def main():
    await SqliteArchive.open(sys.argv[1])
    print("open", flush=True)
    sys.stdin.read()
asyncio.run(main())
"""


async def test_the_second_writer_is_told_which_process_is_the_first(path: Path) -> None:
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with holder:
        try:
            assert holder.stdout is not None
            assert await asyncio.to_thread(holder.stdout.readline) == "open\n"
            with pytest.raises(StorageError, match=rf"is being written by process {holder.pid}: stop that one"):
                await SqliteArchive.open(path)
            async with await SqliteArchive.open(path, access="read") as reader:
                assert await reader.metrics() == {}
        finally:
            holder.kill()
    await make(path)  # the lock died with its process


async def test_a_file_that_another_program_has_locked_may_work_later(path: Path) -> None:
    await make(path)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(StorageBusy, match=r"archive\.db is locked by another program"):
        await SqliteArchive.open(path)
    other.close()
    await make(path)
