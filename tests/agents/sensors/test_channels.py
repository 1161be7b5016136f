# SPDX-License-Identifier: MIT
import errno
from pathlib import Path

import pytest

from agents.sensors.channels import (
    Channel,
    Device,
    address_of,
    amount,
    entries,
    files_in,
    is_set,
    natural,
    product,
    read_device,
    read_limits,
    share,
    tenths,
    thousandths,
    unique,
    watt_hours,
    whole,
    word_of,
)
from tests.agents.sensors.desktop import Desktop, io_error


def reader(files: dict[str, str | OSError]):
    def read(path: str) -> str:
        text = files.get(path, io_error(errno.ENOENT))
        if isinstance(text, OSError):
            raise text
        return text

    return read


def device(*channels: Channel, awake: str = "") -> Device:
    return Device(key="k", word="chip", address="0", channels=channels, awake=awake)


def channel(name: str, *paths: str, **more) -> Channel:
    return Channel(name=name, paths=paths or (name,), value_of=more.pop("value_of", whole), **more)


@pytest.mark.parametrize(
    ("function", "texts", "value"),
    [
        (whole, ["1204\n"], 1204.0),
        (tenths, ["312\n"], 31.2),
        (thousandths, ["-5150\n"], -5.15),
        (thousandths, ["45100"], 45.1),
        (amount, ["-500000"], 0.5),
        (watt_hours, ["41500000"], 149_400.0),
        (product, ["12000000", "-500000"], 6.0),
        (share, ["2000000", "2500000"], 80.0),
    ],
)
def test_numbers_of_the_kernel_in_units(function, texts, value) -> None:
    assert function(*texts) == value


@pytest.mark.parametrize("text", ["", "N/A\n", "12.5", "0x10", "9" * 5000])
def test_what_is_no_whole_number_is_an_error(text: str) -> None:
    for function in (whole, tenths, thousandths, amount, watt_hours):
        with pytest.raises(ValueError):
            function(text)


def test_a_channel_that_fails_costs_only_itself() -> None:
    files = {"good": "7\n", "sick": io_error(), "text": "N/A\n", "huge": "9" * 400, "none": "0"}
    channels = [channel("good"), channel("sick"), channel("text"), channel("huge", value_of=thousandths)]
    outcome = read_device(
        device(*channels, channel("ratio", "good", "none", value_of=share)), reader(files), lambda: 5.0
    )
    assert outcome.values == {"good": 7.0}
    assert set(outcome.failures) == {"sick", "text", "huge", "ratio"}
    assert (outcome.started_s, outcome.ended_s, outcome.limits) == (5.0, 5.0, None)


def test_the_time_of_a_reading_is_when_it_ended() -> None:
    times = iter([5.0, 7.5])
    outcome = read_device(device(channel("good")), reader({"good": "7"}), lambda: next(times))
    assert (outcome.started_s, outcome.ended_s) == (5.0, 7.5)


@pytest.mark.parametrize(("fault", "values"), [("1\n", {}), ("0\n", {"t": 7.0})])
def test_a_sensor_that_the_chip_calls_faulty_has_no_value(fault: str, values: dict[str, float]) -> None:
    outcome = read_device(device(channel("t", fault="fault")), reader({"t": "7", "fault": fault}), float)
    assert outcome.values == values
    assert bool(outcome.failures) is not bool(values)


@pytest.mark.parametrize(("status", "read"), [("suspended\n", False), ("active\n", True), (io_error(), True)])
def test_a_device_that_is_suspended_is_not_woken(status, read: bool) -> None:
    asked = []

    def spy(path: str) -> str:
        asked.append(path)
        return reader({"t": "7", "high": "8", "status": status})(path)

    sleeper = device(channel("t", limits=(("high", "high"),)), awake="status")
    outcome = read_device(sleeper, spy, float, spy)
    assert asked == (["status", "t", "high"] if read else ["status"])
    assert bool(outcome.values) is read
    assert outcome.failures == {}


