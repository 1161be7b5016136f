# SPDX-License-Identifier: MIT
"""What goes into an archive comes out again: once, in order, exactly."""

import asyncio
import math
import sqlite3
from array import array
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bus.archive import MissingFrames, read_points
from bus.errors import StorageError
from bus.frame import Group
from bus.names import matches
from sinks.sqlite.archive import SqliteArchive
from sinks.sqlite.compaction import compact_step

T0 = 1_790_000_000 * 10**9
S = 10**9


def group(metrics: list[str], times: list[int], values: list[float]) -> Group:
    return Group(tuple(metrics), array("q", times), array("d", values))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "archive.db"


async def test_points_are_read_back_in_the_order_of_time_with_their_exact_values(path: Path) -> None:
    async with await SqliteArchive.open(path) as archive:
        await archive.insert([group(["a.x", "a.y"], [T0, T0 + 1], [0.1, 1e300, -5.0, 2.0**-1074])])
        stored = await archive.insert([group(["a.x"], [T0 - S], [7.0])])
        assert stored == 1
        x, y = await read_points(archive, "a.x"), await read_points(archive, "a.y")
    assert list(zip(x.times, x.values, strict=True)) == [(T0 - S, 7.0), (T0, 0.1), (T0 + 1, 1e300)]
    assert list(zip(y.times, y.values, strict=True)) == [(T0, -5.0), (T0 + 1, 2.0**-1074)]


async def test_nan_and_infinities_survive(path: Path) -> None:
    async with await SqliteArchive.open(path) as archive:
        await archive.insert([group(["a"], [1, 2, 3], [math.nan, math.inf, -math.inf])])
        chunk = await read_points(archive, "a")
        last = await archive.last()
    assert math.isnan(chunk.values[0])
    assert list(chunk.values[1:]) == [math.inf, -math.inf]
    assert last == {"a": (3, -math.inf)}


async def test_the_first_value_of_a_time_wins_and_only_new_points_count(path: Path) -> None:
    async with await SqliteArchive.open(path) as archive:
        assert await archive.insert([group(["a"], [1, 2], [10.0, 20.0])]) == 2
        assert await archive.insert([group(["a"], [2, 3], [99.0, 30.0])]) == 1
        assert archive.points_stored == 3
        assert list((await read_points(archive, "a")).values) == [10.0, 20.0, 30.0]


async def test_points_are_still_there_after_closing_and_ids_stay(path: Path) -> None:
    async with await SqliteArchive.open(path) as archive:
        await archive.insert([group(["a", "b"], [1], [1.0, 2.0])])
    async with await SqliteArchive.open(path) as archive:
        await archive.insert([group(["b", "c", "a"], [2], [20.0, 30.0, 10.0])])
        assert list((await read_points(archive, "a")).values) == [1.0, 10.0]
        assert list((await read_points(archive, "b")).values) == [2.0, 20.0]
        assert list((await read_points(archive, "c")).values) == [30.0]


@st.composite
def batches(draw: st.DrawFn) -> list[list[Group]]:
    """Batches of groups whose points never contradict each other: the value follows from metric and time."""
    names = [f"m{index}" for index in range(5)]
    made = []
    for _ in range(draw(st.integers(1, 3))):
        batch = []
        for _ in range(draw(st.integers(0, 6))):
            metrics = draw(st.lists(st.sampled_from(names), min_size=1, max_size=5, unique=True))
            times = sorted(draw(st.sets(st.integers(0, 80), min_size=1, max_size=60)))
            values = [int(metric[1:]) * 1000.0 + time for metric in metrics for time in times]
            batch.append(group(metrics, times, values))
        made.append(batch)
    return made


@given(batches())
@settings(max_examples=40, deadline=None)
def test_any_grouping_of_points_ends_as_the_same_rows(
    tmp_path_factory: pytest.TempPathFactory, batches: list[list[Group]]
) -> None:
    async def store() -> tuple[dict[tuple[str, int], float], int]:
        async with await SqliteArchive.open(tmp_path_factory.mktemp("any") / "archive.db") as archive:
            for batch in batches:
                await archive.insert(batch)
            chunks = [await read_points(archive, metric) for metric in await archive.metrics()]
            return {
                (c.metric, t): v for c in chunks for t, v in zip(c.times, c.values, strict=True)
            }, archive.points_stored

    expected = {
        (chunk.metric, time): value
        for batch in batches
        for one in batch
        for chunk in one.chunks()
        for time, value in zip(chunk.times, chunk.values, strict=True)
    }
    stored, count = asyncio.run(store())
    assert stored == expected
    assert count == len(expected)


