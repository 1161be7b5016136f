# SPDX-License-Identifier: MIT
import errno
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from agents.host import NothingFound
from agents.metric import MetricTable
from agents.sensors.source import SensorsSource
from tests.agents.sensors.desktop import AMDGPU, CORETEMP, NCT6775, PCI, PLATFORM, Desktop, Files, furnish, io_error
from tests.agents.toy import Sampled, second

GOLDEN = Path(__file__).parents[1] / "fixtures" / "names" / "sensors.txt"
CORE_0 = "coretemp.core_0.temperature"


@pytest.fixture
def desktop(host) -> Desktop:
    return furnish(Desktop(host.sys))


@pytest.fixture
def bare(host) -> Desktop:
    return Desktop(host.sys)


@pytest.fixture
def files() -> Files:
    return Files()


def words_of(reading: dict[str, float]) -> set[str]:
    return {name.split(".")[0] for name in reading}


def lines_about(caplog, text: str) -> list[str]:
    return [record.getMessage() for record in caplog.records if text in record.getMessage()]


def test_the_names_of_a_desktop_are_as_ever_and_all_described(host, desktop) -> None:
    source = host.source(SensorsSource)
    names = set(host.read(source)) | set(host.read(source))
    assert sorted(names) == GOLDEN.read_text().split()
    table = MetricTable(SensorsSource.metrics)
    assert [name for name in names if table.find(name) is None] == []
    used = {table.find(name) for name in names}
    assert [metric.name for metric in SensorsSource.metrics if metric not in used] == []


def test_values_of_a_desktop(host, desktop) -> None:
    reading = host.read(host.source(SensorsSource))
    assert reading[CORE_0] == 58.5
    assert reading["nct6775.fan2.speed"] == 1204.0
    assert reading["amdgpu.sclk.frequency"] == 500e6
    assert reading["meter.curr1.current"] == 1.5
    assert reading["bat0.power"] == 9.12
    assert reading["ac.online"] == 0.0
    assert reading["int3400_thermal.temperature"] == 20.0


def test_energy_and_power_since_the_last_reading_across_a_wrap(host, bare) -> None:
    bare.rapl("intel-rapl:0", "package-0", 262_143_328_850 - 1_000_000)
    source = host.source(SensorsSource)
    assert host.read(source) == {"rapl.package-0.energy": 0.0}
    bare.files("class/powercap/intel-rapl:0", {"energy_uj": "29000000"})
    assert host.read(source, after_s=2.0) == {"rapl.package-0.energy": 30.0, "rapl.package-0.power": 15.0}


def test_a_period_in_which_a_counter_may_wrap_twice_gives_no_power_and_says_so_once(host, bare, caplog) -> None:
    bare.rapl("intel-rapl:0", "package-0", 1_000_000)
    bare.zone(0, "x", "20000")
    source = host.source(SensorsSource, {"period": 300.0})
    for _ in range(3):
        assert host.read(source, after_s=300.0) == {"x.temperature": 20.0}
    assert len(lines_about(caplog, "wrap twice in a period of 262 s")) == 1


def test_counters_that_only_root_may_read_are_said_once_and_the_rest_goes_on(host, desktop, files, caplog) -> None:
    caplog.set_level(logging.INFO)
    files.failing["energy_uj"] = io_error(errno.EACCES)
    source = host.source(SensorsSource, read=files)
    for _ in range(3):
        reading = host.read(source, after_s=61.0)
        assert "rapl" not in words_of(reading)
        assert CORE_0 in reading
    assert len(lines_about(caplog, "only root may read")) == 1
    files.failing.clear()
    assert "rapl.package-0.energy" in host.read(source, after_s=61.0)


def test_a_host_without_sensors_says_why(host) -> None:
    with pytest.raises(NothingFound, match=r"no sensors in .*/sys; virtual machines have none"):
        host.read(host.source(SensorsSource))


