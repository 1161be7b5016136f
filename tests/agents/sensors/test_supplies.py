# SPDX-License-Identifier: MIT
from pathlib import Path

import pytest

from agents.base.files import read_once
from agents.sensors.channels import read_device
from agents.sensors.supplies import STATES, find_supplies, state_code
from tests.agents.sensors.desktop import BAT0, BAT1, Desktop


@pytest.fixture
def desktop(tmp_path: Path) -> Desktop:
    return Desktop(tmp_path / "sys")


def values(desktop: Desktop) -> dict[str, float]:
    (supply,) = find_supplies(desktop.sys, read_once)
    outcome = read_device(supply, read_once, float)
    assert outcome.failures == {}
    return outcome.values


def test_a_host_without_supplies_has_none(desktop) -> None:
    assert find_supplies(desktop.sys, read_once) == []


def test_a_battery_that_counts_energy(desktop) -> None:
    desktop.supply("BAT0", BAT0)
    assert values(desktop) == {
        "charge": 83.0,
        "state": 2.0,
        "power": 9.12,
        "voltage": 11.7,
        "energy": 149_400.0,
        "health": pytest.approx(87.719, abs=0.001),
        "temperature": 31.2,
    }


def test_a_battery_that_counts_charge(desktop) -> None:
    desktop.supply("BAT1", BAT1)
    assert values(desktop) == {
        "charge": 80.0,
        "state": 4.0,
        "power": 6.0,
        "voltage": 12.0,
        "current": 0.5,
        "health": 100.0,
    }


def test_how_full_a_battery_is_follows_from_its_energy_if_it_does_not_say(desktop) -> None:
    desktop.supply("BAT0", {"energy_now": "30000000", "energy_full": "40000000"})
    assert values(desktop) == {"charge": 75.0, "energy": 108_000.0}


def test_an_adapter_is_plugged_in_or_not(desktop) -> None:
    desktop.supply("AC", {"type": "Mains", "online": "1"})
    (supply,) = find_supplies(desktop.sys, read_once)
    assert supply.word == "ac"
    assert values(desktop) == {"online": 1.0}


def test_an_adapter_that_can_change_its_voltage_is_plugged_in_too(desktop) -> None:
    desktop.supply("USBC000", {"type": "USB", "online": "2"})  # "Online Programmable", says the kernel
    assert values(desktop) == {"online": 1.0}


def test_limits_are_only_those_that_have_files(desktop) -> None:
    place = desktop.supply("BAT0", BAT0)
    desktop.files(str(place.relative_to(desktop.sys)), {"temp_alert_max": "600"})
    (supply,) = find_supplies(desktop.sys, read_once)
    assert {channel.name: dict(channel.limits) for channel in supply.channels if channel.limits} == {
        "charge": {"low": f"{place}/capacity_alert_min"},
        "energy": {"full": f"{place}/energy_full"},
        "temperature": {"high": f"{place}/temp_alert_max"},
    }


def test_a_charge_made_from_two_files_has_no_limits(desktop) -> None:
    desktop.supply("BAT1", {**BAT1, "capacity_alert_min": "5"})
    (supply,) = find_supplies(desktop.sys, read_once)
    assert supply.channels[0].limits == ()


def test_a_supply_that_says_nothing_is_left_out(desktop) -> None:
    desktop.supply("usb", {"type": "USB"})
    assert find_supplies(desktop.sys, read_once) == []


def test_states_have_the_kernels_numbers() -> None:
    assert STATES.index("not charging") == 3
    texts = ("Unknown\n", "Charging\n", "Discharging", "Not charging\n", "Full\n")
    assert [state_code(text) for text in texts] == [0.0, 1.0, 2.0, 3.0, 4.0]
    with pytest.raises(ValueError):
        state_code("Exploding")
