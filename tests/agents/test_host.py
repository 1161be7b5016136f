# SPDX-License-Identifier: MIT
import asyncio
import os
import threading
from contextlib import AsyncExitStack

import pytest

from agents.base.worker import CallHung
from agents.cpu import CpuSource
from agents.disk import DiskSource
from agents.host import HostConfig, HostSource, Reading
from agents.load import LoadSource
from agents.memory import MemorySource
from agents.network import NetworkSource
from bus.config import AgentConfig, options
from bus.errors import ConfigError, RpcError
from bus.subscription import Subscriber
from bus.timestamp import Timedelta, Timestamp
from tests.agents.sampled import until
from tests.agents.toy import NeedySource, Sampled, ToySource, second
from tests.services.descriptors import open_descriptors


class StuckSource(ToySource):
    """Its `read` does not return until the test says so."""

    gate: threading.Event

    def read(self) -> Reading:
        self.gate.wait()
        return self.says


async def next_chunks(points: Subscriber, number: int) -> list[str]:
    """The names of the next metrics that arrive."""
    names: list[str] = []
    async with asyncio.timeout(20):
        async for chunk in points.chunks():
            names.append(chunk.metric)
            if len(names) >= number:
                break
    return names


# -- one update ----------------------------------------------------------------------------------------


async def test_an_update_samples_the_reading_under_full_names_at_the_tick(host, monkeypatch) -> None:
    source = host.source(ToySource)
    sampled = Sampled(source, monkeypatch)
    source.says = {"plain": 1.5, "a.level": 50.0}
    source.tick = Timestamp(7_000_000_000)
    await source.update()
    assert sampled.points == [(Timestamp(7_000_000_000), {"web1.toy.plain": 1.5, "web1.toy.a.level": 50.0})]


async def test_read_runs_in_a_thread_of_its_own(host, monkeypatch) -> None:
    source = host.source(ToySource)
    Sampled(source, monkeypatch)
    threads: list[threading.Thread] = []
    monkeypatch.setattr(source, "read", lambda: threads.append(threading.current_thread()) or {})
    await source.update()
    await source.update()
    assert threads[0] is threads[1]
    assert threads[0] is not threading.main_thread()
    await source.teardown()


async def test_what_read_raises_is_raised_by_update(host) -> None:
    source = host.source(CpuSource)
    (host.proc / "stat").unlink()
    with pytest.raises(FileNotFoundError):
        await source.update()
    await source.teardown()


async def test_a_reading_that_hangs_is_given_up_after_the_deadline(host, monkeypatch, gate) -> None:
    source = host.source(StuckSource, {"period": 0.01})
    monkeypatch.setattr("agents.host.SHORTEST_DEADLINE_S", 0.01)
    sampled = Sampled(source, monkeypatch)
    source.gate, source.says = gate, {"plain": 1.0}
    with pytest.raises(CallHung, match=r"source-toy: read did not answer within 0\.01 s"):
        await source.update()
    assert sampled.points == []
    assert source.vital_signs()["readsHung"] == 1
    gate.set()
    await source.update()
    assert len(sampled.points) == 1  # the late reading is not among them
    await source.teardown()


async def test_a_reading_does_not_begin_before_one_that_was_late_has_returned(host, monkeypatch, gate) -> None:
    monkeypatch.setattr("agents.host.SHORTEST_DEADLINE_S", 0.05)
    source = host.source(StuckSource, {"period": 0.01})
    sampled = Sampled(source, monkeypatch)
    source.gate, source.says = gate, {"plain": 1.0}
    inside: list[int] = []

    def read() -> Reading:
        inside.append(len(inside) + 1)
        gate.wait(20)
        inside.pop()
        return source.says

    monkeypatch.setattr(source, "read", read)
    for _ in range(3):
        with pytest.raises(CallHung):
            await source.update()
    assert inside == [1]
    gate.set()
    await until(lambda: source.worker.lost == 0)
    await source.update()
    assert len(sampled.points) == 1
    await source.teardown()