def test_a_host_with_nothing_but_locked_counters_says_so(host, bare, files) -> None:
    bare.rapl("intel-rapl:0", "package-0", 1)
    files.failing["energy_uj"] = io_error(errno.EACCES)
    with pytest.raises(NothingFound, match=r"only root may read, like .*/intel-rapl:0/energy_uj"):
        host.read(host.source(SensorsSource, read=files))


def test_globs_that_leave_nothing_are_said(host, desktop) -> None:
    with pytest.raises(NothingFound, match="include and exclude"):
        host.read(host.source(SensorsSource, {"include": ["nonsense"]}))


def test_sensors_that_appear_where_there_were_none_are_found(host, bare) -> None:
    source = host.source(SensorsSource)
    with pytest.raises(NothingFound):
        host.read(source)
    bare.zone(0, "x", "20000")
    assert host.read(source) == {"x.temperature": 20.0}


def test_limits_and_labels_are_metadata(host, desktop) -> None:
    source = host.source(SensorsSource)
    host.read(source)
    metadata = source.describe(CORE_0).metadata(10.0)
    assert metadata == {
        "label": "Core 0",
        "high": 80.0,
        "critical": 100.0,
        "unit": "Cel",
        "description": "temperature",
        "interval": 10.0,
        "quantity": "temperature",
        "scope": "point",
    }
    assert source.describe("nct6775.systin.temperature").details == {"label": "SYSTIN"}  # a limit of 0 is none
    assert source.describe("bat0.energy").details == {"full": 180_000.0}
    assert source.describe("no.such.name.here") is None


def test_a_limit_that_changes_is_described_again_within_a_minute_and_only_that(host, bare, monkeypatch) -> None:
    place = bare.chip(f"{PLATFORM}/coretemp.0", CORETEMP)
    source = host.source(SensorsSource)
    again: list[str] = []
    monkeypatch.setattr(source, "redescribe", again.extend)
    host.read(source)
    again.clear()
    (place / "temp2_max").write_text("85000\n")
    host.read(source)
    host.read(source, after_s=60.0)
    host.read(source, after_s=60.0)
    assert again == [CORE_0]
    assert source.describe(CORE_0).details["high"] == 85.0
    (place / "temp2_max").write_text("0\n")
    host.read(source, after_s=60.0)
    assert "high" not in source.describe(CORE_0).details


async def test_limits_reach_the_bus_with_the_first_point_and_when_they_change(host, bare, monkeypatch) -> None:
    place = bare.chip(f"{PLATFORM}/coretemp.0", CORETEMP)
    source = host.source(SensorsSource)
    sampled = Sampled(source, monkeypatch)
    for minute, limit in enumerate(("80000", "80000", "85000")):
        (place / "temp2_max").write_text(f"{limit}\n")
        source.tick = second(60 * minute)
        await source.update()
    await source.teardown()
    name = f"web1.sensors.{CORE_0}"
    assert [(len(metrics), metrics[name]["high"]) for metrics in sampled.declared] == [(3, 80.0), (1, 85.0)]
    assert [values[name] for _, values in sampled.points] == [58.5] * 3


def test_a_limit_that_cannot_be_read_now_stays(host, bare, files) -> None:
    bare.chip(f"{PLATFORM}/coretemp.0", CORETEMP)
    source = host.source(SensorsSource, read=files)
    host.read(source)
    files.failing["_crit"] = io_error()
    host.read(source, after_s=61.0)
    assert source.describe(CORE_0).details["critical"] == 100.0


def test_limits_are_read_once_a_minute(host, bare, files) -> None:
    bare.chip(f"{PLATFORM}/coretemp.0", CORETEMP)
    source = host.source(SensorsSource, read=files)
    host.now_s = 60_000.0
    for _ in range(59):
        host.read(source)
    assert len([path for path in files.read if path.endswith("temp2_crit")]) == 1
    assert len([path for path in files.read if path.endswith("temp2_input")]) == 59


