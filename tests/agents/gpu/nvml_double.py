# SPDX-License-Identifier: MIT
"""A stand-in for libnvidia-ml.so.1 at its C boundary.

pynvml calls the library's functions with ctypes arguments and looks at the number they return. `NvmlDouble` has those
functions, with the structures, numbers and error codes of NVML; all of pynvml and all of ours above it is real.
Handles are of one session: after nvmlShutdown, or once their GPU was lost, they are dead for good.
"""

import ctypes
import itertools
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pynvml

MIB = 2**20


def into(pointer: Any, value: Any) -> None:
    """Write through what ctypes.byref made, as C would."""
    pointer._obj.value = value


@dataclass
class Process:
    pid: int
    memory: int = 0
    gpu_instance: int = 0xFFFFFFFF
    compute_instance: int = 0xFFFFFFFF


@dataclass
class Instance:
    """A MIG instance."""

    uuid: str
    name: str
    used: int = 1024 * MIB
    total: int = 4864 * MIB


@dataclass
class GpuDouble:
    """A GPU: what it says, and how it fails. errors: by function, or ("nvmlDeviceGetFieldValues", field)."""

    uuid: str
    bus: int = 0x3B
    name: str = "NVIDIA A100-SXM4-40GB"
    utilization: tuple[int, int] = (87, 43)
    encoder: int = 5
    decoder: int = 6
    total: int = 40960 * MIB
    reserved: int = 600 * MIB
    used: int = 10000 * MIB
    temperature: int = 61
    power: int = 251_500
    limit: int = 400_000
    energy: int = 123_456_789
    clocks: tuple[int, ...] = (1410, 1410, 1215, 1275)
    fan: int = 42
    state: int = 0
    reasons: int = 0x4
    link: tuple[int, int] = (4, 16)
    ecc: dict[tuple[int, int], int] = field(default_factory=lambda: {(0, 0): 3, (1, 0): 0, (0, 1): 17, (1, 1): 1})
    rows: tuple[int, int, int, int] = (2, 1, 0, 0)
    throughput: tuple[int, int] = (1000, 2000)  # KB/s sent, received
    fields: dict[int, tuple[int, int]] = field(
        default_factory=lambda: {82: (pynvml.NVML_VALUE_TYPE_UNSIGNED_INT, 71), 197: (3, 5_000), 198: (3, 7_000)}
    )
    compute: list[Process] = field(default_factory=list)
    graphics: list[Process] = field(default_factory=list)
    instances: dict[int, Instance] | None = None
    errors: dict[Any, int] = field(default_factory=dict)
    hanging: dict[str, threading.Event] = field(default_factory=dict)
    lost: bool = False
    present: bool = True


@dataclass(frozen=True)
class Device:
    """What a handle stands for. instance: the MIG instance's index, or None for the GPU itself."""

    gpu: GpuDouble
    instance: int | None = None


