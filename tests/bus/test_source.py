# SPDX-License-Identifier: MIT
"""Sources on a whole bus: chunks, declaring, life and end, and the ways that a bus goes away."""

import asyncio
import inspect
import logging
import math
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import numpy as np
import pytest

import bus.outbox
import bus.source
import bus.source_task
from bus.buffers import Buffers
from bus.client import Client
from bus.errors import ConfigError, HostbusError, PublishFailed, RpcError
from bus.interval import IntervalSource
from bus.manager import Manager, ManagerConfig
from bus.rpc import rpc_handler
from bus.source import Source
from bus.synchronous import SynchronousSource
from bus.timestamp import Timedelta, Timestamp
from bus.transport.memory_broker import broker_named
from tests.bus.transport.relay import Relay
from tests.services.wiretap import wiretap

S = 1_000_000_000
NOW = 1_790_000_000 * S
METRICS = [f"web1.cpu.core{core}.usage" for core in range(200)]


class Lab(Source):
    """A source that is used from outside."""

    async def task(self) -> None:
        await self.task_stop_future


def at(second: float) -> Timestamp:
    return Timestamp(NOW + round(second * S))


async def turns(count: int = 20) -> None:
    """Let everything that is ready run."""
    for _ in range(count):
        await asyncio.sleep(0)


async def until(condition, timeout_s: float = 30) -> None:
    async with asyncio.timeout(timeout_s):
        while not condition():
            await asyncio.sleep(0.005)


@asynccontextmanager
async def broker_away(url: str) -> AsyncIterator[None]:
    broker = broker_named(url.removeprefix("memory://"))
    broker.stop()
    try:
        yield
    finally:
        broker.start()


# -- chunks and frames -------------------------------------------------------------------------------------


async def test_a_point_is_sent_at_once_by_default(manager, tap, memory_url):
    async with Lab("source-lab", memory_url) as source:
        await source.send("lab.voltage", at(0), 5)
        await tap.until_points(1)
    assert tap.points == {"lab.voltage": [(NOW, 5.0)]}
    (frame,) = tap.frames
    assert (frame.source, frame.key, frame.sequence) == ("source-lab", "lab", 0)
    assert frame.epoch == source.started.posix_ns


@pytest.mark.parametrize("way", ["sample", "send"])
async def test_a_tick_of_200_metrics_is_one_frame(manager, tap, memory_url, way):
    async with Lab("source-lab", memory_url, prefix="web1.cpu") as source:
        for tick in range(3):
            if way == "sample":
                source.sample(at(tick), dict.fromkeys(METRICS, float(tick)))
            else:
                for metric in METRICS:
                    await source.send(metric, at(tick), float(tick))
            await tap.until_points(200 * (tick + 1))
    assert [frame.points for frame in tap.frames] == [200, 200, 200]
    assert [len(frame.groups) for frame in tap.frames] == [1, 1, 1]
    assert [frame.sequence for frame in tap.frames] == [0, 1, 2]
    assert {frame.key for frame in tap.frames} == {"web1.cpu"}


async def test_a_chunk_is_sent_when_it_is_full(manager, tap, memory_url):
    async with Lab("source-lab", memory_url, chunk_size=3) as source:
        source["lab.quick"].chunk_size = 1
        for second in range(3):
            assert [frame.points for frame in tap.frames] == [1] * second
            await source.send("lab.slow", at(second), 0.0)
            await source.send("lab.quick", at(second), 0.0)
            await tap.until_points(second + 1)
        await tap.until_points(6)
    assert [frame.points for frame in tap.frames] == [1, 1, 4]


async def test_without_a_chunk_size_only_flush_sends(manager, tap, memory_url):
    async with Lab("source-lab", memory_url, chunk_size=None) as source:
        for second in range(100):
            await source.send("lab.voltage", at(second), 0.0)
        await turns()
        assert not tap.frames
        await source.flush()
        await tap.until_points(100)
        assert len(tap.frames) == 1
        await source.flush()  # nothing there: nothing is sent
        await turns()
        assert len(tap.frames) == 1


