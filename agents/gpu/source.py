# SPDX-License-Identifier: MIT
"""NVIDIA GPUs, through NVML.

nvml.py opens the library, fleet.py knows which GPUs there are, device.py asks one of them what is in readings.py,
processes.py groups processes. Here is the table of metrics, and what is said about them.
"""

import logging
from dataclasses import replace
from typing import Annotated, ClassVar, Unpack

from msgspec import Meta, field

from agents.base.absent import LOOK_AGAIN_S
from agents.base.devices import Globs
from agents.base.files import read_once
from agents.base.worker import CallHung
from agents.gpu.device import PCIE, Answer, Details, Gpu, Identity
from agents.gpu.fleet import Fleet, Report, Round
from agents.gpu.processes import Grouping, ProcessGroup, groups_of
from agents.gpu.readings import GpuProcess
from agents.host import HostConfig, HostOptions, HostSource, Metric, Reading
from bus.config import AgentConfig
from bus.transport.base import Transport

logger = logging.getLogger(__name__)

SLOW_S = 10.0
"""Seconds between values that change slowly or are dear: links, limits, errors, processes."""

SAMPLE_S = 0.02
"""How long NVML waits for a sample of the PCIe traffic, in each direction."""

SAMPLING_SHARE = 0.1
"""The part of a reading's time that may go into such samples."""

CLOSE_S = 2.0
"""How long NVML may take to close at the end."""


class GpuConfig(HostConfig, frozen=True):
    """What the family can be told. Globs are shell patterns, for a GPU's word (gpu0), its UUID or its model."""

    include_gpus: Annotated[list[str], Meta(description="GPUs to sample, globs; default: all")] = field(
        default_factory=list
    )
    exclude_gpus: Annotated[list[str], Meta(description="GPUs to leave out, globs")] = field(default_factory=list)
    process_groups: Annotated[
        list[str | ProcessGroup],
        Meta(description="processes whose GPU memory is summed, by name; default: a group for each name"),
    ] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Checks that msgspec's limits cannot express. Raises ValueError."""
        super().__post_init__()
        groups_of(self.process_groups)


