# SPDX-License-Identifier: MIT
"""Points for tests of what shows history."""

from __future__ import annotations

import math
import time
from array import array
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from agents.cli.history.charts.series import Series
from bus.archive import Archive
from bus.frame import Group

NS = 10**9
T0 = 1_795_219_200 * NS
"""2026-11-21T00:00:00Z"""


async def record(archive: Archive, metric: str, points: dict[float, float], **about: object) -> None:
    """Store points, given as {seconds after T0: value}, and metadata."""
    times = array("q", [T0 + round(second * NS) for second in sorted(points)])
    values = array("d", [points[second] for second in sorted(points)])
    await archive.insert([Group((metric,), times, values)])
    await archive.set_metadata({metric: about})


def wave(seconds: int, *, step: int = 1, scale: float = 40.0) -> dict[float, float]:
    """A sine around 50, one period in 10 minutes."""
    return {float(second): 50 + scale * math.sin(second * math.tau / 600) for second in range(0, seconds, step)}


def points(values: dict[float, float], metric: str = "web1.cpu.usage", unit: str = "%", hold_s: float = 3) -> Series:
    """A series of points, {seconds after T0: value}."""
    times = array("q", [T0 + round(second * NS) for second in values])
    none = array("d")
    return Series(
        metric=metric,
        unit=unit,
        step_ns=0,
        hold_ns=round(hold_s * NS),
        times=times,
        values=array("d", values.values()),
        minima=none,
        maxima=none,
        counts=array("q"),
    )


def steps(
    values: dict[float, tuple[float, float, float]], step_s: float, metric: str = "web1.cpu.usage", unit: str = "%"
) -> Series:
    """A series of steps, {seconds after T0: (minimum, mean, maximum)}; three seconds without values are no hole."""
    minima, means, maxima = zip(*values.values(), strict=True)
    return Series(
        metric=metric,
        unit=unit,
        step_ns=round(step_s * NS),
        hold_ns=3 * NS,
        times=array("q", [T0 + round(second * NS) for second in values]),
        values=array("d", means),
        minima=array("d", minima),
        maxima=array("d", maxima),
        counts=array("q", [round(step_s)] * len(values)),
    )


@contextmanager
def time_zone(monkeypatch: pytest.MonkeyPatch, name: str) -> Iterator[None]:
    """This machine's clock is in a time zone."""
    with monkeypatch.context() as patch:
        patch.setenv("TZ", name)
        time.tzset()
        yield
    time.tzset()
