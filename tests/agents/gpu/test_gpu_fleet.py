# SPDX-License-Identifier: MIT
"""What becomes of the GPUs when one is lost, comes back, is somebody else's or hangs."""

import contextlib
import threading
import time
from collections.abc import Iterator

import pynvml
import pytest

from agents.gpu.source import GpuSource
from agents.host import NothingFound
from bus.timestamp import Timestamp
from tests.agents.gpu.gpu_support import answering, installed, lines, words
from tests.agents.gpu.nvml_double import GpuDouble, Instance, NvmlDouble

HANDLE = "nvmlDeviceGetHandleByIndex_v2"


@pytest.fixture
def nvml(monkeypatch: pytest.MonkeyPatch) -> Iterator[NvmlDouble]:
    yield from installed(monkeypatch)


@pytest.fixture
def two(nvml: NvmlDouble) -> tuple[GpuDouble, GpuDouble]:
    """Two GPUs, the first at 0000:3b:00.0, the other at 0000:5e:00.0."""
    nvml.gpus = [GpuDouble("GPU-1"), GpuDouble("GPU-2", bus=0x5E)]
    return nvml.gpus[0], nvml.gpus[1]


def eventually(host, source, wanted) -> dict[str, float]:
    """The first reading that is as wanted."""
    deadline_s = time.monotonic() + 20
    while not wanted(reading := host.read(source)):
        assert time.monotonic() < deadline_s
        time.sleep(0.01)
    return reading


# -- GPUs that are lost ------------------------------------------------------------------------------------


def test_a_lost_gpu_is_said_once_and_returns_when_nvml_is_opened_anew(host, nvml, two, caplog) -> None:
    caplog.set_level("INFO")
    source = host.source(GpuSource)
    host.now_s = 1999.0
    host.read(source)
    two[0].lost = True
    host.read(source)
    asked = nvml.calls[HANDLE]
    for _ in range(30):
        reading = host.read(source)
        assert words(reading) == {"gpu0": 0, "gpu1": 1}
        assert answering(reading) == {"gpu1"}
    assert nvml.calls[HANDLE] == asked  # only once a minute
    assert lines(caplog, "gpu0 failed") == ["web1.gpu: gpu0 failed: NVMLError_GpuIsLost: GPU is lost"]
    assert nvml.calls["nvmlInitWithFlags"] == 1
    two[0].lost = False  # after a reset; its handles stay dead
    assert answering(host.read(source)) == {"gpu1"}
    host.now_s = 2040.0
    assert answering(host.read(source)) == {"gpu0", "gpu1"}
    assert (nvml.calls["nvmlInitWithFlags"], nvml.sessions, nvml.shut_down_in_flight) == (2, 1, False)
    assert len(lines(caplog, "gpu0 works again")) == 1
    host.read(source, after_s=60)
    assert nvml.calls["nvmlInitWithFlags"] == 2


def test_the_others_go_on_while_one_stays_lost(host, nvml, two) -> None:
    source = host.source(GpuSource)
    host.read(source)
    two[0].lost = True
    for _ in range(10):
        assert answering(host.read(source, after_s=30)) == {"gpu1"}
    assert nvml.calls["nvmlInitWithFlags"] > 3


def test_a_gpu_that_is_lost_in_the_middle_of_a_reading_has_no_values(host, nvml, two) -> None:
    source = host.source(GpuSource)
    host.read(source)
    two[0].errors["nvmlDeviceGetPowerUsage"] = pynvml.NVML_ERROR_GPU_IS_LOST
    reading = host.read(source)
    assert [name for name in reading if name.startswith("gpu0.")] == ["gpu0.responds"]


def config_space(host, address: str, content: bytes) -> None:
    folder = host.sys / "bus/pci/devices" / address
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config").write_bytes(content)


def test_while_a_gpu_is_off_the_bus_the_others_are_not_disturbed(host, nvml, two) -> None:
    source = host.source(GpuSource)
    config_space(host, "0000:3b:00.0", b"\xff\xff\xff\xff")
    host.read(source)
    two[0].lost = True
    for _ in range(5):
        assert answering(host.read(source, after_s=60)) == {"gpu1"}
    assert nvml.calls["nvmlInitWithFlags"] == 1
    two[0].lost = False
    config_space(host, "0000:3b:00.0", b"\xde\x10\x80\x20")
    assert answering(host.read(source, after_s=60)) == {"gpu0", "gpu1"}


def test_a_gpu_that_was_off_the_bus_from_the_start_does_not_disturb_the_others(host, nvml, two) -> None:
    for address in ("0000:3b:00.0", "0000:5e:00.0"):
        (host.proc / "driver/nvidia/gpus" / address).mkdir(parents=True)
    (host.proc / "driver/nvidia/version").write_text("NVRM version: 580.65.06\n")
    config_space(host, "0000:3b:00.0", b"\xff\xff\xff\xff")
    two[0].lost = True
    source = host.source(GpuSource)
    for _ in range(5):
        reading = host.read(source, after_s=60)
        assert words(reading) == {"gpu0": 0, "gpu1": 1}
    assert nvml.calls["nvmlInitWithFlags"] == 1


