# SPDX-License-Identifier: MIT
"""Aggregates are those of all points, however and whenever these came, and outlive them."""

import asyncio
from array import array
from collections.abc import Sequence
from itertools import pairwise
from math import inf, nan
from random import Random

import pytest

from bus.aggregates import TIERS_NS
from bus.archive import Archive
from bus.frame import Group
from sinks.postgres import rollups, timeline
from sinks.postgres.address import Address
from sinks.postgres.archive import PostgresArchive
from sinks.postgres.locks import ROLLUP_LOCK
from tests.sinks.memory_archive import MemoryArchive
from tests.sinks.postgres.test_archive import NOW, SECOND, group, points, query

MINUTE, HOUR, DAY = 60 * SECOND, 3600 * SECOND, 86400 * SECOND
START = NOW // DAY * DAY - 3 * DAY


async def keep_up(archive: PostgresArchive) -> None:
    """Form everything that can be formed."""
    await archive.upkeep(settled_s=0)


async def assert_same(archive: Archive, memory: Archive, metrics: Sequence[str], ends: Sequence[int]) -> None:
    """In every resolution, over ranges between these times."""
    for metric in metrics:
        for start, end in [*pairwise(ends), (ends[0], ends[-1])]:
            for every in (*TIERS_NS.values(), 7 * SECOND, 3 * MINUTE, None):
                ours = list((await archive.aggregates(metric, start, end, every)).rows())
                wanted = list((await memory.aggregates(metric, start, end, every)).rows())
                assert repr(ours) == repr(wanted), (metric, start, end, every)


def ragged(random: Random, start: int, seconds: int, metrics: Sequence[str]) -> Group:
    """Points at some of the seconds, of values whose sums are exact, some of them without an answer."""
    times = array("q", [start + second * SECOND for second in range(seconds) if random.random() < 0.7] or [start])
    values = [random.choice([0.25, 1.0, -3.5, 1024.0, nan]) for _ in range(len(times) * len(metrics))]
    return Group(tuple(metrics), times, array("d", values))


async def test_they_are_right_whatever_has_been_formed_already(archive: PostgresArchive) -> None:
    random, memory = Random(1), MemoryArchive()
    for number in range(20):
        batch = [ragged(random, START + number * 400 * SECOND, 400, ["web1.a", "web1.b"])]
        assert await archive.insert(batch) == await memory.insert(batch)
        if number % 9 == 0:
            await keep_up(archive)
            await assert_same(archive, memory, ["web1.a"], [START, START + 8000 * SECOND])
    await assert_same(archive, memory, ["web1.a"], [START + 1, START + 1234567891011, START + 8000 * SECOND])
    await keep_up(archive)
    await assert_same(archive, memory, ["web1.a", "web1.b"], [0, START, START + 1234567891011, START + 2 * DAY])


async def test_points_that_come_late_in_any_order_count_as_if_they_had_come_in_time(archive: PostgresArchive) -> None:
    random, memory = Random(2), MemoryArchive()
    metrics = ["web1.a", "web1.b"]
    batches = [ragged(random, START + number * 190 * SECOND, 190, metrics) for number in range(40)]
    random.shuffle(batches)
    for number, batch in enumerate(batches):
        assert await archive.insert([batch]) == await memory.insert([batch])
        if number % 20 == 0:
            await keep_up(archive)
        if number % 33 == 0:
            await assert_same(archive, memory, ["web1.a"], [START, START + 2 * HOUR])
    await assert_same(archive, memory, metrics, [START, START + HOUR + 17, START + 3 * HOUR])
    await keep_up(archive)
    await assert_same(archive, memory, metrics, [START, START + HOUR + 17, START + 3 * HOUR])
    assert await rollups.form(archive.database, 0) == 0


async def test_a_late_point_takes_from_the_next_one_in_a_later_minute_that_is_formed_already(
    archive: PostgresArchive, database_url: str
) -> None:
    memory = MemoryArchive()
    early = points((START, 1.0), (START + 100 * SECOND, 2.0))
    for one in (archive, memory):
        await one.insert([early])
        await one.set_metadata({"web1.a": {"interval": 60.0}})
    await keep_up(archive)
    for one in (archive, memory):
        await one.insert([points((START + 50 * SECOND, 3.0))])
    for _ in range(2):
        await assert_same(archive, memory, ["web1.a"], [START, START + 10 * MINUTE])
        await keep_up(archive)
    rows = await query(database_url, "SELECT integral, covered, mean FROM hostbus.rollup_1m ORDER BY time")
    assert [tuple(row) for row in rows] == [(150.0, 50.0, 3.0), (100.0, 50.0, 2.0)]
    rows = await query(database_url, "SELECT count, integral FROM hostbus.rollup_10m")
    assert [tuple(row) for row in rows] == [(3, 250.0)]


