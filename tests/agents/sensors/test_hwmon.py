# SPDX-License-Identifier: MIT
from pathlib import Path

import pytest

from agents.base.files import read_once
from agents.sensors.channels import Device
from agents.sensors.hwmon import find_chips, find_zones
from tests.agents.sensors.desktop import AMDGPU, CORETEMP, METER, NCT6775, PCI, PLATFORM, Desktop


@pytest.fixture
def desktop(tmp_path: Path) -> Desktop:
    return Desktop(tmp_path / "sys")


def chips(desktop: Desktop) -> list[Device]:
    return find_chips(desktop.sys, read_once)


def zones(desktop: Desktop) -> list[Device]:
    return find_zones(desktop.sys, read_once, chips(desktop))


def names(device: Device) -> list[str]:
    return [channel.name for channel in device.channels]


def test_a_host_without_hardware_monitoring_has_no_chips(desktop) -> None:
    assert chips(desktop) == []
    assert zones(desktop) == []


def test_the_sensors_of_a_chip_in_the_order_of_their_numbers(desktop) -> None:
    desktop.chip(f"{PLATFORM}/coretemp.0", CORETEMP, bus="platform")
    (chip,) = chips(desktop)
    assert (chip.word, chip.address) == ("coretemp", "0")
    assert chip.key == f"{desktop.sys}/{PLATFORM}/coretemp.0:coretemp"
    assert names(chip) == ["package_id_0.temperature", "core_0.temperature", "core_8.temperature"]
    assert [channel.label for channel in chip.channels] == ["Package id 0", "Core 0", "Core 8"]


def test_sensors_without_a_label_are_called_as_their_files(desktop) -> None:
    desktop.chip(f"{PLATFORM}/nct6775.656", NCT6775, bus="platform")
    (chip,) = chips(desktop)
    assert names(chip) == [
        "systin.temperature",
        "auxtin.temperature",
        "fan1.speed",
        "fan2.speed",
        "vcore.voltage",
        "3_3v.voltage",
    ]
    assert chip.channels[1].fault.endswith("/hwmon0/temp2_fault")
    assert chip.channels[2].fault == ""


def test_only_limits_that_have_files_are_asked_for(desktop) -> None:
    place = desktop.chip(f"{PLATFORM}/coretemp.0", CORETEMP)
    (chip,) = chips(desktop)
    assert chip.channels[0].limits == (("high", f"{place}/temp1_max"), ("critical", f"{place}/temp1_crit"))


def test_two_sensors_with_one_label_have_two_names_but_kinds_do_not_mix(desktop) -> None:
    labels = {"temp1_label": "Core 0", "temp2_label": "Core 0", "in1_label": "Core 0"}
    desktop.chip("devices/x", {"name": "x", "temp1_input": "1", "temp2_input": "2", "in1_input": "3", **labels})
    assert names(chips(desktop)[0]) == ["core_0.temperature", "core_0-2.temperature", "core_0.voltage"]


def test_a_power_meter_is_read_for_now_and_else_for_its_average(desktop) -> None:
    desktop.chip("devices/meter", METER)
    desktop.chip("devices/gpu", AMDGPU)
    files = [channel.paths[0] for chip in chips(desktop) for channel in chip.channels if "power" in channel.name]
    assert [Path(file).name for file in files] == ["power1_input", "power1_average"]


def test_averages_of_anything_else_are_no_sensors(desktop) -> None:
    desktop.chip("devices/x", {"name": "x", "in1_average": "1", "temp_input": "1", "temp1_input_2": "1", "pwm1": "1"})
    assert chips(desktop) == []


@pytest.mark.parametrize("name", ["", "it87\u00e9 !"])
def test_any_name_becomes_a_word(desktop, name: str) -> None:
    desktop.chip(f"{PLATFORM}/it87.2608", {"name": name, "fan1_input": "1"}, bus="platform")
    (chip,) = chips(desktop)
    assert chip.word == ("it87_2608" if not name else "it87")


def test_a_chip_of_an_old_driver_has_its_files_at_the_device(desktop) -> None:
    device = f"{PLATFORM}/applesmc.768"
    desktop.chip(device, {})
    desktop.files(device, {"name": "applesmc", "fan1_input": "2000", "fan1_label": "Left"})
    (chip,) = chips(desktop)
    assert (chip.word, names(chip)) == ("applesmc", ["left.speed"])


