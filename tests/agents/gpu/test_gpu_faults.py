# SPDX-License-Identifier: MIT
"""What becomes of GPUs when the driver is missing, refuses or lies. Lost GPUs are in test_gpu_fleet.py."""

from collections.abc import Iterator

import pynvml
import pytest

from agents.gpu.source import GpuSource
from agents.host import NothingFound
from bus.timestamp import Timestamp
from tests.agents.gpu.gpu_support import add_process, answering, installed, lines, words
from tests.agents.gpu.nvml_double import GpuDouble, NvmlDouble, Process


@pytest.fixture
def nvml(monkeypatch: pytest.MonkeyPatch) -> Iterator[NvmlDouble]:
    yield from installed(monkeypatch)


@pytest.fixture
def two(nvml: NvmlDouble) -> tuple[GpuDouble, GpuDouble]:
    """Two GPUs, the first at 0000:3b:00.0, the other at 0000:5e:00.0."""
    nvml.gpus = [GpuDouble("GPU-1"), GpuDouble("GPU-2", bus=0x5E)]
    return nvml.gpus[0], nvml.gpus[1]


# -- nothing to measure ------------------------------------------------------------------------------------


def test_without_a_library_there_is_nothing(host, monkeypatch) -> None:
    def cannot_load(name: str) -> None:
        raise OSError(f"{name}: cannot open shared object file")

    monkeypatch.setattr(pynvml, "nvmlLib", None)
    monkeypatch.setattr(pynvml, "CDLL", cannot_load)
    with pytest.raises(NothingFound, match=r"^no NVIDIA driver: libnvidia-ml\.so\.1 was not found$"):
        host.read(host.source(GpuSource))


@pytest.mark.parametrize(
    ("function", "code", "why"),
    [
        ("nvmlInitWithFlags", 9, "the NVIDIA driver is installed but not loaded"),
        ("nvmlInitWithFlags", 18, "the NVIDIA driver was upgraded: reboot"),
        ("nvmlInitWithFlags", 4, "no permission to open the NVIDIA driver"),
        ("nvmlInitWithFlags", 999, "NVML cannot be opened: Unknown Error"),
        ("nvmlInitWithFlags", 77, "NVML cannot be opened: NVML Error with code 77"),
        ("nvmlDeviceGetCount_v2", 10, "NVML cannot be opened: Timeout"),
    ],
)
def test_a_driver_that_refuses_is_nothing_until_it_does_not(host, nvml, two, function, code, why) -> None:
    nvml.errors[function] = code
    source = host.source(GpuSource)
    for _ in range(2):
        with pytest.raises(NothingFound, match=why):
            host.read(source)
        assert nvml.sessions == 0
    nvml.errors.clear()
    assert answering(host.read(source)) == {"gpu0", "gpu1"}


def test_a_driver_that_is_too_old_is_said_to_be(host, nvml) -> None:
    nvml.missing.add("nvmlInitWithFlags")
    with pytest.raises(NothingFound, match="too old for nvidia-ml-py"):
        host.read(host.source(GpuSource))


def test_a_driver_without_gpus_is_closed_and_opened_again(host, nvml) -> None:
    source = host.source(GpuSource)
    with pytest.raises(NothingFound, match="has no GPU"):
        host.read(source)
    assert nvml.sessions == 0
    nvml.gpus = [GpuDouble("GPU-1")]
    assert answering(host.read(source)) == {"gpu0"}


async def test_absence_is_said_once_and_looked_for_every_minute(host, nvml, caplog) -> None:
    caplog.set_level("INFO")
    source = host.source(GpuSource)
    for second in range(2000, 2130, 10):
        source.tick = Timestamp(second * 10**9)
        await source.update()
    assert nvml.calls["nvmlInitWithFlags"] == 3
    assert len(lines(caplog, "nothing to measure")) == 1
    await source.teardown()


def test_a_driver_that_is_unloaded_is_nothing_and_comes_back(host, nvml, two) -> None:
    source = host.source(GpuSource)
    host.read(source)
    nvml.sessions = 0
    nvml.errors["nvmlInitWithFlags"] = 9
    assert words(host.read(source)) == {"gpu0": 0, "gpu1": 0}
    with pytest.raises(NothingFound, match="not loaded"):
        host.read(source, after_s=60)
    nvml.errors.clear()
    assert answering(host.read(source, after_s=60)) == {"gpu0", "gpu1"}


# -- values that fail --------------------------------------------------------------------------------------