async def test_what_is_buffered_is_sent_at_the_end(manager, tap, memory_url):
    async with Lab("source-lab", memory_url, chunk_size=None) as source:
        await source.send("lab.voltage", at(0), 1.0)
    await tap.until_points(1)


async def test_chunk_size_is_an_attribute_as_the_reference_says(manager, memory_url):
    source = Lab("source-lab", memory_url)
    assert source.chunk_size == 1
    source.chunk_size = 10
    source["example.metric"].chunk_size = 42
    assert (source.chunk_size, source["example.metric"].chunk_size, source["other.metric"].chunk_size) == (10, 42, 10)
    source.chunk_size = None
    assert (source.chunk_size, source["example.metric"].chunk_size, source["other.metric"].chunk_size) == (
        None,
        42,
        None,
    )
    with pytest.raises(TypeError):
        source.chunk_size = 1.5  # type: ignore[assignment]
    with pytest.raises(ValueError):
        source.chunk_size = 0
    with pytest.raises(ValueError, match="not a metric name"):
        source["no metric"]
    with pytest.raises(ValueError):
        Lab("source-lab", memory_url, chunk_size=-1)
    assert source.chunk_size is None


async def test_a_chunk_size_set_after_declaring_holds_for_what_was_declared(manager, tap, memory_url):
    async with Lab("source-lab", memory_url) as source:
        await source.declare_metrics(["lab.voltage"])
        source.chunk_size = 2
        await source.send("lab.voltage", at(0), 0.0)
        await turns()
        assert not tap.frames
        await source.send("lab.voltage", at(1), 0.0)
        await tap.until_points(2)


@pytest.mark.parametrize("max_delay", [0.05, Timedelta.from_ms(50)])
async def test_a_chunk_that_does_not_fill_is_sent_after_max_delay(manager, tap, memory_url, max_delay):
    async with Lab("source-lab", memory_url, chunk_size=1000, max_delay=max_delay) as source:
        assert source.max_delay == Timedelta.from_ms(50)
        source["lab.manual"].chunk_size = None
        source.sample(at(0), {"lab.voltage": 1.0, "lab.manual": 2.0})
        source.send_many("lab.current", [NOW, NOW + 1], [1.0, 2.0])
        await tap.until_points(3)
        assert "lab.manual" not in tap.points
        assert len(tap.frames) == 1
        await source.send("lab.voltage", at(1), 1.0)  # and the next one, too
        await tap.until_points(4)


@pytest.mark.parametrize("max_delay", [0, -1, math.nan, math.inf])
def test_max_delay_is_more_than_nothing(memory_url, max_delay):
    with pytest.raises(ValueError, match="max_delay must be more than 0"):
        Lab("source-lab", memory_url, max_delay=max_delay)


async def test_arrays_of_points_arrive_whole(manager, tap, memory_url):
    times = NOW + np.arange(300_000) * 1000
    values = np.sin(times / 1e9)
    async with Lab("source-lab", memory_url) as source:
        source.send_many("lab.wave", times, values)
        await source.drain()
        await tap.until_points(300_000)
    assert len(tap.frames) == 2  # 4.8 MB are too much for one message
    assert tap.points["lab.wave"] == list(zip(times.tolist(), values.tolist(), strict=True))


async def test_a_refused_point_harms_no_other(manager, tap, memory_url):
    async with Lab("source-lab", memory_url) as source:
        await source.send("lab.x", at(1), 1.0)
        with pytest.raises(ValueError, match=r"lab\.x"):
            await source.send("lab.x", at(1), 2.0)
        with pytest.raises(ValueError, match=r"lab\.x"):
            source.sample(at(1), {"lab.x": 2.0, "lab.y": math.nan})
        with pytest.raises(TypeError, match=r"lab\.x"):
            await source.send("lab.x", at(2), "2")  # type: ignore[arg-type]
        await source.drain()
        await tap.until_points(2)
    assert tap.points["lab.x"] == [(NOW + S, 1.0)]
    ((time, value),) = tap.points["lab.y"]
    assert time == NOW + S
    assert math.isnan(value)


