# SPDX-License-Identifier: MIT
import math
import os
import threading
import time
from collections.abc import Iterator

import pytest

from agents.disk import DiskSource, activity, parse_diskstats, space

LINE = "   8       0 sda 1000 20 80000 4000 500 30 40000 6000 0 5000 10000 0 0 0 0 10 100"


def statvfs(blocks: int = 1000, free: int = 400, available: int = 300, files: int = 100, unused: int = 75):
    return os.statvfs_result((4096, 4096, blocks, free, available, files, unused, unused, 0, 255))


class FileSystems:
    """statvfs for a made-up host; those in `hanging` block until the test lets them go."""

    def __init__(self) -> None:
        self.answers: dict[str, os.statvfs_result | OSError] = {}
        self.hanging: dict[str, threading.Event] = {}

    def __call__(self, point: str) -> os.statvfs_result:
        if point in self.hanging:
            self.hanging[point].wait()
        answer = self.answers.get(point, statvfs())
        if isinstance(answer, OSError):
            raise answer
        return answer


@pytest.fixture
def file_systems() -> Iterator[FileSystems]:
    made = FileSystems()
    yield made
    for gate in made.hanging.values():
        gate.set()


def mounts_of(reading: dict[str, float]) -> set[str]:
    return {name.removesuffix(".total") for name in reading if name.endswith(".total") and "inodes" not in name}


def test_space_is_counted_as_df_does() -> None:
    assert space(statvfs()) == [
        1000 * 4096,
        600 * 4096,
        300 * 4096,
        pytest.approx(100 * 600 / 900),
        100,
        25,
        75,
        25.0,
    ]


def test_a_file_system_without_a_number_of_inodes_has_none() -> None:
    assert len(space(statvfs(files=0, unused=0))) == 4


def test_an_empty_file_system_is_not_divided_by() -> None:
    assert space(statvfs(blocks=0, free=0, available=0, files=0)) == [0, 0, 0, 0.0]


def test_counters_of_a_line() -> None:
    assert parse_diskstats(LINE) == ("sda", [1000, 4000, 500, 6000, 80000, 40000, 5000])


@pytest.mark.parametrize("line", ["", "8 0 sda", "8 0 sda 1 2 3 x 5 6 7 8 9 10 11"])
def test_a_line_that_makes_no_sense_is_an_error(line: str) -> None:
    with pytest.raises((ValueError, IndexError)):
        parse_diskstats(line)


def test_activity_of_literal_gains() -> None:
    #                reads ms writes ms sectors ..  busy
    assert activity([10, 30, 30, 90, 800, 1600, 500], 2.0) == [204_800.0, 409_600.0, 5.0, 15.0, 25.0, 0.003]


def test_without_operations_the_wait_is_not_a_number() -> None:
    assert math.isnan(activity([0] * 7, 1.0)[5])


def test_a_device_is_never_busier_than_the_time_that_passed() -> None:
    assert activity([1, 0, 0, 0, 0, 0, 1003], 1.0)[4] == 100.0


def test_devices_are_whole_disks_without_loops(host, file_systems) -> None:
    source = host.source(DiskSource, statvfs=file_systems)
    host.read(source)
    reading = host.read(source)
    assert {name.split(".")[0] for name in reading if name.endswith(".reads")} == {"sda", "nvme0n1", "dm-0"}


def test_a_partition_is_sampled_if_it_is_asked_for(host, file_systems) -> None:
    source = host.source(DiskSource, {"include_devices": ["sda*"]}, statvfs=file_systems)
    host.read(source)
    reading = host.read(source)
    assert {name.split(".")[0] for name in reading if name.endswith(".reads")} == {"sda", "sda1"}


def test_activity_since_the_last_reading(host, file_systems) -> None:
    source = host.source(DiskSource, statvfs=file_systems)
    host.read(source)
    host.replace("diskstats", "sda 1000 20 80000 4000 500", "sda 1010 20 80800 4030 500")
    reading = host.read(source, after_s=2.0)
    assert (reading["sda.reads"], reading["sda.read_bytes"], reading["sda.wait"]) == (5.0, 204_800.0, 0.003)
    assert reading["sda.writes"] == 0.0
    assert math.isnan(reading["dm-0.wait"])


def test_the_milliseconds_of_the_kernel_wrap_at_32_bits(host, file_systems) -> None:
    source = host.source(DiskSource, statvfs=file_systems)
    host.replace("diskstats", "sda 1000 20 80000 4000 500", f"sda 1000 20 80000 {2**32 - 20} 500")
    host.read(source)
    host.replace("diskstats", f"sda 1000 20 80000 {2**32 - 20} 500", "sda 1010 20 80000 10 500")
    assert host.read(source)["sda.wait"] == 0.003