def test_limits_are_in_the_unit_of_their_channel_and_those_that_fail_are_unknown() -> None:
    files = {"max": "80000", "crit": io_error(), "min": "junk"}
    limits = (("high", "max"), ("critical", "crit"), ("low", "min"))
    found = read_limits(channel("core_0.temperature", value_of=thousandths, limits=limits), reader(files))
    assert found == {"high": 80.0, "critical": None, "low": None}


@pytest.mark.parametrize(
    ("quantity", "limit", "value", "counts"),
    [
        ("temperature", "high", 80.0, True),
        ("temperature", "high", 0.0, False),
        ("temperature", "critical", 65_261.85, False),
        ("temperature", "low", 0.0, True),
        ("temperature", "low_critical", 0.0, True),
        ("temperature", "low", -273.15, False),
        ("speed", "low", 0.0, False),
        ("voltage", "high", -11.0, True),
        ("voltage", "high", 1200.0, True),
    ],
)
def test_limits_that_drivers_give_where_there_is_none_are_no_limits(quantity, limit, value, counts) -> None:
    assert is_set(quantity, limit, value) is counts


def test_a_limit_that_is_not_set_is_left_out() -> None:
    found = read_limits(channel("a.temperature", value_of=thousandths, limits=(("high", "max"),)), reader({"max": "0"}))
    assert found == {}


@pytest.mark.parametrize(
    ("label", "word"),
    [
        ("Core 0", "core_0"),
        ("Package id 0", "package_id_0"),
        ("+3.3V", "3_3v"),
        ("Tctl", "tctl"),
        ("PCH_CHIP_CPU_MAX_TEMP", "pch_chip_cpu_max_temp"),
        ("CPU  (Füße)", "cpu_f_e"),
        ("", "_"),
        ("a\nb.c", "a_b_c"),
        ("x" * 1000, "x" * 64),
    ],
)
def test_words_of_labels(label: str, word: str) -> None:
    assert word_of(label) == word


def test_numbers_sort_as_numbers() -> None:
    assert sorted(["temp10_input", "temp9_input", "fan1", "temp9_crit"], key=natural) == [
        "fan1",
        "temp9_crit",
        "temp9_input",
        "temp10_input",
    ]


def test_words_that_come_again_are_numbered() -> None:
    assert unique(["core", "core", "core-2", "fan"]) == ["core", "core-2", "core-2-2", "fan"]


def test_a_folder_that_is_missing_is_empty_and_one_that_is_none_too(tmp_path: Path) -> None:
    assert entries(tmp_path / "missing") == []
    (tmp_path / "file").touch()
    assert entries(tmp_path / "file") == []


def test_a_folder_of_a_device_that_cannot_be_listed_is_empty(monkeypatch) -> None:
    def refuse(path: Path) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(Path, "iterdir", refuse)
    assert files_in(Path("/sys")) == []
    with pytest.raises(PermissionError):
        entries(Path("/sys"))


@pytest.mark.parametrize(
    ("place", "bus", "device", "word", "address"),
    [
        ("devices/pci0000:00/0000:01:00.0", "pci", "devices/pci0000:00/0000:01:00.0/nvme/nvme0", "nvme", "01_00_0"),
        ("devices/pci0001:00/0001:01:00.0", "pci", "devices/pci0001:00/0001:01:00.0", "amdgpu", "0001_01_00_0"),
        ("devices/platform/coretemp.1", "platform", "devices/platform/coretemp.1", "coretemp", "1"),
        ("devices/platform/x/i2c-0/0-0018", "i2c", "devices/platform/x/i2c-0/0-0018", "jc42", "0-0018"),
        ("devices/virtual/thermal", "", "devices/virtual/thermal/thermal_zone0", "acpitz", "thermal_zone0"),
        ("bus", "pci", "devices/virtual/hwmon/hwmon3", "odd", "hwmon3"),
    ],
)
def test_an_address_says_where_a_device_is_plugged_in(tmp_path, place, bus, device, word, address) -> None:
    desktop = Desktop(tmp_path)
    desktop.files(device, {})
    if bus:
        desktop.on_bus(place, bus)
    assert address_of(tmp_path / device, word) == address