async def test_send_lets_others_run(manager, memory_url):
    async with Lab("source-lab", memory_url) as source:
        others = 0

        async def other() -> None:
            nonlocal others
            while True:
                others += 1
                await asyncio.sleep(0)

        task = asyncio.create_task(other())
        for number in range(10 * bus.source.YIELD_EVERY_POINTS):
            await source.send("lab.voltage", Timestamp(NOW + number), 0.0)
        task.cancel()
        assert others >= 10


async def test_a_loop_that_samples_without_waiting_stays_within_bounds(manager, tap, memory_url):
    async with Lab("source-lab", memory_url, buffer_limit=1000) as source:
        most = 0
        for number in range(10_000):
            source.sample(Timestamp(NOW + number), {"lab.x": 0.0, "lab.y": 0.0})
            most = max(most, source.vital_signs()["pointsBuffered"])
        assert most <= 2010
        await source.drain()
        confirmed = source.vital_signs()["pointsConfirmed"]
        assert confirmed + source.vital_signs()["pointsDropped"] == 20_000
        await tap.until_points(confirmed)
    newest = tap.points["lab.x"][-1][0]
    assert newest == NOW + 9_999


async def test_a_point_refused_for_want_of_a_loop_does_not_stop_the_later_ones(manager, tap, memory_url):
    source = Lab("source-lab", memory_url)
    with pytest.raises(RuntimeError, match="no running event loop"):
        await asyncio.to_thread(source.sample, at(0), {"lab.voltage": 1.0})
    async with source:
        await source.send("lab.voltage", at(1), 2.0)
        await tap.until_points(2)
    assert tap.points == {"lab.voltage": [(NOW, 1.0), (NOW + S, 2.0)]}


# -- a bus that goes away ----------------------------------------------------------------------------------


async def test_points_sent_while_the_broker_is_away_arrive_when_it_is_back_once_and_in_order(manager, tap, memory_url):
    async with Lab("source-lab", memory_url) as source:
        await source.send("lab.voltage", at(0), 0.0)
        await source.drain()
        async with broker_away(memory_url):
            for second in range(1, 50):
                await source.send("lab.voltage", at(second), float(second))
                await asyncio.sleep(0)
            assert source.vital_signs()["pointsBuffered"] == 49
        await tap.until_points(50)
        await source.drain()
        assert source.vital_signs()["pointsBuffered"] == 0
    assert tap.points["lab.voltage"] == [(NOW + second * S, float(second)) for second in range(50)]
    assert [frame.sequence for frame in tap.frames] == list(range(50))


async def test_past_buffer_limit_the_oldest_points_are_dropped_and_counted(manager, tap, memory_url, caplog):
    async with Lab("source-lab", memory_url, buffer_limit=10) as source:
        async with broker_away(memory_url):
            for second in range(30):
                await source.send("lab.voltage", at(second), 0.0)
                await asyncio.sleep(0)
            assert source.vital_signs()["pointsBuffered"] == 10
            assert source.vital_signs()["pointsDropped"] == 20
        await tap.until_points(10)
        await source.drain()
    assert [time for time, _ in tap.points["lab.voltage"]] == [NOW + second * S for second in range(20, 30)]
    assert "source-lab: the buffer is full at 10 points" in caplog.text
    # The sinks see by the numbers that something is missing.
    assert [frame.sequence for frame in tap.frames] == list(range(20, 30))


async def test_a_lost_connection_in_mid_publish_loses_and_reorders_nothing(manager, tap, memory_url):
    async with Lab("source-lab", memory_url) as source:
        for second in range(400):
            await source.send("lab.voltage", at(second), 0.0)
            if second % 7 == 0:
                await asyncio.sleep(0)
            if second % 50 == 49:
                source.transport.drop_connections()  # type: ignore[attr-defined]
        await source.drain()
        await tap.until(lambda tap: len(set(tap.points["lab.voltage"])) == 400)
    seen = dict.fromkeys(time for time, _ in tap.points["lab.voltage"])
    assert list(seen) == [NOW + second * S for second in range(400)]


