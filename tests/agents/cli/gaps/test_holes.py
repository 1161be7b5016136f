# SPDX-License-Identifier: MIT
"""Holes in series, found by what is covered; and what is known of their causes."""

from array import array
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agents.cli.gaps.causes import Cause
from agents.cli.gaps.holes import Rhythm, holes
from agents.cli.gaps.intervals import interval_ns, learned_interval_ns
from agents.cli.gaps.survey import survey
from bus.archive import MissingFrames
from bus.frame import Group
from tests.sinks.memory_archive import MemoryArchive

NS = 1_000_000_000
HOUR = 3600
BASE = 1_795_000_000 // HOUR * HOUR
"""Seconds; a full hour."""


class CountingArchive(MemoryArchive):
    """Counts the points that are read, and the questions for aggregates."""

    points_read = 0
    questions = 0

    async def aggregates(self, metric, start_ns, end_ns, every_ns=None):
        self.questions += 1
        return await super().aggregates(metric, start_ns, end_ns, every_ns)

    async def points(self, metric, start_ns=-(2**63), end_ns=2**63 - 1):
        async for page in super().points(metric, start_ns, end_ns):
            self.points_read += len(page)
            yield page


async def archive_of(series, about=None, source="source-x"):
    """`series`: seconds after BASE at which each metric has a point."""
    archive = CountingArchive()
    for name, seconds in series.items():
        times = array("q", [round((BASE + second) * NS) for second in seconds])
        await archive.insert([Group((name,), times, array("d", [1.0] * len(times)))])
    default = {"interval": 1.0, "source": source}
    await archive.set_metadata({name: (about or {}).get(name, default) for name in series})
    return archive


def at(second):
    return round((BASE + second) * NS)


