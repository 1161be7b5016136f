# SPDX-License-Identifier: MIT
"""The file systems of a remote host; `df` is replaced by programs that answer as GNU's or busybox's does."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from agents.base.mounts import PSEUDO_TYPES
from agents.remote.parsers.disk import DiskNetworkParser, DiskParser, rows
from tests.agents.remote.shell import FixtureShell

GNU_SPACE = """Filesystem     1024-blocks      Used Available Capacity Mounted on
/dev/sda1         50254368  11713952  35955232      25% /
/dev/nvme0n1p1   976284416 512000000 464284416      53% /home
tmpfs              8000000         4   7999996       1% /tmp
nas:/my backup  1000000000 999999000      1000     100% /mnt/backup store
"""
GNU_INODES = """Filesystem       Inodes   IUsed     IFree IUse% Mounted on
/dev/sda1       3211264  321126   2890138   10% /
/dev/nvme0n1p1        0       0         0     - /home
tmpfs           2000000      16   1999984    1% /tmp
nas:/my backup 64000000 1000000  63000000    2% /mnt/backup store
"""
BUSYBOX_SPACE = """Filesystem           1024-blocks    Used Available Capacity Mounted on
/dev/sda1             50254368  11713952  35955232  25% /
/dev/nvme0n1p1       976284416 512000000 464284416  52% /srv/projects
"""
KIB = 1024


LAYERS = "lowerdir=" + ":".join(f"/var/lib/docker/overlay2/l/{number}" for number in range(40))


@pytest.fixture
def shell(host) -> FixtureShell:
    made = FixtureShell(host)
    df(made, GNU_SPACE, GNU_INODES)
    return made


def df(shell: FixtureShell, space: str, inodes: str) -> None:
    """A `df` that prints what it is given, and notes what it was asked about."""
    folder = shell.programs
    (folder / "space").write_text(space)
    (folder / "inodes").write_text(inodes)
    shell.program(
        "df",
        f'case $1 in -kP) cat {folder}/space;; -iP) cat {folder}/inodes;; esac; printf "%s\\n" "$@" >>{folder}/asked',
    )


def asked(shell: FixtureShell) -> list[str]:
    file = shell.programs / "asked"
    return file.read_text().split("\n")[:-1] if file.exists() else []


def mounts(reading: dict[str, float]) -> set[str]:
    return {name.partition(".")[0] for name in reading}


def test_space_is_in_bytes_and_counted_as_df_does(shell) -> None:
    reading = shell.ask(DiskParser())
    assert (reading["root.total"], reading["root.used"]) == (50254368 * KIB, 11713952 * KIB)
    assert reading["root.free"] == 35955232 * KIB
    assert reading["root.percent"] == pytest.approx(100 * 11713952 / (11713952 + 35955232))
    assert (reading["root.inodes.total"], reading["root.inodes.used"]) == (3211264, 321126)
    assert (reading["root.inodes.free"], reading["root.inodes.percent"]) == (2890138, pytest.approx(10.0, abs=0.01))


def test_file_systems_that_may_hang_are_asked_about_apart(shell) -> None:
    assert mounts(shell.ask(DiskParser())) == {"root", "home", "tmp"}
    assert asked(shell) == ["-kP", "/", "/home", "/srv/projects", "/tmp", "-iP", "/", "/home", "/srv/projects", "/tmp"]
    (shell.programs / "asked").unlink()
    reading = shell.ask(DiskNetworkParser())
    assert mounts(reading) == {"mnt_backup_store"}
    assert reading["mnt_backup_store.free"] == 1000 * KIB
    assert asked(shell) == ["-kP", "/mnt/backup?store", "-iP", "/mnt/backup?store"]


@pytest.mark.parametrize(
    ("fstype", "network"),
    [
        ("nfs", True),
        ("nfs4", True),
        ("fuse.sshfs", True),
        ("fuse", True),
        ("cifs", True),
        ("9p", True),
        ("fuseblk", False),
        ("nfsx", False),
        ("btrfs", False),
        ("zfs", False),
    ],
)
def test_each_type_belongs_to_one_of_the_two(fstype: str, network: bool, shell) -> None:
    shell.host.replace("self/mountinfo", "- ext4 /dev/sda1", f"- {fstype} /dev/sda1")
    assert ("root.total" in shell.ask(DiskParser())) == (not network)
    assert ("root.total" in shell.ask(DiskNetworkParser())) == network


@pytest.mark.parametrize("fstype", PSEUDO_TYPES)
def test_types_that_hold_no_files_are_not_asked_about(fstype: str, shell) -> None:
    shell.host.replace("self/mountinfo", "- ext4 /dev/sda1", f"- {fstype} /dev/sda1")
    assert mounts(shell.ask(DiskParser())) == {"home", "tmp"}
    assert "/" not in asked(shell)


def test_an_overlay_is_a_file_system_only_as_the_root(shell) -> None:
    shell.host.replace("self/mountinfo", "- ext4 /dev/sda1", "- overlay overlay")
    assert "root.total" in shell.ask(DiskParser())
    assert "/var/lib/docker/overlay2/abc/merged" not in asked(shell)


def test_a_host_without_file_systems_over_the_network_is_not_asked_twice(shell) -> None:
    shell.host.replace("self/mountinfo", "- nfs4 nas", "- devpts nas")
    assert shell.run(DiskNetworkParser.command) == ""
    assert shell.ask(DiskNetworkParser()) == {}
    assert asked(shell) == []


def test_busybox_without_inodes_that_names_another_place_of_the_device(shell) -> None:
    df(shell, BUSYBOX_SPACE, "")
    reading = shell.ask(DiskParser())
    assert mounts(reading) == {"root", "home"}
    assert reading["home.used"] == 512000000 * KIB
    assert not any("inodes" in name for name in reading)


def test_a_file_system_without_a_number_of_inodes_has_none(shell) -> None:
    assert {name for name in shell.ask(DiskParser()) if name.startswith("home.inodes")} == set()


def test_a_file_system_that_df_cannot_read_costs_only_itself_and_one_line_in_the_log(shell, caplog) -> None:
    df(shell, GNU_SPACE.replace("/dev/nvme0n1p1   976284416", "/dev/nvme0n1p1   -"), GNU_INODES)
    parser = DiskParser()
    for _ in range(3):
        assert mounts(shell.ask(parser)) == {"root", "tmp"}
    assert [record.message for record in caplog.records] == [
        "web1: disk: file system /home failed: LookupError: df does not show it"
    ]
    df(shell, GNU_SPACE, GNU_INODES)
    assert "home" in mounts(shell.ask(parser))


def test_what_is_mounted_or_unmounted_is_noticed(shell) -> None:
    parser = DiskParser()
    shell.ask(parser)
    shell.host.replace("self/mountinfo", "29 1 8:1", "40 29 8:17 / /media/stick rw - vfat /dev/sdb1 rw\n29 1 8:1")
    df(shell, GNU_SPACE + "/dev/sdb1 100 40 60 40% /media/stick\n", GNU_INODES)
    assert shell.ask(parser)["media_stick.percent"] == 40.0
    shell.host.replace("self/mountinfo", "/media/stick rw - vfat", "/dev/stick rw - vfat")
    assert "media_stick" not in mounts(shell.ask(parser))


def test_a_garbled_mount_costs_only_itself(shell) -> None:
    shell.host.replace("self/mountinfo", "29 1 8:1", "nonsense\n29 1 8:1")
    assert mounts(shell.ask(DiskParser())) == {"root", "home", "tmp"}


def test_the_shell_finds_mount_points_with_blanks_and_its_own_characters(shell, tmp_path: Path) -> None:
    names = ["a b", "c*d", "[e]", "f?g", "h;touch x", "$(touch y)", "`touch z`", "'q", '"r', "s\tt", "u\\v", "-w", "é"]
    lines = []
    for number, name in enumerate(names):
        (tmp_path / name).mkdir()
        escaped = name.replace("\\", "\\134").replace(" ", "\\040").replace("\t", "\\011")
        lines.append(f"{50 + number} 29 9:{number} / {tmp_path}/{escaped} rw - ext4 /dev/x rw")
    (tmp_path / "e").mkdir()  # what [e] would mean to a shell
    (shell.host.proc / "self/mountinfo").write_text("\n".join(lines) + "\n")
    before = set(os.listdir())
    shell.run(DiskParser.command)
    found = asked(shell)
    assert {f"{tmp_path}/{name}" for name in names} <= set(found)
    assert len(found) == 2 * (len(names) + 1)
    assert set(os.listdir()) == before


@pytest.mark.skipif(shutil.which("df") is None, reason="no df")
def test_df_of_this_host_agrees_with_the_kernel() -> None:
    stat = os.statvfs("/")
    device = os.stat("/").st_dev
    for option, total in (("-kP", stat.f_blocks * stat.f_frsize // KIB), ("-iP", stat.f_files)):
        table = subprocess.run(["df", option, "/"], capture_output=True, text=True, check=True).stdout
        found = rows(table, {"/": str(device)})
        assert found[str(device)][0] == total


@pytest.mark.parametrize(
    "line",
    [
        "",
        "Filesystem 1024-blocks Used Available Capacity Mounted on",
        "/dev/x 1 2 3 4% /elsewhere",
        "/dev/x - - - - /",
        "/dev/x 1 2 3 /",
        "/dev/x 1 2 3 4%",
        "df: /: Permission denied",
    ],
)
def test_lines_that_are_no_rows_are_left_out(line: str) -> None:
    assert rows(line, {"/": "8:1"}) == {}


def test_a_file_system_of_no_size_has_no_percentage_in_df() -> None:
    assert rows("portal 0 0 0 - /", {"/": "0:50"}) == {"0:50": (0, 0, 0)}


def test_a_device_may_have_blanks_and_numbers_in_its_name() -> None:
    assert rows("my disk 5 10 20 30 40 40% /a b", {"/a b": "8:1"}) == {"8:1": (20, 30, 40)}


def test_what_a_mount_was_mounted_with_is_not_sent(shell) -> None:
    """A host with hundreds of containers would send megabytes."""
    shell.host.replace("self/mountinfo", "29 1 8:1", f"40 29 0:60 / /srv/c1 rw - overlay overlay rw,{LAYERS}\n29 1 8:1")
    printed = shell.run(DiskParser.command)
    assert "/srv/c1 rw - overlay\n" in printed
    assert "lowerdir" not in printed
    assert {"root", "home"} <= mounts(shell.parse(DiskParser(), printed))