async def test_a_range_includes_its_start_and_excludes_its_end(path: Path) -> None:
    async with await SqliteArchive.open(path) as archive:
        await archive.insert([group(["a"], [10, 20, 30], [1.0, 2.0, 3.0])])
        assert list((await read_points(archive, "a", 10, 30)).times) == [10, 20]
        assert len(await read_points(archive, "a", 31)) == 0
        assert len(await read_points(archive, "unknown")) == 0
        assert len(await read_points(archive, "a")) == 3
        assert len(await read_points(archive, "unknown")) == 0


async def test_metrics_are_selected_by_pattern_with_their_metadata(path: Path) -> None:
    async with await SqliteArchive.open(path) as archive:
        await archive.insert([group(["web1.cpu.usage", "web1.memory.used", "web2.cpu.usage"], [1], [1.0, 2.0, 3.0])])
        assert await archive.metrics_without_metadata() == ["web1.cpu.usage", "web1.memory.used", "web2.cpu.usage"]
        await archive.set_metadata(
            {"web1.cpu.usage": {"unit": "%"}, "web1.memory.used": {}, "nobody.knows": {"unit": "s"}}
        )
        assert await archive.metrics("*.cpu.#") == {"web1.cpu.usage": {"unit": "%"}, "web2.cpu.usage": {}}
        assert await archive.metrics_without_metadata() == ["web2.cpu.usage"]
        assert await archive.last("web1.#") == {"web1.cpu.usage": (1, 1.0), "web1.memory.used": (1, 2.0)}
        with pytest.raises(ValueError, match="not a metric name or pattern"):
            await archive.metrics("web1..cpu")


async def test_what_is_missing_is_stored_with_the_points_and_once(path: Path) -> None:
    missing = MissingFrames(source="source-cpu", key="web1.cpu", epoch=5, first=2, last=4, noticed=77)
    async with await SqliteArchive.open(path) as archive:
        await archive.insert([group(["a"], [1], [1.0])], [missing])
        await archive.insert([group(["a"], [1], [1.0])], [missing])
        assert await archive.missing() == [missing]


async def test_the_view_points_is_for_any_sql_tool_and_uses_the_primary_key(path: Path) -> None:
    async with await SqliteArchive.open(path) as archive:
        await archive.insert([group(["web1.load.1m", "web1.load.5m"], [T0, T0 + S], [0.5, math.nan, 0.25, 0.75])])
    shell = sqlite3.connect(path)
    assert shell.execute("SELECT * FROM points WHERE metric = 'web1.load.1m' ORDER BY time").fetchall() == [
        ("web1.load.1m", T0, 0.5),
        ("web1.load.1m", T0 + S, None),
    ]
    assert shell.execute("SELECT avg(value) FROM points WHERE metric LIKE '%.5m'").fetchone() == (0.5,)
    plan = shell.execute(
        "EXPLAIN QUERY PLAN SELECT * FROM points WHERE metric = 'web1.load.1m' AND time >= 5 ORDER BY time"
    ).fetchall()
    shell.close()
    assert all("SEARCH" in step[3] for step in plan), plan
    assert any("metric=? AND time>?" in step[3] for step in plan), plan


async def test_readers_see_what_is_committed_while_the_archive_is_written(path: Path) -> None:
    async with (
        await SqliteArchive.open(path) as writer,
        await SqliteArchive.open(path, access="read") as reader,
        await SqliteArchive.open(path, access="read") as other,
    ):
        await writer.insert([group(["a"], [1], [1.0])])
        assert len(await read_points(reader, "a")) == 1
        await writer.insert([group(["a"], [2], [2.0])])
        assert len(await read_points(other, "a")) == 2
        with pytest.raises(StorageError, match="cannot be written"):
            await reader.insert([group(["a"], [3], [3.0])])