def test_a_chip_without_a_device_is_its_own_place(desktop) -> None:
    folder = "devices/virtual/hwmon/hwmon5"
    desktop.files(folder, {"name": "virtual", "temp1_input": "1"})
    desktop.link("class/hwmon/hwmon5", folder)
    (chip,) = chips(desktop)
    assert chip.address == "hwmon5"


def test_the_number_of_a_chip_is_not_in_its_key(desktop) -> None:
    place = desktop.chip(f"{PLATFORM}/coretemp.0", CORETEMP, number=3)
    (before,) = chips(desktop)
    desktop.remove(place.parent)
    desktop.chip(f"{PLATFORM}/coretemp.0", CORETEMP, number=7)
    (after,) = chips(desktop)
    assert before.key == after.key
    assert before.channels[0].paths != after.channels[0].paths


def test_disks_that_are_asked_for_their_temperature_are_asked_rarely(desktop) -> None:
    desktop.chip("devices/ata1/0:0:0:0", {"name": "drivetemp", "temp1_input": "30000"}, bus="scsi")
    desktop.chip(f"{PLATFORM}/coretemp.0", CORETEMP)
    assert {chip.word: chip.every_s for chip in chips(desktop)} == {"drivetemp": 60.0, "coretemp": 0.0}


@pytest.mark.parametrize(
    ("control", "status", "sleeps"),
    [("auto", "suspended", True), ("auto", "active", True), ("on", "active", False), ("auto", "unsupported", False)],
)
def test_only_devices_that_may_be_suspended_are_asked_whether_they_are(desktop, control, status, sleeps) -> None:
    device = f"{PCI}/0000:03:00.0"
    desktop.chip(device, AMDGPU)
    desktop.files(f"{device}/power", {"control": control, "runtime_status": status})
    (chip,) = chips(desktop)
    assert chip.awake == (f"{desktop.sys}/{device}/power/runtime_status" if sleeps else "")


def test_a_battery_is_no_chip(desktop) -> None:
    desktop.chip("devices/a/power_supply/BAT0", {"name": "BAT0", "in0_input": "11700"})
    assert chips(desktop) == []


def test_a_zone_that_is_a_chip_too_is_left_out(desktop) -> None:
    desktop.zone(0, "acpitz", "27800")
    desktop.zone(1, "acpitz", "29800")  # the kernel puts it into the chip of the first of its type
    desktop.zone(2, "pch-skylake", "40000")
    desktop.chip("devices/virtual/thermal/thermal_zone0", {"name": "acpitz", "temp1_input": "1", "temp2_input": "2"})
    desktop.chip("devices/virtual/thermal/thermal_zone2", {"name": "pch_skylake", "temp1_input": "1"})
    assert zones(desktop) == []


def test_a_zone_is_not_left_out_for_a_chip_that_is_something_else(desktop) -> None:
    desktop.zone(0, "nvme", "27800")
    desktop.nvme("0000:01:00.0", 0)
    assert [zone.word for zone in zones(desktop)] == ["nvme"]


@pytest.mark.parametrize("with_coretemp", [True, False])
def test_the_zone_of_the_package_is_left_out_where_coretemp_has_it(desktop, with_coretemp: bool) -> None:
    desktop.zone(1, "x86_pkg_temp", "61000")
    if with_coretemp:
        desktop.chip(f"{PLATFORM}/coretemp.0", CORETEMP)
    assert [zone.word for zone in zones(desktop)] == ([] if with_coretemp else ["x86_pkg_temp"])


def test_what_a_zone_has_and_its_limits(desktop) -> None:
    trips = {"passive": "80000", "hot": "95000", "critical": "110000"}
    place = desktop.zone(2, "INT3400 Thermal", "20000", trips)
    desktop.files("devices/virtual/thermal/cooling_device0", {"type": "Processor", "temp": "1"})
    desktop.link("class/thermal/cooling_device0", "devices/virtual/thermal/cooling_device0")
    (zone,) = zones(desktop)
    assert (zone.word, zone.address, names(zone)) == ("int3400_thermal", "thermal_zone2", ["temperature"])
    (channel,) = zone.channels
    assert channel.value_of(read_once(channel.paths[0])) == 20.0
    assert dict(channel.limits) == {
        "high": f"{place}/trip_point_1_temp",
        "critical": f"{place}/trip_point_2_temp",
    }


def test_a_zone_without_a_temperature_is_none(desktop) -> None:
    (desktop.zone(0, "odd", "1") / "temp").unlink()
    assert zones(desktop) == []
