# SPDX-License-Identifier: MIT
import asyncio
import dataclasses

import pytest

from agents.foreign.samples import PORTION, Foreign, Sample
from agents.host import HostSource, Metric
from bus.timestamp import NS_PER_S, Timestamp
from tests.agents.sampled import Sampled

NOW_S = 1_700_000_000


class ForeignSource(HostSource):
    """Nothing but what others say."""

    family = "foreign"
    metrics = ()
    says: tuple[str, list[Sample]] = ("a", [])
    time: Timestamp | None = None

    def __init__(self, *arguments, **options) -> None:
        super().__init__(*arguments, **options)
        self.foreign = Foreign(self)

    def describe(self, name: str) -> Metric | None:
        return self.foreign.describe(name) or super().describe(name)

    async def measure(self) -> None:
        word, samples = self.says
        await self.foreign.take(word, samples, time=self.time)


def at(second: float) -> Timestamp:
    return Timestamp(round(second * NS_PER_S))


@pytest.fixture
def source(host) -> ForeignSource:
    return host.source(ForeignSource)


@pytest.fixture
def sampled(source, monkeypatch) -> Sampled:
    return Sampled(source, monkeypatch)


async def test_samples_without_a_time_are_of_the_tick_and_are_taken_each_time(source, sampled) -> None:
    source.says = ("job", [Sample(name="a", value=1.0), Sample(name="b.c", value=2.0)])
    for second in (NOW_S, NOW_S + 1):
        assert await sampled.tick(second) == {"job.a": 1.0, "job.b.c": 2.0}
    assert sampled.of("job.a") == [(NOW_S, 1.0), (NOW_S + 1, 1.0)]


async def test_samples_without_a_time_may_be_of_an_earlier_tick(source, sampled) -> None:
    source.says, source.time = ("job", [Sample(name="a", value=1.0)]), at(NOW_S - 5)
    await sampled.tick(NOW_S)
    assert sampled.of("job.a") == [(NOW_S - 5, 1.0)]


async def test_samples_with_a_time_are_taken_once(source, sampled) -> None:
    source.says = ("job", [Sample(name="a", value=1.0, time=at(NOW_S - 60))])
    await sampled.tick(NOW_S)
    assert await sampled.tick(NOW_S + 1) == {}
    source.says = ("job", [Sample(name="a", value=2.0, time=at(NOW_S - 30))])
    await sampled.tick(NOW_S + 2)
    source.says = ("job", [Sample(name="a", value=3.0, time=at(NOW_S - 45))])
    await sampled.tick(NOW_S + 3)
    assert sampled.of("job.a") == [(NOW_S - 60, 1.0), (NOW_S - 30, 2.0)]


async def test_the_times_of_one_metric_come_in_their_order(source, sampled) -> None:
    source.says = ("job", [Sample(name="a", value=float(s), time=at(NOW_S - s)) for s in (1, 3, 2)])
    await sampled.tick(NOW_S)
    assert sampled.of("job.a") == [(NOW_S - 3, 3.0), (NOW_S - 2, 2.0), (NOW_S - 1, 1.0)]


async def test_of_two_samples_with_one_name_and_time_the_first_counts(source, sampled) -> None:
    source.says = ("job", [Sample(name="a", value=1.0), Sample(name="a", value=2.0)])
    assert await sampled.tick(NOW_S) == {"job.a": 1.0}


async def test_samples_of_the_future_are_refused_and_that_is_said_once(source, sampled, caplog) -> None:
    caplog.set_level("INFO")
    for second in (NOW_S, NOW_S + 1):
        late = [Sample(name=name, value=1.0, time=at(second + 60.5)) for name in ("a", "b")]
        source.says = ("job", [*late, Sample(name="c", value=1.0, time=at(second + 60))])
        assert await sampled.tick(second) == {"job.c": 1.0}
    assert [message for message in caplog.messages if "refused: are the clocks right? the first: a of 2023" in message]
    assert (len(caplog.messages), source.parts.errors) == (1, 2)
    source.says = ("job", [Sample(name="a", value=1.0)])
    assert await sampled.tick(NOW_S + 2) == {"job.a": 1.0}
    assert "job, times, works again" in caplog.messages[-1]


async def test_a_clock_that_is_wrong_does_not_shut_out_for_long_what_is_of_now(source, sampled) -> None:
    source.says = ("job", [Sample(name="a", value=1.0, time=at(NOW_S + 3000))])
    assert await sampled.tick(NOW_S) == {}
    source.says = ("job", [Sample(name="a", value=2.0, time=at(NOW_S + 59))])
    await sampled.tick(NOW_S)
    source.says = ("job", [Sample(name="a", value=3.0)])
    assert await sampled.tick(NOW_S + 59) == {}
    assert await sampled.tick(NOW_S + 60) == {"job.a": 3.0}


