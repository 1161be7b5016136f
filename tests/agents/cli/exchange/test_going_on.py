# SPDX-License-Identifier: MIT
"""What an interrupted export or import trusts when it goes on, and what it does not."""

import pytest

from agents.cli.exchange.import_job import ImportJob
from agents.cli.exchange.part_file import PartFile
from bus.errors import StorageError
from sinks.formats import comma, files, jsonl
from sinks.sqlite import SqliteArchive

HEADER = "metric,time,value\n"


@pytest.fixture(autouse=True)
def state(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    (tmp_path / "state").mkdir()


def job(path, form=comma.FORMAT) -> ImportJob:
    return ImportJob(path, form, "", None, zone="", any_order=False)


def nothing(share, points):
    pass


def test_what_was_written_after_the_last_checkpoint_is_written_again(tmp_path):
    file = PartFile(tmp_path / "all.csv")
    file.journal.begin({})
    file.open(0)
    file.write(b"durable")
    file.checkpoint({})
    file.write(b" and much that is not")
    file.close()
    file = PartFile(tmp_path / "all.csv")
    file.open(file.journal.last["bytes"])
    file.write(b"!")
    file.finish(comma.FORMAT)
    file.close()
    assert (tmp_path / "all.csv").read_bytes() == b"durable!"


def test_a_part_that_lacks_what_was_durable_is_not_gone_on_with(tmp_path):
    file = PartFile(tmp_path / "all.csv")
    with pytest.raises(StorageError, match=r"has 0 bytes where the export before had written 5: --restart"):
        file.open(5)
    file.close()


async def test_a_file_that_changed_since_it_was_checked_is_checked_again(tmp_path):
    path = tmp_path / "f.csv"
    path.write_text(f"{HEADER}a,5,1\n")
    first = job(path)
    await first.check(nothing)
    first.close()
    path.write_text(f"{HEADER}a,6,1\na,5,1\n")
    second = job(path)
    with pytest.raises(StorageError, match="line 3: "):
        await second.check(nothing)
    second.close()


async def test_a_file_that_changes_while_it_is_stored_is_said(tmp_path):
    path = tmp_path / "f.csv"
    path.write_text(f"{HEADER}a,5,1\n")
    one = job(path)
    await one.check(nothing)
    path.write_text(f"{HEADER}a,5,1\na,6,1\n")
    async with await SqliteArchive.open(tmp_path / "a.db") as archive:
        with pytest.raises(StorageError, match="was changed while it was read"):
            await one.store(archive, nothing)
    one.close()


async def test_metadata_that_stand_before_the_first_point_count(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "BLOCK_BYTES", 50)
    path = tmp_path / "f.jsonl"
    path.write_text('{"metric":"a","metadata":{"unit":"W"}}\n\n{"metric":"a","time":5,"value":1}\n')
    one = job(path, jsonl.FORMAT)
    await one.check(nothing)
    async with await SqliteArchive.open(tmp_path / "a.db") as archive:
        await one.store(archive, nothing)
        assert await archive.metrics() == {"a": {"unit": "W"}}
    one.close()
