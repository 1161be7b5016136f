# SPDX-License-Identifier: MIT
"""How much wants to run, what it waits for, and since when the host is up."""

import os
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from typing import Annotated, Unpack

import psutil
from msgspec import Meta

from agents.base.devices import names_of
from agents.base.files import read_once
from agents.base.rates import Counters, Step
from agents.host import HostConfig, HostOptions, HostSource, Metric, Reading
from bus.transport.base import Transport

AVERAGES = ("1m", "5m", "15m")
PER_CORE = ("1m_per_core", "5m_per_core", "15m_per_core")

STATES = {"R": "running", "S": "sleeping", "D": "blocked", "Z": "zombie", "T": "stopped", "t": "stopped", "I": "idle"}
"""The states of processes (man 5 proc); traced ones are stopped, idle ones are threads of the kernel."""

PROCESSES_EVERY_S = 10.0
"""10 µs a process: 1 ms with 100 of them, 10 ms with 1,000; so not every second."""

RESOURCES = ("cpu", "memory", "io")
WINDOWS = ("avg10", "avg60", "avg300")


PRESSURE = "Linux 4.20 or later, with PSI"


def _pressure_metrics(resource: str) -> tuple[Metric, ...]:
    found = []
    for share, who in (("some", "some task waited"), ("full", "all tasks waited")):
        base = f"pressure.{resource}.{share}"
        about = f"time in which {who} for {resource}"
        found += [
            Metric(f"{base}.{window}", "%", f"{about}, {window[3:]}-second average", platform=PRESSURE)
            for window in WINDOWS
        ]
        found.append(Metric(f"{base}.total", "%", f"{about}, since the last value", scope="last", platform=PRESSURE))
    return tuple(found)


class LoadConfig(HostConfig, frozen=True):
    """What the family can be told."""

    processes: Annotated[bool, Meta(description="count processes by state, every 10 s")] = True


class LoadSource(HostSource):
    """How much wants to run, what it waits for, and since when the host is up.

    Measured: 0.1 ms of CPU a reading, and every 10 s 1 ms for 100 processes.
    """

    Config = LoadConfig
    config: LoadConfig
    family = "load"
    metrics = (
        Metric("1m", "1", "tasks that run or wait for a core or a disk, 1-minute average"),
        Metric("5m", "1", "tasks that run or wait for a core or a disk, 5-minute average"),
        Metric("15m", "1", "tasks that run or wait for a core or a disk, 15-minute average"),
        *(
            Metric(name, "1", f"the {name.partition('_')[0]} average, divided by the number of cores")
            for name in PER_CORE
        ),
        Metric("tasks.running", "1", "threads that run or wait for a core"),
        Metric("tasks.total", "1", "threads"),
        Metric("uptime", "s", "time since the host was started"),
        Metric("users", "1", "sessions logged in"),
        *(
            Metric(f"processes.{state}", "1", f"{state} processes, counted every 10 s", every_s=PROCESSES_EVERY_S)
            for state in dict.fromkeys((*STATES.values(), "total"))
        ),
        *(metric for resource in RESOURCES for metric in _pressure_metrics(resource)),
    )

    def __init__(self, token: str, url: str | Transport = "", **options: Unpack[HostOptions]) -> None:
        super().__init__(token, url, **options)
        self._stalled = Counters()

    def read(self) -> Reading:
        """What /proc says now; pressure also since the last reading."""
        reading: dict[str, float] = {}
        with self.parts("load"):
            reading |= averages(self.proc("loadavg"), self._cores())
        with self.parts("uptime"):
            reading["uptime"] = parse_uptime(self.proc("uptime"))
        with self.parts("users"):
            reading["users"] = count_users()
        if self.config.processes and self.due("processes", PROCESSES_EVERY_S):
            with self.parts("processes"):
                reading |= self._processes()
        reading |= self._pressure()
        return reading

    def _cores(self) -> int:
        try:
            return parse_cores(self.files.read(f"{self.roots.sys}/devices/system/cpu/online"))
        except (OSError, ValueError):
            return os.cpu_count() or 1

    def _processes(self) -> dict[str, float]:
        states: Counter[str] = Counter()
        for name in os.listdir(self.roots.proc):
            if name.isdecimal():
                with suppress(OSError, ValueError):  # it ended meanwhile
                    states[parse_state(read_once(f"{self.roots.proc}/{name}/stat"))] += 1
        return numbers(states)

    def _pressure(self) -> dict[str, float]:
        now_s = self.clock()
        stalled: dict[str, list[int]] = {}
        reading: dict[str, float] = {}
        for resource in RESOURCES:
            with self.parts(f"pressure of {resource}"):
                for line in self.proc(f"pressure/{resource}").splitlines():
                    averages_of, total_of = pressure(resource, line)
                    reading |= averages_of
                    stalled |= total_of
        return reading | stalls(self._stalled.update(now_s, stalled))