@pytest.mark.parametrize("number", [errno.EIO, errno.ENODATA, errno.EAGAIN, errno.ENXIO])
def test_a_sensor_that_fails_now_and_then_is_left_out_and_said_once(host, desktop, files, caplog, number) -> None:
    caplog.set_level(logging.INFO)
    source = host.source(SensorsSource, read=files)
    for _ in range(3):
        files.failing["temp2_input"] = io_error(number)
        reading = host.read(source)
        assert CORE_0 not in reading
        assert "coretemp.core_8.temperature" in reading
        files.failing.clear()
        assert CORE_0 in host.read(source)
    assert len(lines_about(caplog, CORE_0)) == 1
    assert source.parts.errors == 0
    assert {record.levelno for record in caplog.records} == {logging.INFO}


def test_a_file_of_junk_is_a_warning_once_whatever_it_says(host, bare, caplog) -> None:
    place = bare.chip(f"{PLATFORM}/coretemp.0", CORETEMP)
    source = host.source(SensorsSource)
    for junk in ("N/A", "", "1.5e3", "\x00" * 5000):
        (place / "temp2_input").write_text(junk)
        assert set(host.read(source)) == {"coretemp.package_id_0.temperature", "coretemp.core_8.temperature"}
    (record,) = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert CORE_0 in record.getMessage()


def test_many_values_that_fail_alike_are_one_line(host, bare, files, caplog) -> None:
    caplog.set_level(logging.INFO)
    bare.chip(f"{PLATFORM}/x", {"name": "x", **{f"in{number}_input": "1" for number in range(30)}})
    files.failing["_input"] = io_error()
    source = host.source(SensorsSource, read=files)
    assert host.read(source) == {}
    assert host.read(source) == {}
    (line,) = lines_about(caplog, "left out")
    assert "x.in0.voltage, x.in1.voltage, x.in2.voltage, x.in3.voltage, x.in4.voltage and 25 more" in line


def test_a_faulty_sensor_is_left_out_until_it_is_none(host, bare) -> None:
    place = bare.chip(f"{PLATFORM}/nct6775.656", NCT6775)
    source = host.source(SensorsSource)
    assert "nct6775.auxtin.temperature" not in host.read(source)
    (place / "temp2_fault").write_text("0\n")
    assert host.read(source)["nct6775.auxtin.temperature"] == -62.0


def test_a_chip_that_appears_is_found_within_a_minute_and_one_that_vanishes_is_let_go(host, bare, caplog) -> None:
    caplog.set_level(logging.INFO)
    bare.chip(f"{PLATFORM}/coretemp.0", CORETEMP)
    source = host.source(SensorsSource)
    assert words_of(host.read(source)) == {"coretemp"}
    place = bare.chip(f"{PLATFORM}/nct6775.656", NCT6775)
    assert words_of(host.read(source, after_s=60.0)) == {"coretemp", "nct6775"}
    files_before = set(source.files._fds)
    bare.remove(place.parents[1])
    assert words_of(host.read(source)) <= {"coretemp", "nct6775"}
    assert words_of(host.read(source, after_s=60.0)) == {"coretemp"}
    assert {path for path in files_before if "nct6775" in path}
    assert not {path for path in source.files._fds if "nct6775" in path}
    assert lines_about(caplog, "found: coretemp") == ["source-sensors: found: coretemp"]
    assert lines_about(caplog, "no longer there") == ["source-sensors: no longer there: nct6775"]


def test_chips_of_one_name_are_called_by_their_places_whatever_their_numbers(host, bare) -> None:
    for number, socket in ((5, 1), (2, 0)):
        bare.chip(f"{PLATFORM}/coretemp.{socket}", CORETEMP, bus="platform", number=number)
    assert words_of(host.read(host.source(SensorsSource))) == {"coretemp-0", "coretemp-1"}


