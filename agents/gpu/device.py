# SPDX-License-Identifier: MIT
"""One NVIDIA GPU: who it is, what it does not support, and its readings.

A `Gpu` is asked by one thread at a time, and any of its calls may hang. Names in here are without the GPU's word.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from types import ModuleType

from agents.base.rates import Counters
from agents.gpu.nvml import ABSENT, GONE, NO_PERMISSION
from agents.gpu.readings import (
    CLOCKS,
    KILOBYTE,
    QUESTIONS,
    GpuProcess,
    Handle,
    Question,
    field_values,
    known,
    memory_values,
    processes,
)

Details = Mapping[str, object]

PCIE = ("pcie.rx_bytes", "pcie.tx_bytes")

MIG_ENABLED = 1
UNSIGNED_LONG_LONG = 3
"""nvmlValueType_t of a counter that is wide enough to be trusted: one of 32 bits may wrap many times a second."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """Who a GPU is. details: for the metadata of all its metrics; limits: for that of some, by their names."""

    uuid: str
    model: str
    pci: str
    details: Details
    limits: Mapping[str, Details]


@dataclass(slots=True)
class Answer:
    """What a GPU said. asked: the questions; failures: by question; gone: why the GPU is of no use, if it is not."""

    values: dict[str, float] = field(default_factory=dict)
    asked: set[str] = field(default_factory=set)
    failures: dict[str, Exception] = field(default_factory=dict)
    processes: list[GpuProcess] | None = None
    gone: Exception | None = None


class Gpu:
    """A GPU of one NVML session.

    Args:
        library: the module pynvml
        index: NVML's, which changes when GPUs come and go
        clock: monotonic seconds
    """

    def __init__(self, library: ModuleType, index: int, clock: Callable[[], float]) -> None:
        self._nvml = library
        self._clock = clock
        self._handle: Handle | None = None
        self._counters = Counters()
        self._instances: dict[str, Handle] = {}
        self.index = index
        self.identity: Identity | None = None
        self.instances: dict[str, Details] = {}
        """The MIG instances, by their words, with what goes into their metadata."""
        self.absent: dict[str, str] = {}
        """What the GPU does not support, and why. It is not asked for that, unless `again`."""
        self.samples_pcie = False
        """True if there is no counter of the traffic, so that it takes 40 ms to sample it."""
        self.gone: Exception | None = None
        """Why the GPU is of no use at present."""

    @property
    def is_lost(self) -> bool:
        """True if handles of the GPU are dead, so that only opening NVML anew may bring it back."""
        return isinstance(self.gone, self._nvml.NVMLError) and self.gone.value in GONE

    @property
    def is_denied(self) -> bool:
        """True if the GPU is somebody else's, as in a container that was given only some of them."""
        no_permission = isinstance(self.gone, self._nvml.NVMLError) and self.gone.value == NO_PERMISSION
        return no_permission and self.identity is None

    @property
    def is_open(self) -> bool:
        """True once the driver has made the GPU ready, which may take it seconds."""
        return self._handle is not None

    @property
    def wants_sample(self) -> bool:
        """True if the PCIe traffic must be sampled, and can be."""
        return self.samples_pcie and "pcie traffic" not in self.absent

    def ask(self, *, slow: bool, again: bool, sample: bool) -> Answer:
        """Ask all there is to ask.

        Args:
            slow: also what is asked less often
            again: also what was not supported so far
            sample: wait for a sample of the PCIe traffic, if there is no counter of it
        """
        answer = Answer()
        nvml = self._nvml
        try:
            if self._handle is None or self.gone is not None:
                slow = True
                self._handle = nvml.nvmlDeviceGetHandleByIndex(self.index)
                self.identity = self._identify(self._handle)
            for question in QUESTIONS:
                if slow or not question.slow:
                    self._try(question, answer, again)
            self._ask_pcie(answer, again, sample)
            if slow:
                self._ask_processes(answer, again)
                self._find_instances(answer, again)
            self._ask_instances(answer)
            if not answer.values:
                raise next(iter(answer.failures.values()), nvml.NVMLError(nvml.NVML_ERROR_NOT_SUPPORTED))
        except (nvml.NVMLError, ValueError) as error:
            answer.gone = error
        self.gone = answer.gone
        return answer

    # -- questions -------------------------------------------------------------------------------------

    def _try(self, question: Question, answer: Answer, again: bool) -> bool:
        """Ask one question. Returns False if the GPU does not support it; raises NVMLError if the GPU is gone."""
        name = question.name
        if name in self.absent and not again:
            return False
        answer.asked.add(name)
        try:
            answer.values |= question.ask(self._nvml, self._handle)
        except ValueError as error:
            answer.failures[name] = error
        except self._nvml.NVMLError as error:
            if error.value in GONE:
                raise
            if error.value in ABSENT:
                self.absent[name] = ABSENT[error.value]
                return False
            answer.failures[name] = error
        self.absent.pop(name, None)
        return True

    def _ask_pcie(self, answer: Answer, again: bool, sample: bool) -> None:
        if not self.samples_pcie or again:
            counted = self._try(Question("pcie counters", self._pcie_counters), answer, again)
            self.absent.pop("pcie counters", None)
            self.samples_pcie = not counted
        if self.samples_pcie and sample:
            self._try(Question("pcie traffic", _pcie_sample), answer, again)

    def _pcie_counters(self, nvml: ModuleType, device: Handle) -> dict[str, float]:
        fields = (nvml.NVML_FI_DEV_PCIE_COUNT_RX_BYTES, nvml.NVML_FI_DEV_PCIE_COUNT_TX_BYTES)
        found = field_values(nvml, device, fields)
        if any(kind != UNSIGNED_LONG_LONG for kind, _ in found):
            raise nvml.NVMLError(nvml.NVML_ERROR_NOT_SUPPORTED)
        step = self._counters.update(self._clock(), {"": [int(value) for _, value in found]})
        rates = step.per_second().get("")
        return dict(zip(PCIE, rates, strict=True)) if rates else {}

    def _ask_processes(self, answer: Answer, again: bool) -> None:
        def ask(nvml: ModuleType, device: Handle) -> dict[str, float]:
            answer.processes = processes(nvml, device)
            return {"processes": len(answer.processes)}

        self._try(Question("processes", ask), answer, again)

    # -- who it is -------------------------------------------------------------------------------------

    def _identify(self, device: Handle) -> Identity:
        nvml = self._nvml
        uuid = str(nvml.nvmlDeviceGetUUID(device))
        model = self._optional(lambda: nvml.nvmlDeviceGetName(device)) or "unknown"
        pci = self._optional(lambda: nvml.nvmlDeviceGetPciInfo_v3(device).busId) or ""
        serial = self._optional(lambda: nvml.nvmlDeviceGetSerial(device))
        details = {"model": str(model), "uuid": uuid, "pci": str(pci), "serial": serial}
        return Identity(
            uuid=uuid,
            model=str(model),
            pci=str(pci),
            details={key: value for key, value in details.items() if value},
            limits=self._limits(device),
        )

    def _limits(self, device: Handle) -> dict[str, Details]:
        nvml = self._nvml
        calls: dict[str, dict[str, Callable[[], float]]] = {
            "temperature": {
                "slowdown": lambda: known(nvml.nvmlDeviceGetTemperatureThreshold(device, 1)),
                "shutdown": lambda: known(nvml.nvmlDeviceGetTemperatureThreshold(device, 0)),
            },
            "memory_temperature": {"high": lambda: known(nvml.nvmlDeviceGetTemperatureThreshold(device, 2))},
            "power_limit": {
                "lowest": lambda: known(nvml.nvmlDeviceGetPowerManagementLimitConstraints(device)[0]) / 1e3,
                "highest": lambda: known(nvml.nvmlDeviceGetPowerManagementLimitConstraints(device)[1]) / 1e3,
                "default": lambda: known(nvml.nvmlDeviceGetPowerManagementDefaultLimit(device)) / 1e3,
            },
            "pcie.generation": {"highest": lambda: known(nvml.nvmlDeviceGetMaxPcieLinkGeneration(device))},
            "pcie.width": {"highest": lambda: known(nvml.nvmlDeviceGetMaxPcieLinkWidth(device))},
        }
        for name, kind in CLOCKS.items():
            calls[f"clock.{name}"] = {"highest": partial(_highest_clock, nvml, device, kind)}
        limits = {
            metric: {word: value for word, call in each.items() if (value := self._optional(call)) is not None}
            for metric, each in calls.items()
        }
        return {metric: found for metric, found in limits.items() if found}

    def _optional(self, call: Callable[[], object]) -> object | None:
        """What a call returns; None if the GPU does not say. Raises NVMLError if the GPU is gone."""
        try:
            return call()
        except ValueError:
            return None
        except self._nvml.NVMLError as error:
            if error.value in GONE:
                raise
            return None

    # -- MIG -------------------------------------------------------------------------------------------

    def _find_instances(self, answer: Answer, again: bool) -> None:
        """Which MIG instances there are now: they are made and destroyed while the GPU is in use."""
        nvml, device = self._nvml, self._handle
        self._instances = {}
        self.instances = {}
        if "mig" in self.absent and not again:
            return
        self.absent.pop("mig", None)
        answer.asked.add("mig")
        try:
            if nvml.nvmlDeviceGetMigMode(device)[0] != MIG_ENABLED:
                return
            for index in range(nvml.nvmlDeviceGetMaxMigDeviceCount(device)):
                try:
                    handle = nvml.nvmlDeviceGetMigDeviceHandleByIndex(device, index)
                except nvml.NVMLError as error:
                    if error.value not in ABSENT:
                        raise
                    continue  # a slot without an instance
                self._instances[f"mig{index}"] = handle
                self.instances[f"mig{index}"] = self._instance_details(handle)
        except nvml.NVMLError as error:
            if error.value in GONE:
                raise
            if error.value in ABSENT:
                self.absent["mig"] = ABSENT[error.value]
            else:
                answer.failures["mig"] = error

    def _instance_details(self, handle: Handle) -> Details:
        nvml = self._nvml
        details = {
            "instance": self._optional(lambda: nvml.nvmlDeviceGetName(handle)),
            "instance_uuid": self._optional(lambda: nvml.nvmlDeviceGetUUID(handle)),
            "gpu_instance": self._optional(lambda: known(nvml.nvmlDeviceGetGpuInstanceId(handle))),
            "compute_instance": self._optional(lambda: known(nvml.nvmlDeviceGetComputeInstanceId(handle))),
        }
        return {key: value for key, value in details.items() if value is not None}

    def _ask_instances(self, answer: Answer) -> None:
        nvml = self._nvml
        for word, handle in self._instances.items():
            answer.asked.add(word)
            try:
                info = nvml.nvmlDeviceGetMemoryInfo(handle)
                values = memory_values(info.total, info.used, info.free)
            except ValueError as error:
                answer.failures[word] = error
            except nvml.NVMLError as error:
                if error.value not in ABSENT and error.value not in GONE:  # else it was destroyed
                    answer.failures[word] = error
            else:
                answer.values |= {f"{word}.memory.{name}": value for name, value in values.items()}


def _highest_clock(nvml: ModuleType, device: Handle, kind: int) -> float:
    return known(nvml.nvmlDeviceGetMaxClockInfo(device, kind)) * 1e6


def _pcie_sample(nvml: ModuleType, device: Handle) -> dict[str, float]:
    """Traffic in 20 ms, twice: NVML waits for each direction."""
    kinds = (nvml.NVML_PCIE_UTIL_RX_BYTES, nvml.NVML_PCIE_UTIL_TX_BYTES)
    samples = [known(nvml.nvmlDeviceGetPcieThroughput(device, kind)) * KILOBYTE for kind in kinds]
    return dict(zip(PCIE, samples, strict=True))
