# SPDX-License-Identifier: MIT
"""What is asked of an NVIDIA GPU, call by call, and what the answers mean in our units.

Each `Question` is one or two calls of NVML that a GPU supports or not. A value that NVML marks as not available, or
that cannot be, is a ValueError.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Protocol

from agents.base.rates import percent
from agents.gpu.nvml import ABSENT, ARGUMENT_VERSION_MISMATCH, FUNCTION_NOT_FOUND, INSUFFICIENT_SIZE

NOT_AVAILABLE_32 = 2**32 - 1
NOT_AVAILABLE_64 = 2**64 - 1
"""NVML_VALUE_NOT_AVAILABLE, -1 in an unsigned variable."""

MEMORY = ("total", "used", "free", "percent")

THROTTLE = {
    "setting": 0x02,
    "power": 0x04,
    "hw_slowdown": 0x08,
    "sync_boost": 0x10,
    "thermal": 0x20,
    "hw_thermal": 0x40,
    "power_brake": 0x80,
}
"""Bits of nvmlClocksEventReasons_t. Idle and display clocks, which slow nobody down, are left out."""

PERFORMANCE_STATES = 16
HOTTEST_CEL = 200
MOST_PERCENT = 100
KILOBYTE = 1024
"""The KB of nvmlDeviceGetPcieThroughput."""

SIZE_TRIES = 3

_VALUE_FIELDS = ("dVal", "uiVal", "ulVal", "ullVal", "sllVal", "siVal", "usVal")
"""The member of nvmlValue_t for each nvmlValueType_t."""

Handle = object
"""An nvmlDevice_t, which only NVML understands."""


@dataclass(frozen=True, slots=True)
class Question:
    """What a GPU is asked: some calls, and the values that they answer. slow: it changes slowly, or is dear."""

    name: str
    ask: Callable[[ModuleType, Handle], dict[str, float]]
    slow: bool = False


@dataclass(frozen=True, slots=True)
class GpuProcess:
    """A process that has a GPU open. memory: bytes; None if the driver does not tell."""

    pid: int
    memory: int | None


class _Running(Protocol):
    """pynvml's nvmlProcessInfo_t, with None where NVML says that it does not know."""

    pid: int
    usedGpuMemory: int | None  # noqa: N815  # NVML's names
    gpuInstanceId: int  # noqa: N815
    computeInstanceId: int  # noqa: N815


def known(value: int, not_available: int = NOT_AVAILABLE_32, most: int | None = None) -> int:
    """A value that NVML knows and that can be. Raises ValueError."""
    if value == not_available or (most is not None and value > most):
        raise ValueError(f"NVML says {value}, which is no such value")
    return value


def memory_values(total: int, used: int, free: int) -> dict[str, float]:
    """`MEMORY` of a GPU or an instance. Raises ValueError."""
    known(total, NOT_AVAILABLE_64)
    known(used, NOT_AVAILABLE_64, total)
    known(free, NOT_AVAILABLE_64, total)
    return dict(zip(MEMORY, (total, used, free, percent(used, used + free)), strict=True))


def throttle_values(reasons: int) -> dict[str, float]:
    """0 or 1 for each of `THROTTLE`."""
    return {f"throttle.{name}": float(reasons & bit != 0) for name, bit in THROTTLE.items()}


def field_values(nvml: ModuleType, device: Handle, fields: Sequence[int]) -> list[tuple[int, float]]:
    """The type and the value of each field. Raises NVMLError if the GPU lacks one, ValueError for garbage."""
    found = []
    for answer in nvml.nvmlDeviceGetFieldValues(device, fields):
        if answer.nvmlReturn:
            raise nvml.NVMLError(answer.nvmlReturn)
        if answer.valueType >= len(_VALUE_FIELDS):
            raise ValueError(f"field {answer.fieldId} is of type {answer.valueType}, which NVML does not have")
        found.append((answer.valueType, getattr(answer.value, _VALUE_FIELDS[answer.valueType])))
    return found