async def test_over_rabbitmq_a_network_that_is_cut_again_and_again_loses_and_reorders_nothing(amqp_url):
    async with Relay(amqp_url) as relay, Manager("manager", amqp_url), wiretap(amqp_url) as tap:
        async with Lab("source-lab", relay.url) as source:
            for second in range(3000):
                await source.send("lab.voltage", at(second), float(second))
                if second % 3 == 0:
                    await asyncio.sleep(0.0005)
                if second % 1000 == 500:
                    relay.cut()
            await source.drain()
            await tap.until(lambda tap: len(set(tap.points["lab.voltage"])) == 3000)
        assert relay.accepted > 2  # it did reconnect
    seen = dict.fromkeys(tap.points["lab.voltage"])
    assert list(seen) == [(NOW + second * S, float(second)) for second in range(3000)]


async def test_metrics_are_declared_again_after_a_reconnect(memory_url):
    forgetful = ManagerConfig(store=":memory:")
    async with Manager("manager", memory_url, config=forgetful) as first, Lab("source-lab", memory_url) as source:
        await source.declare_metrics({"lab.voltage": {"unit": "V"}})
        source.declare_metrics_nowait({"lab.current": {"unit": "A"}})
        await until(lambda: "lab.current" in first._registry.metrics)
        await until(lambda: len(source._declared) == 2)  # it has the manager's answer
        await first.stop()
        async with Manager("manager", memory_url, config=forgetful) as second:
            assert not second._registry.metrics
            source.transport.drop_connections()  # type: ignore[attr-defined]
            await until(lambda: len(second._registry.metrics) == 2)
            assert second._registry.metrics["lab.voltage"].metadata["unit"] == "V"


async def test_drain_says_what_is_not_confirmed(manager, memory_url):
    async with Lab("source-lab", memory_url) as source:
        async with broker_away(memory_url):
            await source.send("lab.voltage", at(0), 0.0)
            with pytest.raises(PublishFailed, match=r"source-lab: 1 points are not confirmed after 0.05 s: .*stopped"):
                await source.drain(timeout=0.05)
        await source.drain()


async def test_points_that_are_not_confirmed_at_the_end_are_counted_and_logged(
    manager, memory_url, monkeypatch, caplog
):
    monkeypatch.setattr("bus.agent.WIND_DOWN_S", 0.1)
    source = Lab("source-lab", memory_url)
    async with broker_away_after(source, memory_url):
        await source.send("lab.voltage", at(0), 0.0)
        await source.stop()
    assert "source-lab: 1 points were not confirmed and are lost" in caplog.text


@asynccontextmanager
async def broker_away_after(source: Source, url: str) -> AsyncIterator[None]:
    await source.connect()
    async with broker_away(url):
        yield


# -- before the manager answers ----------------------------------------------------------------------------


@pytest.mark.parametrize("wire", ["frame", "metricq"])
async def test_points_sent_before_the_manager_answers_go_in_the_way_that_it_says(memory_url, tap, wire):
    source = Lab("source-lab", memory_url)
    await source.send("lab.voltage", at(0), 0.0)
    await turns()
    source.sample(at(1), {"lab.voltage": 1.0, "lab.current": 2.0})
    connecting = asyncio.create_task(source.connect())
    await turns()
    async with Manager("manager", memory_url, config=ManagerConfig(wire=wire)):
        await connecting
        await source.send("lab.voltage", at(2), 2.0)
        await tap.until_points(4)
        await source.stop()
    assert tap.points == {
        "lab.voltage": [(NOW, 0.0), (NOW + S, 1.0), (NOW + 2 * S, 2.0)],
        "lab.current": [(NOW + S, 2.0)],
    }
    assert tap.exchanges == {"hostbus.data" if wire == "frame" else "metricq.data"}