def parse_loadavg(text: str) -> tuple[list[float], int, int]:
    """The three averages, the threads that run and all threads, from /proc/loadavg. Raises ValueError."""
    one, five, fifteen, threads, *_ = text.split()
    running, _, total = threads.partition("/")
    return [float(one), float(five), float(fifteen)], int(running), int(total)


def averages(text: str, cores: int) -> dict[str, float]:
    """The load averages, in total and per core, and the threads, from /proc/loadavg. Raises ValueError."""
    values, running, total = parse_loadavg(text)
    reading: dict[str, float] = dict(zip(AVERAGES, values, strict=True))
    reading.update((name, value / cores) for name, value in zip(PER_CORE, values, strict=True))
    return reading | {"tasks.running": running, "tasks.total": total}


def parse_uptime(text: str) -> float:
    """Seconds since the start, from /proc/uptime. Raises ValueError or IndexError."""
    return float(text.split()[0])


def parse_cores(text: str) -> int:
    """How many cores are in service: ``0-3,5`` are 5. Raises ValueError."""
    cores = 0
    for span in text.strip().split(","):
        first, _, last = span.partition("-")
        cores += int(last or first) - int(first) + 1
    return cores


def parse_state(stat: str) -> str:
    """The state in a /proc/PID/stat, in words. Raises ValueError if there is none.

    It follows the last ``)``: the name before it may hold blanks and parentheses.
    """
    letter = stat[stat.rindex(")") + 2 : stat.rindex(")") + 3]
    if letter not in STATES:
        raise ValueError(f"{letter!r} is not the state of a process that lives")
    return STATES[letter]


def parse_pressure(line: str) -> tuple[str, list[float], int]:
    """``some avg10=0.12 ... total=345`` → some, the averages in %, the total in µs. Raises ValueError or KeyError."""
    share, *pairs = line.split()
    if share not in ("some", "full"):
        raise ValueError(f"{share!r} is neither some nor full")
    fields = dict(pair.split("=", 1) for pair in pairs)
    return share, [float(fields[window]) for window in WINDOWS], int(fields["total"])


def pressure(resource: str, line: str) -> tuple[dict[str, float], dict[str, list[int]]]:
    """The averages in a line of /proc/pressure/RESOURCE, and its counter for `stalls`.

    Raises ValueError or KeyError.
    """
    share, values, total_us = parse_pressure(line)
    base = f"pressure.{resource}.{share}"
    return dict(zip(names_of(base, WINDOWS), values, strict=True)), {base: [total_us]}


def stalls(step: Step) -> dict[str, float]:
    """The share of the step in which tasks waited, for each kind of pressure."""
    return {
        names_of(base, ("total",))[0]: min(100.0, gain_us / 1e4 / step.elapsed_s)
        for base, (gain_us,) in step.gains.items()
    }


def numbers(states: Mapping[str, int]) -> dict[str, float]:
    """The processes in each state, and of all, from how often each state was seen."""
    found = {f"processes.{state}": float(states.get(state, 0)) for state in dict.fromkeys(STATES.values())}
    return found | {"processes.total": float(sum(states.values()))}


def count_users() -> int:
    """Sessions logged in, by the system's list of them (utmp); 0 on systems that keep none."""
    return len(psutil.users())
