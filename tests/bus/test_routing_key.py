# SPDX-License-Identifier: MIT
"""A source may say under which key each of its metrics travels; subscriptions find them all the same."""

from collections.abc import AsyncIterator

import pytest

from bus.sink import Sink
from bus.timestamp import Timestamp
from tests.bus.support import START_NS, HandSource, until

METRICS = [f"{host}.{name}" for host in ("db1", "db2") for name in ("cpu.usage", "cpu.core0.usage", "memory.used")]


class ManyHosts(HandSource):
    """Has metrics of several hosts: all of one host share a frame."""

    def __init__(self, *args, **options) -> None:
        super().__init__(*args, **options)
        self.asked: list[str] = []

    def routing_key(self, metric: str) -> str:
        self.asked.append(metric)
        return metric.partition(".")[0]


class Collecting(Sink):
    """Keeps what it gets."""

    def __init__(self, *args, **options) -> None:
        super().__init__(*args, **options)
        self.got: list[tuple[str, Timestamp, float]] = []

    async def on_data(self, metric: str, time: Timestamp, value: float) -> None:
        self.got.append((metric, time, value))


@pytest.fixture
async def source(manager, memory_url: str) -> AsyncIterator[ManyHosts]:
    async with ManyHosts("source-many", memory_url) as made:
        yield made


async def test_metrics_with_one_key_share_a_frame_and_each_is_asked_for_once(source: ManyHosts, tap) -> None:
    for index in range(3):
        source.tick(index, dict.fromkeys(METRICS, float(index)))
        await tap.until_points(len(METRICS) * (index + 1))
    assert [(frame.key, frame.sequence, frame.points) for frame in tap.frames] == [
        (host, index, 3) for index in range(3) for host in ("db1", "db2")
    ]
    assert sorted(source.asked) == sorted(METRICS)


@pytest.mark.parametrize(
    ("pattern", "selected"),
    [
        ("db1.cpu.usage", ["db1.cpu.usage"]),
        ("*.cpu.#", ["db1.cpu.usage", "db1.cpu.core0.usage", "db2.cpu.usage", "db2.cpu.core0.usage"]),
        ("*.cpu.*", ["db1.cpu.usage", "db2.cpu.usage"]),
        ("#.usage", ["db1.cpu.usage", "db1.cpu.core0.usage", "db2.cpu.usage", "db2.cpu.core0.usage"]),
        ("db2.#", ["db2.cpu.usage", "db2.cpu.core0.usage", "db2.memory.used"]),
        ("#", METRICS),
    ],
)
async def test_a_subscription_gets_what_it_selects_and_nothing_else(
    source: ManyHosts, memory_url: str, pattern: str, selected: list[str]
) -> None:
    async with Collecting("sink-a", memory_url) as sink:
        await sink.subscribe([pattern])
        for index in range(2):
            source.tick(index, dict.fromkeys(METRICS, float(index)))
        await source.drain()
        await until(lambda: len(sink.got) >= 2 * len(selected))
        # What was not asked for would have come with what was: in the same frames.
        assert sorted(sink.got) == sorted(
            (metric, Timestamp(START_NS + index * 10**9), float(index)) for metric in selected for index in range(2)
        )


async def test_points_of_before_the_manager_answered_keep_their_keys(memory_url: str, tap, manager) -> None:
    source = ManyHosts("source-many", memory_url)
    source.tick(0, dict.fromkeys(METRICS, 0.0))
    async with source:
        await tap.until_points(len(METRICS))
    assert {frame.key for frame in tap.frames} == {"db1", "db2"}
