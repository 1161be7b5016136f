# SPDX-License-Identifier: MIT
"""What the processors do: time by kind, frequency, context switches, interrupts."""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Unpack

from msgspec import Meta

from agents.base.devices import names_of
from agents.base.rates import Counters, Step
from agents.host import HostConfig, HostOptions, HostSource, Metric, Reading
from bus.transport.base import Transport

KINDS = {
    "user": "running programs, guests included",
    "nice": "running programs of lowered priority, guests included",
    "system": "in the kernel",
    "idle": "with nothing to do",
    "iowait": "with nothing to do but to wait for a disk",
    "irq": "serving interrupts",
    "softirq": "serving soft interrupts",
    "steal": "taken away by the hypervisor",
}
"""The kinds of time that make up all of it, in the order of /proc/stat: their shares add up to 100 %."""

FIELDS = len(KINDS) + 2
"""After them, guest and guest_nice, which the kernel counts in user and nice too."""

SHARES = (*KINDS, "guest", "usage")

SLACK_TICKS = 100
"""Linux lets idle and iowait fall a little; by more than a second, the core has been away."""

CPUINFO_EVERY_S = 10.0

_CPUINFO = re.compile(r"^processor\s*:\s*(\d+)$|^cpu MHz\s*:\s*([\d.]+)$", re.MULTILINE)


def _time_metrics(core: str, where: str) -> tuple[Metric, ...]:
    return (
        *(Metric(core + name, "%", f"time {where} {about}", scope="last") for name, about in KINDS.items()),
        Metric(core + "guest", "%", f"time {where} running guest systems, a part of user and nice", scope="last"),
        Metric(core + "usage", "%", f"time {where} in use: all but idle and iowait", scope="last"),
    )


class CpuConfig(HostConfig, frozen=True):
    """What the family can be told."""

    per_core: Annotated[bool, Meta(description="sample each core besides the mean of all")] = True


class CpuSource(HostSource):
    """What the processors do, in total and per core.

    Measured: 46 µs of CPU a reading with 2 cores, 0.9 ms with 128; `per_core` off saves most of that.
    """

    Config = CpuConfig
    config: CpuConfig
    family = "cpu"
    metrics = (
        *_time_metrics("", "of all cores"),
        *_time_metrics("{core}.", "of the core"),
        Metric("frequency", "Hz", "clock, mean of all cores"),
        Metric("{core}.frequency", "Hz", "clock of the core"),
        Metric("context_switches", "1/s", "switches from one task to another", scope="last"),
        Metric("interrupts", "1/s", "interrupts served", scope="last"),
    )

    def __init__(self, token: str, url: str | Transport = "", **options: Unpack[HostOptions]) -> None:
        super().__init__(token, url, **options)
        self._times = Counters(slack=SLACK_TICKS)
        self._events = Counters()
        self._cpuinfo: dict[str, float] = {}

    def read(self) -> Reading:
        """The shares of time since the last reading, and the clocks now."""
        now_s = self.clock()
        lines = self.proc("stat").splitlines()
        reading: dict[str, float] = {}
        with self.parts("times"):
            wanted = "cpu" if self.config.per_core else "cpu "
            times = dict(
                self.parts.each("core times", (line for line in lines if line.startswith(wanted)), parse_times)
            )
            reading |= usage(self._times.update(now_s, times))
        with self.parts("events"):
            for event, (rate,) in self._events.update(now_s, parse_events(lines)).per_second().items():
                reading[event] = rate
        with self.parts("frequency"):
            hertz = self._driver_frequencies(core_names(lines)) or self._cpuinfo_frequencies()
            reading |= frequencies(hertz, per_core=self.config.per_core)
        return reading

    def _driver_frequencies(self, cores: Iterable[str]) -> dict[str, float]:
        """By the frequency driver; empty if there is none."""
        hertz: dict[str, float] = {}
        for core in cores:
            try:
                text = self.files.read(f"{self.roots.sys}/devices/system/cpu/cpu{core[4:]}/cpufreq/scaling_cur_freq")
            except FileNotFoundError:
                if not hertz:
                    return {}
                continue  # this core was taken out of service meanwhile
            hertz[core] = 1e3 * int(text)
        return hertz

    def _cpuinfo_frequencies(self) -> dict[str, float]:
        """What virtual machines have. The text is long and the clock hardly changes, so it is read now and then."""
        if self.due("cpuinfo", CPUINFO_EVERY_S):
            self._cpuinfo = parse_cpuinfo(self.proc("cpuinfo"))
        return self._cpuinfo


def parse_times(line: str) -> tuple[str, list[int]]:
    """``cpu0 12 0 3 ...`` → core0 and its ticks of each kind; ``cpu``, the sum of all cores, → the empty name.

    Kernels that do not know the last kinds get zeros there. Raises ValueError for anything else.
    """
    name, *words = line.split()[: FIELDS + 1]
    ticks = [int(word) for word in words]
    if len(ticks) < 4:
        raise ValueError("user, nice, system and idle are the least")
    return name.replace("cpu", "core", 1) if name != "cpu" else "", ticks + [0] * (FIELDS - len(ticks))


def usage(step: Step) -> dict[str, float]:
    """The shares of each core, and of all, from the ticks of a step."""
    reading: dict[str, float] = {}
    for core, gains in step.gains.items():
        reading.update(zip(names_of(core, SHARES), shares(gains), strict=False))
    return reading


def shares(ticks: Sequence[int]) -> list[float]:
    """Percentages for the kinds, guest and usage, from the ticks gained; empty if no time passed."""
    whole = sum(ticks[: len(KINDS)])
    if not whole:
        return []
    percent = [100 * gained / whole for gained in ticks[: len(KINDS)]]
    guest = 100 * (ticks[-2] + ticks[-1]) / whole
    return [*percent, guest, 100 * (whole - ticks[3] - ticks[4]) / whole]


def core_names(lines: Iterable[str]) -> list[str]:
    """The cores that /proc/stat lists: those in service."""
    return ["core" + line[3 : line.index(" ")] for line in lines if line.startswith("cpu") and line[3] != " "]


def parse_events(lines: Iterable[str]) -> dict[str, list[int]]:
    """Context switches and interrupts since the start, from /proc/stat."""
    names = {"ctxt": "context_switches", "intr": "interrupts"}
    events = {}
    for line in lines:
        word, _, rest = line.partition(" ")
        if word in names:
            events[names[word]] = [int(rest.split(" ", 1)[0])]
    return events


def frequencies(hertz: Mapping[str, float], *, per_core: bool = True) -> dict[str, float]:
    """The mean of the cores' clocks, and each of them; empty without any."""
    reading = {"frequency": sum(hertz.values()) / len(hertz)} if hertz else {}
    if per_core:
        reading.update((names_of(core, ("frequency",))[0], value) for core, value in hertz.items())
    return reading


def parse_cpuinfo(text: str) -> dict[str, float]:
    """The clock of each core in Hz, from /proc/cpuinfo; empty on machines that do not say."""
    hertz: dict[str, float] = {}
    core = ""
    for number, megahertz in _CPUINFO.findall(text):
        if number:
            core = f"core{number}"
        elif core:
            hertz[core] = 1e6 * float(megahertz)
    return hertz