FUNCTIONS = {
    "nvmlDeviceGetUtilizationRates": {"utilization", "memory_utilization"},
    "nvmlDeviceGetEncoderUtilization": {"encoder"},
    "nvmlDeviceGetDecoderUtilization": {"decoder"},
    "nvmlDeviceGetMemoryInfo_v2": {f"memory.{name}" for name in ("total", "used", "free", "percent", "reserved")},
    "nvmlDeviceGetPowerUsage": {"power"},
    "nvmlDeviceGetEnforcedPowerLimit": {"power_limit"},
    "nvmlDeviceGetTotalEnergyConsumption": {"energy"},
    "nvmlDeviceGetClockInfo": {f"clock.{name}" for name in ("graphics", "sm", "memory", "video")},
    "nvmlDeviceGetFanSpeed": {"fan"},
    "nvmlDeviceGetPerformanceState": {"performance_state"},
    "nvmlDeviceGetCurrPcieLinkWidth": {"pcie.generation", "pcie.width"},
    "nvmlDeviceGetTotalEccErrors": {
        f"{name}.{kind}" for name in ("ecc", "ecc.lifetime") for kind in ("corrected", "uncorrected")
    },
    "nvmlDeviceGetRemappedRows": {
        f"remapped_rows.{name}" for name in ("corrected", "uncorrected", "pending", "failed")
    },
    "nvmlDeviceGetComputeRunningProcesses_v3": {"processes"},
    "nvmlDeviceGetFieldValues": {"memory_temperature"},
}


@pytest.mark.parametrize("function", FUNCTIONS)
def test_a_call_that_fails_costs_only_its_own_values(host, nvml, function: str) -> None:
    nvml.gpus = [GpuDouble("GPU-1")]
    every = set(host.read(host.source(GpuSource)))
    for code in (2, 3, 4, 10, 26, 999):
        nvml.gpus[0].errors[function] = code
        left = set(host.read(host.source(GpuSource)))
        assert (code, every - left) == (code, {f"gpu0.{name}" for name in FUNCTIONS[function]})


@pytest.mark.parametrize("call", ["nvmlDeviceGetName", "nvmlDeviceGetSerial", "nvmlDeviceGetPciInfo_v3"])
def test_a_gpu_that_does_not_say_who_it_is_is_measured(host, nvml, call: str) -> None:
    nvml.gpus = [GpuDouble("GPU-1", errors={call: 999})]
    assert answering(host.read(host.source(GpuSource))) == {"gpu0"}


def test_what_is_not_supported_is_said_in_one_line_and_asked_again_every_minute(host, nvml, two, caplog) -> None:
    caplog.set_level("INFO")
    two[0].errors |= {"nvmlDeviceGetFanSpeed": 3, "nvmlDeviceGetTotalEccErrors": 3}
    two[0].errors |= {"nvmlDeviceGetComputeRunningProcesses_v3": 4, "nvmlDeviceGetMigMode": 3}
    source = host.source(GpuSource)
    host.now_s = 1999.0
    host.read(source)
    assert lines(caplog, "gpu0", "lacks") == [
        "web1.gpu: gpu0, NVIDIA A100-SXM4-40GB, lacks: ecc (not supported), ecc.lifetime (not supported), "
        "fan (not supported), mig (not supported), processes (no permission); asking again every 60 s"
    ]
    asked = nvml.calls["nvmlDeviceGetFanSpeed"]
    for _ in range(30):
        host.read(source)
    assert nvml.calls["nvmlDeviceGetFanSpeed"] == asked + 30  # of the other GPU
    del two[0].errors["nvmlDeviceGetFanSpeed"]
    host.now_s = 2040.0
    assert "gpu0.fan" in host.read(source)
    assert "gpu0.fan" in host.read(source)
    assert lines(caplog, "gpu0", "has now") == ["web1.gpu: gpu0, NVIDIA A100-SXM4-40GB, has now: fan"]
    host.read(source, after_s=60)
    assert len(lines(caplog, "lacks")) == 2
    assert not [record for record in caplog.records if record.levelname == "WARNING"]


@pytest.mark.parametrize(("function", "code"), [("nvmlDeviceGetPowerUsage", 999), ("nvmlDeviceGetFanSpeed", 10)])
def test_what_fails_for_now_is_asked_each_time_and_said_once(host, nvml, caplog, function, code) -> None:
    caplog.set_level("INFO")
    nvml.gpus = [GpuDouble("GPU-1", errors={function: code})]
    source = host.source(GpuSource)
    for _ in range(5):
        host.read(source)
    assert nvml.calls[function] == 5
    assert len(lines(caplog, "gpu0", "failed")) == 1
    assert source.parts.causes
    nvml.gpus[0].errors.clear()
    host.read(source)
    assert not source.parts.causes
    assert len(lines(caplog, "works again")) == 1


def test_what_is_asked_slowly_keeps_failing_until_it_was_asked_again(host, nvml, caplog) -> None:
    caplog.set_level("INFO")
    nvml.gpus = [GpuDouble("GPU-1", errors={"nvmlDeviceGetEnforcedPowerLimit": 999})]
    source = host.source(GpuSource)
    for _ in range(40):
        host.read(source)
    assert len(lines(caplog, "power_limit")) == 1
    nvml.gpus[0].errors.clear()
    for _ in range(10):
        host.read(source)
    assert len(lines(caplog, "power_limit works again")) == 1


