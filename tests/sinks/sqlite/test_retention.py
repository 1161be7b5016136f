# SPDX-License-Identifier: MIT
"""What is too old goes: all of it, nothing else, and the space with it, whoever reads."""

import sqlite3
from pathlib import Path

import pytest

from sinks.retention import Retention
from sinks.sqlite.archive import SqliteArchive
from sinks.sqlite.retention import Expiry, expire_step
from sinks.sqlite.space import checkpoint, vacuum_step
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

D = 24 * H


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "archive.db"


async def expire(archive: SqliteArchive, keep: dict[str, str], now_ns: int = NOW_NS, **keep_for: dict[str, str]) -> int:
    total = await settle(archive, Expiry(now_ns, Retention.load(keep, keep_for)).step)
    assert await archive.database.write(expire_step, now_ns, Retention.load(keep, keep_for)) == 0
    return total


@pytest.mark.parametrize("packed", [False, True])
async def test_points_go_by_windows_and_their_aggregates_stay(path: Path, packed: bool) -> None:
    times = seconds(T0, 18 * 360, 10)
    values = noise(len(times))
    async with await SqliteArchive.open(path) as archive:
        await archive.insert([group(["a", "b"], times, values, values)])
        before = await archive._fetch("SELECT * FROM rollup_1m ORDER BY metric, time")
        if packed:
            await compact(archive)
        now_ns = T0 + D + 7 * H  # a day ago was an hour after the end of the first window
        assert await expire(archive, {"raw": "1d"}, now_ns)
        assert await points_of(archive, "a") == [
            (when, value) for when, value in zip(times, values, strict=True) if when >= T0 + 6 * H
        ]
        assert await archive._fetch("SELECT DISTINCT raw_from FROM metric") == [(T0 + 6 * H,)]
        assert await archive._fetch("SELECT * FROM rollup_1m ORDER BY metric, time") == before
        assert await findings(archive) == []


async def test_aggregates_of_expired_points_are_packed_and_go_when_their_time_comes(path: Path) -> None:
    times = seconds(T0, 12 * 360, 10)
    async with await SqliteArchive.open(path) as archive:
        await archive.insert([group(["a"], times, noise(len(times)))])
        before = await archive._fetch("SELECT * FROM rollup_1m ORDER BY metric, time")
        await expire(archive, {"raw": "1d"})
        assert await count(archive, "point") == 0
        assert await count(archive, "rollup WHERE tier = 1") == 12 * 360
        assert await compact(archive) == 12 * 360
        assert await count(archive, "series WHERE tier = 1") == 2
        assert await count(archive, "rollup WHERE tier = 1") == 0
        await expire(archive, {"raw": "1d", "10s": "1d"}, T0 + D + 6 * H)
        assert await archive._fetch("SELECT start FROM series") == [(T0 + 6 * H,)]
        assert await count(archive, "block") == 1
        assert await archive._fetch("SELECT * FROM rollup_1m ORDER BY metric, time") == before
        await expire(archive, {"raw": "1d", "10s": "1d", "1m": "2d", "10m": "2d"})
        assert [tier for (tier,) in await archive._fetch("SELECT DISTINCT tier FROM rollup")] == [4, 5]


async def test_nothing_goes_before_the_next_tier_is_formed_of_it(path: Path) -> None:
    async with await SqliteArchive.open(path) as archive:
        await archive.insert([group(["a"], seconds(T0, 12 * 60, 60), noise(12 * 60))])
        await archive._fetch(f"UPDATE tier SET rolled_to = {T0 + 6 * H} WHERE id = 2")
        await expire(archive, {"raw": "1d", "10s": "1d"})
        assert await archive._fetch("SELECT min(time) FROM rollup WHERE tier = 1") == [(T0 + 6 * H,)]


async def test_metrics_are_kept_each_by_its_own_rule_and_late_points_that_are_too_old_go_again(path: Path) -> None:
    times = seconds(T0, 100, 60)
    async with await SqliteArchive.open(path) as archive:
        await archive.insert([group(["a", "b", "c"], times, noise(100), noise(100), noise(100))])
        await expire(archive, {"raw": "forever"}, a={"raw": "1d"}, b={"raw": "90d"})
        assert [len(await points_of(archive, name)) for name in ("a", "b", "c")] == [0, 100, 100]
        assert await archive.insert([group(["a"], [T0 + 5 * H], [3.0])]) == 1
        assert await expire(archive, {"raw": "forever"}, a={"raw": "1d"}) == 1
        assert await points_of(archive, "a") == []
        assert (
            await archive._fetch("SELECT count, sum FROM rollup_1h WHERE metric = 'a' AND time = ?", T0 + 5 * H)
        ) == [(1, 3.0)]


async def test_the_same_points_that_come_again_after_they_have_expired_are_not_counted_twice(path: Path) -> None:
    again = group(["a"], seconds(T0, 100, 60), noise(100))
    async with await SqliteArchive.open(path) as archive:
        await archive.insert([again])
        await compact(archive)
        await expire(archive, {"raw": "1d"})
        assert await archive.insert([again]) == 0
        assert await archive._fetch("SELECT sum(count) FROM rollup_1h") == [(100,)]


async def test_the_file_shrinks_while_somebody_reads_an_old_state(path: Path) -> None:
    async with await SqliteArchive.open(path) as archive:
        for day in range(4):
            times = seconds(T0 + day * D, 20_000)
            await archive.insert([group(["a", "b"], times, noise(20_000), noise(20_000))])
        await archive.database.run(checkpoint)
        full = path.stat().st_size
        reader = sqlite3.connect(path, isolation_level=None)
        reader.execute("BEGIN")
        assert reader.execute("SELECT count(*) FROM points").fetchone() == (160_000,)

        await expire(archive, {"raw": "1d", "10s": "1d"})
        while await archive.database.write(vacuum_step):
            pass
        await archive.database.run(checkpoint)  # waits for nobody
        assert reader.execute("SELECT count(*), min(time) FROM points").fetchone() == (160_000, T0)
        assert path.stat().st_size == full, "the reader's state is still in it"
        await archive.insert([group(["a"], [NOW_NS], [1.0])])
        assert reader.execute("SELECT count(*) FROM points").fetchone() == (160_000,)

        reader.execute("COMMIT")
        await archive.database.run(checkpoint)
        assert path.stat().st_size < full / 4
        assert path.with_name(path.name + "-wal").stat().st_size == 0
        assert reader.execute("SELECT count(*) FROM points").fetchone() == (1,)
        reader.close()
        assert await findings(archive) == []


async def test_a_little_free_space_stays_for_what_comes_next(path: Path) -> None:
    async with await SqliteArchive.open(path) as archive:
        await archive.insert([group(["a"], seconds(T0, 20_000), noise(20_000))])
        await archive.database.write(
            lambda connection: connection.execute("DELETE FROM point WHERE time < ?", (T0 + S,))
        )
        assert await archive.database.write(vacuum_step) == 0
        assert await archive.database.write(vacuum_step, 0.0) == 0
        await archive.database.write(lambda connection: connection.execute("DELETE FROM point"))
        freed = (await archive._fetch("PRAGMA freelist_count"))[0][0]
        assert freed > 100
        assert await archive.database.write(vacuum_step) == 0, "less than a MB is not worth it"
        assert await archive.database.write(vacuum_step, 0.0) == freed
