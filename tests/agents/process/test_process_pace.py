# SPDX-License-Identifier: MIT
import pytest

from agents.process.pace import Pace


@pytest.mark.parametrize(
    ("period_s", "cost_s", "every_s"),
    [
        (1.0, 0.001, 1.0),
        (1.0, 0.0051, 2.0),
        (1.0, 0.0249, 5.0),
        (1.0, 0.2, 30.0),
        (0.1, 0.0004, 0.1),
        (0.1, 0.001, 1.0),
        (10.0, 0.02, 10.0),
        (10.0, 0.06, 30.0),
        (60.0, 1.0, 60.0),
    ],
)
def test_looks_stay_within_half_a_percent_of_a_core(period_s: float, cost_s: float, every_s: float) -> None:
    pace = Pace(period_s)
    assert pace.every_s == period_s
    assert pace.took(cost_s) == (every_s != period_s)
    assert pace.every_s == every_s
    assert not pace.took(cost_s)


def test_one_look_that_is_dear_changes_nothing_for_good() -> None:
    pace = Pace(1.0)
    for _ in range(10):
        pace.took(0.004)
    pace.took(0.02)
    assert pace.every_s == 2.0
    for _ in range(20):
        pace.took(0.0039)
    assert pace.every_s == 1.0


def test_a_quicker_pace_must_be_well_within_its_share() -> None:
    pace = Pace(1.0)
    pace.took(0.0051)
    for _ in range(50):
        pace.took(0.0045)
    assert pace.every_s == 2.0


def test_a_pace_that_somebody_chose_stays() -> None:
    pace = Pace(1.0, 3.0)
    assert not pace.took(5.0)
    assert pace.every_s == 3.0
    assert Pace(10.0, 3.0).every_s == 10.0