def ranges(found):
    return [((hole.start // NS) - BASE, (hole.end // NS) - BASE) for hole in found]


SECOND = Rhythm(interval_ns=NS, is_declared=True)


async def test_a_day_with_one_hole_is_found_by_reading_a_few_minutes_of_points():
    seconds = [*range(40_000), *range(40_020, 86_400)]
    archive = await archive_of({"a.b": seconds})
    found = await holes(archive, "a.b", SECOND, at(0), at(86_399))
    assert ranges(found) == [(39_999, 40_020)]
    assert archive.points_read < 300
    assert not found[0].is_open


async def test_an_hour_long_hole_across_many_hours_costs_no_points_but_those_at_its_ends():
    archive = await archive_of({"a.b": [*range(3000), *range(20_000, 30_000)]})
    found = await holes(archive, "a.b", SECOND, at(0), at(30_000))
    assert ranges(found) == [(2999, 20_000)]
    assert archive.points_read < 300


async def test_what_was_before_the_first_point_is_no_hole_and_what_is_after_the_last_is_open():
    archive = await archive_of({"a.b": range(1000, 2000)})
    assert [(ranges([hole]), hole.is_open) for hole in await holes(archive, "a.b", SECOND, at(0), at(4000))] == [
        ([(1999, 4000)], True)
    ]
    # ... but if there were points before the range, its begin is missing.
    archive = await archive_of({"a.b": [*range(-5000, -4000), *range(1000, 2000)]})
    assert ranges(await holes(archive, "a.b", SECOND, at(0), at(1999))) == [(0, 1000)]


async def test_a_look_since_1970_and_one_across_months_of_silence_cost_a_few_questions():
    archive = await archive_of({"a.b": [*range(1000, 2000), *range(100 * 24 * HOUR, 100 * 24 * HOUR + 60)]})
    found = await holes(archive, "a.b", SECOND, 0, at(100 * 24 * HOUR + 59))
    assert ranges(found) == [(1999, 100 * 24 * HOUR)]
    assert archive.questions < 10


async def test_points_that_come_every_10_s_instead_of_every_second_are_one_finding():
    archive = await archive_of({"a.b": [*range(1000), *range(1010, 3000, 10), *range(3000, 4000)]})
    (found,) = await holes(archive, "a.b", SECOND, at(0), at(3999))
    assert ranges([found]) == [(999, 3000)]
    assert found.points == 199


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.sampled_from([*[1.0] * 30, 2.0, 2.9, 3.0, 3.5, 5.0, 61.0, 200.0, 4000.0]), min_size=1, max_size=200),
    st.floats(0, 0.99),
    st.integers(0, 7200),
)
async def test_just_the_distances_longer_than_three_intervals_are_holes(steps, phase, begin):
    seconds = [begin + phase]
    for step in steps:
        seconds.append(seconds[-1] + step)
    archive = await archive_of({"a.b": seconds})
    times = [at(second) for second in seconds]
    expected = [(a, b) for a, b in pairwise(times) if b - a > 3 * NS]
    found = await holes(archive, "a.b", SECOND, times[0], times[-1] + 1)
    if not any(hole.points for hole in found):
        assert [(hole.start, hole.end) for hole in found] == expected
    inside = {pair for pair in expected for hole in found if hole.start <= pair[0] and pair[1] <= hole.end}
    assert inside == set(expected)


async def test_an_interval_that_nobody_declared_is_learned_if_points_are_regular():
    assert learned_interval_ns([second * NS for second in range(0, 200, 5)]) == 5 * NS
    assert learned_interval_ns([0, 1, 2]) is None
    assert learned_interval_ns([2**number for number in range(20)]) is None
    archive = await archive_of({"a.b": range(0, 300, 5), "a.slow": range(0, 36_000, 1800)}, {"a.b": {}, "a.slow": {}})
    assert await interval_ns(archive, "a.b", {}, at(295)) == 5 * NS
    assert await interval_ns(archive, "a.slow", {}, at(34_200)) == 1800 * NS
    assert await interval_ns(archive, "a.b", {"rate": 10.0}, at(295)) == NS // 10
    assert (
        ranges(await holes(archive, "a.slow", Rhythm(interval_ns=1800 * NS, is_declared=False), at(0), at(34_200)))
        == []
    )


# -- causes ---------------------------------------------------------------------------------------------


def frames(first, last, *, epoch, noticed, key="web1.cpu", source="source-x"):
    return MissingFrames(source=source, key=key, epoch=at(epoch), first=first, last=last, noticed=at(noticed))


async def look(series, missing=(), *, until, about=None, pattern="#", since=0):
    archive = await archive_of(series, about)
    await archive.insert([], missing)
    found = await survey(archive, pattern, at(since), at(until))
    return [(lack.metric, str(lack.cause), (lack.start // NS) - BASE, (lack.end // NS) - BASE) for lack in found.lacks]


BEFORE, AFTER = range(-1000, 500), range(560, 1000)


async def test_neither_points_nor_frames_is_down():
    assert await look({"web1.cpu.usage": [*BEFORE, *AFTER]}, until=999) == [("web1.cpu.usage", "agent down", 499, 560)]


async def test_missing_frames_before_the_hole_ended_are_dropped():
    missing = [frames(1500, 1559, epoch=-1000, noticed=700)]  # noticed late: the broker was away
    assert await look({"web1.cpu.usage": [*BEFORE, *AFTER]}, missing, until=999) == [
        ("web1.cpu.usage", "dropped by cap", 499, 560)
    ]


async def test_missing_frames_of_a_later_start_do_not_explain_an_earlier_hole():
    missing = [frames(3, 9, epoch=800, noticed=900)]
    found = await look({"web1.cpu.usage": [*BEFORE, *range(560, 803), *range(811, 1000)]}, missing, until=999)
    assert found == [("web1.cpu.usage", "agent down", 499, 560), ("web1.cpu.usage", "dropped by cap", 802, 811)]


async def test_several_jumps_that_were_noticed_at_once_belong_to_their_holes_in_order():
    seconds = [*range(-1000, 100), *range(110, 200), *range(220, 300), *range(305, 1000)]
    missing = [
        frames(1100, 1109, epoch=-1000, noticed=400),
        frames(1200, 1219, epoch=-1000, noticed=400),
        frames(1300, 1304, epoch=-1000, noticed=400),
    ]
    assert await look({"web1.cpu.usage": seconds}, missing, until=999) == [
        ("web1.cpu.usage", "dropped by cap", 99, 110),
        ("web1.cpu.usage", "dropped by cap", 199, 220),
        ("web1.cpu.usage", "dropped by cap", 299, 305),
    ]


async def test_a_hole_too_short_for_the_missing_frames_is_not_theirs():
    found = await look(
        {"web1.cpu.usage": [*BEFORE, *range(505, 1000)]}, [frames(0, 99, epoch=-1000, noticed=600)], until=999
    )
    assert [(cause, start) for _, cause, start, _ in found] == [("agent down", 499), ("late", 600)]


async def test_a_source_that_started_while_the_broker_was_away_was_down_and_then_dropped():
    missing = [frames(0, 39, epoch=520, noticed=600)]
    assert await look({"web1.cpu.usage": [*BEFORE, *AFTER]}, missing, until=999) == [
        ("web1.cpu.usage", "agent down", 499, 520),
        ("web1.cpu.usage", "dropped by cap", 520, 560),
    ]


async def test_missing_frames_whose_points_are_there_were_late():
    assert await look({"web1.cpu.usage": range(1000)}, [frames(500, 509, epoch=0, noticed=510)], until=999) == [
        ("web1.cpu.usage", "late", 510, 510)
    ]


async def test_one_frame_that_is_missing_is_a_hole_of_one_point():
    missing = [frames(500, 500, epoch=0, noticed=510)]
    assert await look({"web1.cpu.usage": [*range(500), *range(501, 1000)]}, missing, until=999) == [
        ("web1.cpu.usage", "dropped by cap", 499, 501)
    ]


async def test_frames_of_another_source_or_key_explain_nothing():
    missing = [
        frames(1500, 1559, epoch=-1000, noticed=700, source="source-y"),
        frames(1500, 1559, epoch=-1000, noticed=700, key="web1.cp"),
        frames(1500, 1559, epoch=-1000, noticed=700, key="web1.cpu.usage.x"),
    ]
    assert await look({"web1.cpu.usage": [*BEFORE, *AFTER]}, missing, until=999) == [
        ("web1.cpu.usage", "agent down", 499, 560)
    ]


async def test_a_metric_of_a_source_that_went_on_was_not_measured():
    series = {"web1.cpu.usage": range(1000), "web1.cpu.gone": range(500)}
    assert await look(series, until=999, pattern="#.gone") == [("web1.cpu.gone", "not measured", 499, 999)]


async def test_a_metric_that_was_silent_all_the_time_misses_the_whole_range():
    assert await look({"web1.cpu.usage": range(-90_000, -80_000)}, until=999) == [
        ("web1.cpu.usage", "agent down", 0, 999)
    ]


async def test_a_metric_that_comes_as_it_likes_is_not_judged():
    archive = await archive_of({"door.open": [2**number for number in range(12)]}, {"door.open": {}})
    found = await survey(archive, "#", at(0), at(9000))
    assert (found.lacks, found.judged, found.unjudged) == ([], [], ["door.open"])


@pytest.mark.parametrize("number", [1, 2, 3])
async def test_a_hole_that_began_before_the_range_is_cut_and_one_that_ended_before_it_is_not_told(number):
    seconds = [*range(-1000, -100 * number), *range(50, 1000)]
    found = await look({"web1.cpu.usage": seconds}, until=999)
    assert found == [("web1.cpu.usage", str(Cause.down), 0, 50)]
    assert await look({"web1.cpu.usage": seconds}, until=999, since=60) == []
