# SPDX-License-Identifier: MIT
"""What tests of an archive's upkeep share: points of some days ago, and steps until all is done."""

import random
import sqlite3
import time
from array import array
from collections.abc import Callable

from bus.archive import read_points
from bus.frame import Group
from bus.maintenance import Finding
from sinks.sqlite.archive import SqliteArchive
from sinks.sqlite.compaction import WINDOW_NS, compact_step
from sinks.sqlite.verify import check

S = 10**9
H = 3600 * S
NOW_NS = time.time_ns()
T0 = (NOW_NS // WINDOW_NS - 20) * WINDOW_NS
"""The beginning of a window five days ago."""


def group(metrics: list[str], times: list[int], *columns: list[float]) -> Group:
    return Group(tuple(metrics), array("q", times), array("d", [value for column in columns for value in column]))


def seconds(start_ns: int, count: int, step_s: float = 1.0) -> list[int]:
    return [start_ns + round(number * step_s * S) for number in range(count)]


def noise(count: int) -> list[float]:
    return [round(random.gauss(50, 10), 1) for _ in range(count)]


async def compact(archive: SqliteArchive, before_ns: int = NOW_NS, budget_points: int = 50_000) -> int:
    """Pack all that is older; how many rows."""
    total = 0
    while moved := await archive.database.write(compact_step, before_ns, budget_points):
        total += moved
    return total


async def settle(archive: SqliteArchive, step: Callable[[sqlite3.Connection], int | None]) -> int:
    """Do steps until nothing is left to do; what they did."""
    total = 0
    while (done := await archive.database.write(step)) is not None:
        total += done
    return total


async def count(archive: SqliteArchive, table: str) -> int:
    return int((await archive._fetch(f"SELECT count(*) FROM {table}"))[0][0])


async def findings(archive: SqliteArchive) -> list[Finding]:
    def work(connection: sqlite3.Connection) -> list[Finding]:
        return [found for found in check(connection, thorough=True) if isinstance(found, Finding)]

    return await archive.database.run(work)


async def points_of(archive: SqliteArchive, metric: str) -> list[tuple[int, float]]:
    chunk = await read_points(archive, metric)
    return list(zip(chunk.times, chunk.values, strict=True))