async def test_a_source_may_choose_metricqs_wire_for_itself(manager, tap, memory_url):
    async with Lab("source-lab", memory_url, wire="metricq") as source:
        source.sample(at(0), {"lab.voltage": 1.0, "lab.current": 2.0})
        await tap.until_points(2)
    assert tap.exchanges == {"metricq.data"}
    assert [(frame.key, frame.sequence) for frame in tap.frames] == [("lab.voltage", None), ("lab.current", None)]


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"wire": "frames"}, "wire must be 'auto' or 'metricq', not 'frames'"),
        ({"buffer_limit": 0}, "buffer_limit must be at least 1"),
        ({"prefix": "web1.#"}, "not a metric name"),
    ],
)
def test_options_that_make_no_sense_are_refused(memory_url, options, complaint):
    with pytest.raises(ValueError, match=complaint):
        Lab("source-lab", memory_url, **options)


# -- declaring ---------------------------------------------------------------------------------------------


async def test_metadata_arrive_at_the_manager(manager, memory_url):
    async with Lab("source-lab", memory_url, chunk_size=10) as source:
        about = {"description": "of the lab", "unit": "C", "rate": 1.5, "some_arbitrary_metadata": {"foo": ["bar"]}}
        await source.declare_metrics({"lab.temperature": about})
        await source.declare_metrics(["lab.plain", "lab.other"])
        await source.declare_metrics(name for name in ("lab.generated",))
        metrics = await source.get_metrics()
    assert metrics["lab.temperature"] == {**about, "chunkSize": 10, "source": "source-lab"}
    assert metrics["lab.plain"] == {"chunkSize": 10, "source": "source-lab"}
    assert sorted(metrics) == ["lab.generated", "lab.other", "lab.plain", "lab.temperature"]


@pytest.mark.parametrize(
    ("metrics", "error", "complaint"),
    [
        ("lab.voltage", TypeError, "a list of names, not the name 'lab.voltage' alone"),
        ({"lab.voltage": None}, TypeError, r"lab\.voltage: the metadata must be a mapping, not NoneType"),
        ({"lab.voltage": "V"}, TypeError, r"lab\.voltage: the metadata must be a mapping, not str"),
        (["lab voltage"], ValueError, "'lab voltage' is not a metric name"),
    ],
)
async def test_what_cannot_be_declared_is_refused_here(manager, memory_url, metrics, error, complaint):
    async with Lab("source-lab", memory_url) as source:
        with pytest.raises(error, match=complaint):
            await source.declare_metrics(metrics)
        with pytest.raises(error, match=complaint):
            source.declare_metrics_nowait(metrics)
        assert await source.get_metrics() == {}


async def test_a_metric_of_another_living_source_is_refused_by_name(manager, memory_url):
    async with Lab("source-one", memory_url) as one, Lab("source-two", memory_url) as two:
        await one.declare_metrics(["lab.voltage"])
        with pytest.raises(RpcError, match=r"'lab\.voltage' belongs to 'source-one', which is alive"):
            await two.declare_metrics(["lab.voltage"])
        # The one that was refused goes on.
        await two.declare_metrics(["lab.current"])


async def test_declaring_without_waiting_that_is_refused_ends_the_source_with_the_reason(manager, memory_url):
    async with Lab("source-one", memory_url) as one:
        await one.declare_metrics(["lab.voltage"])
        two = Lab("source-two", memory_url)
        await two.connect()
        two.declare_metrics_nowait(["lab.voltage"])
        with pytest.raises(RpcError, match="belongs to 'source-one'"):
            await two.stopped()


async def test_metrics_declared_before_the_connection_are_declared_when_it_is_there(manager, memory_url):
    source = Lab("source-lab", memory_url)
    source.declare_metrics_nowait(["lab.x"])
    source.declare_metrics_nowait({"lab.y": {"unit": "V"}})
    async with source:
        await until(lambda: len(manager._registry.metrics) == 2)


# -- task --------------------------------------------------------------------------------------------------


class Recorder(Source):
    """Writes down in which order things happen."""

    def __init__(self, url: str) -> None:
        super().__init__("source-lab", url)
        self.events: list[str] = []

    @rpc_handler("config")
    async def on_config(self, **config: object) -> None:
        self.events.append(f"config {config}")
        await self.declare_metrics({"lab.voltage": {"rate": config.get("rate", 0)}})
        self.events.append("declared")

    async def task(self) -> None:
        self.events.append("task")
        await self.task_stop_future
        await self.send("lab.voltage", at(0), 0.0)
        self.events.append("task ends")


