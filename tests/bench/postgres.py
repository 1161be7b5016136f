# SPDX-License-Identifier: MIT
"""How fast the PostgreSQL archive takes points, against hand-written COPY + ON CONFLICT of the same points.

Run it with ``python -m tests.bench.postgres``: a private server, or that of HOSTBUS_TEST_POSTGRES_URL.
"""

import asyncio
import time
import uuid
from array import array
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from random import Random

import asyncpg

from bus.frame import Group
from sinks.postgres.address import Address
from sinks.postgres.archive import PostgresArchive
from tests.services.postgres import ForeignServer, Postgres, private_postgres

METRICS = 200
START_NS = time.time_ns() // 10**9 * 10**9 - 6 * 3600 * 10**9
WARM_UP_POINTS = 20_000


@dataclass(frozen=True, slots=True, kw_only=True)
class InsertRate:
    """Points per second of wall-clock time and CPU ns per point of this process, ours and by hand."""

    ticks_per_group: int
    batch_points: int
    archive_per_s: float
    archive_cpu_ns: float
    plain_per_s: float
    plain_cpu_ns: float

    @property
    def ratio(self) -> float:
        """How many times as many points per second as by hand."""
        return self.archive_per_s / self.plain_per_s


def ticks(points: int, ticks_per_group: int) -> list[Group]:
    """Groups of 200 metrics at 1 Hz with values of one decimal, in the order of arrival."""
    random = Random(1)
    names = tuple(f"web1.bench.metric{index:03}" for index in range(METRICS))
    groups = []
    for first in range(0, points // METRICS, ticks_per_group):
        times = array("q", [START_NS + (first + tick) * 10**9 for tick in range(ticks_per_group)])
        values = array("d", [round(random.random() * 100, 1) for _ in range(METRICS * ticks_per_group)])
        groups.append(Group(names, times, values))
    return groups


async def measure(server: Postgres, *, ticks_per_group: int, batch_points: int, points: int = 800_000) -> InsertRate:
    """Insert the same batches into an archive and by hand, one here and one there, so that both see the same noise."""
    groups = ticks(points, ticks_per_group)
    size = max(1, batch_points // (METRICS * ticks_per_group))
    batches = [groups[start : start + size] for start in range(0, len(groups), size)]
    warm_up = max(1, WARM_UP_POINTS // (size * METRICS * ticks_per_group))
    async with database(server) as ours, database(server) as other:
        archive = await PostgresArchive.open(Address.from_url(ours, {}))
        connection = await _by_hand(other)
        spent = {"archive": Clock(), "plain": Clock()}
        for number, batch in enumerate(batches):
            if number == warm_up:
                spent = {"archive": Clock(), "plain": Clock()}
            rows = _arrivals(batch)
            works = [("archive", archive.insert(batch)), ("plain", _insert_by_hand(connection, rows))]
            for name, work in works if number % 2 else reversed(works):
                with spent[name]:
                    await work
        await archive.aclose()
        await connection.close()
    timed = sum(group.points for batch in batches[warm_up:] for group in batch)
    return InsertRate(
        ticks_per_group=ticks_per_group,
        batch_points=batch_points,
        archive_per_s=timed / spent["archive"].wall_s,
        archive_cpu_ns=spent["archive"].cpu_s / timed * 1e9,
        plain_per_s=timed / spent["plain"].wall_s,
        plain_cpu_ns=spent["plain"].cpu_s / timed * 1e9,
    )


class Clock:
    """Adds up the seconds of its bodies, of wall-clock and of this process's CPU time."""

    def __init__(self) -> None:
        self.wall_s = self.cpu_s = 0.0

    def __enter__(self) -> None:
        self.wall_s -= time.perf_counter()
        self.cpu_s -= time.process_time()

    def __exit__(self, *_: object) -> None:
        self.wall_s += time.perf_counter()
        self.cpu_s += time.process_time()


async def _by_hand(url: str) -> "asyncpg.Connection[asyncpg.Record]":
    """A table with the same key."""
    connection = await asyncpg.connect(url)
    await connection.execute("CREATE TABLE point (metric int, time bigint, value float8, PRIMARY KEY (metric, time))")
    await connection.execute("CREATE TEMP TABLE staged (metric int, time bigint, value float8) ON COMMIT DELETE ROWS")
    return connection


async def _insert_by_hand(
    connection: "asyncpg.Connection[asyncpg.Record]", rows: Sequence[tuple[int, int, float]]
) -> None:
    """One transaction, in the order of arrival; making the rows is not counted."""
    async with connection.transaction():
        await connection.copy_records_to_table("staged", records=rows, columns=("metric", "time", "value"))
        await connection.execute("INSERT INTO point SELECT * FROM staged ON CONFLICT DO NOTHING")


def _arrivals(batch: Sequence[Group]) -> list[tuple[int, int, float]]:
    """Tick by tick, metric by metric: as a source samples them."""
    return [
        (index, time_ns, group.values[index * len(group.times) + tick])
        for group in batch
        for tick, time_ns in enumerate(group.times)
        for index in range(len(group.metrics))
    ]


async def keep_up(server: Postgres, points: int = 400_000) -> tuple[float, float, float, float]:
    """Points per second of which aggregates are formed; bytes per point with indexes; ms for a day of one metric
    at 1 Hz as points, and as minutes.
    """
    async with database(server) as url, await PostgresArchive.open(Address.from_url(url, {})) as archive:
        groups = ticks(points, 1)
        for start in range(0, len(groups), 30):
            await archive.insert(groups[start : start + 30])
        begin = time.perf_counter()
        await archive.upkeep(settled_s=0)
        formed_s = time.perf_counter() - begin
        async with archive.database.connection() as connection:
            size = await connection.fetchval(
                "SELECT sum(pg_total_relation_size(inhrelid)) FROM pg_inherits "
                "WHERE inhparent = 'hostbus.point'::regclass"
            )
        day = [Group(("web1.day",), array("q", [START_NS + i * 10**9]), array("d", [i / 10])) for i in range(86400)]
        for start in range(0, len(day), 3600):
            await archive.insert(day[start : start + 3600])
        await archive.upkeep(settled_s=0)
        range_ns = START_NS, START_NS + 86400 * 10**9
        raw_s, minutes_s = [], []
        for _ in range(5):
            begin = time.perf_counter()
            assert sum([len(page.times) async for page in archive.points("web1.day", *range_ns)]) == 86400
            raw_s.append(time.perf_counter() - begin)
            begin = time.perf_counter()
            assert len(await archive.aggregates("web1.day", *range_ns, 60 * 10**9)) >= 1440
            minutes_s.append(time.perf_counter() - begin)
    return points / formed_s, float(size) / points, min(raw_s) * 1e3, min(minutes_s) * 1e3


@asynccontextmanager
async def database(server: Postgres) -> AsyncIterator[str]:
    """The URL of a new database."""
    name = f"bench_{uuid.uuid4().hex}"
    connection = await asyncpg.connect(server.url("postgres"))
    await connection.execute(f"CREATE DATABASE {name}")
    await connection.execute("CHECKPOINT")
    try:
        yield server.url(name)
    finally:
        await connection.execute(f"DROP DATABASE {name} WITH (FORCE)")
        await connection.close()


async def compare(server: Postgres) -> None:
    """Print one line per batch size and chunk size, and one about what else the archive does."""
    for batch_points, ticks_per_group in ((1_000, 1), (6_000, 1), (10_000, 10), (50_000, 1), (50_000, 50)):
        rate = await measure(server, ticks_per_group=ticks_per_group, batch_points=batch_points)
        print(
            f"batches of {batch_points:6}, {ticks_per_group:3} ticks a group: archive "
            f"{rate.archive_per_s / 1e3:5.0f} k/s ({rate.archive_cpu_ns:5.0f} ns CPU a point), by hand "
            f"{rate.plain_per_s / 1e3:5.0f} k/s ({rate.plain_cpu_ns:5.0f} ns): {rate.ratio:.2f} x",
            flush=True,
        )
    formed_per_s, bytes_per_point, raw_ms, minutes_ms = await keep_up(server)
    print(
        f"aggregates formed of {formed_per_s / 1e3:.0f} k points/s; {bytes_per_point:.0f} B a point with its key; "
        f"a day of one metric at 1 Hz in {raw_ms:.0f} ms, as minutes in {minutes_ms:.1f} ms"
    )


def main() -> None:
    """Compare, on a server of one's own that writes to the disk as any other."""
    import os

    if url := os.environ.get("HOSTBUS_TEST_POSTGRES_URL"):
        asyncio.run(compare(ForeignServer(url)))
        return
    with private_postgres(fsync=True) as server:
        asyncio.run(compare(server))


if __name__ == "__main__":
    main()
