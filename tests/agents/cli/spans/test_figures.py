# SPDX-License-Identifier: MIT
"""What a metric came to over a span: against the definition, and the words for it."""

import math
from array import array
from itertools import pairwise
from unittest import mock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.cli import columns, quantity
from agents.cli.bundles import bundles
from agents.cli.spans.figures import all_figures, figures
from bus.aggregates import hold_ns
from bus.frame import Group
from tests.sinks.memory_archive import MemoryArchive

NS = 1_000_000_000
ABOUT = {"unit": "W", "interval": 1.0}


async def archive_of(points, metric="a.power", about=ABOUT):
    archive = MemoryArchive()
    times, values = array("q", [t for t, _ in points]), array("d", [v for _, v in points])
    if points:
        await archive.insert([Group((metric,), times, values)])
        await archive.set_metadata({metric: about})
    return archive


def by_definition(points, start, end, hold):
    """(count, integral, covered_s): every point speaks back to the one before it, within the span."""
    count, integral, covered = 0, 0.0, 0.0
    for (before, _), (time, value) in pairwise([(None, 0.0), *points]):
        speaks = before is not None and time - before <= hold
        begin = before if speaks else time
        own = max(0, min(time, end) - max(begin, start))
        if math.isnan(value) or time <= start or (time > end and not own):
            continue
        count += 1
        integral += value * own / NS
        covered += own / NS
    return count, integral, covered


@st.composite
def series(draw):
    steps = draw(st.lists(st.sampled_from([NS // 2, NS, NS, 2 * NS, 3 * NS, 4 * NS, 20 * NS]), max_size=20))
    times = [100 * NS]
    for step in steps:
        times.append(times[-1] + step)
    values = draw(
        st.lists(st.one_of(st.floats(-100, 100), st.just(math.nan)), min_size=len(times), max_size=len(times))
    )
    start = draw(st.integers(95 * NS, 140 * NS))
    return list(zip(times, values, strict=True)), start, start + draw(st.integers(1, 30 * NS))


@pytest.mark.parametrize("few", [0, 10_000])
@given(drawn=series())
async def test_the_figures_are_those_of_the_definition_cut_at_both_ends_of_the_span(few, drawn):
    points, start, end = drawn
    count, integral, covered = by_definition(points, start, end, hold_ns(ABOUT))
    with mock.patch("agents.cli.spans.figures.FEW", few):  # by aggregates, and by points
        found = await figures(await archive_of(points), "a.power", ABOUT, start, end)
    if not count:
        assert found is None
        return
    assert found.count == count
    assert found.integral == pytest.approx(integral, abs=1e-6)
    assert found.covered_s == pytest.approx(covered, abs=1e-9)
    assert found.minimum <= found.maximum


async def test_a_command_that_ran_between_two_ticks_has_the_figures_of_its_part():
    points = [(10 * NS, 50.0), (11 * NS, 60.0), (12 * NS, 80.0)]
    found = await figures(await archive_of(points), "a.power", ABOUT, 11 * NS + NS // 4, 11 * NS + 3 * NS // 4)
    assert (found.count, found.mean, found.integral, found.coverage) == (1, 80.0, 40.0, 1.0)


async def test_a_metric_of_which_the_archive_learned_too_late_is_not_covered_where_it_was_silent():
    class Late(MemoryArchive):
        async def aggregates(self, metric, start_ns, end_ns, every_ns=None):
            self._metadata = {}
            return await super().aggregates(metric, start_ns, end_ns, every_ns)

    archive = Late()
    times = array("q", [second * NS for second in (10, 11, 51, 52, 53)])
    await archive.insert([Group(("a.power",), times, array("d", [5.0] * 5))])
    found = await figures(archive, "a.power", ABOUT, 10 * NS, 53 * NS)
    assert (found.count, found.covered_s, found.integral) == (4, 3.0, 15.0)


async def test_half_of_a_span_without_points_is_half_covered_and_does_not_change_the_mean():
    points = [(t * NS, 7.0) for t in range(10, 16)]
    found = await figures(await archive_of(points), "a.power", ABOUT, 10 * NS, 20 * NS)
    assert (found.mean, found.coverage, found.integral) == (7.0, 0.5, 35.0)


async def test_a_metric_without_points_has_no_figures():
    archive = await archive_of([(t * NS, 1.0) for t in range(5)])
    assert await all_figures(archive, {"a.power": ABOUT, "nobody": {}}, 100 * NS, 200 * NS) == {}


@pytest.mark.parametrize(
    ("value", "unit", "told"),
    [
        (12.5, "W", "12.5 J"),
        (12_345.0, "W", "12.35 kJ"),
        (90_000.0, "W", "25 Wh"),
        (9e6, "W", "2.5 kWh"),
        (3.4e10, "B/s", "34 GB"),
        (625.0, "%", "625 %·s"),
        (12.0, "1/s", "12"),
        (120.0, "1/min", "2"),
        (5.0, "1", "5 s"),
        (2e9, "B", "2 GB·s"),
        (4.0, "", "4"),
    ],
)
def test_an_integral_has_the_unit_that_it_is_of(value, unit, told):
    assert quantity.integral_amount(value, unit) == told


@pytest.mark.parametrize(
    ("seconds", "told"),
    [
        (0.0123, "12.3 ms"),
        (2.506, "2.506 s"),
        (59.9996, "60 s"),
        (200, "3 min 20 s"),
        (3599.7, "1 h"),
        (7500, "2 h 5 min"),
    ],
)
def test_a_length_of_time_reads_well(seconds, told):
    assert quantity.length(seconds) == told


@given(st.floats(allow_nan=True, allow_infinity=True))
def test_a_number_never_takes_more_than_10_characters(value):
    assert len(quantity.digits(value)) <= 10


def test_a_change_from_nothing_has_no_percentage():
    assert (quantity.change(0.0, 5.0), quantity.change(0.0, 0.0), quantity.change(50.0, 60.0)) == (
        "-",
        "0 %",
        "+20.0 %",
    )


def test_a_long_name_has_a_line_of_its_own_and_no_line_is_longer_than_80():
    long = "host-with-a-long-name.disk.a-device-with-a-long-name.written_bytes"
    rows = [("web1.cpu.usage", "12.34", "100%"), (long, "1", "9%")]
    assert list(columns.lines(("metric", "a column that is rather wide", "cover"), rows, width=60)) == [
        "metric          a column that is rather wide  cover",
        "web1.cpu.usage                         12.34   100%",
        long,
        "                                           1     9%",
    ]


def test_all_metrics_of_an_agent_are_one_name():
    known = [
        f"{host}.{family}.m{number}" for host in ("web1", "web2") for family in ("cpu", "disk") for number in range(5)
    ]
    cpu = {name for name in known if name.startswith("web1.cpu.")}
    assert bundles(cpu, known) == ["web1.cpu.# (5 metrics)"]
    assert bundles({"web1.cpu.m1"}, known) == ["web1.cpu.m1"]
    assert bundles(set(known), known) == ["# (20 metrics)"]
    assert bundles({name for name in known if name.startswith("web2.")}, known) == ["web2.# (10 metrics)"]
    assert bundles({*cpu, "web2.disk.m3"}, known) == ["web1.cpu.# (5 metrics)", "web2.disk.m3"]
    some = {name for name in known if name.endswith(("m1", "m3"))}
    assert bundles({name for name in some if name.startswith("web1.")}, known) == ["web1.# (4 of 10 metrics)"]