class NvmlDouble:
    """Has an attribute for each function of the C library that ours uses.

    calls: how often each was called. errors: what a function of the library itself returns. missing: functions
    that this driver does not have. sessions: nvmlInit less nvmlShutdown. threads: those that called it.
    """

    def __init__(self, *gpus: GpuDouble) -> None:
        self.gpus = list(gpus)
        self.calls: Counter[str] = Counter()
        self.errors: dict[str, int] = {}
        self.missing: set[str] = set()
        self.hanging: dict[str, threading.Event] = {}
        self.threads: set[str] = set()
        self.sessions = 0
        self.shut_down_in_flight = False
        self._in_flight = 0
        self._numbers = itertools.count(0x1000)
        self._handles: dict[int, Device] = {}
        self._dead: set[str] = set()

    def __getattr__(self, name: str) -> Callable[..., int]:
        function = FUNCTIONS.get(name)
        if function is None or name in self.missing:
            raise AttributeError(name)

        def call(*arguments: Any) -> int:
            self.calls[name] += 1
            self.threads.add(threading.current_thread().name)
            if name in self.hanging:
                self.hanging[name].wait()
            if name in self.errors:
                return self.errors[name]
            if name != "nvmlInitWithFlags" and not self.sessions:
                return pynvml.NVML_ERROR_UNINITIALIZED
            if name in OF_THE_LIBRARY:
                return function(self, *arguments)
            return self._of_a_device(name, function, *arguments)

        return call

    def _of_a_device(self, name: str, function: Callable[..., int], handle: Any, *arguments: Any) -> int:
        device = self._handles.get(ctypes.cast(handle, ctypes.c_void_p).value or 0)
        if device is None:
            return pynvml.NVML_ERROR_INVALID_ARGUMENT
        gpu = device.gpu
        self._in_flight += 1
        if name in gpu.hanging:
            gpu.hanging[name].wait()
        self._in_flight -= 1
        if self.is_dead(gpu):
            return pynvml.NVML_ERROR_GPU_IS_LOST
        if name in gpu.errors:
            return gpu.errors[name]
        if device.instance is not None:
            return _of_an_instance(name, gpu, device.instance, *arguments)
        if name == "nvmlDeviceGetMigDeviceHandleByIndex":
            return _instance_handle(self, gpu, *arguments)
        return function(gpu, *arguments)

    def is_dead(self, gpu: GpuDouble) -> bool:
        """A GPU that was lost stays so until NVML is opened anew, even if it is back on the bus."""
        if gpu.lost:
            self._dead.add(gpu.uuid)
        return gpu.uuid in self._dead

    def new_handle(self, pointer: Any, device: Device) -> int:
        number = next(self._numbers)
        self._handles[number] = device
        ctypes.c_void_p.from_address(ctypes.addressof(pointer._obj)).value = number
        return 0

    def end_session(self) -> None:
        self.shut_down_in_flight |= bool(self._in_flight)
        self._handles.clear()
        self._dead.clear()

    @property
    def present(self) -> list[GpuDouble]:
        return [gpu for gpu in self.gpus if gpu.present]


# -- functions of the library ------------------------------------------------------------------------------


def _init(nvml: NvmlDouble, flags: int) -> int:
    nvml.sessions += 1
    return 0


def _shutdown(nvml: NvmlDouble) -> int:
    nvml.sessions -= 1
    if not nvml.sessions:
        nvml.end_session()
    return 0


def _count(nvml: NvmlDouble, count: Any) -> int:
    into(count, len(nvml.present))
    return 0


def _handle(nvml: NvmlDouble, index: ctypes.c_uint, pointer: Any) -> int:
    if index.value >= len(nvml.present):
        return pynvml.NVML_ERROR_INVALID_ARGUMENT
    gpu = nvml.present[index.value]
    if "nvmlDeviceGetHandleByIndex_v2" in gpu.hanging:
        gpu.hanging["nvmlDeviceGetHandleByIndex_v2"].wait()
    if nvml.is_dead(gpu):
        return pynvml.NVML_ERROR_GPU_IS_LOST
    if "nvmlDeviceGetHandleByIndex_v2" in gpu.errors:
        return gpu.errors["nvmlDeviceGetHandleByIndex_v2"]
    return nvml.new_handle(pointer, Device(gpu))


# -- functions of a device ---------------------------------------------------------------------------------


def _instance_handle(nvml: NvmlDouble, gpu: GpuDouble, index: ctypes.c_uint, pointer: Any) -> int:
    if gpu.instances is None or index.value not in gpu.instances:
        return pynvml.NVML_ERROR_NOT_FOUND
    return nvml.new_handle(pointer, Device(gpu, index.value))


def _of_an_instance(name: str, gpu: GpuDouble, index: int, *arguments: Any) -> int:
    if gpu.instances is None or index not in gpu.instances:
        return pynvml.NVML_ERROR_INVALID_ARGUMENT
    instance = gpu.instances[index]
    if name == "nvmlDeviceGetMemoryInfo":
        memory = arguments[0]._obj
        memory.total, memory.used, memory.free = instance.total, instance.used, instance.total - instance.used
    elif name in ("nvmlDeviceGetName", "nvmlDeviceGetUUID"):
        return _text(arguments[0], instance.name if name == "nvmlDeviceGetName" else instance.uuid)
    elif name in ("nvmlDeviceGetGpuInstanceId", "nvmlDeviceGetComputeInstanceId"):
        into(arguments[0], index + 7 if name == "nvmlDeviceGetGpuInstanceId" else 0)
    else:
        return pynvml.NVML_ERROR_NOT_SUPPORTED
    return 0


