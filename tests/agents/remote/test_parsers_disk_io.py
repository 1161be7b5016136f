# SPDX-License-Identifier: MIT
import math
import shutil

import pytest

from agents.remote.parsers.disk_io import DiskIoParser, partitions_of
from tests.agents.remote.shell import FixtureShell


@pytest.fixture
def shell(host) -> FixtureShell:
    return FixtureShell(host)


def devices(reading: dict[str, float]) -> set[str]:
    return {name.partition(".")[0] for name in reading}


def test_activity_is_told_since_the_last_run(shell) -> None:
    parser = DiskIoParser()
    assert shell.ask(parser) == {}
    shell.host.replace("diskstats", "sda 1000 20 80000 4000 500", "sda 1010 20 80800 4030 500")
    reading = shell.ask(parser, after_s=2.0)
    assert (reading["sda.reads"], reading["sda.read_bytes"], reading["sda.wait"]) == (5.0, 204_800.0, 0.003)
    assert reading["sda.writes"] == 0.0
    assert math.isnan(reading["dm-0.wait"])


def test_devices_are_whole_disks_without_loops(shell) -> None:
    parser = DiskIoParser()
    shell.ask(parser)
    assert devices(shell.ask(parser)) == {"sda", "nvme0n1", "dm-0"}


def test_a_host_without_partitions_has_disks_all_the_same(shell) -> None:
    for name in ("sda1", "nvme0n1p1"):
        shutil.rmtree(shell.host.sys / "class/block" / name)
    shell.host.replace("diskstats", " sda1 ", " loop7 ")
    shell.host.replace("diskstats", " nvme0n1p1 ", " ram0 ")
    parser = DiskIoParser()
    shell.ask(parser)
    assert devices(shell.ask(parser)) == {"sda", "nvme0n1", "dm-0"}


def test_a_container_without_block_devices_is_no_failure(shell, caplog) -> None:
    (shell.host.proc / "diskstats").write_text("")
    assert shell.ask(DiskIoParser()) == {}
    assert caplog.records == []


def test_a_slash_in_the_name_of_a_partition_is_an_exclamation_mark_in_sys(shell) -> None:
    assert partitions_of("/sys/class/block/cciss!c0d0p1/partition /sys/class/block/sda1/partition") == {
        "cciss/c0d0p1",
        "sda1",
    }
    (shell.host.sys / "class/block/cciss!c0d0p1").mkdir()
    (shell.host.sys / "class/block/cciss!c0d0p1/partition").write_text("1\n")
    shell.host.replace("diskstats", " nvme0n1p1 ", " cciss/c0d0p1 ")
    shell.host.replace("diskstats", " nvme0n1 ", " cciss/c0d0 ")
    parser = DiskIoParser()
    shell.ask(parser)
    assert devices(shell.ask(parser)) == {"sda", "cciss_c0d0", "dm-0"}


def test_a_garbled_device_costs_only_itself_and_one_line_in_the_log(shell, caplog) -> None:
    shell.host.replace("diskstats", "nvme0n1 20000", "nvme0n1 oops")
    parser = DiskIoParser()
    for _ in range(3):
        reading = shell.ask(parser)
    assert devices(reading) == {"sda", "dm-0"}
    assert len([record for record in caplog.records if "web1: disk_io: block device failed" in record.message]) == 1
