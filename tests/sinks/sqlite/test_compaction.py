# SPDX-License-Identifier: MIT
"""Old points move into blocks: none is lost, none doubled, and all aggregates stay right."""

import math
from pathlib import Path

import pytest

from sinks.sqlite import compaction
from sinks.sqlite.archive import SqliteArchive
from sinks.sqlite.buckets import stored_buckets
from sinks.sqlite.compaction import Compaction
from sinks.sqlite.tiers import FINEST
from tests.sinks.sqlite.upkeep import (
    NOW_NS,
    T0,
    H,
    S,
    compact,
    count,
    findings,
    group,
    noise,
    points_of,
    seconds,
    settle,
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "archive.db"


async def test_what_is_old_moves_into_blocks_and_reads_as_before(path: Path) -> None:
    times = seconds(T0 + 17, 8 * 3600)
    cpu, memory = noise(len(times)), noise(len(times))
    async with await SqliteArchive.open(path) as archive:
        await archive.insert([group(["cpu", "memory"], times, cpu, memory)])
        assert await compact(archive, T0 + 7 * H) == 2 * 6 * 3600, "whole windows only"
        assert await count(archive, "point") == 2 * 2 * 3600
        assert await count(archive, f"rollup WHERE tier = 1 AND time < {T0 + 6 * H}") == 0
        assert await points_of(archive, "cpu") == list(zip(times, cpu, strict=True))
        assert await points_of(archive, "memory") == list(zip(times, memory, strict=True))
        assert await findings(archive) == []
        assert await count(archive, "series WHERE tier = 0") == 12
        assert await count(archive, "block WHERE tier = 0") == 6, "both metrics share their times"
        assert await compact(archive, T0 + 7 * H) == 0


async def test_late_points_join_the_blocks_of_their_window(path: Path) -> None:
    times = seconds(T0, 6 * 3600)
    values = noise(len(times))
    wanted = dict(zip(times, values, strict=True))
    late = {T0 + 1: -1.0, T0 + 2 * H + 5 * S + 7: 1000.0, T0 + 3 * H - 1: math.inf, T0 + 6 * H - 1: 3.0}
    async with await SqliteArchive.open(path) as archive:
        await archive.insert([group(["a"], times, values)])
        assert await compact(archive) == len(times)
        for when, value in late.items():
            await archive.insert([group(["a"], [when], [value])])
        assert await points_of(archive, "a") == sorted((wanted | late).items())
        assert await compact(archive) == len(late)
        assert await points_of(archive, "a") == sorted((wanted | late).items())
        assert await count(archive, "point") == 0
        assert await findings(archive) == []


async def test_a_late_point_shortens_the_time_of_the_packed_one_after_it(path: Path) -> None:
    """The last of a window comes when the next window is compacted already."""
    times = seconds(T0, 6 * 60, 60) + seconds(T0 + 6 * H, 6 * 60, 60)
    async with await SqliteArchive.open(path) as archive:
        await archive.insert([group(["a"], times, [1.0] * len(times))])
        await compact(archive)
        await archive.insert([group(["a"], [T0 + 6 * H - 20 * S], [5.0])])
        await compact(archive)
        (bucket,) = await archive.database.read(stored_buckets, FINEST.id, 1, T0 + 6 * H, T0 + 6 * H + 10 * S)
        assert (bucket.covered, bucket.integral) == (20.0, 20.0)
        assert await findings(archive) == []


async def test_windows_with_few_points_stay_rows_and_are_not_looked_at_again(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = seconds(T0, 40, 600)
    async with await SqliteArchive.open(path) as archive:
        await archive.insert([group(["slow"], slow, noise(40)), group(["fast"], seconds(T0, 60, 60), noise(60))])
        looked: list[int] = []
        is_small = compaction._Mover.is_small

        def counted(self: compaction._Mover, start: int) -> bool:
            looked.append(start)
            return is_small(self, start)

        monkeypatch.setattr(compaction._Mover, "is_small", counted)
        keeper = Compaction()
        await settle(archive, lambda connection: keeper.step(connection, NOW_NS))
        assert await count(archive, "point") == 40
        assert len(looked) == 3
        assert await archive.database.write(keeper.step, NOW_NS) is None
        assert len(looked) == 3
        assert await findings(archive) == []

        await archive.insert([group(["fast"], [T0 + 1], [1.0]), group(["slow"], [T0 + 1], [2.0])])
        keeper.late(["fast", "slow", "nobody"], T0 + 1)
        assert await settle(archive, lambda connection: keeper.step(connection, NOW_NS)) == 1
        assert await count(archive, "point") == 41
        assert await points_of(archive, "fast") != []
        assert await findings(archive) == []


async def test_what_no_coarser_tier_is_formed_of_stays(path: Path) -> None:
    async with await SqliteArchive.open(path) as archive:
        await archive.insert([group(["a"], seconds(T0, 7 * 3600), noise(7 * 3600))])
        await archive._fetch(f"UPDATE tier SET rolled_to = {T0 + 5 * H} WHERE id = 2")
        assert await compact(archive) == 0
        await archive._fetch(f"UPDATE tier SET rolled_to = {T0 + 6 * H} WHERE id = 2")
        assert await compact(archive) == 6 * 3600


@pytest.mark.parametrize(("step_s", "hours"), [(0.01, 0.02), (0.0001, 0.005), (7.3, 12.0), (0.5, 1.0)])
async def test_a_series_is_never_longer_than_it_should_be(path: Path, step_s: float, hours: float) -> None:
    times = seconds(T0 + 123_456_789, int(hours * 3600 / step_s), step_s)
    values = noise(len(times))
    async with await SqliteArchive.open(path) as archive:
        await archive.insert([group(["a"], times, values)])
        await compact(archive, budget_points=1)
        assert await points_of(archive, "a") == list(zip(times, values, strict=True))
        assert (await archive._fetch("SELECT max(count) <= 4000 FROM block"))[0][0]
        assert await findings(archive) == []


async def test_points_without_a_value_stay_without_one(path: Path) -> None:
    times = seconds(T0, 600)
    async with await SqliteArchive.open(path) as archive:
        await archive.insert([group(["a"], times, [math.nan] * 600), group(["b"], times, [math.nan, 1.0] * 300)])
        await compact(archive)
        assert all(math.isnan(value) for _, value in await points_of(archive, "a"))
        assert sum(math.isnan(value) for _, value in await points_of(archive, "b")) == 300
        assert await count(archive, "series WHERE tier = 1") == 1
        assert await findings(archive) == []


async def test_blocks_that_nobody_needs_go(path: Path) -> None:
    async with await SqliteArchive.open(path) as archive:
        await archive.insert([group(["a", "b"], seconds(T0, 100, 60), noise(100), noise(100))])
        await compact(archive)
        assert await count(archive, "block WHERE tier = 0") == 1
        await archive.insert([group(["a", "b"], [T0 + 1], [1.0], [2.0])])
        await compact(archive)
        assert await count(archive, "block WHERE tier = 0") == 1
        assert await count(archive, "block WHERE tier = 0 AND count = 101") == 1


async def test_young_points_stay_in_rows_after_the_clock_was_ahead_for_a_while(path: Path) -> None:
    async with await SqliteArchive.open(path) as archive:
        compaction = Compaction()
        await archive.insert([group(["a"], seconds(T0, 200), noise(200))])
        await settle(archive, lambda connection: compaction.step(connection, NOW_NS))
        assert await count(archive, "point") == 0
        young = seconds(T0 + 7 * H, 200)
        await archive.insert([group(["a"], young, noise(200))])
        compaction.late(["a"], young[0])
        for _ in range(2):
            await settle(archive, lambda connection: compaction.step(connection, T0 + 6 * H))
        assert await count(archive, "point") == 200
        await settle(archive, lambda connection: compaction.step(connection, T0 + 12 * H))
        assert await count(archive, "point") == 0
        assert await findings(archive) == []