def test_a_gpu_keeps_its_name_when_the_driver_numbers_the_others_anew(host, nvml, two, caplog) -> None:
    source = host.source(GpuSource)
    host.read(source)
    two[0].present = False
    two[0].lost = True
    two[1].temperature = 44
    for _ in range(4):
        reading = host.read(source, after_s=40)
    assert words(reading) == {"gpu0": 0, "gpu1": 1}
    assert reading["gpu1.temperature"] == 44
    assert len(lines(caplog, "gpu0 failed", "does not list it any more")) == 1
    two[0].present, two[0].lost = True, False
    host.read(source, after_s=60)
    assert answering(host.read(source, after_s=60)) == {"gpu0", "gpu1"}


def test_a_gpu_that_is_plugged_in_is_found_and_renames_nobody(host, nvml) -> None:
    nvml.gpus = [GpuDouble("GPU-2", bus=0x5E, temperature=52)]
    source = host.source(GpuSource)
    assert answering(host.read(source)) == {"gpu0"}
    nvml.gpus.insert(0, GpuDouble("GPU-1", temperature=51))
    reading = host.read(source, after_s=60)
    assert (reading["gpu0.temperature"], reading["gpu1.temperature"]) == (52, 51)
    assert words(reading) == {"gpu0": 1, "gpu1": 1}


def test_a_gpu_that_is_plugged_in_dead_takes_nobodys_name(host, nvml) -> None:
    nvml.gpus = [GpuDouble("GPU-2", bus=0x5E, temperature=52)]
    source = host.source(GpuSource)
    host.read(source)
    nvml.gpus.insert(0, GpuDouble("GPU-1", lost=True))
    reading = host.read(source, after_s=60)
    assert (reading["gpu0.temperature"], words(reading)) == (52, {"gpu0": 1})


@pytest.mark.parametrize("what", ["version", "gpus"])
def test_nvml_is_opened_anew_when_the_driver_or_its_gpus_change(host, nvml, two, what: str) -> None:
    (host.proc / "driver/nvidia/gpus/0000:5e:00.0").mkdir(parents=True)
    (host.proc / "driver/nvidia/version").write_text("NVRM version: 580.65.06\n")
    two[0].present = False
    source = host.source(GpuSource)
    for _ in range(3):
        host.read(source, after_s=60)
    assert nvml.calls["nvmlInitWithFlags"] == 1
    if what == "version":
        (host.proc / "driver/nvidia/version").write_text("NVRM version: 595.10\n")
    else:
        (host.proc / "driver/nvidia/gpus/0000:3b:00.0").mkdir()
        two[0].present = True  # and is the first now
    assert host.read(source, after_s=60)["gpu0.temperature"] == 61
    host.read(source, after_s=60)
    assert (nvml.calls["nvmlInitWithFlags"], nvml.sessions) == (2, 1)
    if what == "gpus":
        assert source.describe("gpu0.temperature").details["uuid"] == "GPU-2"
        assert source.describe("gpu1.temperature").details["uuid"] == "GPU-1"


def test_gpus_of_others_are_left_out_and_said_once(host, nvml, two, caplog) -> None:
    two[0].errors[HANDLE] = 4
    source = host.source(GpuSource)
    for _ in range(5):
        assert words(host.read(source, after_s=30)) == {"gpu1": 1}
    assert len(lines(caplog, "gpu0 failed")) == 1
    assert nvml.calls["nvmlInitWithFlags"] == 1
    two[0].errors.clear()
    assert answering(host.read(source, after_s=60)) == {"gpu0", "gpu1"}


def test_a_gpu_that_answers_nothing_is_opened_again(host, nvml, two) -> None:
    source = host.source(GpuSource)
    host.read(source)
    nvml.end_session()  # handles that NVML does not know, without a word of a loss
    assert words(host.read(source)) == {"gpu0": 0, "gpu1": 0}
    assert answering(host.read(source, after_s=60)) == {"gpu0", "gpu1"}


def test_an_error_that_nobody_thought_of_costs_one_gpu_and_not_its_thread(host, nvml, two, monkeypatch, caplog) -> None:
    source = host.source(GpuSource)
    host.read(source)

    def broken(handle):
        raise TypeError("this is no handle")

    with monkeypatch.context() as patch:
        patch.setattr(pynvml, "nvmlDeviceGetUtilizationRates", broken)
        assert words(host.read(source)) == {"gpu0": 0, "gpu1": 0}
    assert lines(caplog, "gpu0 failed: TypeError: this is no handle")
    assert answering(host.read(source, after_s=60)) == {"gpu0", "gpu1"}


def test_an_instance_that_fails_costs_only_itself(host, nvml, caplog, monkeypatch) -> None:
    gpu = GpuDouble("GPU-1", instances={0: Instance("MIG-1", "one", total=2**64 - 1), 1: Instance("MIG-2", "two")})
    nvml.gpus = [gpu]
    source = host.source(GpuSource)
    reading = host.read(source)
    assert "gpu0.mig1.memory.used" in reading
    assert "gpu0.mig0.memory.used" not in reading
    assert len(lines(caplog, "gpu0 mig0 failed")) == 1


