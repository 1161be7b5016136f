# SPDX-License-Identifier: MIT
"""`Subscriber`: live points in an ``async for``."""

import asyncio

import pytest

from bus import agent as agent_module
from bus import subscription as subscription_module
from bus.chunk import Chunk
from bus.errors import NotConnected, Refused
from bus.manager import Manager
from bus.subscription import Subscriber
from bus.timestamp import Timedelta, Timestamp
from tests.bus.support import START_NS, HandSource, transport_at, until


async def test_points_come_one_by_one(network: str) -> None:
    async with (
        Subscriber(["web1.#"], network) as points,
        HandSource("source-web1", network, prefix="web1") as source,
    ):
        for index in range(3):
            source.tick(index, {"web1.a": index, "web1.b": -index, "web2.a": 9})
            await source.drain()
        got = []
        async for metric, time, value in points:
            got.append((metric, time, value))
            if len(got) == 6:
                break
    assert got == [
        (metric, Timestamp(START_NS + index * 10**9), value)
        for index in range(3)
        for metric, value in (("web1.a", float(index)), ("web1.b", float(-index)))
    ]


async def test_whole_chunks_come_as_columns(network: str) -> None:
    async with (
        Subscriber(["web1.a"], network) as points,
        HandSource("source-web1", network, prefix="web1", chunk_size=4) as source,
    ):
        for index in range(4):
            source.tick(index, {"web1.a": float(index)})
        chunks: list[Chunk] = []
        async for chunk in points.chunks():
            chunks.append(chunk)
            break
    assert list(chunks[0].values) == [0.0, 1.0, 2.0, 3.0]
    assert chunks[0].metric == "web1.a"


async def test_metadata_of_the_metrics_known_at_the_start_is_there(quick_network: str) -> None:
    async with HandSource("source-web1", quick_network) as source:
        await source.declare_metrics({"web1.a": {"unit": "V"}})
        async with Subscriber(["web1.#"], quick_network) as points:
            assert points.metadata["web1.a"]["unit"] == "V"


async def test_leaving_the_loop_and_coming_back_loses_nothing(quick_network: str) -> None:
    async with (
        Subscriber(["web1.a"], quick_network) as points,
        HandSource("source-web1", quick_network, prefix="web1", chunk_size=2) as source,
    ):
        for index in range(10):
            source.tick(index, {"web1.a": float(index)})
            await asyncio.sleep(0)
        values = []
        for limit in (5, 10):
            async for _, _, value in points:
                values.append(value)
                if len(values) == limit:
                    break
        assert values == [float(index) for index in range(10)]


async def test_a_slow_program_is_waited_for_and_the_rest_stays_with_the_broker(
    network: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subscription_module, "MAX_BUFFERED_CHUNKS", 5)
    async with (
        Subscriber(["web1.a"], network) as points,
        HandSource("source-web1", network, prefix="web1") as source,
    ):
        for index in range(2000):
            source.tick(index, {"web1.a": float(index)})
            await asyncio.sleep(0)
        await source.drain()
        await until(lambda: len(points._chunks) == 5)
        assert len(points._intake._batch) <= points._prefetch
        values: list[float] = []
        async for chunk in points.chunks():
            assert len(points._chunks) <= 5
            values += chunk.values
            if len(values) == 2000:
                break
        assert values == [float(index) for index in range(2000)]


async def test_a_program_that_left_its_loop_does_not_hold_up_the_end(
    quick_network: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    # The end waited its full 5 s for somebody to take the points.
    monkeypatch.setattr(subscription_module, "MAX_BUFFERED_CHUNKS", 5)
    monkeypatch.setattr(agent_module, "WIND_DOWN_S", 3600)
    async with HandSource("source-web1", quick_network, prefix="web1") as source:
        subscriber = Subscriber(["web1.a"], quick_network)
        await subscriber.connect()
        for index in range(100):
            source.tick(index, {"web1.a": float(index)})
            await asyncio.sleep(0)
        await until(lambda: len(subscriber._chunks) == 5)
        async with asyncio.timeout(10):
            await subscriber.stop()
    assert "could not" not in caplog.text


async def test_the_loop_ends_with_the_subscriber_after_what_has_come(quick_network: str) -> None:
    async with HandSource("source-web1", quick_network, prefix="web1") as source:
        subscriber = Subscriber(["web1.a"], quick_network)
        await subscriber.connect()
        source.tick(0, {"web1.a": 1.0})
        await until(lambda: len(subscriber._chunks) == 1)
        await subscriber.stop()
        assert [value async for _, _, value in subscriber] == [1.0]


async def test_a_loop_that_waits_ends_when_somebody_stops_the_subscriber(quick_network: str) -> None:
    async with Subscriber(["web1.a"], quick_network) as points:
        asyncio.get_running_loop().call_later(0.05, lambda: points.start_task(points.stop(), name="stop"))
        async for _ in points:
            pytest.fail("there are no points")


async def test_the_loop_raises_what_made_the_subscriber_fail(quick_network: str) -> None:
    async def fail() -> None:
        raise OSError("broken")

    async def read() -> None:
        async with Subscriber(["web1.a"], quick_network) as points:
            asyncio.get_running_loop().call_soon(lambda: points.start_task(fail(), name="fail"))
            async for _ in points:
                pytest.fail("there are no points")

    with pytest.raises(OSError, match="broken"):
        await read()


async def test_a_subscriber_that_was_not_started_says_so() -> None:
    with pytest.raises(RuntimeError, match="was not started"):
        await anext(aiter(Subscriber(["web1.a"], "memory://")))


async def test_without_a_manager_it_says_what_to_do(memory_url: str) -> None:
    with pytest.raises(NotConnected, match="agent start manager"):
        async with Subscriber(["web1.a"], memory_url):
            pytest.fail("the body must not run")


async def test_its_queue_goes_when_the_program_has_been_gone_for_long_enough(any_url: str) -> None:
    async with Manager("manager", any_url), transport_at(any_url) as transport:
        async with Subscriber(["web1.a"], any_url, expires=Timedelta.from_s(0.3)) as points:
            queue = points._subscription["dataQueue"]
            await asyncio.sleep(0.6)
            await transport.bind(queue, "hostbus.data", "probe")  # in use, it does not expire

        async def is_gone() -> bool:
            try:
                await transport.bind(queue, "hostbus.data", "probe")
            except Refused as refused:
                return refused.code == 404
            return False

        await until(is_gone)


def test_nonsense_is_refused_when_it_is_made() -> None:
    with pytest.raises(ValueError, match="at least one metric or pattern"):
        Subscriber([], "memory://")
    with pytest.raises(TypeError, match="not one string"):
        Subscriber("web1.a", "memory://")
    with pytest.raises(ValueError, match="'web1 a' is not a metric name or pattern"):
        Subscriber(["web1 a"], "memory://")
    for expires in (0, -1, Timedelta.from_s(-1)):
        with pytest.raises(ValueError, match="expires must be more than 0 s"):
            Subscriber(["web1.a"], "memory://", expires=expires)
