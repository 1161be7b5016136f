# SPDX-License-Identifier: MIT
"""Where axes have ticks, and what stands there."""

from hypothesis import given
from hypothesis import strategies as st

from agents.cli.history.charts.axes import LABEL_COLUMNS, time_ticks, value_axis
from agents.cli.localtime import DAY_NS, NS_PER_S
from tests.agents.cli.history.recorded import NS, T0

finite = st.floats(allow_nan=False, allow_infinity=False)


def labels(low: float, high: float, unit: str = "") -> list[str]:
    return [label for _, label in value_axis(low, high, unit, 4).ticks]


@given(finite, finite, st.sampled_from(["", "B/s", "%"]), st.integers(2, 8))
def test_an_axis_holds_all_values_and_has_two_ticks_or_more(a, b, unit, most):
    low, high = sorted((a, b))
    axis = value_axis(low, high, unit, most)
    assert axis.low < axis.high
    assert 0.0 <= axis.place(low) <= axis.place(high) <= 1.0
    assert 2 <= len(axis.ticks) <= max(most + 1, 6)
    assert all(axis.low <= value <= axis.high and len(label) <= LABEL_COLUMNS for value, label in axis.ticks)


def test_ticks_are_numbers_that_people_like():
    assert labels(0, 100) == ["0", "50", "100"]
    assert labels(13, 94) == ["20", "40", "60", "80"]
    assert labels(0.012, 0.051) == ["0.02", "0.03", "0.04", "0.05"]
    assert labels(-3, 2) == ["-2", "0", "2"]


def test_a_value_that_never_changes_is_in_the_middle():
    axis = value_axis(42.0, 42.0, "%", 4)
    assert 0.4 < axis.place(42.0) < 0.6
    assert value_axis(0.0, 0.0, "%", 4).low == 0.0


def test_large_numbers_of_bytes_have_a_prefix_and_those_of_others_do_not():
    axis = value_axis(0, 4e6, "B/s", 4)
    assert (axis.unit, [label for _, label in axis.ticks]) == ("MB/s", ["0", "1", "2", "3", "4"])
    assert value_axis(0, 4e6, "1/min", 4).unit == "1/min"


def test_times_are_round_on_the_local_clock():
    kolkata = 5 * 3600 + 1800
    ticks = time_ticks(T0, T0 + 3 * 3600 * NS, kolkata, 4)
    assert [label for _, label in ticks] == ["06:00", "07:00", "08:00"]
    assert (ticks[0][0] + kolkata * NS_PER_S) % (3600 * NS) == 0


def test_midnight_says_which_day_begins():
    assert "11-21" in [label for _, label in time_ticks(T0 - 6 * 3600 * NS, T0 + 6 * 3600 * NS, 0, 6)]
    assert [label for _, label in time_ticks(T0, T0 + 2 * DAY_NS, 0, 2)] == ["2026-11-21", "2026-11-22"]


def test_within_a_second_the_fraction_is_told():
    ticks = time_ticks(T0, T0 + NS // 10, 0, 4)
    assert [label for _, label in ticks] == ["11-21", "00:00:00.050"]


@given(st.integers(-(2**62), 2**62), st.integers(1, 2**62), st.integers(-43200, 50400), st.integers(1, 12))
def test_ticks_of_time_are_few_and_in_the_range(start, span, offset, most):
    ticks = time_ticks(start, start + span, offset, most)
    assert len(ticks) <= most + 1
    assert all(start <= time < start + span for time, _ in ticks)