async def test_what_a_metric_declares_later_holds_for_what_it_had_before(archive: PostgresArchive) -> None:
    memory = MemoryArchive()
    for one in (archive, memory):
        await one.insert([group({"web1.a": range(20)}, START, 5 * MINUTE)])
    await keep_up(archive)
    for one in (archive, memory):
        await one.set_metadata({"web1.a": {"rate": 1 / 300}})
    await assert_same(archive, memory, ["web1.a"], [START, START + 20 * MINUTE, START + 3 * HOUR])
    await keep_up(archive)
    await assert_same(archive, memory, ["web1.a"], [START, START + 20 * MINUTE, START + 3 * HOUR])


async def test_sums_that_float64_cannot_hold_stop_nothing(archive: PostgresArchive) -> None:
    memory = MemoryArchive()
    huge = group({"web1.a": [1.7e308, 1.7e308, 1.0], "web1.b": [inf, -inf, 1.0], "web1.c": [nan] * 3}, START)
    for one in (archive, memory):
        await one.insert([huge])
    await keep_up(archive)
    await assert_same(archive, memory, ["web1.a", "web1.b", "web1.c"], [START, START + HOUR])


async def test_times_at_both_ends_of_int64_stop_nothing(archive: PostgresArchive) -> None:
    await archive.insert([points((-(2**63), 1.0), (-(2**63) + MINUTE, 2.0), (START, 3.0), (2**63 - 2, 4.0))])
    await keep_up(archive)
    assert await archive.insert([points((START + 1, 3.0))]) == 1
    assert (await archive.aggregates("web1.a", START, START + HOUR, MINUTE)).counts == array("q", [2])


async def test_ranges_of_years_read_few_rows(archive: PostgresArchive, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(4):
        await archive.insert([group({"web1.a": [1.0] * 2000}, START + number * 2 * HOUR, 3 * SECOND)])
    await keep_up(archive)
    asked: list[tuple[int, int]] = []
    page = timeline.reading.page

    async def counted(connection: object, metric: int, start: int, end: int, limit: int) -> object:
        asked.append((start, end))
        return await page(connection, metric, start, end, limit)  # type: ignore[arg-type]

    monkeypatch.setattr(timeline.reading, "page", counted)
    found = await archive.aggregates("web1.a", START - 900 * DAY + 1, START + 900 * DAY + 1)
    assert list(found.counts) == [8000]
    assert all(end - start < MINUTE for start, end in asked)
    asked.clear()
    assert sum((await archive.aggregates("web1.a", START, START + DAY, HOUR)).counts) == 8000
    assert asked == []


async def test_more_points_than_are_read_at_once(archive: PostgresArchive, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rollups, "POINTS_AT_ONCE", 7)
    monkeypatch.setattr(rollups, "METRICS_AT_ONCE", 2)
    monkeypatch.setattr(timeline, "PAGE_POINTS", 5)
    random, memory = Random(3), MemoryArchive()
    batch = [ragged(random, START, 300, [f"web1.{letter}" for letter in "abcde"])]
    for one in (archive, memory):
        await one.insert(batch)
    for _ in range(2):
        await assert_same(archive, memory, ["web1.a", "web1.e"], [START, START + 99 * SECOND, START + HOUR])
        await keep_up(archive)


async def test_many_may_insert_and_form_at_once(address: Address) -> None:
    memory = MemoryArchive()
    archives = [await PostgresArchive.open(address) for _ in range(3)]

    async def work(number: int) -> None:
        random = Random(number)
        for step in range(10):
            batch = [ragged(random, START + (step * 3 + number) * 40 * SECOND, 40, ["web1.a", f"web1.{number}"])]
            await memory.insert(batch)
            await archives[number].insert(batch)
            await keep_up(archives[number])

    await asyncio.gather(*map(work, range(3)))
    await keep_up(archives[0])
    for archive in archives:
        await assert_same(archive, memory, ["web1.a", "web1.2"], [START, START + 600 * SECOND, START + HOUR])
    assert await rollups.form(archives[0].database, 0) == 0
    for archive in archives:
        await archive.aclose()


async def test_while_another_sink_forms_them_they_are_left_to_it(archive: PostgresArchive, database_url: str) -> None:
    await archive.insert([group({"web1.a": [1.0] * 10}, START)])
    async with archive.database.connection() as other, other.transaction():
        await other.execute("SELECT pg_advisory_xact_lock($1)", ROLLUP_LOCK)
        assert await rollups.form(archive.database, 0) == 0
        assert len(await query(database_url, "SELECT * FROM hostbus.unformed")) == 1
    assert await rollups.form(archive.database, 0) == 4


async def test_an_unfinished_minute_is_left_until_it_has_settled(archive: PostgresArchive, database_url: str) -> None:
    await archive.insert([group({"web1.a": [1.0] * 10})])
    await archive.upkeep(settled_s=3600)
    assert await query(database_url, "SELECT * FROM hostbus.rollup") == []
    assert (await archive.aggregates("web1.a", NOW, NOW + MINUTE, MINUTE)).counts[0] == 10