async def test_points_that_came_before_their_metadata_are_aggregated_as_those_after(path: Path) -> None:
    """A metric that is read every five minutes: by default its points would speak for nothing."""
    async with await SqliteArchive.open(path) as archive:
        times = [T0 + 300 * S * number for number in range(10)]
        await archive.insert([group(["a", "b"], times[:5], [2.0] * 10)])
        await archive.set_metadata({"a": {"interval": 300}})
        await archive.insert([group(["a", "b"], times[5:], [2.0] * 10)])
        for every_ns in (60 * S, 3600 * S, None):
            assert sum((await archive.aggregates("a", T0, T0 + 3600 * S, every_ns)).covered) == 2700.0
            assert sum((await archive.aggregates("a", T0, T0 + 3600 * S, every_ns)).counts) == 10
            assert sum((await archive.aggregates("b", T0, T0 + 3600 * S, every_ns)).covered) == 0.0


async def test_metadata_that_come_late_leave_what_is_packed_or_too_much_as_it_is(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sinks.sqlite.metadata.MOST_POINTS", 150)
    async with await SqliteArchive.open(path) as archive:
        times = [T0 + 30 * S * number for number in range(100)]
        await archive.insert([group(["packed"], times, [1.0] * 100)])
        await archive.database.write(compact_step, T0 + 86400 * S)
        await archive.insert([group(["one", "two"], times, [1.0] * 200)])
        names = ("packed", "one", "two")
        await archive.set_metadata({name: {"interval": 1} for name in names})
        covered = {name: sum((await archive.aggregates(name, T0, T0 + 86400 * S, 60 * S)).covered) for name in names}
    assert covered == {"packed": 99 * 30.0, "one": 0.0, "two": 99 * 30.0}


async def test_a_name_or_pattern_selects_its_metrics_and_no_others(path: Path) -> None:
    names = ["a", "a-b", "a.b", "a.b-c.d", "a.b.c", "a.b.c.d", "a.b0", "a.z_", "b"]
    async with await SqliteArchive.open(path) as archive:
        await archive.insert([group(names, [T0], [1.0] * len(names))])
        for pattern in ("#", "a", "a.b", "a.*", "a.b.#", "a.#.d", "*.b.c", "z", "a.z_"):
            expected = [name for name in names if matches(pattern, name)]
            assert list(await archive.metrics(pattern)) == expected
            assert list(await archive.last(pattern)) == expected


async def test_a_cancelled_insert_leaves_the_whole_batch_or_nothing(path: Path) -> None:
    """The cancellation falls on every step of the transaction in turn."""
    async with await SqliteArchive.open(path) as archive:
        for steps in range(40):
            names = [f"new{steps}.m{index}" for index in range(150)]
            insert = asyncio.create_task(archive.insert([group(names, [T0], [1.0] * 150)]))
            for _ in range(steps):
                await asyncio.sleep(0)
            insert.cancel()
            await asyncio.wait({insert})
            known = await archive.metrics(f"new{steps}.#")
            assert len(known) in {0, 150}
            assert sum([len(await read_points(archive, name)) for name in known]) == len(known)
            # The same names, whose ids may have been rolled back, work at the next attempt.
            await archive.insert([group(names, [T0], [1.0] * 150)])
            assert await archive.last(f"new{steps}.#") == dict.fromkeys(names, (T0, 1.0))


async def test_inserts_of_several_tasks_do_not_mix(path: Path) -> None:
    async with await SqliteArchive.open(path) as archive:
        await asyncio.gather(
            *(archive.insert([group([f"t{task}.m", "shared"], [task], [1.0, 2.0])]) for task in range(20)),
            *(archive.last() for _ in range(5)),
        )
        assert archive.points_stored == 40
        assert len(await read_points(archive, "shared")) == 20


async def test_closing_twice_is_closing_once_and_the_log_is_gone(path: Path) -> None:
    archive = await SqliteArchive.open(path)
    await archive.insert([group(["a"], [1], [1.0])])
    await archive.aclose()
    await archive.aclose()
    with pytest.raises(StorageError, match="is closed"):
        await archive.insert([])
    with pytest.raises(StorageError, match="is closed"):
        await archive.metrics()
    assert sorted(file.name for file in path.parent.iterdir()) == ["archive.db", "archive.db.lock"]
