# SPDX-License-Identifier: MIT
"""How a family ends while it waits, and which configurations it does not take."""

import asyncio
import logging
import threading

import pytest

import bus.source_task
from agents.host import Reading
from bus.client import Client
from bus.errors import ConfigError, RpcError
from bus.manager import Manager
from bus.subscription import Subscriber
from tests.agents.toy import NeedyConfig, NeedySource, ToySource
from tests.bus.support import until


class WaitingSource(ToySource):
    """Takes one point, then waits for a server that never answers."""

    is_asking = False
    was_cancelled = False

    async def measure(self) -> None:
        self.take(self.tick, {"plain": 1.0})
        self.is_asking = True
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.was_cancelled = True
            raise


async def test_a_stop_while_a_family_waits_gives_the_tick_up_at_once_and_in_silence(
    host, memory_url: str, monkeypatch, caplog
) -> None:
    monkeypatch.setattr(bus.source_task, "TASK_END_S", 3600.0)  # of which nothing may be needed
    caplog.set_level(logging.INFO)
    async with Manager("manager", memory_url), Subscriber(["web1.#"], memory_url) as points:
        async with host.source(WaitingSource, {"period": 0.05, "chunk_size": 10}, url=memory_url) as source:
            await until(lambda: source.is_asking)
            caplog.clear()
        async with asyncio.timeout(20):
            async for metric, _, _ in points:
                assert metric == "web1.toy.plain"  # what was taken before is sent
                break
    assert source.was_cancelled
    assert source.health.failed == 0
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


async def test_a_stop_while_a_reading_hangs_gives_the_call_up(host, memory_url: str, monkeypatch, caplog) -> None:
    monkeypatch.setattr(bus.source_task, "TASK_END_S", 3600.0)
    gate, began = threading.Event(), threading.Event()

    class Hanging(ToySource):
        def read(self) -> Reading:
            began.set()
            gate.wait()
            return {}

    try:
        async with Manager("manager", memory_url):
            async with host.source(Hanging, {"period": 0.05, "prefix": "web1"}, url=memory_url) as source:
                await until(began.is_set)
            assert (source.worker.lost, source.worker.hung, source.health.failed) == (1, 0, 0)
            assert caplog.messages == []
    finally:
        gate.set()


async def test_a_configuration_that_leaves_nothing_to_do_is_refused_and_the_old_one_stays(
    host, memory_url: str
) -> None:
    async with (
        Manager("manager", memory_url),
        Client("tool", memory_url) as tool,
        host.source(NeedySource, {"jobs": ["a"]}, url=memory_url) as source,
    ):
        with pytest.raises(ConfigError, match=r"^source-toy: no jobs; name them in jobs = \[\.\.\.\]$"):
            await source.reload(NeedyConfig(prefix="web1", period=5.0))
        with pytest.raises(RpcError, match="no jobs"):
            await tool.rpc("config.set", token="source-toy", config={"jobs": []})
        assert (source.config.jobs, source.period.s) == (["a"], 10.0)
        await source.reload(NeedyConfig(prefix="web1", jobs=["b"]))
        assert source.config.jobs == ["b"]


async def test_a_family_that_was_given_otherwise_what_its_configuration_lacks_may_be_reconfigured(host) -> None:
    class Given(NeedySource):
        missing = ""

    source = host.source(Given)
    await source.reconfigure(NeedyConfig(prefix="web1", period=2.0))
    assert source.period.s == 2.0