def _text(buffer: Any, text: str) -> int:
    buffer.value = text.encode()
    return 0


def _values(pointers_and_values: Any) -> int:
    for pointer, value in pointers_and_values:
        into(pointer, value)
    return 0


def _one(read: Callable[[GpuDouble], int]) -> Callable[..., int]:
    """A function that writes one number."""
    return lambda gpu, pointer: _values([(pointer, read(gpu))])


def _pci(gpu: GpuDouble, info: Any) -> int:
    info._obj.busId = f"00000000:{gpu.bus:02X}:00.0".encode()
    return 0


def _utilization(gpu: GpuDouble, rates: Any) -> int:
    rates._obj.gpu, rates._obj.memory = gpu.utilization
    return 0


def _memory(gpu: GpuDouble, memory: Any) -> int:
    # The old function counts what is reserved as used.
    used = gpu.used + gpu.reserved
    memory._obj.total, memory._obj.used, memory._obj.free = gpu.total, used, max(0, gpu.total - used)
    return 0


def _memory_v2(gpu: GpuDouble, memory: Any) -> int:
    if memory._obj.version != pynvml.nvmlMemory_v2:
        return pynvml.NVML_ERROR_ARGUMENT_VERSION_MISMATCH
    memory._obj.total, memory._obj.used, memory._obj.reserved = gpu.total, gpu.used, gpu.reserved
    memory._obj.free = max(0, gpu.total - gpu.used - gpu.reserved)
    return 0


def _temperature_v(gpu: GpuDouble, struct: Any) -> int:
    struct._obj.temperature = gpu.temperature
    return 0


def _fields(gpu: GpuDouble, count: ctypes.c_int32, pointer: Any) -> int:
    members = ("dVal", "uiVal", "ulVal", "ullVal", "sllVal", "siVal", "usVal")
    for value in pointer._obj[: count.value]:
        if value.fieldId not in gpu.fields:
            value.nvmlReturn = pynvml.NVML_ERROR_NOT_SUPPORTED
            continue
        value.nvmlReturn = gpu.errors.get(value.fieldId, 0)
        value.valueType, number = gpu.fields[value.fieldId]
        if value.valueType < len(members):
            setattr(value.value, members[value.valueType], number)
    return 0


def _running(read: Callable[[GpuDouble], list[Process]]) -> Callable[..., int]:
    def function(gpu: GpuDouble, count: Any, array: Any) -> int:
        running = read(gpu)
        room = count._obj.value
        into(count, len(running))
        if len(running) > (room if array is not None else 0):
            return pynvml.NVML_ERROR_INSUFFICIENT_SIZE
        for slot, process in zip(array or [], running, strict=False):
            slot.pid, slot.usedGpuMemory = process.pid, process.memory
            slot.gpuInstanceId, slot.computeInstanceId = process.gpu_instance, process.compute_instance
        return 0

    return function


def _mig_mode(gpu: GpuDouble, current: Any, pending: Any) -> int:
    if gpu.instances is None:
        return pynvml.NVML_ERROR_NOT_SUPPORTED
    return _values([(current, 1), (pending, 1)])


OF_THE_LIBRARY = {
    "nvmlInitWithFlags": _init,
    "nvmlShutdown": _shutdown,
    "nvmlDeviceGetCount_v2": _count,
    "nvmlDeviceGetHandleByIndex_v2": _handle,
}