def test_a_device_that_vanishes_and_returns_starts_anew(host, file_systems) -> None:
    source = host.source(DiskSource, statvfs=file_systems)
    host.read(source)
    host.replace("diskstats", " sda ", " sdz ")
    assert not any(name.startswith("sd") and name.endswith(".reads") for name in host.read(source))
    host.replace("diskstats", " sdz ", " sda ")
    assert "sda.reads" not in host.read(source)
    assert host.read(source)["sda.reads"] == 0.0


def test_a_garbled_device_costs_only_itself(host, file_systems) -> None:
    source = host.source(DiskSource, statvfs=file_systems)
    host.replace("diskstats", "nvme0n1 20000", "nvme0n1 oops")
    host.replace("diskstats", "   8       1 sda1", "nonsense\n   8       1 sda1")
    host.read(source)
    reading = host.read(source)
    assert "sda.reads" in reading
    assert "nvme0n1.reads" not in reading
    assert mounts_of(reading)


def test_file_systems_of_the_fixture_host(host, file_systems) -> None:
    reading = host.read(host.source(DiskSource, statvfs=file_systems))
    assert mounts_of(reading) == {"root", "home", "tmp", "mnt_backup_store"}
    assert reading["root.responds"] == 1.0
    assert reading["root.total"] == 4_096_000


def test_a_mount_that_appears_or_vanishes_is_noticed(host, file_systems) -> None:
    source = host.source(DiskSource, statvfs=file_systems)
    host.read(source)
    host.replace("self/mountinfo", "29 1 8:1", "40 29 8:17 / /media/stick rw - vfat /dev/sdb1 rw\n29 1 8:1")
    assert "media_stick" in mounts_of(host.read(source))
    host.replace("self/mountinfo", "/media/stick rw - vfat", "/dev/stick rw - vfat")
    assert "media_stick" not in mounts_of(host.read(source))


def test_a_file_system_that_fails_costs_only_itself_and_one_line_in_the_log(host, file_systems, caplog) -> None:
    file_systems.answers["/home"] = PermissionError(13, "Permission denied")
    source = host.source(DiskSource, statvfs=file_systems)
    for _ in range(3):
        assert mounts_of(host.read(source)) == {"root", "tmp", "mnt_backup_store"}
    assert len([record for record in caplog.records if "/home" in record.message]) == 1
    file_systems.answers.clear()
    assert "home" in mounts_of(host.read(source))


def test_a_file_system_that_hangs_is_left_alone_while_the_others_go_on(host, file_systems) -> None:
    gate = file_systems.hanging["/mnt/backup store"] = threading.Event()
    source = host.source(DiskSource, statvfs=file_systems)
    for _ in range(3):
        reading = host.read(source)
        assert mounts_of(reading) == {"root", "home", "tmp"}
        assert (reading["mnt_backup_store.responds"], reading["home.responds"]) == (0.0, 1.0)
    assert list(source.parts.causes) == ["file system /mnt/backup store"]
    gate.set()
    deadline = time.monotonic() + 10
    while "mnt_backup_store" not in mounts_of(host.read(source)):
        assert time.monotonic() < deadline
    assert source.parts.causes == {}


def test_without_diskstats_the_file_systems_are_still_sampled(host, file_systems) -> None:
    (host.proc / "diskstats").unlink()
    assert mounts_of(host.read(host.source(DiskSource, statvfs=file_systems)))


@pytest.mark.parametrize("text", ["", "nonsense\n"])
def test_without_mounts_the_devices_are_still_sampled(host, file_systems, text: str) -> None:
    (host.proc / "self/mountinfo").write_text(text)
    source = host.source(DiskSource, statvfs=file_systems)
    host.read(source)
    reading = host.read(source)
    assert "sda.reads" in reading
    assert not mounts_of(reading)


async def test_globs_take_effect_at_once(host, file_systems) -> None:
    source = host.source(DiskSource, statvfs=file_systems)
    host.read(source)
    await source.reconfigure(
        DiskSource.Config.load({"prefix": "web1", "exclude_mounts": ["/tmp"], "include_devices": ["nvme*n1"]})
    )
    host.read(source)
    reading = host.read(source)
    assert mounts_of(reading) == {"root", "home", "mnt_backup_store"}
    assert {name.split(".")[0] for name in reading if name.endswith(".reads")} == {"nvme0n1"}