def test_the_deadline_follows_the_period(host) -> None:
    deadlines = [host.source(ToySource, {"period": period}).deadline_s for period in (0.1, 1.0, 10.0, 3600.0)]
    assert deadlines == [0.5, 0.9, 9.0, 30.0]


async def test_teardown_closes_the_files_and_ends_the_thread(host, monkeypatch) -> None:
    before = open_descriptors()
    source = host.source(LoadSource)
    Sampled(source, monkeypatch)
    await source.update()
    assert open_descriptors() > before
    await source.teardown()
    await source.teardown()
    assert open_descriptors() == before
    await until(lambda: not any(thread.name == "source-load: read" for thread in threading.enumerate()))


async def test_teardown_leaves_a_hung_reading_its_files(host, monkeypatch, gate) -> None:
    source = host.source(StuckSource)
    monkeypatch.setattr("agents.host.LONGEST_DEADLINE_S", 0.01)
    source.gate, source.says = gate, {}
    source.proc("stat")
    with pytest.raises(CallHung):
        await source.update()
    await source.teardown()
    assert len(source.files._fds) == 1
    source.files.close()


def test_a_part_that_is_dear_is_due_once_in_each_span(host) -> None:
    source = host.source(ToySource)
    due = []
    for at in (8, 9, 10, 11, 19, 20, 35):
        source.tick = second(at)
        due.append(source.due("dear", 10))
    assert due == [True, False, True, False, False, True, True]


async def test_a_family_that_waits_for_others_measures_in_the_loop_and_takes_what_came(host, monkeypatch) -> None:
    class Asking(ToySource):
        async def measure(self) -> None:
            self.take(self.tick, {"plain": float(threading.current_thread() is threading.main_thread())})
            self.take(second(0.5), {"a.level": 2.0})

    source = host.source(Asking)
    sampled = Sampled(source, monkeypatch)
    source.tick = second(1)
    await source.update()
    assert sampled.points == [(second(1), {"web1.toy.plain": 1.0}), (second(0.5), {"web1.toy.a.level": 2.0})]
    assert sampled.names == ["web1.toy.plain", "web1.toy.a.level"]
    assert source.worker.hung == 0


async def test_a_family_with_neither_read_nor_measure_says_so(memory_url: str) -> None:
    class Idle(HostSource):
        family = "idle"
        metrics = ()

    source = Idle("source-idle", memory_url)
    with pytest.raises(NotImplementedError, match="Idle has neither a read nor a measure of its own"):
        await source.update()
    await source.teardown()


# -- configuration -------------------------------------------------------------------------------------


def test_the_prefix_is_the_short_host_name_unless_it_is_set(host, monkeypatch) -> None:
    monkeypatch.setattr("agents.host.short_host_name", lambda: "thishost")
    assert host.source(ToySource, {"prefix": ""}).prefix == "thishost.toy"
    assert host.source(ToySource, {"prefix": "rack1.web1"}).prefix == "rack1.web1.toy"


def test_the_source_is_set_up_as_its_configuration_says(host) -> None:
    source = host.source(ToySource, {"period": 2.5, "chunk_size": 4, "max_delay": 1.5})
    assert (source.period, source.chunk_size) == (Timedelta.from_s(2.5), 4)
    assert source.max_delay == Timedelta.from_s(1.5)


def test_without_a_configuration_the_defaults_hold(memory_url: str) -> None:
    source = ToySource("source-toy", memory_url)
    assert (source.period, source.chunk_size, source.max_delay) == (Timedelta.from_s(10), 1, None)


