# SPDX-License-Identifier: MIT
"""What is wrong with an archive is found, named, and never a traceback."""

import re
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from bus.errors import StorageError
from bus.maintenance import Finding
from sinks.sqlite import maintenance
from sinks.sqlite.archive import SqliteArchive
from tests.sinks.sqlite.upkeep import NOW_NS, T0, H, S, compact, findings, group, noise, seconds


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "archive.db"


@pytest.fixture
async def archive(path: Path) -> AsyncIterator[SqliteArchive]:
    """Two metrics: an hour that is packed, and some minutes that are not."""
    async with await SqliteArchive.open(path) as made:
        for start, count in ((T0, 3600), (NOW_NS - H, 600)):
            await made.insert([group(["a", "b"], seconds(start, count), noise(count), noise(count))])
        await compact(made, NOW_NS - 10 * H)
        assert await findings(made) == []
        yield made


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        ("UPDATE series SET columns = substr(columns, 1, 20) WHERE id = 1", "checksum does not fit"),
        ("UPDATE series SET columns = zeroblob(100) WHERE id = 1", "a, points from .*checksum does not fit"),
        (
            "UPDATE series SET columns = (SELECT columns FROM series WHERE tier = 1) WHERE id = 1",
            "checksum does not fit",
        ),
        ("UPDATE block SET times = zeroblob(30) WHERE tier = 0", "checksum does not fit"),
        ("UPDATE block SET count = count - 1 WHERE tier = 0", "checksum does not fit"),
        ("UPDATE block SET start = start + 1 WHERE tier = 0", "do not begin and end at the same times"),
        ("UPDATE series SET end = end - 1 WHERE id = 1", "do not begin and end at the same times"),
        ("DELETE FROM block WHERE tier = 1", "their times, block 2, are missing"),
        ("DELETE FROM series", "block 1: belongs to no series"),
        (
            "INSERT INTO series (metric, tier, start, end, block, columns) SELECT metric, tier, start + 1, end, block, "
            "columns FROM series WHERE id = 1",
            "overlap those before",
        ),
        (f"INSERT INTO point VALUES (1, {T0 + 5 * S}, 1.0)", "a, points from .*: 1 points are in rows, too"),
        (
            f"DELETE FROM point WHERE metric = 1 AND time < {(NOW_NS - H) // (10 * S) * 10 * S + 25 * S}",
            "a, aggregate of 10s at .*its parts say",
        ),
        ("UPDATE rollup SET sum = sum + 1 WHERE tier = 1 AND metric = 2", "b, aggregate of 10s at .* says 1"),
        (
            "UPDATE rollup SET covered = covered + 1 WHERE tier = 1",
            "does not cover the time for which its points speak",
        ),
        ("UPDATE rollup SET last = 0 WHERE tier = 2 AND metric = 1", "a, aggregate of 1m at .*last 0, its parts say"),
        ("UPDATE rollup SET covered = covered + 1 WHERE tier = 4", "aggregate of 1h at .* covers 3600.000 s, not 3599"),
        (
            f"DELETE FROM rollup WHERE tier = 3 AND metric = 1 AND time > {T0 + H}",
            "a, aggregate of 10m at .* is missing",
        ),
        (
            f"DELETE FROM rollup WHERE tier = 2 AND metric = 1 AND time BETWEEN {T0 + 600 * S} AND {T0 + 1199 * S}",
            "a, aggregate of 10m at .* has nothing to be made of",
        ),
        (f"INSERT INTO point VALUES (99, {T0}, 1.0)", "metric 99: has no name, but is in the table point"),
    ],
    ids=lambda text: text[:30],  # times are others in each process
)
async def test_whatever_is_wrong_is_found(archive: SqliteArchive, damage: str, said: str) -> None:
    await archive.database.run(lambda connection: connection.execute(damage))
    found = await findings(archive)
    assert found
    lines = [f"{one.where}: {one.what}" for one in found]
    assert any(re.search(said, line) for line in lines), lines


async def test_an_aggregate_may_cover_what_an_earlier_hold_allowed(archive: SqliteArchive) -> None:
    """The declared interval of a metric has changed since: what was right then is no finding."""
    await archive.insert([group(["slow"], seconds(NOW_NS - H, 20, 30), noise(20))])
    await archive.set_metadata({"slow": {"interval": 1.0}})
    assert await findings(archive) == []


async def test_a_file_with_a_page_of_garbage_is_looked_through_as_far_as_that_goes(
    archive: SqliteArchive, path: Path
) -> None:
    (root,) = (await archive._fetch("SELECT rootpage FROM sqlite_master WHERE name = 'point'"))[0]
    await archive.aclose()
    with path.open("r+b") as file:
        file.seek((root - 1) * 4096)
        file.write(bytes(range(256)) * 16)
    found = [one async for one in maintenance.verify(str(path), thorough=True) if isinstance(one, Finding)]
    assert found[0].where == "the file"
    assert any(one.where == "a" and "cannot be read (database disk image is malformed)" in one.what for one in found)


@pytest.mark.parametrize("left", [10_000, 4096, 1000, 50])
async def test_a_file_that_was_cut_short_is_said_to_be(archive: SqliteArchive, path: Path, left: int) -> None:
    await archive.aclose()
    with path.open("r+b") as file:
        file.truncate(left)
    said = ""
    try:
        found = [one async for one in maintenance.verify(str(path), thorough=True) if isinstance(one, Finding)]
        said = " ".join(one.what for one in found)
    except StorageError as error:
        said = str(error)
    assert re.search("is damaged|is not an SQLite file|cannot be read|invalid page", said), said


async def test_it_looks_at_an_archive_that_is_being_written(archive: SqliteArchive, path: Path) -> None:
    checks = maintenance.verify(str(path), thorough=True)
    assert not isinstance(await anext(checks), Finding)
    await archive.insert([group(["a"], [NOW_NS], [1.0])])
    assert [one async for one in checks if isinstance(one, Finding)] == []


async def test_other_files_are_no_archives(tmp_path: Path) -> None:
    (tmp_path / "text.db").write_text("hello" * 1000)
    with pytest.raises(StorageError, match="is not an SQLite file"):
        await anext(maintenance.verify(str(tmp_path / "text.db"), thorough=False))
    connection = sqlite3.connect(tmp_path / "other.db")
    connection.execute("CREATE TABLE x (y)")
    connection.close()
    with pytest.raises(StorageError, match="is an SQLite file of another program"):
        await anext(maintenance.verify(str(tmp_path / "other.db"), thorough=False))
