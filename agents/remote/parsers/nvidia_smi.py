# SPDX-License-Identifier: MIT
"""NVIDIA GPUs of a remote host, by its ``nvidia-smi``: metrics of agents/gpu/source.py."""

import math
from collections.abc import Mapping

from agents.base.absent import NothingFound
from agents.base.rates import percent
from agents.gpu.source import GpuSource
from agents.remote.parser import Context, MetricParser
from agents.remote.parsers.common import SHOWN, table_of

MIB = 1 << 20
MHZ = 1e6

FIELDS = {
    "utilization.gpu": ("utilization", 1),
    "utilization.memory": ("memory_utilization", 1),
    "memory.total": ("memory.total", MIB),
    "memory.used": ("memory.used", MIB),
    "memory.free": ("memory.free", MIB),
    "temperature.gpu": ("temperature", 1),
    "temperature.memory": ("memory_temperature", 1),
    "power.draw": ("power", 1),
    "enforced.power.limit": ("power_limit", 1),
    "clocks.gr": ("clock.graphics", MHZ),
    "clocks.sm": ("clock.sm", MHZ),
    "clocks.mem": ("clock.memory", MHZ),
    "clocks.video": ("clock.video", MHZ),
    "fan.speed": ("fan", 1),
    "pstate": ("performance_state", 1),
    "pcie.link.gen.current": ("pcie.generation", 1),
    "pcie.link.width.current": ("pcie.width", 1),
    "ecc.errors.corrected.volatile.total": ("ecc.corrected", 1),
    "ecc.errors.uncorrected.volatile.total": ("ecc.uncorrected", 1),
    "ecc.errors.corrected.aggregate.total": ("ecc.lifetime.corrected", 1),
    "ecc.errors.uncorrected.aggregate.total": ("ecc.lifetime.uncorrected", 1),
}
"""What nvidia-smi is asked for: our name of it, and the size of its unit in ours.

All are older than the drivers in use: one field that a driver does not know would cost them all.
"""

_NAMES = frozenset(name for name, _ in FIELDS.values()) | {"memory.percent"}


class NvidiaSmiParser(MetricParser):
    """What the GPUs say, every 10 s. What one of them does not support is left out.

    It does not run unless it is asked for: nvidia-smi takes seconds where nothing else keeps the driver awake.
    """

    family = "gpu"
    command = f"nvidia-smi --query-gpu=index,{','.join(FIELDS)} --format=csv,noheader,nounits"
    every_s = 10.0
    metrics = table_of(GpuSource, lambda name: name.removeprefix("{gpu}.") in _NAMES)

    def parse(self, output: str, context: Context) -> Mapping[str, float]:
        """The values of all GPUs; those of one that nvidia-smi cannot reach are missing, and that is logged.

        Raises NothingFound if it reaches none, with what it says itself.
        """
        lines = output.splitlines()
        if not any(line.count(",") == len(FIELDS) for line in lines):
            raise NothingFound(f"nvidia-smi tells of no GPU; it says {output.strip()[:SHOWN]!r}")
        reading: dict[str, float] = {}
        for word, values in context.parts.each("GPU", lines, parse_gpu):
            reading.update((f"{word}.{name}", value) for name, value in values.items())
        return reading


def parse_gpu(line: str) -> tuple[str, dict[str, float]]:
    """The word of a GPU and its values, from a line of CSV. Raises ValueError.

    What is no number is left out: ``[N/A]``, ``[Not Supported]``, ``ERR!``, ``[GPU is lost]`` and more, as the
    driver's version has it.
    """
    index, *texts = (text.strip() for text in line.split(","))
    if len(texts) != len(FIELDS) or not (index.isascii() and index.isdecimal()):
        raise ValueError("nvidia-smi says no values here")
    values: dict[str, float] = {}
    for text, (name, size) in zip(texts, FIELDS.values(), strict=True):
        try:
            value = float(text.removeprefix("P"))  # P0 to P15, the performance states
        except ValueError:
            continue
        if math.isfinite(value) and value >= 0:
            values[name] = value * size
    if "memory.used" in values and "memory.free" in values:
        values["memory.percent"] = percent(values["memory.used"], values["memory.used"] + values["memory.free"])
    return f"gpu{int(index)}", values
