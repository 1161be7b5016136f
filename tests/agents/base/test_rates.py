# SPDX-License-Identifier: MIT
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.base.rates import Counters, percent, wrapped_gain

LIMIT_32 = 2**32
LIMIT_64 = 2**64


def test_a_first_look_has_no_rate() -> None:
    assert Counters().update(1.0, {"sda": [5]}).gains == {}


def test_a_rate_is_the_gain_by_the_seconds_between_looks() -> None:
    counters = Counters()
    counters.update(10.0, {"sda": [100, 7]})
    assert counters.update(12.5, {"sda": [200, 7]}).per_second() == {"sda": [40.0, 0.0]}


def test_a_device_that_appears_starts_without_a_rate_and_has_one_afterwards() -> None:
    counters = Counters()
    counters.update(1.0, {"sda": [1]})
    assert counters.update(2.0, {"sda": [2], "sdb": [1000]}).gains == {"sda": [1]}
    assert counters.update(3.0, {"sda": [3], "sdb": [1004]}).gains == {"sda": [1], "sdb": [4]}


def test_a_device_that_comes_back_starts_anew() -> None:
    counters = Counters()
    counters.update(1.0, {"usb": [100]})
    counters.update(2.0, {})
    assert counters.update(3.0, {"usb": [900]}).gains == {}
    assert counters.update(4.0, {"usb": [901]}).gains == {"usb": [1]}


def test_a_counter_that_was_reset_costs_its_device_one_look() -> None:
    counters = Counters()
    counters.update(1.0, {"eth0": [500_000, 20], "eth1": [1, 1]})
    assert counters.update(2.0, {"eth0": [10, 30], "eth1": [2, 1]}).gains == {"eth1": [1, 0]}
    assert counters.update(3.0, {"eth0": [15, 30], "eth1": [2, 1]}).gains == {"eth0": [5, 0], "eth1": [0, 0]}


def test_a_counter_of_32_bits_that_wraps_goes_on() -> None:
    counters = Counters()
    counters.update(1.0, {"sda": [LIMIT_32 - 10, 5]})
    assert counters.update(2.0, {"sda": [20, 6]}).gains == {"sda": [30, 1]}


@pytest.mark.parametrize(
    ("old", "new", "gain"),
    [
        (LIMIT_32 - 1, 0, 1),
        (LIMIT_32 - 2**30, 0, None),
        (LIMIT_32 - 2**30 + 1, 0, 2**30 - 1),
        (LIMIT_32 - 2**30 - 1, 5, None),
        (LIMIT_32 - 10, 2**30 - 11, 2**30 - 1),
        (LIMIT_32 - 10, 2**30, None),
        (LIMIT_32, 0, None),
        (LIMIT_64 - 3, 4, 7),
        (LIMIT_64 + 1, 4, None),
        (1000, 0, None),
    ],
)
def test_a_fall_is_a_wrap_only_near_the_limit_and_for_a_small_gain(old: int, new: int, gain: int | None) -> None:
    assert wrapped_gain(old, new) == gain


def test_a_small_fall_within_the_slack_counts_as_no_gain() -> None:
    counters = Counters(slack=2)
    counters.update(1.0, {"core0": [100, 50]})
    assert counters.update(2.0, {"core0": [98, 60]}).gains == {"core0": [0, 10]}
    assert counters.update(3.0, {"core0": [95, 70]}).gains == {}


def test_a_look_that_was_delayed_changes_nothing() -> None:
    counters = Counters()
    counters.update(5.0, {"sda": [100]})
    assert counters.update(5.0, {"sda": [50]}).gains == {}
    assert counters.update(4.0, {"sda": [50]}).gains == {}
    assert counters.update(6.0, {"sda": [101]}).gains == {"sda": [1]}


def test_a_device_with_another_number_of_counters_starts_anew() -> None:
    counters = Counters()
    counters.update(1.0, {"sda": [1, 2]})
    assert counters.update(2.0, {"sda": [1, 2, 3]}).gains == {}


@given(st.lists(st.integers(0, LIMIT_64), min_size=2, max_size=6), st.integers(1, 10**6), st.sampled_from([0, 3, 100]))
def test_a_rate_is_never_negative(values: list[int], step_ms: int, slack: int) -> None:
    counters = Counters(slack=slack)
    for number, value in enumerate(values):
        step = counters.update(number * step_ms / 1e3, {"x": [value]})
        assert all(rate >= 0 for rates in step.per_second().values() for rate in rates)


def test_a_percentage_of_nothing_is_zero() -> None:
    assert (percent(1, 4), percent(0, 0)) == (25.0, 0.0)