def test_a_chip_keeps_its_word_while_others_of_its_name_come_and_go(host, bare) -> None:
    bare.nvme("0000:04:00.0", 0)
    source = host.source(SensorsSource)
    assert words_of(host.read(source)) == {"nvme"}
    second = bare.nvme("0000:01:00.0", 1)
    assert words_of(host.read(source, after_s=61.0)) == {"nvme", "nvme-01_00_0"}
    bare.remove(second.parents[1])
    assert words_of(host.read(source, after_s=61.0)) == {"nvme"}
    third = bare.nvme("0000:02:00.0", 2)
    bare.remove(bare.sys / f"{PCI}/0000:00:1d.0/0000:04:00.0/nvme")
    assert words_of(host.read(source, after_s=61.0)) == {"nvme-02_00_0"}
    assert third.exists()


def test_two_chips_at_one_device_with_one_name_are_two(host, bare) -> None:
    for _ in range(2):
        bare.chip(f"{PLATFORM}/odd", {"name": "odd", "fan1_input": "1"}, bus="platform")
    assert set(host.read(host.source(SensorsSource))) == {"odd-odd.fan1.speed", "odd-odd-2.fan1.speed"}


async def test_globs_take_effect_at_once(host, desktop) -> None:
    source = host.source(SensorsSource, {"exclude": ["*.voltage", "rapl.*.energy", "bat*.state"]})
    host.read(source)
    reading = host.read(source)
    assert not [name for name in reading if name.endswith(("voltage", "state"))]
    assert "rapl.package-0.power" in reading
    assert "rapl.package-0.energy" not in reading
    assert reading["bat1.power"] == 6.0  # made from a voltage that is not sampled
    await source.reconfigure(SensorsSource.Config.load({"prefix": "web1", "include": ["bat0.*", "rapl.package-0.*"]}))
    assert words_of(host.read(source)) == {"bat0", "rapl"}


def test_a_disk_is_asked_once_a_minute_and_its_metadata_says_so(host, bare) -> None:
    bare.chip("devices/ata1/0:0:0:0", {"name": "drivetemp", "temp1_input": "30000"}, bus="scsi")
    bare.zone(0, "x", "20000")
    source = host.source(SensorsSource)
    host.now_s = 60_000.0
    readings = [host.read(source) for _ in range(59)] + [host.read(source)]
    assert ["drivetemp.temp1.temperature" in reading for reading in readings] == [True] + [False] * 58 + [True]
    assert source.describe("drivetemp.temp1.temperature").metadata(1.0)["interval"] == 60.0
    assert source.describe("x.temperature").metadata(1.0)["interval"] == 1.0


def test_a_suspended_gpu_is_left_asleep(host, bare, caplog) -> None:
    device = f"{PCI}/0000:03:00.0"
    bare.chip(device, AMDGPU, bus="pci")
    bare.files(f"{device}/power", {"control": "auto", "runtime_status": "suspended"})
    bare.zone(0, "x", "20000")
    source = host.source(SensorsSource)
    assert words_of(host.read(source)) == {"x"}
    assert caplog.records == []
    bare.files(f"{device}/power", {"runtime_status": "active"})
    assert words_of(host.read(source)) == {"x", "amdgpu"}
    assert source.describe("amdgpu.edge.temperature").details["critical"] == 100.0


async def test_files_stay_open_until_the_end(host, desktop) -> None:
    source = host.source(SensorsSource)
    host.read(source)
    files = source.files
    assert len(files._fds) > 40
    await source.teardown()
    assert files._fds == {}


def test_a_class_that_cannot_be_listed_costs_only_itself(host, desktop, monkeypatch) -> None:
    listed = Path.iterdir

    def refuse(path: Path) -> Iterator[Path]:
        if path.name == "hwmon" and path.parent.name == "class":
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return listed(path)

    monkeypatch.setattr(Path, "iterdir", refuse)
    source = host.source(SensorsSource)
    words = words_of(host.read(source))
    assert {"bat0", "rapl", "acpitz"} <= words
    assert "coretemp" not in words
    assert list(source.parts.causes) == ["chips"]
