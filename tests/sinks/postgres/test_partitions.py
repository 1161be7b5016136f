# SPDX-License-Identifier: MIT
"""Every point has a place, whatever its day; days that have expired go, with nothing that is still needed."""

import asyncio
import time
from types import SimpleNamespace

import pytest

from bus.archive import read_points
from sinks.postgres import archive as archive_module
from sinks.postgres import partitions, retention, rollups
from sinks.postgres.address import Address
from sinks.postgres.archive import PostgresArchive
from sinks.postgres.partitions import DAY_NS, partition
from sinks.postgres.retention import keep_ns
from sinks.postgres.tables import RAW, ROLLUPS
from tests.sinks.memory_archive import MemoryArchive
from tests.sinks.postgres.test_archive import SECOND, group, points, query, stored
from tests.sinks.postgres.test_rollups import HOUR, assert_same, keep_up

TODAY = time.time_ns() // DAY_NS
WEEK = {RAW: 7 * DAY_NS}


async def rows_by_table(url: str) -> dict[str, int]:
    """How many points are in which partition."""
    rows = await query(url, "SELECT tableoid::regclass::text, count(*) FROM hostbus.point GROUP BY 1 ORDER BY 1")
    return {name: count for name, count in rows}  # noqa: C416


async def tables(url: str) -> set[str]:
    rows = await query(url, "SELECT relid::text FROM pg_partition_tree('hostbus.point') WHERE isleaf")
    return {name for (name,) in rows}


async def test_a_day_gets_its_partition_with_its_first_point(archive: PostgresArchive, database_url: str) -> None:
    days = (TODAY, TODAY - 1, TODAY - 400, TODAY + 2)
    assert await archive.insert([points(*((day * DAY_NS + 5, float(day)) for day in sorted(days)))]) == 4
    assert await rows_by_table(database_url) == {partition(day): 1 for day in days}


async def test_the_days_to_come_are_ready_before_they_come(archive: PostgresArchive, database_url: str) -> None:
    await archive.upkeep()
    assert {partition(TODAY), partition(TODAY + 1), partition(TODAY + 2)} <= await tables(database_url)


