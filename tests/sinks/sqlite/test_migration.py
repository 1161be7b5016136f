# SPDX-License-Identifier: MIT
"""An archive that was made before there were aggregates."""

import sqlite3
import time
from array import array
from pathlib import Path

import pytest

from bus.aggregates import TIERS_NS, aggregate_points
from bus.archive import read_points
from bus.frame import Group
from sinks.sqlite import rollups, schema
from sinks.sqlite.archive import SqliteArchive

S = 10**9


def first_version(path: Path, points: list[tuple[int, float | None]]) -> None:
    """What schema 1 made of points of the metric ``a.x``."""
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("BEGIN")
    for statement in schema.MIGRATIONS[0]:
        assert isinstance(statement, str)
        connection.execute(statement)
    connection.execute(f"PRAGMA application_id = {schema.APPLICATION_ID}")
    connection.execute("PRAGMA user_version = 1")
    connection.execute("INSERT INTO metric (name) VALUES ('a.x')")
    connection.executemany("INSERT INTO point VALUES (1, ?, ?)", points)
    connection.execute("COMMIT")
    connection.close()


async def test_points_of_an_archive_without_aggregates_are_in_all_of_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rollups, "REBUILD_PAGE", 37)  # several pages, which end within buckets
    now_s = time.time_ns() // S
    points = [(second * S, None if second % 7 == 0 else float(second % 50)) for second in range(now_s - 4000, now_s)]
    first_version(tmp_path / "old.db", points)
    async with await SqliteArchive.open(tmp_path / "old.db") as archive:
        chunk = await read_points(archive, "a.x")
        assert len(chunk) == 4000
        for every_ns in (*TIERS_NS.values(), None):
            expected = aggregate_points(chunk.times, chunk.values, every_ns)
            found = await archive.aggregates("a.x", 0, now_s * S, every_ns)
            assert [row[:7] for row in found.rows()] == [row[:7] for row in expected]
            assert found.integrals.tolist() == pytest.approx([row.integral for row in expected])
            assert found.covered.tolist() == pytest.approx([row.covered for row in expected])
    connection = sqlite3.connect(tmp_path / "old.db")
    for name, span_ns in TIERS_NS.items():
        expected = aggregate_points(chunk.times, chunk.values, span_ns)
        rows = connection.execute(
            f"SELECT time, count, sum, min, max, first, last FROM rollup_{name} WHERE metric = 'a.x' ORDER BY time"
        ).fetchall()
        assert rows == [tuple(row[:7]) for row in expected], name
    connection.close()


async def test_metadata_of_an_old_archive_tell_for_how_long_its_points_speak(tmp_path: Path) -> None:
    now_s = time.time_ns() // S
    first_version(tmp_path / "old.db", [(second * S, 1.0) for second in range(now_s - 3000, now_s, 300)])
    with sqlite3.connect(tmp_path / "old.db") as connection:
        connection.execute("UPDATE metric SET metadata = ?", ('{"interval": 300}',))
    connection.close()
    async with await SqliteArchive.open(tmp_path / "old.db") as archive:
        await archive.set_metadata({"a.x": {"interval": 300}})
        await archive.insert([Group(("a.x",), array("q", [now_s * S]), array("d", [1.0]))])
        for every_ns in (60 * S, None):
            assert sum((await archive.aggregates("a.x", 0, (now_s + 1) * S, every_ns)).covered) == 3000.0
