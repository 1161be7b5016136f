# SPDX-License-Identifier: MIT
import errno
from pathlib import Path

import pytest

from agents.base.files import read_once
from agents.sensors.channels import Device
from agents.sensors.rapl import EnergyMeter, find_energies
from tests.agents.sensors.desktop import Desktop, Files, io_error

RANGE_UJ = 262_143_328_850


@pytest.fixture
def desktop(tmp_path: Path) -> Desktop:
    made = Desktop(tmp_path / "sys")
    made.files("class/powercap/intel-rapl", {"enabled": "1"})
    return made


def zones(desktop: Desktop) -> dict[str, Device]:
    return {zone.word: zone for zone in find_energies(desktop.sys, read_once).zones}


def test_a_host_without_powercap_has_no_zones(tmp_path: Path) -> None:
    found = find_energies(tmp_path, read_once)
    assert (found.zones, found.locked) == ([], [])


def test_zones_are_called_by_the_names_of_those_around_them(desktop) -> None:
    desktop.rapl("intel-rapl:0", "package-0", 1)
    desktop.rapl("intel-rapl:0:0", "core", 1)
    desktop.rapl("intel-rapl:0:1", "uncore", 1)
    desktop.rapl("intel-rapl:1", "package-1", 1)
    desktop.rapl("intel-rapl:1:0", "core", 1)
    desktop.rapl("intel-rapl:2", "psys", 1, max_uj=65_712_999_613)
    found = zones(desktop)
    assert list(found) == [
        "rapl.package-0",
        "rapl.package-0.core",
        "rapl.package-0.uncore",
        "rapl.package-1",
        "rapl.package-1.core",
        "rapl.psys",
    ]
    assert found["rapl.psys"].max_energy_uj == 65_712_999_613
    assert found["rapl.package-1.core"].address == "intel-rapl_1_0"


def test_a_package_that_is_there_twice_is_taken_once_from_the_registers(desktop) -> None:
    desktop.rapl("intel-rapl-mmio:0", "package-0", 7)
    registers = desktop.rapl("intel-rapl:0", "package-0", 1)
    assert [zone.key for zone in find_energies(desktop.sys, read_once).zones] == [str(registers)]


def test_a_package_that_only_memory_has_is_taken_from_there(desktop) -> None:
    desktop.rapl("intel-rapl-mmio:0", "package-0", 7)
    assert list(zones(desktop)) == ["rapl.package-0"]


def test_what_is_no_energy_counter_is_left_out(desktop) -> None:
    (desktop.rapl("intel-rapl:0", "package-0", 1) / "energy_uj").unlink()
    desktop.rapl("dtpm:0", "dtpm", 1)
    assert find_energies(desktop.sys, read_once).zones == []


def test_counters_that_only_root_may_read_are_no_zones_but_named(desktop) -> None:
    place = desktop.rapl("intel-rapl:0", "package-0", 1)
    desktop.rapl("intel-rapl:1", "package-1", 1)
    files = Files()
    files.failing[f"{place.name}/energy_uj"] = io_error(errno.EACCES)
    found = find_energies(desktop.sys, files)
    assert found.locked == [f"{place}/energy_uj"]
    assert [zone.word for zone in found.zones] == ["rapl.package-1"]


def test_a_counter_that_does_not_answer_at_first_is_a_zone(desktop) -> None:
    desktop.rapl("intel-rapl:0", "package-0", 1)
    files = Files()
    files.failing["energy_uj"] = io_error(errno.ENODATA)
    assert len(find_energies(desktop.sys, files).zones) == 1


def test_a_zone_without_a_name_or_a_range_has_its_folders_name_and_none(desktop) -> None:
    place = desktop.rapl("intel-rapl:0", "package-0", 1)
    (place / "name").unlink()
    (place / "max_energy_range_uj").write_text("junk\n")
    (zone,) = zones(desktop).values()
    assert (zone.word, zone.max_energy_uj) == ("rapl.intel-rapl_0", 0)


def test_power_is_what_was_used_in_the_time_that_passed() -> None:
    meter = EnergyMeter(RANGE_UJ)
    assert meter.update(100.0, 5_000_000) is None
    assert meter.energy_j == 0.0
    assert meter.update(102.0, 95_000_000) == 45.0
    assert meter.update(103.0, 95_000_000) == 0.0
    assert meter.energy_j == 90.0


def test_a_counter_wraps_at_its_own_range_and_the_energy_goes_on() -> None:
    meter = EnergyMeter(RANGE_UJ)
    meter.update(100.0, RANGE_UJ - 20_000_000)
    assert meter.update(101.0, 10_000_000) == 30.0
    assert meter.update(102.0, 15_000_000) == 5.0
    assert meter.energy_j == 35.0


def test_a_counter_that_was_reset_says_nothing_once() -> None:
    meter = EnergyMeter(RANGE_UJ)
    meter.update(100.0, 5_000_000)
    meter.update(101.0, 15_000_000)
    assert meter.update(102.0, 1_000_000) is None
    assert meter.energy_j == 10.0
    assert meter.update(103.0, 3_000_000) == 2.0
    assert meter.energy_j == 12.0


def test_a_jump_that_no_processor_can_make_says_nothing() -> None:
    meter = EnergyMeter(RANGE_UJ)
    meter.update(100.0, 0)
    assert meter.update(101.0, 1_001_000_000) is None
    assert meter.update(102.0, 2_000_000_000) == 999.0


def test_after_a_gap_in_which_it_may_have_wrapped_twice_it_says_nothing() -> None:
    meter = EnergyMeter(RANGE_UJ)
    assert meter.longest_s == pytest.approx(262.14, abs=0.01)
    meter.update(100.0, 0)
    assert meter.update(400.0, 10_000_000) is None
    assert meter.update(401.0, 11_000_000) == 1.0
    assert meter.energy_j == 1.0


def test_a_range_that_is_not_known_costs_the_step_in_which_it_wraps() -> None:
    meter = EnergyMeter(0)
    assert meter.longest_s == float("inf")
    assert meter.update(100.0, 50_000_000) is None
    assert meter.update(101.0, 1_000_000) is None
    assert meter.update(5000.0, 1_000_000 + 4899 * 1_000_000) == pytest.approx(1.0)
    assert meter.energy_j == 4899.0


@pytest.mark.parametrize("now_s", [100.0, 99.0])
def test_a_look_that_is_not_later_changes_nothing(now_s: float) -> None:
    meter = EnergyMeter(RANGE_UJ)
    meter.update(100.0, 1_000_000)
    assert meter.update(now_s, 9_000_000) is None
    assert meter.update(102.0, 3_000_000) == 1.0