async def test_a_point_far_in_the_future_is_kept_and_moves_when_its_day_is_near(
    archive: PostgresArchive, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    day = TODAY + 20
    await archive.insert([points((day * DAY_NS, 1.0), (day * DAY_NS + 7, 2.0), ((day + 1) * DAY_NS, 3.0))])
    assert await rows_by_table(database_url) == {"hostbus.point_other": 3}
    monkeypatch.setattr(partitions.time, "time_ns", lambda: (day - 1) * DAY_NS)
    assert await archive.insert([points((day * DAY_NS + 7, 2.0), (day * DAY_NS + 8, 4.0))]) == 1
    assert await rows_by_table(database_url) == {"hostbus.point_other": 1, partition(day): 3}
    assert [value for _, value in await stored(archive)] == [1.0, 2.0, 4.0, 3.0]


async def test_when_there_are_too_many_days_the_rest_share_a_place(
    archive: PostgresArchive, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(partitions, "MOST", 3)
    old = points(*(((TODAY - 1000 + day) * DAY_NS, 1.0) for day in range(6)), (TODAY * DAY_NS, 2.0))
    assert await archive.insert([old]) == 7
    counts = await rows_by_table(database_url)
    assert counts.pop("hostbus.point_other") == 3
    assert partition(TODAY) in counts
    assert len(counts) == 4


async def test_several_may_make_the_same_days_at_once(address: Address, database_url: str) -> None:
    archives = [await PostgresArchive.open(address) for _ in range(3)]
    batches = [[points(*(((TODAY - day) * DAY_NS + n, 1.0) for day in range(10, 0, -1)))] for n in range(3)]
    assert await asyncio.gather(*(a.insert(b) for a, b in zip(archives, batches, strict=True))) == [10, 10, 10]
    assert set((await rows_by_table(database_url)).values()) == {3}
    for archive in archives:
        await archive.aclose()


async def test_what_has_expired_is_dropped_and_its_aggregates_stay(archive: PostgresArchive, database_url: str) -> None:
    memory, start = MemoryArchive(), (TODAY - 12) * DAY_NS
    for one in (archive, memory):
        for day in range(13):
            await one.insert([group({"web1.a": range(200)}, start + day * DAY_NS + 7 * HOUR, 10 * SECOND)])
    await archive.upkeep(WEEK, settled_s=3600)  # too soon to form: nothing goes that nobody has counted
    assert (await read_points(archive, "web1.a")).times[0] == start + 7 * HOUR
    await archive.upkeep(WEEK, settled_s=0)
    assert (await read_points(archive, "web1.a")).times[0] == start + 5 * DAY_NS + 7 * HOUR
    assert {partition(TODAY - 12), partition(TODAY - 8)}.isdisjoint(await tables(database_url))
    minute = 60 * SECOND
    for every in (minute, HOUR, DAY_NS):
        for ends in ((start, start + 13 * DAY_NS), (start + 7 * HOUR + 4 * minute, start + 6 * DAY_NS + minute)):
            ours = await archive.aggregates("web1.a", *ends, every)
            assert ours == await memory.aggregates("web1.a", *ends, every)
    # Finer than is left: the minutes.
    assert list((await archive.aggregates("web1.a", start, start + DAY_NS, 10 * SECOND)).counts[:2]) == [6, 6]


async def test_a_sink_whose_clock_is_a_year_ahead_removes_nothing(
    archive: PostgresArchive, monkeypatch: pytest.MonkeyPatch
) -> None:
    await archive.insert([points((time.time_ns(), 1.0))])
    ahead = SimpleNamespace(time_ns=lambda: time.time_ns() + 365 * DAY_NS)
    monkeypatch.setattr(archive_module, "time", ahead)
    await archive.upkeep(WEEK, settled_s=0)
    assert len(await stored(archive)) == 1


async def test_a_point_that_comes_after_its_day_went_never_spoils_what_was_counted(
    archive: PostgresArchive, database_url: str
) -> None:
    start = (TODAY - 10) * DAY_NS
    old = group({"web1.a": [1.0] * 120}, start)
    await archive.insert([old])
    await archive.upkeep(WEEK, settled_s=0)
    assert len(await stored(archive)) == 0
    # A part of the file once more, and a minute that was never there.
    again = group({"web1.a": [1.0] * 30}, start + 45 * SECOND)
    await archive.insert([again, group({"web1.a": [2.0] * 60}, start + HOUR)])
    for _ in range(2):
        found = await archive.aggregates("web1.a", start, start + DAY_NS, HOUR)
        assert list(found.counts) == [120, 60]
        await archive.upkeep(WEEK, settled_s=0)
        assert len(await stored(archive)) == 0
    assert partition(TODAY - 10) not in await tables(database_url)


async def test_an_old_file_that_is_imported_in_parts_is_counted_whole(archive: PostgresArchive) -> None:
    start = (TODAY - 10) * DAY_NS
    await archive.insert([group({"web1.a": [1.0]}, start, SECOND)])
    await archive.upkeep(WEEK, settled_s=0)
    for part in range(4):  # none of them ends with a minute, and aggregates are formed in between
        await archive.insert([group({"web1.b": [1.0] * 100}, start + part * 100 * SECOND)])
        await rollups.form(archive.database, 0)
    await archive.upkeep(WEEK, settled_s=0)
    assert await stored(archive, "web1.b") == []
    for every, counts in {60 * SECOND: [60] * 6 + [40], HOUR: [400], None: [400]}.items():
        assert list((await archive.aggregates("web1.b", start, start + DAY_NS, every)).counts) == counts


async def test_points_without_a_day_of_their_own_expire_too(
    archive: PostgresArchive, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(partitions, "MOST", 0)
    monkeypatch.setattr(retention, "ROWS_AT_ONCE", 30)
    start = (TODAY - 50) * DAY_NS
    await archive.insert([group({"web1.a": range(100)}, start), points((TODAY * DAY_NS, 1.0), metric="web1.a")])
    assert (await rows_by_table(database_url))["hostbus.point_other"] == 100
    await archive.upkeep(WEEK, settled_s=3600)
    assert (await rows_by_table(database_url))["hostbus.point_other"] == 100
    await archive.upkeep(WEEK, settled_s=0)
    assert await rows_by_table(database_url) == {partition(TODAY): 1}
    assert list((await archive.aggregates("web1.a", start, start + DAY_NS, DAY_NS)).counts) == [100]


async def test_inserts_and_readers_go_on_while_days_are_dropped(address: Address) -> None:
    archive, other = await PostgresArchive.open(address), await PostgresArchive.open(address)
    memory, start = MemoryArchive(), (TODAY - 12) * DAY_NS
    try:
        for day in range(12):
            for one in (archive, memory):
                await one.insert([group({"web1.a": [1.0] * 50}, start + day * DAY_NS)])
        await keep_up(archive)

        async def insert() -> None:
            for number in range(30):
                batch = [
                    group({"web1.a": [2.0] * 5}, (TODAY - 12 + number % 12) * DAY_NS + HOUR + number * 60 * SECOND),
                    group({"web1.b": [2.0] * 5}, TODAY * DAY_NS + number * 5 * SECOND),
                ]
                await memory.insert(batch)
                assert await other.insert(batch) == 10

        async def expire() -> None:
            for days in range(12, 0, -1):
                await archive.upkeep({RAW: days * DAY_NS}, settled_s=0)

        async def read() -> None:
            for _ in range(20):
                async for page in other.points("web1.a"):
                    assert page.times
                await other.aggregates("web1.a", start, TODAY * DAY_NS, HOUR)

        await asyncio.gather(insert(), expire(), read())
        await archive.upkeep({RAW: DAY_NS}, settled_s=0)
        assert (await read_points(archive, "web1.a")).times[0] >= (TODAY - 1) * DAY_NS
        assert await read_points(archive, "web1.b") == await read_points(memory, "web1.b")
        wanted = await memory.aggregates("web1.a", start, TODAY * DAY_NS, 60 * SECOND)
        assert await archive.aggregates("web1.a", start, TODAY * DAY_NS, 60 * SECOND) == wanted
        await assert_same(archive, memory, ["web1.b"], [TODAY * DAY_NS, (TODAY + 1) * DAY_NS])
    finally:
        await archive.aclose()
        await other.aclose()


async def test_a_reader_that_takes_its_time_makes_nobody_wait(
    archive: PostgresArchive, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(partitions, "LOCK_TIMEOUT_MS", 50)
    await archive.insert([group({"web1.a": [1.0] * 50}, (TODAY - 9) * DAY_NS)])
    async with archive.database.snapshot() as connection:
        await connection.fetchval("SELECT count(*) FROM hostbus.point")
        await archive.upkeep(WEEK, settled_s=0)
        assert await archive.insert([points(((TODAY - 5) * DAY_NS, 1.0))]) == 1
        assert len(await stored(archive)) == 51
        assert partition(TODAY - 5) not in await tables(database_url)
    await archive.upkeep(WEEK, settled_s=0)
    assert len(await stored(archive)) == 1
    assert await archive.insert([points(((TODAY - 5) * DAY_NS, 1.0), ((TODAY - 5) * DAY_NS + 1, 1.0))]) == 1
    assert (await rows_by_table(database_url)) == {partition(TODAY - 5): 2}


async def test_aggregates_expire_by_tier_and_coarser_ones_stand_in(
    archive: PostgresArchive, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "ROWS_AT_ONCE", 7)
    start = (TODAY - 40) * DAY_NS
    for day in (0, 25, 39):
        await archive.insert([group({"web1.a": [1.0] * 1200}, start + day * DAY_NS, SECOND)])
    keep = keep_ns({"raw": "7d", "1m": "30d"})
    await archive.upkeep(WEEK, settled_s=3600)  # nothing of which the coarser tier knows nothing
    assert (await archive.aggregates("web1.a", start, start + 50 * DAY_NS)).counts[0] == 3600
    for late in range(2):
        await archive.upkeep(keep, settled_s=0)
        rows = await query(
            database_url, "SELECT tier, count(*) FROM hostbus.rollup WHERE tier <= 3 GROUP BY tier ORDER BY tier"
        )
        assert [tuple(row) for row in rows] == [(2, 40 + late), (3, 6)]
        for every, counts in {60 * SECOND: [600, 600, *[60] * 40], 600 * SECOND: [600] * 6, None: [3600]}.items():
            assert list((await archive.aggregates("web1.a", start, start + 50 * DAY_NS, every)).counts) == counts
        # A late point in a minute that has gone is never taken for all of its ten minutes.
        assert await archive.insert([points((start + 5, 9.0))]) == 1


def test_what_is_kept_is_said_by_tier() -> None:
    assert keep_ns({"raw": "7d"}) == {RAW: 7 * DAY_NS}
    assert keep_ns({}) == {}
    assert keep_ns({"raw": "forever"}) == {}
    assert keep_ns({"raw": "1d", "10m": "2d"}) == {RAW: DAY_NS, ROLLUPS[0]: 2 * DAY_NS, ROLLUPS[1]: 2 * DAY_NS}