async def test_the_task_begins_after_the_configuration_and_its_last_points_are_sent(manager, tap, memory_url):
    async with Client("tool", memory_url) as tool:
        await tool.rpc("config.set", token="source-lab", config={"rate": 7})
    async with Recorder(memory_url) as source:
        assert source.events == ["config {'rate': 7}", "declared", "task"]
    assert source.events[3:] == ["task ends"]
    await tap.until_points(1)
    assert manager._registry.metrics["lab.voltage"].metadata["rate"] == 7


class Stubborn(Source):
    """Its task does not end by itself; it sends while it is being stopped."""

    def __init__(self, url: str) -> None:
        super().__init__("source-lab", url)
        self.cancelled = False

    async def task(self) -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.cancelled = True
            await self.send("lab.last", at(0), 0.0)
            raise


async def test_a_task_that_does_not_end_is_cancelled_and_its_last_points_are_sent(
    manager, tap, memory_url, monkeypatch, caplog
):
    monkeypatch.setattr(bus.source_task, "TASK_END_S", 0.05)
    async with Stubborn(memory_url) as source:
        pass
    assert source.cancelled
    await tap.until_points(1)
    assert "task() did not end within 0.05 s of its stop: cancelled" in caplog.text


class Deaf(Source):
    """Its task does not even let itself be cancelled at first."""

    async def task(self) -> None:
        while not self._ending:
            try:
                await asyncio.sleep(0.01)
            except asyncio.CancelledError:
                if self._ending:
                    raise


async def test_a_task_that_cannot_be_cancelled_does_not_keep_the_points(manager, tap, memory_url, monkeypatch, caplog):
    monkeypatch.setattr(bus.source_task, "TASK_END_S", 0.05)
    monkeypatch.setattr(bus.source_task, "CANCEL_S", 0.05)
    async with Deaf("source-lab", memory_url, chunk_size=None) as source:
        await source.send("lab.voltage", at(0), 0.0)
    await tap.until_points(1)
    assert "task() does not let itself be cancelled" in caplog.text


async def test_a_task_that_fails_sends_what_is_buffered_and_ends_the_source_with_its_error(manager, tap, memory_url):
    class Broken(Source):
        async def task(self) -> None:
            await self.send("lab.voltage", at(0), 0.0)
            raise ZeroDivisionError("the task is broken")

    source = Broken("source-lab", memory_url, chunk_size=None)
    await source.connect()
    with pytest.raises(ZeroDivisionError, match="the task is broken"):
        await source.stopped()
    await tap.until_points(1)


async def test_a_task_whose_own_time_out_expires_fails_like_any_other(manager, memory_url):
    class Late(Source):
        async def task(self) -> None:
            async with asyncio.timeout(0.01):
                await asyncio.Event().wait()

    source = Late("source-lab", memory_url)
    await source.connect()
    with pytest.raises(TimeoutError):
        await source.stopped()


async def test_a_task_that_returns_leaves_the_source_alive(manager, tap, memory_url):
    class Done(Source):
        async def task(self) -> None:
            return

    async with Done("source-lab", memory_url) as source:
        await turns()
        await source.send("lab.voltage", at(0), 0.0)
        await tap.until_points(1)


async def test_wait_for_on_the_stop_future_does_not_break_the_stop(manager, tap, memory_url):
    class Waiting(Source):
        async def task(self) -> None:
            try:
                await asyncio.wait_for(self.task_stop_future, 0.01)  # which cancels it
            except TimeoutError:
                await self.send("lab.voltage", at(0), 0.0)

    async with Waiting("source-lab", memory_url) as source:
        await tap.until_points(1)
        await source.send("lab.voltage", at(1), 0.0)
    await tap.until_points(2)