def memory(nvml: ModuleType, device: Handle) -> dict[str, float]:
    """Memory. What the driver keeps for itself counts as used where the driver does not tell it apart."""
    reserved: dict[str, float] = {}
    try:
        info = nvml.nvmlDeviceGetMemoryInfo(device, version=nvml.nvmlMemory_v2)
        reserved["memory.reserved"] = known(info.reserved, NOT_AVAILABLE_64)
    except nvml.NVMLError as error:
        if error.value not in (FUNCTION_NOT_FOUND, ARGUMENT_VERSION_MISMATCH):
            raise
        info = nvml.nvmlDeviceGetMemoryInfo(device)
    values = memory_values(info.total, info.used, info.free)
    return {f"memory.{name}": value for name, value in values.items()} | reserved


def processes(nvml: ModuleType, device: Handle) -> list[GpuProcess]:
    """The processes that have the GPU open, to compute or to draw. Raises NVMLError."""
    found: dict[tuple[int, int, int], int | None] = {}
    lists = [_running(nvml.nvmlDeviceGetComputeRunningProcesses_v3, nvml, device)]
    try:
        lists.append(_running(nvml.nvmlDeviceGetGraphicsRunningProcesses_v3, nvml, device))
    except nvml.NVMLError as error:
        if error.value not in ABSENT:
            raise
    for running in lists:
        for process in running:  # one that does both is in both, with the same memory
            key = (process.pid, process.gpuInstanceId, process.computeInstanceId)
            found[key] = process.usedGpuMemory if found.get(key) is None else found[key]
    return [GpuProcess(pid, used) for (pid, _, _), used in found.items()]


def _running(call: Callable[[Handle], Sequence[_Running]], nvml: ModuleType, device: Handle) -> Sequence[_Running]:
    """The answer of a call that fails if processes start between its asking for their number and for their list."""
    for _ in range(SIZE_TRIES - 1):
        try:
            return call(device)
        except nvml.NVMLError as error:
            if error.value != INSUFFICIENT_SIZE:
                raise
    return call(device)


def _utilization(nvml: ModuleType, device: Handle) -> dict[str, float]:
    rates = nvml.nvmlDeviceGetUtilizationRates(device)
    return {
        "utilization": known(rates.gpu, most=MOST_PERCENT),
        "memory_utilization": known(rates.memory, most=MOST_PERCENT),
    }


def _encoder(nvml: ModuleType, device: Handle) -> dict[str, float]:
    return {"encoder": known(nvml.nvmlDeviceGetEncoderUtilization(device)[0], most=MOST_PERCENT)}


def _decoder(nvml: ModuleType, device: Handle) -> dict[str, float]:
    return {"decoder": known(nvml.nvmlDeviceGetDecoderUtilization(device)[0], most=MOST_PERCENT)}


def _temperature(nvml: ModuleType, device: Handle) -> dict[str, float]:
    try:
        value = nvml.nvmlDeviceGetTemperature(device, nvml.NVML_TEMPERATURE_GPU)
    except nvml.NVMLError as error:  # its successor is there today, and some day alone
        if error.value not in ABSENT:
            raise
        value = nvml.nvmlDeviceGetTemperatureV(device, nvml.NVML_TEMPERATURE_GPU)
    return {"temperature": known(value, most=HOTTEST_CEL)}


def _memory_temperature(nvml: ModuleType, device: Handle) -> dict[str, float]:
    _, value = field_values(nvml, device, [nvml.NVML_FI_DEV_MEMORY_TEMP])[0]
    if not value:  # what boards without the sensor say instead of "not supported"
        raise nvml.NVMLError(nvml.NVML_ERROR_NOT_SUPPORTED)
    return {"memory_temperature": known(int(value), most=HOTTEST_CEL)}