# -- calls that hang ---------------------------------------------------------------------------------------


def test_a_gpu_that_hangs_is_left_alone_while_the_others_go_on(host, nvml, two, caplog) -> None:
    source = host.source(GpuSource, {"period": 3})
    host.read(source)
    gate = two[0].hanging["nvmlDeviceGetPowerUsage"] = threading.Event()
    assert words(host.read(source)) == {"gpu1": 1}  # so far it is only late
    for _ in range(3):
        assert words(host.read(source)) == {"gpu0": 0, "gpu1": 1}
    assert lines(caplog, "gpu0 failed") == ["web1.gpu: gpu0 failed: TimeoutError: its driver hangs"]
    two[1].lost = True
    host.read(source)
    two[1].lost = False
    nvml.gpus.append(GpuDouble("GPU-3", bus=0x7E))
    assert words(host.read(source, after_s=60)) == {"gpu0": 0, "gpu1": 0}
    assert nvml.calls["nvmlInitWithFlags"] == 1  # it would pull the library from under the call
    gate.set()
    eventually(host, source, lambda reading: words(reading).get("gpu0") == 1)
    host.read(source, after_s=60)
    assert words(host.read(source)) == {"gpu0": 1, "gpu1": 1, "gpu2": 1}
    assert (nvml.calls["nvmlInitWithFlags"], nvml.shut_down_in_flight) == (2, False)


def test_a_gpu_that_takes_seconds_to_open_is_no_failure(host, nvml, two, caplog) -> None:
    gate = two[0].hanging[HANDLE] = threading.Event()
    source = host.source(GpuSource, {"period": 3})
    for _ in range(5):
        assert words(host.read(source)) == {"gpu1": 1}
    assert not lines(caplog, "failed")
    assert words(host.read(source, after_s=30)) == {"gpu0": 0, "gpu1": 1}
    gate.set()
    eventually(host, source, lambda reading: words(reading) == {"gpu0": 1, "gpu1": 1})


def test_a_library_that_hangs_is_said_after_a_while_and_used_when_it_returns(host, nvml, two) -> None:
    gate = nvml.hanging["nvmlInitWithFlags"] = threading.Event()
    source = host.source(GpuSource, {"period": 3})
    assert host.read(source) == {}
    assert host.read(source, after_s=29) == {}
    with pytest.raises(NothingFound, match="does not answer"):
        host.read(source)
    assert nvml.calls["nvmlInitWithFlags"] == 1
    gate.set()

    def opened(reading: dict[str, float]) -> bool:
        return answering(reading) == {"gpu0", "gpu1"}

    deadline_s = time.monotonic() + 20
    reading: dict[str, float] = {}
    while not opened(reading):
        assert time.monotonic() < deadline_s
        with contextlib.suppress(NothingFound):
            reading = host.read(source)
    assert (nvml.calls["nvmlInitWithFlags"], nvml.sessions) == (1, 1)
    assert "gpu0.processes" in reading  # the first reading has all, whenever it is


def test_opening_nvml_anew_hangs_once(host, nvml, two) -> None:
    source = host.source(GpuSource, {"period": 3})
    host.read(source)
    two[0].lost = True
    host.read(source)
    gate = nvml.hanging["nvmlInitWithFlags"] = threading.Event()
    for seconds in (60, 1, 20):
        assert host.read(source, after_s=seconds) == {}
    assert nvml.calls["nvmlInitWithFlags"] == 2
    two[0].lost = False
    gate.set()
    eventually(host, source, lambda reading: words(reading) == {"gpu0": 1, "gpu1": 1})
    assert (nvml.calls["nvmlInitWithFlags"], nvml.sessions) == (2, 1)


async def test_at_the_end_nvml_is_closed_once_and_not_on_the_event_loop(host, nvml, two) -> None:
    source = host.source(GpuSource)
    source.tick = Timestamp(2_000_000_000_000)
    await source.update()
    assert nvml.sessions == 1
    await source.teardown()
    await source.teardown()
    assert (nvml.sessions, nvml.calls["nvmlShutdown"]) == (0, 1)
    assert threading.current_thread().name not in nvml.threads


async def test_at_the_end_nvml_is_not_closed_under_a_call_that_hangs(host, nvml, two, caplog) -> None:
    source = host.source(GpuSource, {"period": 3})
    host.read(source)
    two[0].hanging["nvmlDeviceGetPowerUsage"] = threading.Event()
    host.read(source)
    await source.teardown()
    assert nvml.calls["nvmlShutdown"] == 0
    assert len(lines(caplog, "is not closed: a call of it hangs")) == 1


async def test_a_source_that_never_read_has_nothing_to_close(host, nvml) -> None:
    await host.source(GpuSource).teardown()
    assert not nvml.calls