GARBAGE = {
    "utilization": ((101, 5), {"utilization", "memory_utilization"}),
    "encoder": (2**32 - 1, {"encoder"}),
    "decoder": (101, {"decoder"}),
    "temperature": (2**32 - 10, {"temperature"}),
    "power": (2**32 - 1, {"power"}),
    "limit": (2**32 - 1, {"power_limit"}),
    "energy": (2**64 - 1, {"energy"}),
    "fan": (2**32 - 1, {"fan"}),
    "state": (32, {"performance_state"}),
    "reasons": (2**64 - 1, {f"throttle.{name}" for name in ("power", "thermal", "hw_slowdown")}),
    "used": (2**64 - 1, {"memory.used", "memory.percent"}),
    "link": ((4, 2**32 - 1), {"pcie.width"}),
    "rows": ((0, 2**32 - 1, 0, 0), {"remapped_rows.uncorrected"}),
    "ecc": ({(0, 0): 2**64 - 1, (1, 0): 0, (0, 1): 0, (1, 1): 0}, {"ecc.corrected"}),
    "clocks": ((2**32 - 1, 1, 2, 3), {"clock.graphics"}),
}


@pytest.mark.parametrize("attribute", GARBAGE)
def test_garbage_is_no_value_and_costs_only_itself(host, nvml, attribute: str) -> None:
    value, lost = GARBAGE[attribute]
    nvml.gpus = [GpuDouble("GPU-1")]
    every = set(host.read(host.source(GpuSource)))
    setattr(nvml.gpus[0], attribute, value)
    left = set(host.read(host.source(GpuSource)))
    assert {f"gpu0.{name}" for name in lost} <= every - left
    assert {"gpu0.responds", "gpu0.clock.sm", "gpu0.processes"} <= left


@pytest.mark.parametrize(
    ("answer", "warned"), [((1, 0), False), ((1, 2**32 - 1), True), ((1, 500), True), ((99, 5), True)]
)
def test_a_memory_temperature_that_cannot_be_is_left_out(host, nvml, caplog, answer, warned: bool) -> None:
    nvml.gpus = [GpuDouble("GPU-1", fields={82: answer})]
    source = host.source(GpuSource)
    assert "gpu0.memory_temperature" not in host.read(source)
    assert bool(lines(caplog, "memory_temperature failed")) is warned


def test_a_field_that_fails_alone_has_no_value(host, nvml, caplog) -> None:
    nvml.gpus = [GpuDouble("GPU-1", errors={82: 999})]
    source = host.source(GpuSource)
    host.read(source)
    reading = host.read(source)
    assert "gpu0.memory_temperature" not in reading
    assert "gpu0.pcie.rx_bytes" in reading
    assert lines(caplog, "memory_temperature failed: NVMLError_Unknown")


def test_processes_that_start_between_two_calls_are_asked_for_again(host, nvml, monkeypatch, caplog) -> None:
    gpu = GpuDouble("GPU-1", compute=[Process(501, 1)])
    nvml.gpus = [gpu]
    real = pynvml.nvmlDeviceGetComputeRunningProcesses_v3
    tries = []

    def racing(handle):
        tries.append(1)
        if len(tries) < 3:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_INSUFFICIENT_SIZE)
        return real(handle)

    monkeypatch.setattr(pynvml, "nvmlDeviceGetComputeRunningProcesses_v3", racing)
    assert host.read(host.source(GpuSource))["gpu0.processes"] == 1
    assert not lines(caplog, "failed")


def test_many_processes_do_not_make_many_metrics(host, nvml) -> None:
    nvml.gpus = [GpuDouble("GPU-1", compute=[Process(pid, 1) for pid in range(1000, 1300)])]
    for pid in range(1000, 1300):
        add_process(host.proc, pid, f"job-{pid}")
    reading = host.read(host.source(GpuSource))
    groups = {name: value for name, value in reading.items() if ".process." in name}
    assert (len(groups), groups["gpu0.process.other.memory"]) == (101, 200)


@pytest.mark.parametrize(
    "missing",
    ["nvmlDeviceGetMemoryInfo_v2", "nvmlDeviceGetCurrentClocksEventReasons", "nvmlDeviceGetTemperature"],
)
def test_functions_of_other_drivers_stand_in_for_those_that_are_missing(host, nvml, missing: str) -> None:
    nvml.gpus = [GpuDouble("GPU-1")]
    nvml.missing.add(missing)
    reading = host.read(host.source(GpuSource))
    assert {"gpu0.memory.used", "gpu0.throttle.power", "gpu0.temperature"} <= reading.keys()
    assert (reading["gpu0.throttle.power"], reading["gpu0.throttle.thermal"]) == (1, 0)
    assert reading["gpu0.temperature"] == 61
    if missing == "nvmlDeviceGetMemoryInfo_v2":
        assert reading["gpu0.memory.used"] == nvml.gpus[0].used + nvml.gpus[0].reserved
