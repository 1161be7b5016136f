# SPDX-License-Identifier: MIT
"""What goes into the database comes out of it: points, metadata, gaps, events."""

import time
from array import array
from collections.abc import Mapping, Sequence
from math import inf, nan

import asyncpg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bus.archive import Event, MissingFrames, read_points
from bus.frame import Group
from sinks.postgres import archive as archive_module
from sinks.postgres.archive import PostgresArchive, open_archive
from sinks.postgres.partitions import DAY_NS, partition
from tests.sinks.memory_archive import MemoryArchive

SECOND = 10**9
NOW = time.time_ns() // (3600 * SECOND) * 3600 * SECOND
"""Within retention, and at the beginning of an hour."""


def group(columns: Mapping[str, Sequence[float]], start: int = NOW, step: int = SECOND) -> Group:
    length = len(next(iter(columns.values())))
    times = array("q", [start + index * step for index in range(length)])
    return Group(tuple(columns), times, array("d", [value for column in columns.values() for value in column]))


def points(*pairs: tuple[int, float], metric: str = "web1.a") -> Group:
    return Group((metric,), array("q", [t for t, _ in pairs]), array("d", [v for _, v in pairs]))


async def stored(archive: PostgresArchive, metric: str = "web1.a") -> list[tuple[int, float]]:
    chunk = await read_points(archive, metric)
    return list(zip(chunk.times, chunk.values, strict=True))


async def test_points_come_back_as_they_were(archive: PostgresArchive) -> None:
    assert await archive.insert([group({"web1.a": [1.5, -2.0, 3.0], "web1.b": [inf, -inf, 5e-324]})]) == 6
    assert await stored(archive) == [(NOW, 1.5), (NOW + SECOND, -2.0), (NOW + 2 * SECOND, 3.0)]
    assert await stored(archive, "web1.b") == [(NOW, inf), (NOW + SECOND, -inf), (NOW + 2 * SECOND, 5e-324)]
    assert list(await archive.metrics()) == ["web1.a", "web1.b"]
    assert archive.points_stored == 6


async def test_a_batch_that_comes_again_is_stored_once(archive: PostgresArchive) -> None:
    batch = [group({"web1.a": [1, 2], "web1.b": [3, 4]}), group({"web1.a": [5]}, NOW + 2 * SECOND)]
    assert await archive.insert(batch) == 5
    assert await archive.insert(batch) == 0
    assert await archive.insert([*batch, *batch, group({"web1.a": [6]}, NOW + 3 * SECOND)]) == 1
    assert [value for _, value in await stored(archive)] == [1, 2, 5, 6]


async def test_the_first_of_two_values_at_one_time_stays(archive: PostgresArchive) -> None:
    assert await archive.insert([points((NOW, 1.0)), points((NOW, 2.0))]) == 1
    assert await archive.insert([points((NOW, 3.0))]) == 0
    assert await stored(archive) == [(NOW, 1.0)]


async def test_no_answer_is_stored_as_no_value_and_read_as_nan(archive: PostgresArchive, database_url: str) -> None:
    await archive.insert([points((NOW, nan), (NOW + 1, 2.0))])
    assert repr(await stored(archive)) == repr([(NOW, nan), (NOW + 1, 2.0)])
    rows = await query(database_url, "SELECT value, avg(value) OVER () AS mean FROM hostbus.points ORDER BY ns")
    assert [tuple(row) for row in rows] == [(None, 2.0), (2.0, 2.0)]


async def test_nothing_is_no_batch(archive: PostgresArchive) -> None:
    assert await archive.insert([]) == 0
    assert await archive.metrics() == {}
    assert await stored(archive, "no.such") == []
    assert await archive.last() == {}
    assert len(await archive.aggregates("no.such", 0, NOW, SECOND)) == 0


async def test_pages_are_never_empty_and_together_are_all(
    archive: PostgresArchive, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archive_module, "PAGE_POINTS", 4)
    await archive.insert([group({"web1.a": range(8)})])
    assert [list(page.values) async for page in archive.points("web1.a")] == [[0, 1, 2, 3], [4, 5, 6, 7]]
    some = archive.points("web1.a", NOW + SECOND, NOW + 6 * SECOND)
    assert [list(page.values) async for page in some] == [[1, 2, 3, 4], [5]]


# Each example is a metric of its own in one database.
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    batch=st.dictionaries(st.integers(-(2**63), 2**63 - 2), st.floats(width=64), min_size=1, max_size=6),
    number=st.integers(0, 2**60),
)
async def test_any_point_that_float64_and_int64_can_hold_makes_the_round_trip(
    archive: PostgresArchive, batch: dict[int, float], number: int
) -> None:
    metric, known = f"any.{number}", MemoryArchive()
    given = points(*sorted(batch.items()), metric=metric)
    already = await read_points(archive, metric)
    await known.insert([Group((metric,), already.times, already.values), given])
    assert await archive.insert([given]) == len(batch.keys() - set(already.times))
    assert repr(await read_points(archive, metric)) == repr(await read_points(known, metric))