@pytest.mark.parametrize("room", [20, 0])
async def test_names_that_the_bus_cannot_carry_are_refused_said_once_and_not_remembered(
    host, monkeypatch, caplog, room: int
) -> None:
    prefix = "x" * (255 - len(".foreign.job.") - room)
    source = host.source(ForeignSource, {"prefix": prefix, "max_metrics": 50})
    sampled = Sampled(source, monkeypatch)
    for tick in range(3):
        new = [Sample(name=f"{tick}-{number:020d}", value=1.0) for number in range(100)]
        source.says = ("job", [*new, Sample(name="f" * room, value=2.0)] if room else new)
        assert await sampled.tick(NOW_S + tick) == ({f"job.{'f' * room}": 2.0} if room else {})
    assert len([message for message in caplog.messages if "255 bytes" in message]) == len(caplog.messages) == 1
    assert len(source.parts.causes) == 1
    assert source.foreign.describe(f"job.{new[0].name}") is None


async def test_what_is_long_is_taken_in_portions_and_others_have_their_turn_between(
    source, sampled, monkeypatch
) -> None:
    source.says = ("job", [Sample(name=f"m{number}", value=1.0) for number in range(2 * PORTION + 1)])
    seen: list[object] = []

    def sample(time: Timestamp, values: dict[str, float]) -> None:
        seen.append(len(values))
        asyncio.get_running_loop().call_soon(seen.append, "another")

    monkeypatch.setattr(source, "sample", sample)
    await sampled.tick(NOW_S)
    assert seen == [PORTION, "another", PORTION, "another", 1]


async def test_the_times_of_one_metric_come_in_their_order_in_whatever_portions(source, sampled) -> None:
    timed = [Sample(name="a", value=float(s), time=at(NOW_S - s)) for s in range(PORTION + 9)]
    source.says = ("job", [*timed[1:], Sample(name="a", value=0.0)])
    await sampled.tick(NOW_S)
    assert sampled.of("job.a") == [(NOW_S - s, float(s)) for s in reversed(range(PORTION + 9))]


async def test_a_metric_is_made_once_for_samples_that_say_the_same(source, sampled) -> None:
    made = []
    for second in range(3):
        source.says = ("job", [Sample(name="a", value=float(second), unit="B", details={"labels": {"x": "1"}})])
        await sampled.tick(NOW_S + second)
        made.append(source.foreign.describe("job.a"))
    assert made[0] is made[1] is made[2]


async def test_what_a_sample_says_of_itself_is_declared(source, sampled) -> None:
    source.says = ("job", [Sample(name="a", value=1.0, unit="B", description="bytes", details={"labels": {"x": "1"}})])
    await sampled.tick(NOW_S)
    about = sampled.about("job.a")
    assert (about["unit"], about["description"], about["labels"]) == ("B", "bytes", {"x": "1"})


@pytest.mark.parametrize("change", [{"unit": "s"}, {"description": "other"}, {"details": {"labels": {"x": "2"}}}])
async def test_it_is_declared_anew_when_that_changes_and_only_then(source, sampled, change) -> None:
    sample = Sample(name="a", value=1.0, unit="B", description="bytes", details={"labels": {"x": "1"}})
    for says in (sample, dataclasses.replace(sample, value=2.0), sample):
        source.says = ("job", [says])
        await sampled.tick(NOW_S + len(sampled.points))
    assert len(sampled.declared) == 1
    source.says = ("job", [dataclasses.replace(sample, **change)])
    await sampled.tick(NOW_S + 9)
    assert len(sampled.declared) == 2
    assert {key: sampled.about("job.a").get(key) for key in change if key != "details"} == {
        key: value for key, value in change.items() if key != "details"
    }
    assert len(sampled.of("job.a")) == 4


async def test_two_words_may_have_the_same_names(source, sampled) -> None:
    sample = Sample(name="a", value=1.0)
    for word in ("one", "two"):
        source.says = (word, [sample])
        await sampled.tick(NOW_S)
    assert [name for _, name, _ in sampled.points] == ["one.a", "two.a"]


async def test_names_beyond_max_metrics_are_counted_by_the_source_and_not_remembered(host, monkeypatch) -> None:
    source = host.source(ForeignSource, {"max_metrics": 2})
    sampled = Sampled(source, monkeypatch)
    for round_ in range(3):
        source.says = ("job", [Sample(name=f"n{number}", value=1.0) for number in range(5)])
        assert set(await sampled.tick(NOW_S + round_)) == {"job.n0", "job.n1"}
        assert source.metrics_refused == 3
    assert [source.foreign.describe(f"job.n{number}") is None for number in range(5)] == [
        False,
        False,
        True,
        True,
        True,
    ]
    assert len(source.foreign._last_ns) == 2
