# SPDX-License-Identifier: MIT
"""Which file systems are mounted, and which of them are worth watching."""

import re
from collections.abc import Container, Iterable
from dataclasses import dataclass

from agents.base.devices import Globs
from bus.names import clean_word

PSEUDO_TYPES = (
    "autofs",
    "binfmt_misc",
    "bpf",
    "cgroup",
    "cgroup2",
    "configfs",
    "debugfs",
    "devpts",
    "devtmpfs",
    "efivarfs",
    "erofs",
    "fusectl",
    "hugetlbfs",
    "iso9660",
    "mqueue",
    "nsfs",
    "proc",
    "pstore",
    "ramfs",
    "rpc_pipefs",
    "securityfs",
    "selinuxfs",
    "squashfs",
    "sysfs",
    "tracefs",
)
"""Types that hold no files of the user's, or are full by design."""

_SYSTEM = ("/dev", "/proc", "/sys")
_OCTAL = re.compile(r"\\([0-7]{3})")


@dataclass(frozen=True, slots=True, kw_only=True)
class Mount:
    """One mounted file system. device: major:minor, the same for all places where it is mounted."""

    point: str
    fstype: str
    device: str


def parse_mount(line: str) -> Mount:
    """A line of /proc/PID/mountinfo (man 5 proc). Raises ValueError or IndexError for anything else."""
    left, separator, right = line.partition(" - ")
    if not separator:
        raise ValueError("no ' - ' in it")
    words = left.split(" ")
    return Mount(point=_unescaped(words[4]), fstype=right.split(" ")[0], device=words[2])


def _unescaped(text: str) -> str:
    """The kernel writes blanks, tabs, newlines and backslashes of a path as three octal digits."""
    if "\\" not in text:
        return text
    return _OCTAL.sub(lambda match: chr(int(match[1], 8)), text)


def choose(mounts: Iterable[Mount], wanted: Globs, exclude_types: Container[str]) -> list[Mount]:
    """The file systems to sample, each once, where its path is shortest; the root first.

    Left out are excluded types, what lies below /dev, /proc and /sys, tmpfs below /run, and overlays except
    the root: those of containers, which come and go by the hundred.
    """
    by_point = {mount.point: mount for mount in mounts}  # of two mounted at one point, the later one is seen
    chosen: dict[str, Mount] = {}
    for mount in sorted(by_point.values(), key=lambda mount: (len(mount.point), mount.point)):
        if mount.fstype not in exclude_types and not _is_system(mount) and mount.point in wanted:
            chosen.setdefault(mount.device, mount)
    return list(chosen.values())


def _is_system(mount: Mount) -> bool:
    if mount.fstype == "overlay":
        return mount.point != "/"
    below = _SYSTEM + (("/run",) if mount.fstype == "tmpfs" else ())
    return any(mount.point == path or mount.point.startswith(path + "/") for path in below)


def mount_word(point: str) -> str:
    """``/`` → root, ``/home`` → home, ``/srv/data`` → srv_data."""
    return clean_word(point.strip("/")) if point != "/" else "root"
