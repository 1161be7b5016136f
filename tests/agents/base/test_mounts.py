# SPDX-License-Identifier: MIT
import pytest

from agents.base.devices import Globs
from agents.base.mounts import PSEUDO_TYPES, Mount, choose, mount_word, parse_mount

ALL = Globs()


def mount(point: str, fstype: str = "ext4", device: str = "") -> Mount:
    return Mount(point=point, fstype=fstype, device=device or point)


def chosen(*mounts: Mount, wanted: Globs = ALL) -> list[str]:
    return [mount.point for mount in choose(mounts, wanted, PSEUDO_TYPES)]


def test_a_line_with_optional_fields_and_blanks_in_its_path() -> None:
    line = r"36 35 98:0 /mnt1 /mnt/my\040disk\134x rw,noatime master:1 shared:2 - ext3 /dev/root rw,errors=continue"
    assert parse_mount(line) == Mount(point="/mnt/my disk\\x", fstype="ext3", device="98:0")


@pytest.mark.parametrize("line", ["", "garbage", "1 2 3 - ext4 /dev/sda rw"])
def test_a_line_that_makes_no_sense_is_an_error(line: str) -> None:
    with pytest.raises((ValueError, IndexError)):
        parse_mount(line)


def test_pseudo_file_systems_and_system_trees_are_left_out() -> None:
    assert chosen(
        mount("/"),
        mount("/proc", "proc"),
        mount("/dev/shm", "tmpfs"),
        mount("/run/user/1000", "tmpfs"),
        mount("/run/media/stick", "vfat"),
        mount("/device", "ext4"),
        mount("/tmp", "tmpfs"),
        mount("/snap/core", "squashfs"),
    ) == ["/", "/tmp", "/device", "/run/media/stick"]


def test_an_overlay_is_sampled_only_as_the_root() -> None:
    assert chosen(mount("/", "overlay"), mount("/var/lib/docker/overlay2/x/merged", "overlay")) == ["/"]


def test_a_file_system_mounted_twice_is_sampled_once_at_its_shortest_path() -> None:
    assert chosen(mount("/srv/a/b", device="8:1"), mount("/srv", device="8:1")) == ["/srv"]


def test_of_two_mounts_on_one_point_the_later_one_is_seen() -> None:
    mounts = [mount("/data", "squashfs", "7:0"), mount("/data", "ext4", "8:1")]
    assert choose(mounts, ALL, PSEUDO_TYPES) == [mounts[1]]


def test_globs_choose_mount_points() -> None:
    mounts = [mount("/"), mount("/home"), mount("/home/a"), mount("/srv")]
    assert chosen(*mounts, wanted=Globs(["/home*"], ["/home/a"])) == ["/home"]


def test_words_of_mount_points() -> None:
    assert [mount_word(point) for point in ("/", "/home", "/srv/my data")] == ["root", "home", "srv_my_data"]