FUNCTIONS: dict[str, Callable[..., int]] = {
    **OF_THE_LIBRARY,
    "nvmlDeviceGetUUID": lambda gpu, buffer, size: _text(buffer, gpu.uuid),
    "nvmlDeviceGetName": lambda gpu, buffer, size: _text(buffer, gpu.name),
    "nvmlDeviceGetSerial": lambda gpu, buffer, size: _text(buffer, f"13206{gpu.bus}"),
    "nvmlDeviceGetPciInfo_v3": _pci,
    "nvmlDeviceGetUtilizationRates": _utilization,
    "nvmlDeviceGetEncoderUtilization": lambda gpu, use, period: _values([(use, gpu.encoder), (period, 167_000)]),
    "nvmlDeviceGetDecoderUtilization": lambda gpu, use, period: _values([(use, gpu.decoder), (period, 167_000)]),
    "nvmlDeviceGetMemoryInfo": _memory,
    "nvmlDeviceGetMemoryInfo_v2": _memory_v2,
    "nvmlDeviceGetTemperature": lambda gpu, sensor, value: _values([(value, gpu.temperature)]),
    "nvmlDeviceGetTemperatureV": _temperature_v,
    "nvmlDeviceGetTemperatureThreshold": lambda gpu, kind, value: _values([(value, (92, 89, 95)[kind.value])]),
    "nvmlDeviceGetPowerUsage": _one(lambda gpu: gpu.power),
    "nvmlDeviceGetEnforcedPowerLimit": _one(lambda gpu: gpu.limit),
    "nvmlDeviceGetPowerManagementLimitConstraints": lambda gpu, least, most: _values(
        [(least, 100_000), (most, gpu.limit)]
    ),
    "nvmlDeviceGetPowerManagementDefaultLimit": _one(lambda gpu: gpu.limit),
    "nvmlDeviceGetTotalEnergyConsumption": _one(lambda gpu: gpu.energy),
    "nvmlDeviceGetClockInfo": lambda gpu, kind, value: _values([(value, gpu.clocks[kind.value])]),
    "nvmlDeviceGetMaxClockInfo": lambda gpu, kind, value: _values([(value, 2000)]),
    "nvmlDeviceGetFanSpeed": _one(lambda gpu: gpu.fan),
    "nvmlDeviceGetPerformanceState": _one(lambda gpu: gpu.state),
    "nvmlDeviceGetCurrentClocksEventReasons": _one(lambda gpu: gpu.reasons),
    "nvmlDeviceGetCurrentClocksThrottleReasons": _one(lambda gpu: gpu.reasons),
    "nvmlDeviceGetCurrPcieLinkGeneration": _one(lambda gpu: gpu.link[0]),
    "nvmlDeviceGetCurrPcieLinkWidth": _one(lambda gpu: gpu.link[1]),
    "nvmlDeviceGetMaxPcieLinkGeneration": _one(lambda gpu: 5),
    "nvmlDeviceGetMaxPcieLinkWidth": _one(lambda gpu: 16),
    "nvmlDeviceGetPcieThroughput": lambda gpu, kind, value: _values([(value, gpu.throughput[kind.value])]),
    "nvmlDeviceGetTotalEccErrors": lambda gpu, kind, counter, value: _values(
        [(value, gpu.ecc[kind.value, counter.value])]
    ),
    "nvmlDeviceGetRemappedRows": lambda gpu, *pointers: _values(zip(pointers, gpu.rows, strict=True)),
    "nvmlDeviceGetFieldValues": _fields,
    "nvmlDeviceGetComputeRunningProcesses_v3": _running(lambda gpu: gpu.compute),
    "nvmlDeviceGetGraphicsRunningProcesses_v3": _running(lambda gpu: gpu.graphics),
    "nvmlDeviceGetMigMode": _mig_mode,
    "nvmlDeviceGetMaxMigDeviceCount": _one(lambda gpu: 7),
    "nvmlDeviceGetMigDeviceHandleByIndex": lambda *_: 0,  # needs the library: see _of_a_device
    "nvmlDeviceGetGpuInstanceId": lambda gpu, value: pynvml.NVML_ERROR_NOT_SUPPORTED,
    "nvmlDeviceGetComputeInstanceId": lambda gpu, value: pynvml.NVML_ERROR_NOT_SUPPORTED,
}