async def test_a_task_may_stop_its_own_source(manager, tap, memory_url):
    class Short(Source):
        async def task(self) -> None:
            await self.send("lab.voltage", at(0), 0.0)
            await self.stop()

    source = Short("source-lab", memory_url, chunk_size=None)
    await source.connect()
    async with asyncio.timeout(20):
        await source.stopped()
    await tap.until_points(1)


async def test_the_vital_signs_of_a_source_are_in_its_answer_to_discover(manager, memory_url):
    async with Lab("source-lab", memory_url) as source, Client("tool", memory_url) as tool:
        await source.send("lab.voltage", at(0), 0.0)
        await source.drain()
        source.chunk_size = None
        await source.send("lab.voltage", at(1), 0.0)
        answers = await tool.discover(until=lambda answers: "source-lab" in answers)
    assert answers["source-lab"]["type"] == "Lab"
    assert answers["source-lab"]["pointsConfirmed"] == 1
    assert answers["source-lab"]["pointsBuffered"] == 1
    assert answers["source-lab"]["pointsDropped"] == 0


# -- the reference -----------------------------------------------------------------------------------------

EMPTY = inspect.Parameter.empty


@pytest.mark.parametrize(
    ("method", "parameters"),
    [
        (Source.declare_metrics, {"metrics": EMPTY}),
        (Source.flush, {}),
        (Source.send, {"metric": EMPTY, "time": EMPTY, "value": EMPTY}),
        (Source.task, {}),
        (Source.teardown, {}),
        (IntervalSource.update, {}),
        (SynchronousSource.declare_metrics, {"metrics": EMPTY, "block": True, "timeout": 60}),
        (SynchronousSource.send, {"metric": EMPTY, "time": EMPTY, "value": EMPTY, "block": True, "timeout": 60}),
        (SynchronousSource.stop, {"timeout": 60}),
    ],
    ids=lambda item: getattr(item, "__qualname__", ""),
)
def test_methods_have_the_parameters_and_defaults_of_metricqs_reference(method, parameters):
    own = dict(list(inspect.signature(method).parameters.items())[1:])
    assert {name: parameter.default for name, parameter in own.items()} == parameters
    assert inspect.iscoroutinefunction(method) == (not method.__qualname__.startswith("Synchronous"))


def test_the_classes_of_the_reference_are_what_it_says():
    assert inspect.isabstract(Source)
    assert Source.__abstractmethods__ == {"task"}
    assert IntervalSource.__abstractmethods__ == {"update"}
    assert issubclass(IntervalSource, Source)
    assert not issubclass(SynchronousSource, Source)
    assert isinstance(Source.chunk_size, property)
    assert isinstance(IntervalSource.period, property)
    assert inspect.signature(IntervalSource).parameters["period"].default is None
    assert issubclass(PublishFailed, HostbusError)
    assert not issubclass(ConfigError, ValueError)


def test_a_source_without_a_task_cannot_be_made(memory_url):
    with pytest.raises(TypeError, match="abstract"):
        Source("source-lab", memory_url)  # type: ignore[abstract]


HEAVY = (
    "aio_pika",
    "aiormq",
    "aiosqlite",
    "rich",
    "typer",
    "numpy",
    "google.protobuf",
    "hypothesis",
    "uvloop",
    "psutil",
)


@pytest.mark.parametrize("module", ["bus.source", "bus.interval", "bus.synchronous"])
def test_importing_a_source_loads_nothing_heavy(module):
    code = f"import {module}, sys; print([name for name in {HEAVY!r} if name in sys.modules])"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"


def test_the_defaults_are_the_documented_ones(memory_url):
    source = Lab("source-lab", memory_url)
    assert source.chunk_size == 1
    assert source.max_delay is None
    assert isinstance(source._buffers, Buffers)
    assert bus.outbox.DEFAULT_LIMIT_POINTS == 1_000_000


def test_buffered_points_of_a_source_that_never_ran_harm_nobody(memory_url, caplog):
    async def run() -> None:
        source = Lab("source-lab", memory_url)
        await source.send("lab.voltage", at(0), 0.0)
        await asyncio.sleep(0)

    asyncio.run(run())
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]
