# SPDX-License-Identifier: MIT
"""What every archive does, and every history: one suite, run on each implementation.

A test module makes a class of `HistorySuite` (reading, over whatever way) or `ArchiveSuite` (writing, too), whose
fixture `kept` gives the archive to be written and the history to be read. `features` says what it honestly lacks.
"""

from __future__ import annotations

import asyncio
import math
import random
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import pytest

from bus.aggregates import Aggregate, aggregate_points, hold_ns
from bus.archive import MIN_NS, Archive, Event, History, MissingFrames, read_points
from bus.chunk import MAX_NS
from bus.errors import HostbusError, StorageError
from bus.frame import Group

S = 10**9
DAY = 86400 * S
T0 = 1_790_000_000 * S
"""A full ten seconds, not a full minute."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Features:
    """What an implementation can do; all of it, unless it says otherwise."""

    negative_zero: bool = True
    """-0.0 is read back as -0.0, not as 0.0."""
    all_times: bool = True
    """Points from 1677 to 2262, not only those of about now."""
    metadata: bool = True
    """Metadata come with the metrics."""
    all_or_nothing: bool = True
    """An insert that fails has stored nothing."""
    knows_when_closed: bool = True
    """Once closed, it refuses to work."""


class Kept:
    """An archive to be written, and a history that reads what is in it: mostly the archive itself."""

    def __init__(self, archive: Archive, history: History | None = None) -> None:
        self.archive = archive
        self.history = history or archive

    async def settle(self) -> None:
        """Whatever has to happen between writing and reading."""

    async def insert(self, *groups: Group) -> int:
        stored = await self.archive.insert(groups)
        await self.settle()
        return stored


def group(metrics: Iterable[str], times: Iterable[int], values: Iterable[float]) -> Group:
    return Group(tuple(metrics), array("q", times), array("d", values))


async def points(
    history: History, metric: str, start_ns: int = MIN_NS, end_ns: int = MAX_NS
) -> list[tuple[int, float]]:
    chunk = await read_points(history, metric, start_ns, end_ns)
    return list(zip(chunk.times, chunk.values, strict=True))


def noisy(seed: int, count: int) -> Iterator[tuple[int, float]]:
    """Points at irregular times, with pauses, values that are missing or infinite."""
    noise = random.Random(seed)
    now = T0
    for _ in range(count):
        now += noise.choice([S, S, S, S, S // 3, 7 * S, 400 * S, 5000 * S])
        yield now, noise.choice([noise.gauss(50, 10), noise.gauss(50, 10), round(noise.random(), 1), math.nan])


def assert_close(found: Sequence[Aggregate], expected: Sequence[Aggregate]) -> None:
    """The same, but for the rounding of sums."""
    assert [bucket[:2] for bucket in found] == [bucket[:2] for bucket in expected]
    for one, other in zip(found, expected, strict=True):
        assert one[3:7] == other[3:7]
        sums, others = (one.sum, *one[7:]), (other.sum, *other[7:])
        assert sums == pytest.approx(others, rel=1e-9, abs=1e-6, nan_ok=True)


async def aggregates(history: History, metric: str, *where: int | None) -> list[Aggregate]:
    return list((await history.aggregates(metric, *where)).rows())  # type: ignore[arg-type]


class HistorySuite:
    """What can be read."""

    features: ClassVar[Features] = Features()

    @pytest.fixture
    async def kept(self) -> Any:
        """A `Kept` whose archive is empty."""
        raise NotImplementedError

    # -- points ----------------------------------------------------------------------------------------

    async def test_points_come_in_the_order_of_time_with_their_exact_values(self, kept: Kept) -> None:
        values = [0.1, 1e300, -5.0, 2.0**-1074, 1 / 3, 12345678901234567.0, math.inf, -math.inf, math.nan]
        times = [T0 + place * S + place for place in range(len(values))]
        await kept.insert(group(["a.x"], times[3:], values[3:]))
        await kept.insert(group(["a.x", "a.y"], times[:3], values[:3] + [7.0] * 3))
        assert repr(await points(kept.history, "a.x")) == repr(list(zip(times, values, strict=True)))
        assert await points(kept.history, "a.y") == [(time, 7.0) for time in times[:3]]

    async def test_zero_below_zero_is_zero_if_not_the_same(self, kept: Kept) -> None:
        await kept.insert(group(["a"], [T0], [-0.0]))
        ((_, value),) = await points(kept.history, "a")
        assert value == 0.0
        assert math.copysign(1, value) == (-1 if self.features.negative_zero else 1)

    async def test_any_time_is_a_time(self, kept: Kept) -> None:
        if not self.features.all_times:
            pytest.skip("only times of about now")
        times = [MIN_NS + 2 * DAY, -1, 0, 1, T0, MAX_NS - 2 * DAY]
        await kept.insert(group(["a"], times, [float(place) for place in range(6)]))
        assert [time for time, _ in await points(kept.history, "a")] == times
        assert [time for time, _ in await points(kept.history, "a", -1, 1)] == [-1, 0]
        assert sum(bucket.count for bucket in await aggregates(kept.history, "a", MIN_NS, MAX_NS, DAY)) == 6

    async def test_a_range_includes_its_start_and_excludes_its_end(self, kept: Kept) -> None:
        await kept.insert(group(["a"], [T0 + 10, T0 + 20, T0 + 30], [1.0, 2.0, 3.0]))
        assert await points(kept.history, "a", T0 + 10, T0 + 30) == [(T0 + 10, 1.0), (T0 + 20, 2.0)]
        assert await points(kept.history, "a", T0 + 11, T0 + 20) == []
        assert await points(kept.history, "a", T0 + 20, T0 + 20) == []
        assert await points(kept.history, "a", T0 + 31) == []

    async def test_pages_are_never_empty_and_follow_each_other(self, kept: Kept) -> None:
        times = [T0 + number * S for number in range(2500)]
        await kept.insert(group(["a"], times, [float(number % 7) for number in range(2500)]))
        pages = [page async for page in kept.history.points("a")]
        assert len(pages) > 1
        assert all(len(page) and page.metric == "a" for page in pages)
        assert [time for page in pages for time in page.times] == times

    async def test_what_is_not_known_has_no_points_and_is_no_error(self, kept: Kept) -> None:
        await kept.insert(group(["a"], [T0], [1.0]))
        assert await points(kept.history, "unknown") == []
        assert await aggregates(kept.history, "unknown", MIN_NS, MAX_NS, 60 * S) == []
        assert await aggregates(kept.history, "unknown", MIN_NS, MAX_NS) == []
        assert await kept.history.metrics("unknown") == {}
        assert await kept.history.last("unknown.#") == {}

    # -- metrics ---------------------------------------------------------------------------------------

    async def test_metrics_are_selected_by_pattern_and_sorted(self, kept: Kept) -> None:
        await kept.insert(group(["web2.cpu", "web1.mem.free", "web1.cpu"], [T0], [3.0, 2.0, 1.0]))
        assert list(await kept.history.metrics()) == ["web1.cpu", "web1.mem.free", "web2.cpu"]
        assert list(await kept.history.metrics("web1.#")) == ["web1.cpu", "web1.mem.free"]
        assert list(await kept.history.metrics("*.cpu")) == ["web1.cpu", "web2.cpu"]
        assert list(await kept.history.last("*.cpu")) == ["web1.cpu", "web2.cpu"]
        with pytest.raises((ValueError, HostbusError)):
            await kept.history.metrics("web1..cpu")

    async def test_metadata_come_with_the_metrics(self, kept: Kept) -> None:
        if not self.features.metadata:
            pytest.skip("metadata are told by others")
        await kept.insert(group(["a", "b"], [T0], [1.0, 2.0]))
        about = {"unit": "°C", "rate": 1.0, "nested": {"list": [1, None, True]}}
        await kept.archive.set_metadata({"a": {"unit": "old"}})
        await kept.archive.set_metadata({"a": about, "nobody.knows": {"unit": "s"}})
        assert await kept.history.metrics() == {"a": about, "b": {}}

    async def test_the_last_point_is_the_newest_whenever_it_came(self, kept: Kept) -> None:
        await kept.insert(group(["a", "b"], [T0, T0 + S], [1.0, 2.0, 3.0, math.nan]))
        await kept.insert(group(["a"], [T0 - S], [9.0]))
        assert repr(await kept.history.last()) == repr({"a": (T0 + S, 2.0), "b": (T0 + S, math.nan)})

    # -- aggregates ------------------------------------------------------------------------------------

    async def test_a_bucket_says_what_its_points_come_to(self, kept: Kept) -> None:
        times = [T0 + second * S for second in (0, 2, 4, 10, 11)]
        await kept.insert(group(["a"], times, [5.0, 1.0, 3.0, math.nan, 7.0]))
        assert await aggregates(kept.history, "a", T0, T0 + 20 * S, 10 * S) == [
            Aggregate(T0, 3, 9.0, 1.0, 5.0, 5.0, 3.0, 8.0, 4.0),
            Aggregate(T0 + 10 * S, 1, 7.0, 7.0, 7.0, 7.0, 7.0, 7.0, 1.0),
        ]
        (whole,) = await aggregates(kept.history, "a", MIN_NS, MAX_NS)
        assert whole == Aggregate(T0, 4, 16.0, 1.0, 7.0, 5.0, 7.0, 15.0, 5.0)

    async def test_the_first_point_of_a_range_speaks_for_the_time_since_the_one_before_it(self, kept: Kept) -> None:
        await kept.insert(group(["a"], [T0, T0 + 8 * S, T0 + 9 * S], [1.0, 2.0, 4.0]))
        (bucket,) = await aggregates(kept.history, "a", T0 + S, T0 + 9 * S)
        assert (bucket.count, bucket.integral, bucket.covered) == (1, 16.0, 8.0)

    async def test_a_point_speaks_for_a_minute_unless_its_metric_declares_an_interval(self, kept: Kept) -> None:
        times = [T0, T0 + 50 * S, T0 + 200 * S]
        await kept.insert(group(["a"], times, [1.0] * 3))
        assert [one.covered for one in await aggregates(kept.history, "a", MIN_NS, MAX_NS)] == [50.0]

    async def test_buckets_begin_at_multiples_and_hold_only_what_lies_in_the_range(self, kept: Kept) -> None:
        times = [T0 + second * S for second in range(0, 7200, 5)]
        await kept.insert(group(["a"], times, [float(number) for number in range(len(times))]))
        start, end = T0 + 1234 * S + 5, T0 + 5555 * S + 7
        for every in (S, 10 * S, 60 * S, 600 * S, 3600 * S):
            found = await aggregates(kept.history, "a", start, end, every)
            assert all(bucket.time % every == 0 for bucket in found)
            assert sum(bucket.count for bucket in found) == sum(start <= time < end for time in times)

    @pytest.mark.parametrize("seed", range(4))
    async def test_aggregates_are_those_of_the_points(self, kept: Kept, seed: int) -> None:
        all_points = dict(noisy(seed, 600))
        times = sorted(all_points)
        late = set(random.Random(seed).sample(times, 60))
        for some in ([time for time in times if time not in late], sorted(late)):
            await kept.insert(group(["a"], some, [all_points[time] for time in some]))
        noise = random.Random(seed + 100)
        for every in (None, 7 * S, 10 * S, 60 * S, 90 * S, 600 * S, 3600 * S, 86400 * S):
            start, end = sorted(noise.sample(range(times[0] - S, times[-1] + S, S // 2), 2))
            chosen = [time for time in times if start <= time < end]
            expected = aggregate_points(
                chosen,
                array("d", [all_points[time] for time in chosen]),
                every,
                previous_ns=max((time for time in times if time < start), default=None),
            )
            assert_close(await aggregates(kept.history, "a", start, end, every), expected)

    async def test_a_range_without_values_has_no_aggregates(self, kept: Kept) -> None:
        await kept.insert(group(["a"], [T0, T0 + S], [1.0, math.nan]))
        assert await aggregates(kept.history, "a", T0 + S, T0 + 5 * S, 10 * S) == []
        assert await aggregates(kept.history, "a", T0 + S, T0 + 5 * S) == []
        assert await aggregates(kept.history, "a", T0 + S, T0) == []

    async def test_infinity_counts_as_it_is(self, kept: Kept) -> None:
        times = [T0, T0 + S, T0 + 2 * S, T0 + 60 * S, T0 + 61 * S]
        await kept.insert(group(["a"], times, [-math.inf, math.inf, 1.0, -math.inf, math.inf]))
        first, second = await aggregates(kept.history, "a", MIN_NS, MAX_NS, 20 * S)
        assert (first.minimum, first.maximum, first.integral) == (-math.inf, math.inf, math.inf)
        assert math.isnan(second.sum)
        assert math.isnan(second.integral)

    async def test_a_bucket_of_no_time_is_refused(self, kept: Kept) -> None:
        with pytest.raises(ValueError):
            await kept.history.aggregates("a", T0, T0 + S, 0)

    async def test_closing_twice_is_closing_once(self, kept: Kept) -> None:
        await kept.history.aclose()
        await kept.history.aclose()
        if self.features.knows_when_closed:
            with pytest.raises(HostbusError):
                await kept.history.metrics()


class ArchiveSuite(HistorySuite):
    """What can be written."""

    async def test_a_point_that_is_there_is_ignored_and_only_new_ones_count(self, kept: Kept) -> None:
        assert await kept.insert(group(["a"], [T0, T0 + 2 * S], [10.0, 20.0])) == 2
        assert await kept.insert(group(["a"], [T0 + S, T0 + 2 * S, T0 + 3 * S], [15.0, 99.0, 30.0])) == 2
        assert await kept.insert(group(["a"], [T0, T0 + S], [99.0, 99.0])) == 0
        assert [value for _, value in await points(kept.history, "a")] == [10.0, 15.0, 20.0, 30.0]
        (bucket,) = await aggregates(kept.history, "a", MIN_NS, MAX_NS, 60 * S)
        assert (bucket.count, bucket.sum) == (4, 75.0)

    async def test_the_same_batch_may_come_again(self, kept: Kept) -> None:
        batch = [group(["a", "b"], [T0 + tick * S], [1.0, 2.0]) for tick in range(50)]
        missing = MissingFrames(source="source-cpu", key="web1.cpu", epoch=T0, first=2, last=4, noticed=77)
        assert await kept.archive.insert(batch, [missing]) == 100
        assert await kept.archive.insert(batch, [missing]) == 0
        await kept.settle()
        assert len(await points(kept.history, "b")) == 50
        assert [one.sum for one in await aggregates(kept.history, "b", MIN_NS, MAX_NS)] == [100.0]

    async def test_the_groups_of_a_batch_may_overlap(self, kept: Kept) -> None:
        """A metric appears, so that others come together with it from then on; one group came twice."""
        early = [group(["a", "b"], [T0 + tick * S], [1.0, 2.0]) for tick in range(5)]
        both = [group(["a", "b", "c"], [T0 + tick * S], [1.0, 2.0, 3.0]) for tick in range(3, 9)]
        alone = group(["b"], [T0 + 6 * S, T0 + 7 * S, T0 + 20 * S], [2.0] * 3)
        assert await kept.insert(*early, *both, alone, early[2]) == 9 + 10 + 6
        assert [time - T0 for time, _ in await points(kept.history, "b")] == [*range(0, 9 * S, S), 20 * S]
        (bucket,) = await aggregates(kept.history, "b", MIN_NS, MAX_NS)
        assert (bucket.count, bucket.sum, bucket.covered) == (10, 20.0, 20.0)

    async def test_nothing_is_a_batch(self, kept: Kept) -> None:
        assert await kept.insert() == 0
        assert await kept.history.metrics() == {}

    async def test_a_declared_interval_says_for_how_long_a_point_speaks(self, kept: Kept) -> None:
        about: Mapping[str, Mapping[str, Any]] = {"slow": {"interval": 600}, "fast": {"rate": 10.0}}
        times = [T0, T0 + 1000 * S, T0 + 1000 * S + S // 4, T0 + 1001 * S]
        await kept.archive.insert([group(about, times[:1], [1.0, 1.0])])
        await kept.archive.set_metadata(about)
        await kept.insert(group(about, times[1:], [1.0] * 6))
        for name, covered in (("slow", 1001.0), ("fast", 0.25)):
            assert hold_ns(about[name]) in {1800 * S, 3 * S // 10}
            assert [one.covered for one in await aggregates(kept.history, name, MIN_NS, MAX_NS)] == [covered]

    async def test_a_batch_is_stored_whole_or_not_at_all(self, kept: Kept) -> None:
        if not self.features.all_or_nothing:
            pytest.skip("not all or nothing")

        def broken() -> Iterator[Group]:
            yield group(["a", "new"], [T0 + S], [2.0, 2.0])
            raise RuntimeError("no more groups")

        await kept.insert(group(["a"], [T0], [1.0]))
        with pytest.raises(RuntimeError, match="no more groups"):
            await kept.archive.insert(broken())
        assert await points(kept.history, "a") == [(T0, 1.0)]
        assert list(await kept.history.metrics()) == ["a"]
        assert await kept.insert(group(["new", "a"], [T0 + S], [3.0, 4.0])) == 2
        assert await points(kept.history, "new") == [(T0 + S, 3.0)]

    async def test_inserts_of_several_tasks_do_not_mix(self, kept: Kept) -> None:
        def batch(task: int) -> Group:
            return group([f"t{task}", "shared"], [T0 + task * S], [1.0, float(task)])

        stored = await asyncio.gather(*(kept.archive.insert([batch(task)]) for task in range(20)))
        await kept.settle()
        assert sum(stored) == 40
        assert await points(kept.history, "shared") == [(T0 + task * S, float(task)) for task in range(20)]
        assert [one.count for one in await aggregates(kept.history, "shared", MIN_NS, MAX_NS)] == [20]

    async def test_what_is_missing_is_told_in_the_order_in_which_it_was_noticed(self, kept: Kept) -> None:
        late, early = (
            MissingFrames(source="s", key="k", epoch=T0, first=first, last=9, noticed=noticed)
            for first, noticed in ((2, T0 + S), (1, T0))
        )
        await kept.archive.insert([group(["a"], [T0], [1.0])], [late])
        await kept.archive.insert([], [early])
        assert await kept.archive.missing() == [early, late]
        assert await kept.archive.missing(T0 + 1) == [late]

    async def test_events_are_found_by_any_part_of_their_time(self, kept: Kept) -> None:
        archive = kept.archive
        mark = Event(time=T0, label="deploy", source="ci", host="web1", color="#123456", metadata={"by": ["ä", 1]})
        span = Event(time=T0 - 100 * S, end=T0 + 100 * S, label="run", source="run", dash="solid")
        ids = [await archive.add_event(mark), await archive.add_event(span)]
        assert ids[0] != ids[1]
        assert await archive.add_event(mark) == ids[0], "it is there already"
        stored = await archive.events()
        assert [event.id for event in stored] == [ids[1], ids[0]]
        assert [(event.label, event.end, event.dash, dict(event.metadata)) for event in stored] == [
            ("run", T0 + 100 * S, "solid", {}),
            ("deploy", None, "dash", {"by": ["ä", 1]}),
        ]
        found = {
            (MIN_NS, T0 - 100 * S): [],
            (MIN_NS, T0 - 100 * S + 1): ["run"],
            (T0, T0 + 1): ["run", "deploy"],
            (T0 + 1, MAX_NS): ["run"],
            (T0 + 100 * S, MAX_NS): ["run"],
            (T0 + 100 * S + 1, MAX_NS): [],
        }
        for where, labels in found.items():
            assert [event.label for event in await archive.events(*where)] == labels, where
        assert [event.label for event in await archive.events(source="ci")] == ["deploy"]

    async def test_what_is_closed_takes_nothing(self, kept: Kept) -> None:
        await kept.archive.aclose()
        if self.features.knows_when_closed:
            with pytest.raises(StorageError):
                await kept.archive.insert([group(["a"], [T0], [1.0])])
