# SPDX-License-Identifier: MIT
"""Whatever comes in whatever order, and whenever it is packed or removed: the archive has it once, and agrees."""

import asyncio
import math
import tempfile
from array import array
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from unittest.mock import patch

from hypothesis import given, settings
from hypothesis import strategies as st

from bus.frame import Group
from sinks.retention import Retention
from sinks.sqlite import compaction
from sinks.sqlite.archive import SqliteArchive
from sinks.sqlite.compaction import WINDOW_NS, Compaction
from sinks.sqlite.retention import Expiry
from tests.sinks.sqlite.upkeep import NOW_NS, T0, S, count, findings, points_of, settle

METRICS = ("a", "b")
TICK_NS = 2500 * 10**6
END = T0 + WINDOW_NS


@dataclass(frozen=True)
class Insert:
    """`ticks` points of some metrics, every so many ticks from the tick `first` of a window on."""

    metrics: tuple[str, ...]
    window: int
    first: int
    ticks: int
    every: int

    def times(self) -> list[int]:
        start = T0 + self.window * WINDOW_NS + self.first * TICK_NS
        return [start + number * self.every * TICK_NS for number in range(self.ticks)]


@dataclass(frozen=True)
class Pack:
    """Compact all before a window, in steps of so many points."""

    before: int
    budget: int


inserts = st.builds(
    Insert,
    metrics=st.sampled_from([("a",), ("b",), METRICS]),
    window=st.integers(0, 2),
    first=st.one_of(st.integers(0, 200), st.integers(0, WINDOW_NS // TICK_NS - 1)),
    ticks=st.integers(1, 120),
    every=st.sampled_from([1, 1, 3, 40, 700]),
)
packs = st.builds(Pack, before=st.integers(0, 3), budget=st.integers(1, 300))
acts = st.lists(st.one_of(inserts, inserts, packs), min_size=1, max_size=12)


def value_at(metric: str, time_ns: int) -> float:
    number = time_ns // TICK_NS % 97 + (1000 if metric == "b" else 0)
    return math.nan if number % 13 == 5 else float(number)


def same(one: float, other: float) -> bool:
    return one == other or (one != one and other != other)


@settings(max_examples=40, deadline=None)
@given(acts=acts, expire=st.booleans())
def test_points_and_aggregates_survive_any_upkeep(acts: list[Insert | Pack], expire: bool) -> None:
    with (
        tempfile.TemporaryDirectory() as folder,
        patch.object(compaction, "MOST_POINTS", 40),
        patch.object(compaction, "FEWEST_POINTS", 5),
    ):
        asyncio.run(play(Path(folder) / "archive.db", acts, expire=expire))


async def play(path: Path, acts: Sequence[Insert | Pack], *, expire: bool) -> None:
    wanted: dict[str, set[int]] = {metric: set() for metric in METRICS}
    keeper = Compaction()
    async with await SqliteArchive.open(path) as archive:
        for act in acts:
            if isinstance(act, Pack):
                await settle(
                    archive, partial(keeper.step, before_ns=T0 + act.before * WINDOW_NS, budget_points=act.budget)
                )
                continue
            times = act.times()
            values = [value_at(metric, when) for metric in act.metrics for when in times]
            await archive.insert([Group(act.metrics, array("q", times), array("d", values))])
            keeper.late(act.metrics, times[0])
            for metric in act.metrics:
                wanted[metric].update(times)
        await check(archive, wanted)
        await settle(archive, partial(keeper.step, before_ns=NOW_NS))
        await check(archive, wanted)
        assert await count(archive, "point") < 5 * 2 * 20, "only windows with few points are left in rows"
        if expire:
            await expire_all(archive)
            await check(archive, {metric: {when for when in wanted[metric] if when >= END} for metric in METRICS})


async def check(archive: SqliteArchive, wanted: Mapping[str, Set[int]]) -> None:
    """The points are there, and nothing is wrong with the aggregates."""
    for metric, times in wanted.items():
        found = await points_of(archive, metric)
        assert [when for when, _ in found] == sorted(times)
        assert all(same(value, value_at(metric, when)) for when, value in found)
    assert await findings(archive) == []


async def expire_all(archive: SqliteArchive) -> None:
    """Remove what was before `END`, all but the coarse aggregates."""
    days = await archive._fetch("SELECT metric, time, count, sum, covered FROM rollup_1d")
    await settle(archive, Expiry(END + 86400 * S, Retention.load({"raw": "1d", "10s": "1d"})).step)
    assert await archive._fetch("SELECT metric, time, count, sum, covered FROM rollup_1d") == days