class GpuSource(HostSource):
    """How busy, full, hot and fast the NVIDIA GPUs are, and what slows them down.

    A GPU keeps its word while the agent runs, even if the driver numbers the others anew because it is gone; the
    metadata of its metrics has its UUID. What a GPU does not support, and a GPU that was lost, is tried again every
    minute; after a loss NVML is closed and opened again, unless the GPU is still off the bus. A GPU that hangs is
    left alone until its call returns, and while one does, NVML is not closed.
    Holding NVML open keeps the driver loaded and the GPUs from sleeping.
    Measured with an NVML that does nothing: 0.23 ms of CPU a reading with 1 GPU, 0.55 ms with 8, and 0.95 ms on the
    mean of readings every second, where slow values and samples come in. What the driver takes comes on top.
    """

    Config = GpuConfig
    config: GpuConfig
    family = "gpu"
    platform: ClassVar[str] = "Linux, NVIDIA driver"
    metrics = (
        Metric("{gpu}.responds", "1", "1, or 0 while the GPU hangs or is lost", quantity="state"),
        Metric("{gpu}.utilization", "%", "time in which a kernel ran, in the driver's last 1/6 to 1 s"),
        Metric("{gpu}.memory_utilization", "%", "time in which its memory was read or written"),
        Metric("{gpu}.encoder", "%", "how busy the video encoder is"),
        Metric("{gpu}.decoder", "%", "how busy the video decoder is"),
        Metric("{gpu}.memory.total", "B", "memory of the GPU"),
        Metric("{gpu}.memory.used", "B", "memory in use by programs"),
        Metric("{gpu}.memory.free", "B", "memory left"),
        Metric("{gpu}.memory.reserved", "B", "memory that the driver keeps for itself"),
        Metric("{gpu}.memory.percent", "%", "memory in use, of what programs can have"),
        Metric("{gpu}.temperature", "Cel", "temperature of the chip"),
        Metric("{gpu}.memory_temperature", "Cel", "temperature of its memory"),
        Metric("{gpu}.power", "W", "power drawn by the board"),
        Metric("{gpu}.power_limit", "W", "power that it may draw", every_s=SLOW_S),
        Metric("{gpu}.energy", "J", "energy used since the driver was loaded"),
        Metric("{gpu}.clock.graphics", "Hz", "clock of the graphics units"),
        Metric("{gpu}.clock.sm", "Hz", "clock of the streaming multiprocessors"),
        Metric("{gpu}.clock.memory", "Hz", "clock of the memory"),
        Metric("{gpu}.clock.video", "Hz", "clock of the video units"),
        Metric("{gpu}.fan", "%", "intended speed of the fan, of its highest"),
        Metric("{gpu}.performance_state", "1", "0 (fastest) to 15", quantity="state"),
        Metric("{gpu}.throttle.setting", "1", "1 if clocks are held down by a setting", quantity="state"),
        Metric("{gpu}.throttle.power", "1", "1 if clocks are held down to keep the power limit", quantity="state"),
        Metric("{gpu}.throttle.thermal", "1", "1 if the driver lowers clocks for the temperature", quantity="state"),
        Metric("{gpu}.throttle.hw_slowdown", "1", "1 if the hardware halves clocks, or worse", quantity="state"),
        Metric("{gpu}.throttle.hw_thermal", "1", "1 if the hardware does for the temperature", quantity="state"),
        Metric("{gpu}.throttle.power_brake", "1", "1 if the hardware does for the power supply", quantity="state"),
        Metric("{gpu}.throttle.sync_boost", "1", "1 if clocks wait for other GPUs", quantity="state"),
        Metric("{gpu}.pcie.rx_bytes", "B/s", "received over PCIe", scope="last"),
        Metric("{gpu}.pcie.tx_bytes", "B/s", "sent over PCIe", scope="last"),
        Metric("{gpu}.pcie.generation", "1", "generation of the PCIe link now", every_s=SLOW_S),
        Metric("{gpu}.pcie.width", "1", "lanes of the PCIe link now", every_s=SLOW_S),
        Metric("{gpu}.ecc.corrected", "1", "memory errors corrected since the driver was loaded", every_s=SLOW_S),
        Metric("{gpu}.ecc.uncorrected", "1", "memory errors not corrected since the driver was loaded", every_s=SLOW_S),
        Metric("{gpu}.ecc.lifetime.corrected", "1", "memory errors corrected, ever", every_s=SLOW_S),
        Metric("{gpu}.ecc.lifetime.uncorrected", "1", "memory errors not corrected, ever", every_s=SLOW_S),
        Metric("{gpu}.remapped_rows.corrected", "1", "rows replaced after corrected errors", every_s=SLOW_S),
        Metric("{gpu}.remapped_rows.uncorrected", "1", "rows replaced after other errors", every_s=SLOW_S),
        Metric("{gpu}.remapped_rows.pending", "1", "1 if rows wait for a reset", quantity="state", every_s=SLOW_S),
        Metric("{gpu}.remapped_rows.failed", "1", "1 if a row had no spare", quantity="state", every_s=SLOW_S),
        Metric("{gpu}.processes", "1", "processes that have the GPU open", every_s=SLOW_S),
        Metric("{gpu}.process.{group}.memory", "B", "memory that a group of processes holds", every_s=SLOW_S),
        Metric("{gpu}.mig{n}.memory.total", "B", "memory of the MIG instance"),
        Metric("{gpu}.mig{n}.memory.used", "B", "memory in use, with what the driver keeps for itself"),
        Metric("{gpu}.mig{n}.memory.free", "B", "memory left"),
        Metric("{gpu}.mig{n}.memory.percent", "%", "memory in use, of what programs can have"),
    )

    def __init__(self, token: str, url: str | Transport = "", **options: Unpack[HostOptions]) -> None:
        super().__init__(token, url, **options)
        self._fleet = Fleet(self.token, self.roots, self.clock)
        self._noted: dict[str, tuple[Identity, dict[str, Details]]] = {}
        self._details: dict[str, Details] = {}
        self._sampled: set[str] = set()
        self._absent: dict[str, dict[str, str]] = {}
        self._failing: dict[str, set[str]] = {}
        self._choose()

    def _choose(self) -> None:
        """What follows from the configuration, to be worked out anew."""
        self._included = Globs(self.config.include_gpus)
        self._excluded = Globs(self.config.exclude_gpus)
        self._grouping = Grouping(groups_of(self.config.process_groups))

    async def reconfigure(self, config: AgentConfig) -> None:
        """Put a configuration in force at once."""
        await super().reconfigure(config)
        self._choose()

    async def teardown(self) -> None:
        """Close NVML, unless a call of it hangs: then the end of the process closes it."""
        try:
            if self._fleet.is_open and not await self.worker.call(self._close, CLOSE_S):
                logger.warning("%s: the NVIDIA driver is not closed: a call of it hangs", self.token)
        except CallHung as error:
            logger.warning("%s: the NVIDIA driver is not closed: %s", self.token, error)
        finally:
            await super().teardown()

    def _close(self) -> bool:
        with self._reading:
            return self._fleet.close()

    def read(self) -> Reading:
        """What the GPUs say. Raises NothingFound."""
        again, slow = self.due("again", LOOK_AGAIN_S), self.due("slow", SLOW_S)
        # A quarter of the deadline to open NVML, and twice a quarter at most for the GPUs.
        patience_s = self.deadline_s / 4
        if again or not self._fleet.is_ready:
            self._fleet.look(self.tick.posix_ns, patience_s)
        this = Round(
            now_ns=self.tick.posix_ns,
            patience_s=patience_s,
            slow=slow,
            again=again,
            samples=max(1, int(self.deadline_s * SAMPLING_SHARE / (2 * SAMPLE_S))),
        )
        reading: dict[str, float] = {}
        for word, report in self._fleet.ask(this, self._is_wanted).items():
            reading |= self._values(word, report)
        return reading

    def _is_wanted(self, word: str, identity: Identity | None) -> bool:
        names = (word, identity.uuid, identity.model) if identity else (word,)
        if any(self._excluded.named(name) for name in names):
            return False
        # Who it is must be known before it can be said that nobody asked for it.
        return not self._included.include or identity is None or any(self._included.named(name) for name in names)

    # -- what a GPU said -------------------------------------------------------------------------------

    def _values(self, word: str, report: Report) -> dict[str, float]:
        if report.error is not None:
            self.parts.failed(word, report.error)
        if report.gpu is None or report.answer is None:
            return {} if report.gpu and report.gpu.is_denied else {f"{word}.responds": 0.0}
        self.parts.well(word)
        answer = report.answer
        values = answer.values
        if answer.processes is not None:
            values |= self._memory_of_groups(word, answer.processes)
        reading = {f"{word}.{name}": value for name, value in values.items()}
        reading[f"{word}.responds"] = 1.0
        self._note_failures(word, answer)
        self._note_absent(word, report.gpu)
        self._note_details(word, report.gpu, reading)
        return reading

    def _memory_of_groups(self, word: str, processes: list[GpuProcess]) -> dict[str, float]:
        sums = self._grouping.memory(word, processes, self._name_of)
        return {f"process.{group}.memory": value for group, value in sums.items()}

    def _name_of(self, pid: int) -> str:
        """Empty for a process that ended, or of another name space."""
        try:
            return read_once(f"{self.roots.proc}/{pid}/comm").rstrip("\n")
        except OSError:
            return ""

    def _note_failures(self, word: str, answer: Answer) -> None:
        before = self._failing.get(word, set())
        for name in before.difference(answer.failures):
            if name in answer.asked:
                self.parts.well(f"{word} {name}")
        for name, error in answer.failures.items():
            self.parts.failed(f"{word} {name}", error)
        self._failing[word] = before.difference(answer.asked).union(answer.failures)

    def _note_absent(self, word: str, gpu: Gpu) -> None:
        """Say once what a GPU lacks, and once what it has after all."""
        before, absent = self._absent.get(word, {}), gpu.absent
        if absent == before:
            return
        self._absent[word] = dict(absent)
        model = gpu.identity.model if gpu.identity else "unknown"
        if absent.keys() - before.keys():
            what = ", ".join(f"{name} ({why})" for name, why in sorted(absent.items()))
            logger.info("%s: %s, %s, lacks: %s; asking again every %g s", self.prefix, word, model, what, LOOK_AGAIN_S)
        if before.keys() - absent.keys():
            what = ", ".join(sorted(before.keys() - absent.keys()))
            logger.info("%s: %s, %s, has now: %s", self.prefix, word, model, what)

    # -- what it means ---------------------------------------------------------------------------------

    def _note_details(self, word: str, gpu: Gpu, reading: Reading) -> None:
        """Keep what goes into the metadata of a GPU's metrics, and declare them anew if it has changed."""
        identity = gpu.identity
        if identity is not None and self._noted.get(word) != (identity, gpu.instances):
            self._noted[word] = (identity, gpu.instances)
            self._details[word] = identity.details
            for name, more in (*identity.limits.items(), *gpu.instances.items()):
                self._details[f"{word}.{name}"] = {**identity.details, **more}
            self.redescribe(reading)
        if gpu.samples_pcie != (word in self._sampled):
            self._sampled ^= {word}
            self.redescribe(f"{word}.{name}" for name in PCIE)

    def describe(self, name: str) -> Metric | None:
        """The table's entry, with who the GPU is, and its limits where it has any."""
        metric = super().describe(name)
        word, _, rest = name.partition(".")
        if metric is None or word not in self._details:
            return metric
        instance = f"{word}.{rest.partition('.')[0]}"
        details = self._details.get(name) or self._details.get(instance) or self._details[word]
        if rest in PCIE and word in self._sampled:
            return replace(metric, scope="point", every_s=SLOW_S, details={**details, "sampled_s": SAMPLE_S})
        return replace(metric, details=details)