async def test_last_is_the_newest_value_even_before_it_is_stored(archive: PostgresArchive) -> None:
    await archive.insert([group({"web1.a": [1, 2], "web1.b": [3, 4], "web2.a": [5, nan]})])
    await archive.set_latest({"web1.a": (NOW + 9 * SECOND, 9.0), "web1.b": (NOW, 3.0)})
    assert await archive.last("web1.#") == {"web1.a": (NOW + 9 * SECOND, 9.0), "web1.b": (NOW + SECOND, 4.0)}
    assert repr(await archive.last("web2.a")) == repr({"web2.a": (NOW + SECOND, nan)})


async def test_an_older_newest_value_does_not_replace_a_newer_one(archive: PostgresArchive, database_url: str) -> None:
    await archive.set_latest({"web1.a": (NOW + SECOND, 2.0)})
    await archive.set_latest({"web1.a": (NOW, 1.0), "web1.b": (NOW, nan)})
    rows = await query(database_url, "SELECT metric, ns, value FROM hostbus.newest ORDER BY metric")
    assert [tuple(row) for row in rows] == [("web1.a", NOW + SECOND, 2.0), ("web1.b", NOW, None)]


async def test_metadata_is_kept_for_metrics_that_are_known(archive: PostgresArchive) -> None:
    await archive.insert([group({"web1.a": [1], "web1.b": [2]})])
    assert await archive.metrics_without_metadata() == ["web1.a", "web1.b"]
    odd = {"unit": "W", "interval": 1.0, "odd": "\0 \ud800 ü", "nested": {"list": [1, None]}}
    await archive.set_metadata({"web1.a": odd, "no.such": {"unit": "1"}})
    assert await archive.metrics() == {"web1.a": odd, "web1.b": {}}
    assert await archive.metrics_without_metadata() == ["web1.b"]


async def test_gaps_are_noted_once_and_in_order(archive: PostgresArchive) -> None:
    later = MissingFrames(source="source-web1", key="web1.cpu", epoch=1, first=5, last=6, noticed=20)
    first = MissingFrames(source="source-web1", key="web1.cpu", epoch=1, first=2, last=3, noticed=10)
    await archive.insert([group({"web1.a": [1]})], [later, first])
    await archive.insert([], [first])
    assert await archive.missing() == [first, later]
    assert await archive.missing(11) == [later]


async def test_names_from_the_wire_that_are_no_text_do_not_stop_the_archive(archive: PostgresArchive) -> None:
    await archive.insert([], [MissingFrames(source="a\0b", key="\ud800", epoch=1, first=2, last=3, noticed=10)])
    assert [(gap.source, gap.key) for gap in await archive.missing()] == [("a\ufffdb", "?")]


async def test_events_are_found_by_time_and_source_and_stored_once(archive: PostgresArchive) -> None:
    mark = Event(time=NOW, label="deployed\0", host="web1", metadata={"version": "1.2"})
    span = Event(time=NOW - 5, end=NOW + 5, label="make", source="run", color="#ff0000", dash="solid")
    first, second = await archive.add_event(mark), await archive.add_event(span)
    assert await archive.add_event(mark) == first != second
    found = await archive.events()
    assert [(event.id, event.label, event.end) for event in found] == [
        (second, "make", NOW + 5),
        (first, "deployed\ufffd", None),
    ]
    assert found[1].metadata == {"version": "1.2"}
    assert [event.id for event in await archive.events(NOW + 5, NOW + 9)] == [second]
    assert await archive.events(NOW + 6) == []
    assert [event.id for event in await archive.events(source="run")] == [second]


async def test_it_is_opened_by_its_url_to_read(archive: PostgresArchive, database_url: str) -> None:
    await archive.insert([group({"web1.a": [1]})])
    reader = await open_archive(database_url, "read")
    assert await stored(reader) == [(NOW, 1.0)]
    await reader.aclose()
    await reader.aclose()


async def test_sql_sees_points_with_times_and_reads_only_what_it_asks_for(
    archive: PostgresArchive, database_url: str
) -> None:
    long_ago = NOW - 3 * DAY_NS
    await archive.insert([group({"web1.a": range(100)}, NOW - 100 * SECOND), points((long_ago, 7.0))])
    rows = await query(database_url, "SELECT * FROM hostbus.points('web1.a', now() - interval '1 day', now()) LIMIT 2")
    assert [(row["time"].timestamp(), row["value"]) for row in rows] == [
        (NOW / SECOND - 100, 0.0),
        (NOW / SECOND - 99, 1.0),
    ]
    for asked in (
        "SELECT * FROM hostbus.points('web1.a', now() - interval '1 hour', now())",
        "SELECT * FROM hostbus.points WHERE metric = 'web1.a' AND ns >= hostbus.ns(now() - interval '1 hour')",
    ):
        plan = "\n".join(row[0] for row in await query(database_url, f"EXPLAIN {asked}"))
        assert partition(long_ago // DAY_NS).removeprefix("hostbus.") not in plan, plan
        assert "Index Cond: ((metric = " in plan, plan
    (row,) = await query(database_url, "SELECT hostbus.ns(hostbus.time_of(1790000000123456789)) AS ns")
    assert row["ns"] == 1790000000123456000


async def query(url: str, text: str) -> list[asyncpg.Record]:
    connection = await asyncpg.connect(url)
    try:
        found: list[asyncpg.Record] = await connection.fetch(text)
    finally:
        await connection.close()
    return found