@pytest.mark.parametrize(
    ("setting", "named"),
    [
        ({"period": 0}, "period"),
        ({"period": -1.0}, "period"),
        ({"period": float("nan")}, "period"),
        ({"period": "fast"}, "period"),
        ({"chunk_size": 0}, "chunk_size"),
        ({"max_delay": 0}, "max_delay"),
        ({"max_delay": float("inf")}, "max_delay"),
        ({"prefix": "a b"}, "a b"),
        ({"prefix": "web1."}, "web1."),
        ({"perriod": 1.0}, "did you mean 'period'"),
    ],
)
def test_a_wrong_setting_is_refused_by_name(setting: dict[str, object], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        HostConfig.load(setting)


@pytest.mark.parametrize("family", [CpuSource, MemorySource, DiskSource, NetworkSource, LoadSource])
def test_every_option_of_a_family_is_described(family) -> None:
    described = options(family.Config)
    assert {option.name for option in described} >= {"period", "chunk_size", "max_delay", "prefix"}
    assert [option.name for option in described if not option.description] == []


def test_a_configuration_of_another_agent_is_refused(memory_url: str) -> None:
    class Other(AgentConfig, frozen=True):
        pass

    with pytest.raises(TypeError, match="ToySource takes a HostConfig, not Other"):
        ToySource("source-toy", memory_url, config=Other())
    with pytest.raises(TypeError, match="DiskConfig"):
        DiskSource("source-disk", memory_url, config=HostConfig())


async def test_a_new_configuration_takes_effect_at_once(host, monkeypatch) -> None:
    source = host.source(ToySource)
    sampled = Sampled(source, monkeypatch)
    source.says = {"plain": 1.0}
    await source.update()
    await source.reconfigure(
        HostConfig.load({"prefix": "web1", "period": 0.5, "chunk_size": 3, "max_delay": 2.0}),
    )
    assert (source.period, source.chunk_size, source.max_delay) == (Timedelta.from_s(0.5), 3, Timedelta.from_s(2.0))
    assert source["web1.toy.plain"].chunk_size == 3
    assert sampled.declared[-1]["web1.toy.plain"]["interval"] == 0.5
    await source.teardown()


async def test_another_prefix_is_refused_and_the_old_configuration_stays(host) -> None:
    source = host.source(ToySource)
    with pytest.raises(ConfigError, match="prefix cannot change while source-toy runs"):
        await source.reconfigure(HostConfig.load({"prefix": "web2", "period": 0.5}))
    assert (source.prefix, source.period) == ("web1.toy", Timedelta.from_s(10))
    assert source.config.period == 10.0


async def test_a_source_that_lacks_something_does_not_start_and_says_what(host, network: str) -> None:
    assert host.source(ToySource).missing == ""
    source = host.source(NeedySource, url=network)
    assert source.missing == "no jobs; name them in jobs = [...]"
    with pytest.raises(ConfigError, match=r"source-toy: no jobs; name them in jobs = \[\.\.\.\]"):
        await source.connect()
    async with host.source(NeedySource, {"jobs": ["a"]}, url=network) as told:
        assert told.missing == ""


# -- on the bus ----------------------------------------------------------------------------------------


async def test_five_families_are_sampled_declared_and_carried(host, network: str) -> None:
    answer = os.statvfs_result((4096, 4096, 10, 5, 5, 10, 5, 5, 0, 255))
    families = (CpuSource, MemorySource, DiskSource, NetworkSource, LoadSource)
    async with AsyncExitStack() as stack:
        points = await stack.enter_async_context(Subscriber(["web1.#"], network))
        for family in families:
            extra = {"statvfs": lambda _: answer} if family is DiskSource else {}
            await stack.enter_async_context(host.source(family, {"period": 0.05}, url=network, **extra))
        seen: dict[str, set[int]] = {}
        async with asyncio.timeout(20):
            async for chunk in points.chunks():
                seen.setdefault(chunk.metric.split(".")[1], set()).update(chunk.times)
                if len(seen) == len(families) and min(map(len, seen.values())) >= 3:
                    break
        assert seen.keys() == {family.family for family in families}
        assert all(time % 50_000_000 == 0 for times in seen.values() for time in times)
        known: dict[str, dict[str, object]] = {}
        async with asyncio.timeout(20):  # metrics are declared while their points are on the way
            while len({name.split(".")[1] for name in known}) < len(families):
                known = await points.get_metrics("web1\\..*")
    assert known["web1.memory.swap.total"]["unit"] == "B"
    assert known["web1.cpu.core3.frequency"]["description"] == "clock of the core"
    assert known["web1.network.eth0.up"]["source"] == "source-network"
    assert known["web1.load.processes.total"]["interval"] == 10.0
    assert known["web1.disk.root.percent"]["interval"] == 0.05


async def test_of_points_that_are_too_old_the_others_are_kept(host, network: str, caplog) -> None:
    class Late(ToySource):
        async def measure(self) -> None:
            self.take(self.tick, {"plain": 1.0})
            self.take(self.tick, {"plain": 2.0, "a.level": 3.0})

    async with Subscriber(["web1.#"], network) as points, host.source(Late, {"period": 0.05}, url=network) as source:
        assert set(await next_chunks(points, 4)) == {"web1.toy.plain", "web1.toy.a.level"}
        await until(lambda: source.health.failed >= 2)
    assert "is not later than the last point" in caplog.text


async def test_a_device_that_appears_is_carried_without_a_restart(host, network: str) -> None:
    source = host.source(ToySource, {"period": 0.02}, url=network)
    source.says = {"a.level": 1.0}
    async with Subscriber(["web1.toy.#"], network) as points, source:
        assert await next_chunks(points, 2) == ["web1.toy.a.level"] * 2
        source.says = {"b.level": 1.0}
        async with asyncio.timeout(20):
            async for chunk in points.chunks():
                if chunk.metric == "web1.toy.b.level":
                    break


async def test_a_hung_reading_stalls_neither_the_other_agents_nor_the_stop(
    host, network: str, monkeypatch, caplog, gate
) -> None:
    monkeypatch.setattr("agents.host.SHORTEST_DEADLINE_S", 0.05)
    stuck = host.source(StuckSource, {"period": 0.02}, url=network)
    stuck.gate, stuck.says = gate, {"plain": 1.0}
    monkeypatch.setattr(ToySource, "family", "other")
    well = ToySource("source-other", network, config=HostConfig.load({"prefix": "web1", "period": 0.02}))
    well.says = {"plain": 1.0}
    async with Subscriber(["web1.#"], network) as points, stuck, well:
        await until(lambda: stuck.worker.hung >= 2)
        assert set(await next_chunks(points, 5)) == {"web1.other.plain"}
        await until(lambda: stuck.health.failed >= 8)
    assert stuck.worker.lost <= 4
    failures = [message for message in caplog.messages if "source-toy: update failed" in message]
    assert len(failures) == 1  # those that wait for it are late for the same reason


async def test_a_hung_file_system_does_not_keep_the_others_from_the_bus(host, network: str, gate) -> None:
    answer = os.statvfs_result((4096, 4096, 10, 5, 5, 10, 5, 5, 0, 255))

    def statvfs(point: str) -> os.statvfs_result:
        if point == "/home":
            gate.wait()
        return answer

    source = host.source(DiskSource, {"period": 0.1}, url=network, statvfs=statvfs)
    async with Subscriber(["web1.disk.*.responds", "web1.disk.*.total"], network) as points, source:
        newest: dict[str, float] = {}
        async with asyncio.timeout(20):
            async for metric, _, value in points:
                newest[metric] = value
                if newest.get("web1.disk.home.responds") == 0 and "web1.disk.tmp.total" in newest:
                    break
            assert "web1.disk.home.total" not in newest
            gate.set()
            async for metric, _, value in points:
                newest[metric] = value
                if metric == "web1.disk.home.total":
                    break
    assert newest["web1.disk.home.responds"] == 1.0


async def test_a_pushed_configuration_is_put_in_force_or_refused(host, network: str) -> None:
    source = host.source(ToySource, {"period": 60.0}, url=network)
    source.says = {"plain": 1.0}
    async with Subscriber(["web1.toy.#"], network) as points, source:
        await points.rpc("config.set", token="source-toy", config={"period": 0.02})
        assert await next_chunks(points, 2) == ["web1.toy.plain"] * 2
        with pytest.raises(RpcError, match="period"):
            await points.rpc("config.set", token="source-toy", config={"period": -1})
        assert source.config.period == 0.02
