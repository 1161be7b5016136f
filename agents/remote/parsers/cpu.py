# SPDX-License-Identifier: MIT
"""What the processors of a remote host do: the metrics of agents/cpu.py."""

import re
from collections.abc import Mapping

from agents.base.rates import Counters
from agents.cpu import (
    CPUINFO_EVERY_S,
    SLACK_TICKS,
    CpuSource,
    frequencies,
    parse_cpuinfo,
    parse_events,
    parse_times,
    usage,
)
from agents.remote.parser import Context, MetricParser
from agents.remote.parsers.common import kept, missing, table_of

_CLOCK = re.compile(r"/sys/devices/system/cpu/cpu(\d+)/cpufreq/scaling_cur_freq:(\d+)")


def _is_frequency(name: str) -> bool:
    return name.endswith("frequency")


class CpuParser(MetricParser):
    """Time by kind, of each core and of all, context switches and interrupts."""

    family = "cpu"
    command = "cat /proc/stat"
    metrics = table_of(CpuSource, lambda name: not _is_frequency(name))

    def parse(self, output: str, context: Context) -> Mapping[str, float]:
        """The shares of time since the last run."""
        lines = output.splitlines()
        core_lines = [line for line in lines if line.startswith("cpu")]
        if not core_lines:
            raise missing("/proc/stat", output)
        times = dict(context.parts.each("core times", core_lines, parse_times))
        reading = usage(kept(context, "times", lambda: Counters(slack=SLACK_TICKS)).update(context.now_s, times))
        with context.parts("events"):
            step = kept(context, "events", Counters).update(context.now_s, parse_events(lines))
            for event, (rate,) in step.per_second().items():
                reading[event] = rate
        return reading


class CpuFrequencyParser(MetricParser):
    """The clocks, by the frequency driver or else by /proc/cpuinfo.

    Hosts that tell neither have none: that is usual on virtual machines that are not x86, and no failure.
    """

    family = "cpu"
    command = (
        "grep -sH '' /sys/devices/system/cpu/cpu[0-9]*/cpufreq/scaling_cur_freq"
        " || grep -E '^(processor|cpu MHz)' /proc/cpuinfo || :"
    )
    every_s = CPUINFO_EVERY_S
    metrics = table_of(CpuSource, _is_frequency)

    def parse(self, output: str, context: Context) -> Mapping[str, float]:
        """The clocks now; a core that is taken out of service meanwhile has none."""
        lines = [line for line in output.splitlines() if line.startswith("/")]
        hertz = dict(context.parts.each("clock", lines, parse_clock))
        return frequencies(hertz or parse_cpuinfo(output))


def parse_clock(line: str) -> tuple[str, float]:
    """``/sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq:2400000`` → core0 and its clock in Hz.

    Raises ValueError: some drivers say ``<unknown>``.
    """
    match = _CLOCK.fullmatch(line)
    if match is None:
        raise ValueError("no core and its clock in kHz")
    return f"core{match[1]}", 1e3 * int(match[2])