def _power(nvml: ModuleType, device: Handle) -> dict[str, float]:
    return {"power": known(nvml.nvmlDeviceGetPowerUsage(device)) / 1e3}


def _power_limit(nvml: ModuleType, device: Handle) -> dict[str, float]:
    return {"power_limit": known(nvml.nvmlDeviceGetEnforcedPowerLimit(device)) / 1e3}


def _energy(nvml: ModuleType, device: Handle) -> dict[str, float]:
    return {"energy": known(nvml.nvmlDeviceGetTotalEnergyConsumption(device), NOT_AVAILABLE_64) / 1e3}


def _fan(nvml: ModuleType, device: Handle) -> dict[str, float]:
    return {"fan": known(nvml.nvmlDeviceGetFanSpeed(device))}


def _performance_state(nvml: ModuleType, device: Handle) -> dict[str, float]:
    return {"performance_state": known(nvml.nvmlDeviceGetPerformanceState(device), most=PERFORMANCE_STATES - 1)}


def _throttle(nvml: ModuleType, device: Handle) -> dict[str, float]:
    try:
        reasons = nvml.nvmlDeviceGetCurrentClocksEventReasons(device)
    except nvml.NVMLError as error:  # what it was called before driver 535
        if error.value != FUNCTION_NOT_FOUND:
            raise
        reasons = nvml.nvmlDeviceGetCurrentClocksThrottleReasons(device)
    return throttle_values(known(reasons, NOT_AVAILABLE_64))


def _pcie_link(nvml: ModuleType, device: Handle) -> dict[str, float]:
    return {
        "pcie.generation": known(nvml.nvmlDeviceGetCurrPcieLinkGeneration(device)),
        "pcie.width": known(nvml.nvmlDeviceGetCurrPcieLinkWidth(device)),
    }


def _remapped_rows(nvml: ModuleType, device: Handle) -> dict[str, float]:
    names = ("corrected", "uncorrected", "pending", "failed")
    rows = nvml.nvmlDeviceGetRemappedRows(device)
    return {f"remapped_rows.{name}": known(value) for name, value in zip(names, rows, strict=True)}


def _clock(name: str, kind: int) -> Question:
    def ask(nvml: ModuleType, device: Handle) -> dict[str, float]:
        return {f"clock.{name}": known(nvml.nvmlDeviceGetClockInfo(device, kind)) * 1e6}

    return Question(f"clock.{name}", ask)


def _ecc(prefix: str, counter: int) -> Question:
    def ask(nvml: ModuleType, device: Handle) -> dict[str, float]:
        kinds = {
            "corrected": nvml.NVML_MEMORY_ERROR_TYPE_CORRECTED,
            "uncorrected": nvml.NVML_MEMORY_ERROR_TYPE_UNCORRECTED,
        }
        return {
            f"{prefix}.{name}": known(nvml.nvmlDeviceGetTotalEccErrors(device, kind, counter), NOT_AVAILABLE_64)
            for name, kind in kinds.items()
        }

    return Question(prefix, ask, slow=True)


CLOCKS = {"graphics": 0, "sm": 1, "memory": 2, "video": 3}
"""nvmlClockType_t."""

QUESTIONS = (
    Question("utilization", _utilization),
    Question("encoder", _encoder),
    Question("decoder", _decoder),
    Question("memory", memory),
    Question("temperature", _temperature),
    Question("memory_temperature", _memory_temperature),
    Question("power", _power),
    Question("energy", _energy),
    *(_clock(name, kind) for name, kind in CLOCKS.items()),
    Question("fan", _fan),
    Question("performance_state", _performance_state),
    Question("throttle", _throttle),
    Question("power_limit", _power_limit, slow=True),
    Question("pcie link", _pcie_link, slow=True),
    _ecc("ecc", 0),  # NVML_VOLATILE_ECC
    _ecc("ecc.lifetime", 1),  # NVML_AGGREGATE_ECC
    Question("remapped_rows", _remapped_rows, slow=True),
)
