# SPDX-License-Identifier: MIT
"""What is drawn of a metric, and where the pen is lifted."""

import math

from agents.cli.history.charts.series import load
from tests.agents.cli.history.recorded import NS, T0, points, record, steps, wave
from tests.sinks.memory_archive import MemoryArchive


def test_points_are_joined_unless_time_without_them_is_longer_than_they_hold():
    assert points({0: 1, 1: 2, 4: 3, 4.5: 4}, hold_s=3).runs() == [(0, 4)]
    assert points({0: 1, 1: 2, 4.1: 3, 5: 4}, hold_s=3).runs() == [(0, 2), (2, 4)]


def test_what_is_no_number_leaves_a_hole():
    series = points({0: math.nan, 1: 1, 2: 2, 3: math.inf, 4: -math.inf, 5: 3, 6: math.nan})
    assert series.runs() == [(1, 3), (5, 6)]
    assert points({0: math.nan}).runs() == points({}).runs() == []


def test_steps_that_are_missing_leave_a_hole_only_if_that_is_longer_than_points_hold():
    one = (1.0, 2.0, 3.0)
    assert steps({0: one, 60: one, 180: one}, step_s=60).runs() == [(0, 2), (2, 3)]
    assert steps({0: one, 1: one, 5: one}, step_s=1).runs() == [(0, 3)]  # a point every few seconds, in steps of 1 s


async def test_a_series_has_the_points_of_the_range_or_the_means_of_its_steps():
    archive = MemoryArchive()
    await record(archive, "a.b", wave(120), unit="Cel", description="heat\n\x1b[31m", interval=1)
    metadata = (await archive.metrics())["a.b"]
    raw = await load(archive, "a.b", metadata, (T0, T0 + 10 * NS), 0)
    assert (list(raw.times), raw.values[0], raw.stepped) == ([T0 + i * NS for i in range(10)], 50.0, False)
    assert (raw.unit, raw.description, raw.hold_ns) == ("°C", "heat[31m", 3 * NS)
    stepped = await load(archive, "a.b", metadata, (T0, T0 + 120 * NS), 60 * NS)
    assert (list(stepped.times), list(stepped.counts), stepped.stepped) == ([T0, T0 + 60 * NS], [60, 60], True)
    assert all(
        low < mean < high for low, mean, high in zip(stepped.minima, stepped.values, stepped.maxima, strict=True)
    )
