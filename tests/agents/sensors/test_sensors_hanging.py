# SPDX-License-Identifier: MIT
"""Sensors whose drivers block: they cost only themselves."""

import asyncio
import threading
import time
from collections.abc import Iterator

import pytest

from agents.base.devices import Globs
from agents.base.worker import CallHung
from agents.sensors.source import SensorsSource
from tests.agents.sensors.desktop import Desktop, Files, furnish


@pytest.fixture
def desktop(host) -> Desktop:
    return furnish(Desktop(host.sys))


@pytest.fixture
def bare(host) -> Desktop:
    return Desktop(host.sys)


@pytest.fixture
def files() -> Iterator[Files]:
    made = Files()
    yield made
    for gate in made.hanging.values():
        gate.set()


def words_of(reading: dict[str, float]) -> set[str]:
    return {name.split(".")[0] for name in reading}


def test_a_chip_that_hangs_is_left_alone_and_the_others_go_on(host, desktop, files, caplog) -> None:
    gate = files.hanging["fan2_input"] = threading.Event()
    source = host.source(SensorsSource, {"period": 3.0}, read=files)
    for _ in range(3):
        reading = host.read(source)
        assert "nct6775" not in words_of(reading)
        assert {"coretemp", "bat0", "rapl"} <= words_of(reading)
    assert len([path for path in files.read if path.endswith("fan2_input")]) == 1
    assert len([line for line in caplog.messages if "device nct6775 failed" in line]) == 1
    assert list(source.parts.causes) == ["device nct6775"]
    gate.set()
    deadline = time.monotonic() + 20
    while "nct6775" not in words_of(host.read(source)):
        assert time.monotonic() < deadline
    host.read(source, after_s=61.0)
    host.read(source)
    assert source.parts.causes == {}


def test_what_a_slow_device_says_late_counts_with_the_next_reading(host, bare, files) -> None:
    gate = files.hanging["thermal_zone0/temp"] = threading.Event()
    bare.zone(0, "slow", "20000")
    source = host.source(SensorsSource, {"period": 3.0}, read=files)
    assert host.read(source) == {}
    _let_go(source, gate)
    gate.clear()
    assert host.read(source) == {"slow.temperature": 20.0}  # asked again, and late again
    assert host.read(source, after_s=11.0) == {}
    _let_go(source, gate)
    gate.clear()
    assert host.read(source, after_s=11.0) == {}  # asked 22 s ago


def _let_go(source: SensorsSource, gate: threading.Event) -> None:
    """Wait until nothing hangs any more."""
    gate.set()
    deadline = time.monotonic() + 20
    while source._isolator.hung():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def test_a_device_that_was_late_is_asked_last(host, bare, files) -> None:
    for number in range(2):
        bare.zone(number, f"x{number}", "20000")
    gate = files.hanging["thermal_zone0/temp"] = threading.Event()
    source = host.source(SensorsSource, {"period": 3.0}, read=files)
    host.read(source)
    _let_go(source, gate)
    files.read.clear()
    host.read(source)
    assert [path.split("/")[-2] for path in files.read] == ["thermal_zone1", "thermal_zone0"]


def test_a_device_that_hangs_and_vanishes_keeps_its_files_and_is_forgotten(host, bare, files, monkeypatch) -> None:
    place = bare.zone(0, "slow", "20000")
    bare.zone(1, "quick", "30000")
    gate = files.hanging["thermal_zone0/temp"] = threading.Event()
    source = host.source(SensorsSource, {"period": 3.0}, read=files)
    closed: list[str] = []
    monkeypatch.setattr(source.files, "forget", closed.append)
    assert host.read(source) == {"quick.temperature": 30.0}
    bare.remove(place)
    assert host.read(source, after_s=61.0) == {"quick.temperature": 30.0}
    assert closed == []
    assert source.parts.causes == {}
    _let_go(source, gate)
    assert host.read(source) == {"quick.temperature": 30.0}


async def test_the_end_closes_no_file_that_a_call_may_hang_in(host, bare, files) -> None:
    bare.zone(0, "slow", "20000")
    gate = files.hanging["thermal_zone0/temp"] = threading.Event()
    source = host.source(SensorsSource, {"period": 3.0}, read=files)
    host.read(source)
    opened = source.files
    await source.teardown()
    assert source.files is not opened
    _let_go(source, gate)


TWO_FANS = {"name": "fans", "fan1_input": "1000", "fan2_input": "2000"}
NO_FAN_1 = {"prefix": "web1", "period": 3.0, "exclude": ["*.fan1.speed"]}


async def test_what_a_slow_device_says_late_is_left_out_if_it_was_excluded_meanwhile(host, bare, files) -> None:
    bare.chip("devices/platform/fans.0", TWO_FANS)
    gate = files.hanging["fan2_input"] = threading.Event()
    source = host.source(SensorsSource, {"period": 3.0}, read=files)
    assert host.read(source) == {}
    await source.reconfigure(SensorsSource.Config.load(NO_FAN_1))
    assert host.read(source) == {}
    _let_go(source, gate)
    assert host.read(source) == {"fans.fan2.speed": 2000.0}


async def test_a_configuration_that_comes_during_a_reading_decides_what_is_sampled(host, bare, monkeypatch) -> None:
    bare.chip("devices/platform/fans.0", TWO_FANS)
    asked, answer = threading.Event(), threading.Event()
    choose = Globs.__contains__

    def chosen(globs: Globs, name: str) -> bool:
        verdict = choose(globs, name)
        if name == "fans.fan1.speed" and not asked.is_set():
            asked.set()
            assert answer.wait(20)
        return verdict

    monkeypatch.setattr(Globs, "__contains__", chosen)
    source = host.source(SensorsSource, {"period": 30.0})
    reading = asyncio.get_running_loop().run_in_executor(None, host.read, source)
    assert await asyncio.to_thread(asked.wait, 20)
    await source.reconfigure(SensorsSource.Config.load(NO_FAN_1 | {"period": 30.0}))
    answer.set()
    await reading
    assert host.read(source) == {"fans.fan2.speed": 2000.0}


async def test_a_reading_that_was_given_up_keeps_later_ones_out_until_it_returns(host, bare, files) -> None:
    bare.zone(0, "slow", "20000")
    gate = files.hanging["thermal_zone0/type"] = threading.Event()
    source = host.source(SensorsSource, {"period": 0.1}, read=files)
    late = asyncio.get_running_loop().run_in_executor(None, host.read, source)
    while not files.read:
        await asyncio.sleep(0)
    with pytest.raises(CallHung, match="has not returned"):
        host.read(source)
    gate.set()
    await late
    deadline = time.monotonic() + 20
    while host.read(source) != {"slow.temperature": 20.0}:
        assert time.monotonic() < deadline
