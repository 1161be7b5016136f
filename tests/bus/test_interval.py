# SPDX-License-Identifier: MIT
"""Ticks: when they are, what becomes of late ones, and what a changed period or a set clock does."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

import bus.interval
import bus.source_task
from bus.client import Client
from bus.errors import RpcError
from bus.interval import IntervalSource, Ticker
from bus.rpc import rpc_handler
from bus.timestamp import Timedelta, Timestamp

S = 1_000_000_000
MS = 1_000_000
NOW = 1_790_000_000 * S


class Clocks:
    """A wall clock and a monotonic clock that stand still until they are moved."""

    def __init__(self, wall_ns: int = NOW + 300 * MS, monotonic_s: float = 1000.0) -> None:
        self.wall_ns = wall_ns
        self.monotonic_s = monotonic_s

    def pass_s(self, seconds: float) -> None:
        self.wall_ns += round(seconds * S)
        self.monotonic_s += seconds

    def set_s(self, seconds: float) -> None:
        """Somebody sets the wall clock."""
        self.wall_ns += round(seconds * S)


def tick(ticker: Ticker, clocks: Clocks, period_ns: int = S, *, early_s: float = 0.0) -> int:
    """Plan the next tick, wait for it, use it; its time stamp."""
    tick_ns, due_at = ticker.plan(period_ns, clocks.wall_ns, clocks.monotonic_s)
    clocks.pass_s(max(0.0, due_at - clocks.monotonic_s - early_s))
    assert not ticker.was_set(clocks.wall_ns, clocks.monotonic_s)
    ticker.done(tick_ns)
    return tick_ns


# -- the ticker --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("period_ns", [MS, 100 * MS, S, 10 * S, 60 * S, 3600 * S])
def test_ticks_fall_on_multiples_of_the_period_and_none_is_left_out(period_ns):
    ticker, clocks = Ticker(align=True), Clocks(NOW + 123_456_789)
    stamps = [tick(ticker, clocks, period_ns) for _ in range(10)]
    first = (NOW + 123_456_789) // period_ns * period_ns + period_ns
    assert stamps == [first + number * period_ns for number in range(10)]


def test_two_hosts_share_their_time_stamps():
    one, two = Clocks(NOW + 300 * MS, 5.0), Clocks(NOW + 900 * MS, 77.7)
    first, second = Ticker(align=True), Ticker(align=True)
    assert [tick(first, one) for _ in range(5)] == [tick(second, two) for _ in range(5)]


def test_a_wake_up_that_comes_a_little_early_repeats_no_tick():
    ticker, clocks = Ticker(align=True), Clocks()
    stamps = [tick(ticker, clocks, early_s=0.001) for _ in range(10)]
    assert stamps == [NOW + number * S for number in range(1, 11)]


def test_on_the_very_multiple_the_next_one_is_meant():
    ticker = Ticker(align=True)
    assert ticker.plan(S, NOW, 1000.0) == (NOW + S, 1001.0)


@pytest.mark.parametrize(("took_s", "missed"), [(0.2, 0), (0.999, 0), (1.2, 1), (2.5, 2), (60.5, 60)])
@pytest.mark.parametrize("align", [True, False])
def test_the_ticks_that_an_update_covers_are_skipped_and_counted(took_s, missed, align):
    ticker, clocks = Ticker(align=align), Clocks()
    before = tick(ticker, clocks)
    clocks.pass_s(took_s)
    assert ticker.missed(S, clocks.monotonic_s) == missed
    after = tick(ticker, clocks)
    assert after == before + (missed + 1) * S


def test_a_tick_that_is_late_keeps_its_time_stamp():
    ticker, clocks = Ticker(align=True), Clocks()
    tick_ns, _ = ticker.plan(S, clocks.wall_ns, clocks.monotonic_s)
    clocks.pass_s(3.0)  # the loop was busy
    ticker.done(tick_ns)
    assert tick_ns == NOW + S
    assert ticker.missed(S, clocks.monotonic_s) == 2
    assert tick(ticker, clocks) == NOW + 4 * S


def test_without_align_the_first_tick_is_at_once_and_the_others_whole_periods_after_it():
    ticker, clocks = Ticker(align=False), Clocks()
    start = clocks.wall_ns
    assert [tick(ticker, clocks) for _ in range(5)] == [start + number * S for number in range(5)]


def test_without_align_a_change_of_period_counts_from_the_last_tick():
    ticker, clocks = Ticker(align=False), Clocks()
    start = tick(ticker, clocks, S)
    ticker.plan(3600 * S, clocks.wall_ns, clocks.monotonic_s)
    clocks.pass_s(0.25)
    assert tick(ticker, clocks, 100 * MS) == start + 300 * MS
    assert tick(ticker, clocks, 5 * S) == start + 300 * MS + 5 * S


def test_a_clock_set_forward_is_noticed_and_the_ticks_follow_it():
    ticker, clocks = Ticker(align=True), Clocks()
    tick(ticker, clocks)
    ticker.plan(S, clocks.wall_ns, clocks.monotonic_s)
    clocks.pass_s(0.5)
    clocks.set_s(3600)
    assert ticker.was_set(clocks.wall_ns, clocks.monotonic_s)
    assert tick(ticker, clocks) == NOW + 3602 * S


@pytest.mark.parametrize("align", [True, False])
@pytest.mark.parametrize("back_s", [0.06, 0.5, 1, 1.5, 10, 3600])
def test_a_clock_set_back_stops_nothing_and_time_stamps_still_increase(align, back_s):
    ticker, clocks = Ticker(align=align), Clocks()
    stamps = [tick(ticker, clocks) for _ in range(3)]
    ticker.plan(S, clocks.wall_ns, clocks.monotonic_s)
    clocks.pass_s(0.5)
    clocks.set_s(-back_s)
    assert ticker.was_set(clocks.wall_ns, clocks.monotonic_s)
    began = clocks.monotonic_s
    stamps += [tick(ticker, clocks) for _ in range(20)]
    assert stamps == sorted(set(stamps))
    # The period is kept, and nobody sleeps until the old time comes round again.
    assert clocks.monotonic_s - began <= 22


@pytest.mark.parametrize("align", [True, False])
def test_after_a_clock_was_set_back_time_stamps_become_true_again(align):
    ticker, clocks = Ticker(align=align), Clocks()
    tick(ticker, clocks)
    clocks.set_s(-10)
    off = [tick(ticker, clocks) - clocks.wall_ns for _ in range(60)]
    assert off[0] > 5 * S
    assert all(later <= earlier for earlier, later in pairwise(off[:20]))
    assert all(abs(late) <= MS for late in off[25:])


def test_slow_corrections_of_the_clock_are_no_step():
    ticker, clocks = Ticker(align=True), Clocks()
    tick(ticker, clocks)
    ticker.plan(10 * S, clocks.wall_ns, clocks.monotonic_s)
    clocks.pass_s(9.5)
    clocks.set_s(0.005)  # 500 ppm, the most that NTP corrects
    assert not ticker.was_set(clocks.wall_ns, clocks.monotonic_s)


@given(
    align=st.booleans(),
    steps=st.lists(
        st.tuples(
            st.floats(0, 30),  # how long the update takes, in s
            st.one_of(st.just(0.0), st.floats(-100, 100)),  # how the clock is set meanwhile
            st.sampled_from([MS, 50 * MS, S, 7 * S]),
            st.floats(0, 0.0009),  # how early the wake-up is
        ),
        max_size=30,
    ),
)
def test_whatever_the_clocks_do_time_stamps_increase_and_no_sleep_is_longer_than_two_periods(align, steps):
    ticker, clocks = Ticker(align=align), Clocks()
    last = 0
    for took_s, set_s, period_ns, early_s in steps:
        before = clocks.monotonic_s
        stamp = tick(ticker, clocks, period_ns, early_s=early_s)
        assert stamp > last
        assert clocks.monotonic_s - before <= 2 * period_ns / S + 1e-6
        last = stamp
        clocks.pass_s(took_s)
        clocks.set_s(set_s)


# -- the source --------------------------------------------------------------------------------------------


class Ticking(IntervalSource):
    """Writes down its ticks; `during`, if there is one, is its update."""

    def __init__(self, url: str, during: Callable[[], Awaitable[None]] | None = None, **options) -> None:
        super().__init__("source-tick", url, **options)
        self.ticks: list[Timestamp] = []
        self.ticked = asyncio.Event()
        self.during = during

    async def update(self) -> None:
        self.ticks.append(self.tick)
        self.ticked.set()
        if self.during is not None:
            await self.during()
        self.sample(self.tick, {"lab.ticks": len(self.ticks)})

    async def until_ticks(self, count: int) -> None:
        async with asyncio.timeout(30):
            while len(self.ticks) < count:
                self.ticked.clear()
                await self.ticked.wait()


async def test_update_runs_on_multiples_of_the_period_of_the_wall_clock(manager, tap, memory_url):
    async with Ticking(memory_url, period=0.05) as source:
        await source.until_ticks(6)
    await tap.until_points(len(source.ticks))
    times = [time for time, _ in tap.points["lab.ticks"]]
    assert times == [tick.posix_ns for tick in source.ticks]
    assert all(time % (50 * MS) == 0 for time in times)
    steps = {later - earlier for earlier, later in pairwise(times)}
    assert all(step % (50 * MS) == 0 for step in steps)
    assert abs(times[-1] - time.time_ns()) < 20 * S
    assert source.health.updates == len(times)
    assert source.health.failed == 0


async def test_without_align_update_runs_at_once(manager, memory_url):
    async with Ticking(memory_url, period=3600, align=False) as source:
        await source.until_ticks(1)
        assert source.ticks[0].posix_ns % S  # true but once in 10^9 times


@pytest.mark.parametrize("period", [2, 2.0, Timedelta.from_s(2)])
def test_the_period_is_given_in_seconds_or_as_a_timedelta_and_read_as_a_timedelta(memory_url, period):
    assert Ticking(memory_url, period=period).period == Timedelta.from_s(2)
    source = Ticking(memory_url)
    assert source.period is None
    source.period = period
    assert source.period == Timedelta.from_s(2)


@pytest.mark.parametrize("period", [None, "1s", True, [1]])
def test_a_period_cannot_be_unset_or_be_what_is_no_number(memory_url, period):
    source = Ticking(memory_url, period=5)
    with pytest.raises(TypeError, match="period must be seconds or a Timedelta"):
        source.period = period
    assert source.period == Timedelta.from_s(5)


@pytest.mark.parametrize(
    "period",
    [0, -1, 0.0009, float("nan"), float("inf"), 1e300, 10**400, Timedelta(0), Timedelta(-5), Timedelta.from_s(4e7)],
)
def test_a_period_that_cannot_be_kept_is_a_value_error(memory_url, period):
    with pytest.raises(ValueError, match=r"period must be from 0\.001 s to a year"):
        Ticking(memory_url, period=period)
    source = Ticking(memory_url, period=5)
    with pytest.raises(ValueError, match=r"period must be from 0\.001 s to a year"):
        source.period = period
    assert source.period == Timedelta.from_s(5)


async def test_a_period_that_was_never_set_ends_the_source_with_a_value_error(manager, memory_url):
    source = Ticking(memory_url)
    await source.connect()
    with pytest.raises(ValueError, match="source-tick: the period was not set"):
        await source.stopped()


async def test_a_period_may_be_set_by_the_first_configuration(manager, memory_url):
    class Configured(Ticking):
        @rpc_handler("config")
        async def on_config(self, rate: float = 20, **_others: object) -> None:
            self.period = 1 / rate

    async with Configured(memory_url) as source:
        await source.until_ticks(2)
        assert source.period == Timedelta.from_ms(50)


async def test_a_new_period_cuts_the_sleep_short_when_it_is_assigned(manager, memory_url):
    async with Ticking(memory_url, period=3600) as source:
        await asyncio.sleep(0.01)
        source.period = 0.05
        await source.until_ticks(2)
        assert source.period == Timedelta.from_ms(50)
    assert all(tick.posix_ns % (50 * MS) == 0 for tick in source.ticks)


async def test_a_new_period_cuts_the_sleep_short_when_the_manager_pushes_it(manager, memory_url):
    async with Ticking(memory_url, period=3600) as source, Client("tool", memory_url) as tool:
        reply = await tool.rpc("config.set", token="source-tick", config={"period": 0.05})
        assert reply["applied"] is True
        await source.until_ticks(2)
        assert source.period == Timedelta.from_ms(50)


@pytest.mark.parametrize("period", [0, "soon", [1], -3])
async def test_a_pushed_period_that_is_wrong_is_refused_and_the_old_one_stays(manager, memory_url, period):
    async with Ticking(memory_url, period=3600) as source, Client("tool", memory_url) as tool:
        with pytest.raises(RpcError, match=r"'source-tick' rejected the configuration.*period must be"):
            await tool.rpc("config.set", token="source-tick", config={"period": period})
        assert source.period == Timedelta.from_s(3600)
        assert await tool.rpc("config.get", token="source-tick") == {"version": 0, "config": {}}


async def test_update_may_change_the_period_itself(manager, memory_url):
    source = Ticking(memory_url, period=0.01)

    async def during() -> None:
        source.period = 0.1

    source.during = during
    async with source:
        await source.until_ticks(3)
    assert [tick.posix_ns % (100 * MS) for tick in source.ticks[1:3]] == [0, 0]


async def test_an_update_that_takes_too_long_makes_ticks_be_missed_and_counted(manager, memory_url, caplog):
    async def during() -> None:
        await asyncio.sleep(0.13)

    async with Ticking(memory_url, during, period=0.05) as source:
        await source.until_ticks(4)
        first, *_, last = source.ticks
        missed = (last - first).ns // (50 * MS) - 3
        assert missed >= 6
        assert source.health.missed >= missed
        assert source.vital_signs()["ticksMissed"] == source.health.missed
        assert source.health.duration_s > 0.1
    complaints = [record for record in caplog.records if "skipping ticks" in record.getMessage()]
    assert len(complaints) == 1


async def test_a_clock_that_is_set_while_the_source_sleeps_is_followed(manager, memory_url, monkeypatch, caplog):
    offset_ns = 0
    real = time.time_ns
    monkeypatch.setattr(bus.interval.time, "time_ns", lambda: real() + offset_ns)
    async with Ticking(memory_url, period=0.05) as source:
        await source.until_ticks(2)
        before = source.ticks[-1]
        offset_ns = 7200 * S
        seen = len(source.ticks)
        await source.until_ticks(seen + 2)
        ahead = source.ticks[-1]
        assert ahead - before > Timedelta.from_s(7100)
        offset_ns = 0  # and back
        seen = len(source.ticks)
        await source.until_ticks(seen + 10)
    stamps = [tick.posix_ns for tick in source.ticks]
    assert stamps == sorted(set(stamps))
    assert source.health.failed == 0
    assert "source-tick: the clock was set; the ticks follow it" in caplog.text


# -- failures ----------------------------------------------------------------------------------------------


async def test_an_update_that_raises_is_logged_with_its_traceback_and_the_next_tick_runs(
    manager, tap, memory_url, caplog
):
    caplog.set_level(logging.INFO)
    outcomes = [ValueError("bad sensor")] * 3 + [KeyError("x"), None, ValueError("bad sensor"), None]

    async def during() -> None:
        outcome = outcomes.pop(0) if outcomes else None
        if outcome is not None:
            raise outcome

    async with Ticking(memory_url, during, period=0.01) as source:
        await source.until_ticks(8)
        await tap.until_points(3)
        assert source.health.failed == 5
        assert source.vital_signs()["updatesFailed"] == 5
        assert source.health.updates >= 7
    said = [record for record in caplog.records if record.name == "bus.interval" and "skipping" not in record.message]
    assert [record.getMessage() for record in said] == [
        "source-tick: update failed: ValueError: bad sensor",
        "source-tick: that failure came 2 more times in a row",
        "source-tick: update failed: KeyError: 'x'",
        "source-tick: update failed: ValueError: bad sensor",
    ]
    assert [bool(record.exc_info) for record in said] == [True, False, True, True]


async def test_a_failure_that_differs_in_its_numbers_only_has_come_again(manager, memory_url, caplog):
    """Points that are refused are refused with their times, which made a traceback of every tick."""

    async def during() -> None:
        raise ValueError(f"web1.x: {Timestamp.now()} is not later than the last point")

    async with Ticking(memory_url, during, period=0.01) as source:
        await source.until_ticks(5)
    assert source.health.failed >= 4
    assert len([message for message in caplog.messages if "update failed" in message]) == 1


async def test_an_update_whose_own_work_was_cancelled_has_failed_and_goes_on(manager, memory_url, caplog):
    async def during() -> None:
        task = asyncio.create_task(asyncio.Event().wait())
        await asyncio.sleep(0)
        task.cancel()
        await task

    async with Ticking(memory_url, during, period=0.01) as source:
        await source.until_ticks(3)
        assert source.health.failed >= 2
    assert "source-tick: update failed: asyncio.exceptions.CancelledError" in caplog.text


async def test_a_refused_point_fails_the_update_not_the_source(manager, tap, memory_url):
    class Repeating(Ticking):
        async def update(self) -> None:
            self.ticks.append(self.tick)
            self.ticked.set()
            await self.send("lab.same", Timestamp(NOW), 1.0)

    async with Repeating(memory_url, period=0.01) as source:
        await source.until_ticks(4)
        assert source.health.failed >= 2
    assert tap.points == {"lab.same": [(NOW, 1.0)]}


# -- the end -----------------------------------------------------------------------------------------------


async def test_stop_does_not_wait_for_the_next_tick(manager, memory_url, caplog):
    async with Ticking(memory_url, period=3600) as source:
        await asyncio.sleep(0.01)
    assert source.ticks == []
    assert not caplog.records  # which would say that it had to be cancelled


async def test_stop_lets_an_update_end(manager, tap, memory_url):
    let_go = asyncio.Event()
    async with Ticking(memory_url, let_go.wait, period=0.01) as source:
        await source.until_ticks(1)
        stopping = asyncio.create_task(source.stop())
        await asyncio.sleep(0.05)
        assert not stopping.done()
        let_go.set()
        await stopping
    await tap.until_points(1)
    assert len(source.ticks) == 1


async def test_an_update_that_hangs_is_cancelled_and_what_was_sampled_before_is_sent(
    manager, tap, memory_url, monkeypatch, caplog
):
    monkeypatch.setattr(bus.source_task, "TASK_END_S", 0.05)
    cancelled = asyncio.Event()

    async def during() -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.set()
            raise

    async with Ticking(memory_url, during, period=0.01, chunk_size=None) as source:
        await source.send("lab.before", Timestamp(NOW), 1.0)
        await source.until_ticks(1)
    assert cancelled.is_set()
    await tap.until_points(1)
    assert tap.points == {"lab.before": [(NOW, 1.0)]}
    assert "task() did not end within 0.05 s of its stop: cancelled" in caplog.text
    assert source.health.failed == 0


def test_a_source_is_not_pending_unless_it_says_so(memory_url):
    assert Ticking(memory_url).pending is False


def test_an_update_that_hangs_has_two_seconds():
    assert bus.source_task.TASK_END_S == 2.0


async def test_the_vital_signs_are_in_the_answer_to_discover(manager, memory_url):
    async with Ticking(memory_url, period=0.01) as source, Client("tool", memory_url) as tool:
        await source.until_ticks(2)
        answers = await tool.discover(until=lambda answers: "source-tick" in answers)
    signs = answers["source-tick"]
    assert signs["updates"] >= 1
    assert signs["updatesFailed"] == 0
    assert signs["updateDuration"] >= 0
    assert signs["updateLag"] >= 0
