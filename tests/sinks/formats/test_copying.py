# SPDX-License-Identifier: MIT
"""Archives and files, from Python."""

import json
from array import array

import pytest

from bus.archive import Event, read_points
from bus.errors import StorageError
from bus.frame import Group
from sinks.formats import export_json, from_json, from_sqlite, to_json
from sinks.sqlite import SqliteArchive
from tests.sinks.memory_archive import MemoryArchive


@pytest.fixture
async def archive():
    made = MemoryArchive(page_points=3)
    for metric in ("web1.a", "web1.b"):
        await made.insert([Group((metric,), array("q", range(10)), array("d", range(10)))])
    await made.set_metadata({"web1.a": {"unit": "W"}})
    await made.add_event(Event(time=4, label="reboot"))
    return made


async def test_json_goes_out_and_in(archive, tmp_path):
    path = tmp_path / "all.json"
    assert await export_json(archive, path) == 20
    assert path.read_text() == await to_json(archive)
    found = json.loads(path.read_text())
    assert found["metrics"][3] == {
        "timestamp": "1970-01-01T00:00:00.000000003Z",
        "host": "web1",
        "label": "a",
        "value": 3.0,
    }
    copy = MemoryArchive()
    assert await from_json(path, copy) == 20
    assert await from_json(path, copy) == 0
    assert await to_json(copy) == await to_json(archive)
    assert [file.name for file in tmp_path.iterdir()] == ["all.json"]


async def test_a_range_of_some_metrics(archive):
    found = json.loads(await to_json(archive, metrics=["*.b"], start_ns=2, end_ns=4))
    assert [(point["label"], point["value"]) for point in found["metrics"]] == [("b", 2.0), ("b", 3.0)]
    assert found["events"] == []


async def test_nothing_of_a_file_that_is_cut_off_is_stored(archive, tmp_path):
    path = tmp_path / "all.json"
    path.write_text((await to_json(archive))[:-30])
    copy = MemoryArchive()
    with pytest.raises(StorageError, match="cut off"):
        await from_json(path, copy)
    assert await copy.metrics() == {}


async def test_nothing_of_a_file_whose_times_do_not_increase_is_stored(archive, tmp_path):
    path = tmp_path / "all.json"
    path.write_text((await to_json(archive)).replace("000000009Z", "000000008Z"))
    copy = MemoryArchive()
    with pytest.raises(StorageError, match=r"of web1\.a comes twice"):
        await from_json(path, copy)
    assert await copy.metrics() == {}


async def test_a_file_that_cannot_be_written_stays_as_it_was(archive, tmp_path, monkeypatch):
    path = tmp_path / "all.json"
    path.write_text("before")
    monkeypatch.setattr("os.fsync", lambda _: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(StorageError, match=r"all.json cannot be written: No space left on device"):
        await export_json(archive, path)
    assert [(file.name, file.read_text()) for file in tmp_path.iterdir()] == [("all.json", "before")]
    with pytest.raises(StorageError, match="cannot be written"):
        await export_json(archive, tmp_path / "none" / "all.json")


async def test_an_archive_of_ours_is_read(archive, tmp_path):
    path = tmp_path / "all.json"
    await export_json(archive, path)
    async with await SqliteArchive.open(tmp_path / "ours.db") as ours:
        await from_json(path, ours)
    copy = MemoryArchive()
    assert await from_sqlite(tmp_path / "ours.db", copy) == 20
    assert list((await read_points(copy, "web1.b")).values) == list(map(float, range(10)))
    assert await copy.metrics() == await archive.metrics()
    assert [event.label for event in await copy.events()] == ["reboot"]
