# SPDX-License-Identifier: MIT
"""How full the file systems of a remote host are: metrics of agents/disk.py."""

import re
from collections.abc import Mapping
from typing import ClassVar

from agents.base.devices import DeviceWords, Globs, names_of
from agents.base.mounts import PSEUDO_TYPES, Mount, choose, mount_word, parse_mount
from agents.base.parts import Parts
from agents.disk import SPACE, DiskSource, fullness
from agents.remote.parser import Context, MetricParser
from agents.remote.parsers.common import kept, missing, table_of

NETWORK_TYPES = r"nfs4?|cifs|smb3|smbfs|ceph|9p|afs|lustre|beegfs|gpfs|orangefs|fuse(\.[^ ]*)?"
"""Types of file systems that are served by others, another host or a program, and hang if these do."""

DISK_EVERY_S = 10.0

_ROW = re.compile(r"^.*? +(\d+) +(\d+) +(-?\d+) +(?:\d+%|-) +(/.*)$")
_SPACE, _INODES = "== space", "== inodes"
_KIB = 1024


def _command(*filters: str) -> str:
    """Ask ``df`` about the mount points of those lines of mountinfo that the filters of sed leave.

    The kernel writes blanks in a path as octal digits: they become a "?", which the shell replaces by what there
    is, and so do the characters that mean something to a shell.
    """
    script = [
        f"/ - ({'|'.join(PSEUDO_TYPES)}) /d",
        r"/^([^ ]* ){4}\/(dev|proc|sys)[ /]/d",
        r"/ - tmpfs /{/^([^ ]* ){4}\/run[ /]/d;}",
        *filters,
        r"s/^([^ ]* ){4}([^ ]*) .*$/\2/",
        r"s/\\[0-7]{3}|[][*?]/?/g",
    ]
    points = "LC_ALL=C sed -E " + " ".join(f"-e '{step}'" for step in script) + " /proc/self/mountinfo"
    return (
        f'hostbus_points=$({points}); [ -z "$hostbus_points" ] || '
        f"{{ sed -E 's/ - ([^ ]*) .*/ - \\1/' /proc/self/mountinfo; echo '{_SPACE}'; df -kP $hostbus_points; "
        f"echo '{_INODES}'; df -iP $hostbus_points; :; }} 2>/dev/null"
    )


class DiskParser(MetricParser):
    """Space and inodes of the file systems that are the host's own, to the KiB that ``df`` counts in.

    `df` is asked about each mount point, because what it leaves out by itself is not what the family leaves out.
    That takes four programs, so it is not done every second.
    """

    family = "disk"
    every_s = DISK_EVERY_S
    command = _command(f"/ - ({NETWORK_TYPES}) /d", "/ - overlay /{/^([^ ]* ){4}\\/ /!d;}")
    metrics = table_of(DiskSource, lambda name: name.startswith("{mount}.") and name.partition(".")[2] in SPACE)
    network: ClassVar[bool] = False

    def parse(self, output: str, context: Context) -> Mapping[str, float]:
        """Space now."""
        mountinfo, separator, tables = output.partition(f"\n{_SPACE}\n")
        if not separator:
            if self.network and not output.strip():
                return {}
            raise missing("/proc/self/mountinfo", output)
        known = kept(context, "mounts", lambda: _Mounts(network=self.network))
        known.update(mountinfo, context.parts)
        space, _, inodes = tables.partition(f"{_INODES}\n")
        space_of, inodes_of = rows(space, known.device_of), rows(inodes, known.device_of)
        reading: dict[str, float] = {}
        for word, mount in known.ours.items():
            with context.parts(f"file system {mount.point}"):
                reading.update(zip(names_of(word, SPACE), full(mount, space_of, inodes_of), strict=False))
        return reading


class DiskNetworkParser(DiskParser):
    """The same of file systems over the network and of programs: if their server hangs, the others go on.

    On a host without any, it costs one fork.
    """

    command = _command(f"/ - ({NETWORK_TYPES}) /!d")
    network = True


class _Mounts:
    """What is mounted on a host; worked out anew only when something was mounted or unmounted.

    device_of: the device at each mount point. ours: the file systems to sample, by their words.
    """

    def __init__(self, *, network: bool) -> None:
        self._network = network
        self._words = DeviceWords(mount_word)
        self._text = ""
        self.device_of: dict[str, str] = {}
        self.ours: dict[str, Mount] = {}

    def update(self, text: str, parts: Parts) -> None:
        """Take the text of /proc/self/mountinfo."""
        if text == self._text:
            return
        self._text = text
        mounts = parts.each("mount", text.splitlines(), parse_mount)
        self.device_of = {mount.point: mount.device for mount in mounts}
        # All get their words, those of the other parser too: so that no two file systems get the same.
        chosen = {self._words[mount.point]: mount for mount in choose(mounts, Globs(), PSEUDO_TYPES)}
        self.ours = {word: mount for word, mount in chosen.items() if self._is_ours(mount)}

    def _is_ours(self, mount: Mount) -> bool:
        return (re.fullmatch(NETWORK_TYPES, mount.fstype) is not None) == self._network


def rows(table: str, device_of: Mapping[str, str]) -> dict[str, tuple[int, int, int]]:
    """Total, used and free of each device, from what ``df -P`` prints; lines that are no such thing are left out.

    busybox names the place where the file system was mounted first, whichever place it was asked about; so what
    tells which one it is is the device.
    """
    found: dict[str, tuple[int, int, int]] = {}
    for line in table.splitlines():
        match = _ROW.match(line)
        if match and match[4] in device_of:
            found[device_of[match[4]]] = (int(match[1]), int(match[2]), int(match[3]))
    return found


def full(
    mount: Mount, space_of: Mapping[str, tuple[int, int, int]], inodes_of: Mapping[str, tuple[int, int, int]]
) -> list[float]:
    """`SPACE` of a file system. Raises LookupError if `df` does not say."""
    if mount.device not in space_of:
        raise LookupError("df does not show it")
    total, used, free = (_KIB * number for number in space_of[mount.device])
    return fullness(total, used, free, inodes_of.get(mount.device, (0, 0, 0)))
