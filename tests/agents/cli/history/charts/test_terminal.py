# SPDX-License-Identifier: MIT
"""Charts in the terminal, as they look."""

import math
from textwrap import dedent

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.cli.history.charts.raster import ASCII, BRAILLE, style_for
from agents.cli.history.charts.series import Series
from agents.cli.history.charts.terminal import Canvas, chart
from tests.agents.cli.history.recorded import NS, T0, points, steps, time_zone

SMALL = Canvas(columns=50, lines=10, style=ASCII, colours=False)
FINE = Canvas(columns=50, lines=10, style=BRAILLE, colours=False)
COLOURED = Canvas(columns=80, lines=30, style=BRAILLE, colours=True)


@pytest.fixture(autouse=True)
def utc(monkeypatch):
    with time_zone(monkeypatch, "UTC"):
        yield


def drawn(series: list[Series], seconds: float, canvas: Canvas = SMALL) -> str:
    lines = chart(series, T0, T0 + round(seconds * NS), canvas)
    return "\n".join("".join(text for text, _ in line).rstrip() for line in lines) + "\n"


def test_points_are_joined_by_a_line_with_axes_and_units():
    assert drawn([points({0: 0, 150: 100, 299: 0}, hold_s=300)], 300) == dedent(
        """\
        web1.cpu.usage [%]
              100+                   ***
                 |              *****   ****
                 |           ***            ****
               50+      *****                   ****
                 |   ***                            ****
                0+***                                   **
                 ++---------------+---------------+-------
                11-21           00:02           00:04
        2026-11-21 00:00:00 to 00:05:00 UTC+00:00; all points
        """
    )


def test_steps_have_a_band_from_minimum_to_maximum_and_last_as_long_as_they_do():
    series = steps({0: (0, 5, 10), 60: (5, 6, 8), 180: (1, 2, 3)}, step_s=60)
    assert drawn([series], 300, FINE) == dedent(
        """\
        web1.cpu.usage [%]
               10┤⡪⡪⡪⡪⡪⡪⡪⡪
                 │⡪⡪⡪⡪⡪⡪⡪⡪⡢⡢⡢⡢⡢⡢⡢⡢
                5┤⣀⣀⣀⣀⣀⣀⣀⣀⠖⠒⠒⠒⠒⠒⠒⠒
                 │⡪⡪⡪⡪⡪⡪⡪⡪
                 │⡪⡪⡪⡪⡪⡪⡪⡪                ⠤⠤⠤⠤⠤⠤⠤⠤
                0┤⡪⡪⡪⡪⡪⡪⡪⡪                ⠊⠊⠊⠊⠊⠊⠊⠊
                 └┬───────────────┬───────────────┬───────
                11-21           00:02           00:04
        2026-11-21 00:00:00 to 00:05:00 UTC+00:00; means of 1min, dots: min to max
        """
    )


def test_holes_stay_holes():
    gap = points({0: 5, 1: 5, 8: 5, 9: 5})
    nan = points({0: 5, 1: 5, 4: math.nan, 8: 5, 9: 5}, hold_s=9)
    for series in (gap, nan):
        (line,) = (row for row in drawn([series], 10).splitlines() if "*" in row)
        assert line[10:] == "*****" + " " * 27 + "*****"


def test_with_colours_metrics_of_one_unit_share_a_panel_and_without_each_has_its_own():
    three = [
        points({0: 1, 1: 9}),
        points({0: 9, 1: 1}, "web2.cpu.usage"),
        points({0: 1e6, 1: 2e6}, "web1.network.eth0.rx_bytes", "B/s"),
    ]
    lines = chart(three, T0, T0 + 2 * NS, COLOURED)
    assert [line[0] for line in lines if line[0][1]] == [
        ("web1.cpu.usage [%]", "cyan"),
        ("web2.cpu.usage [%]", "yellow"),
        ("web1.network.eth0.rx_bytes [MB/s]", "cyan"),
    ]
    first_panel = {
        colour for line in lines[2 : lines.index(next(x for x in lines if "MB/s" in x[0][0]))] for _, colour in line
    }
    assert first_panel == {"", "cyan", "yellow"}
    plain = chart(three, T0, T0 + 2 * NS, SMALL)
    assert {colour for line in plain for _, colour in line} == {""}
    assert [line[0][0] for line in plain if "[" in line[0][0]] == [
        f"{one.metric} [{unit}]" for one, unit in zip(three, ("%", "%", "MB/s"), strict=True)
    ]
    assert len([line for line in plain if "+--" in "".join(text for text, _ in line)]) == 1


def test_a_long_range_says_both_days_and_the_clock_is_the_local_one(monkeypatch):
    with time_zone(monkeypatch, "Europe/Berlin"):
        assert drawn([points({0: 1})], 86400).splitlines()[-1] == (
            "2026-11-21 01:00:00 to 2026-11-22 01:00:00 UTC+01:00; all points"
        )


@pytest.mark.parametrize(
    ("encoding", "style"),
    [("utf-8", BRAILLE), ("ascii", ASCII), ("iso-8859-15", ASCII), ("cp437", ASCII), ("nonsense", ASCII)],
)
def test_an_output_that_cannot_show_braille_gets_ascii(encoding, style):
    assert style_for(encoding) is style


anything = st.dictionaries(st.floats(0, 99), st.floats(), min_size=1, max_size=20)


@given(anything, st.integers(1, 130), st.integers(1, 60), st.sampled_from([ASCII, BRAILLE]))
def test_whatever_the_values_a_chart_is_as_wide_as_the_terminal_at_most(values, columns, lines, style):
    ordered = dict(sorted(values.items()))
    picture = drawn([points(ordered)], 100, Canvas(columns=columns, lines=lines, style=style, colours=False))
    assert all(len(line) <= max(columns, 20) for line in picture.splitlines()[1:-1])
    assert len(picture.splitlines()) == 4 + max(5, min(18, lines - 4))
