# SPDX-License-Identifier: MIT
"""How full the file systems are and how busy the block devices."""

import math
import os
from collections.abc import Callable, Iterable, Sequence
from typing import Annotated, Unpack

from msgspec import Meta, field

from agents.base.devices import DeviceWords, Globs, names_of
from agents.base.isolate import Isolator
from agents.base.mounts import PSEUDO_TYPES, Mount, choose, mount_word, parse_mount
from agents.base.rates import Counters, Step, percent
from agents.host import HostConfig, HostOptions, HostSource, Metric, Reading
from bus.config import AgentConfig
from bus.transport.base import Transport

SPACE = ("total", "used", "free", "percent", "inodes.total", "inodes.used", "inodes.free", "inodes.percent")
ACTIVITY = ("read_bytes", "written_bytes", "reads", "writes", "utilization", "wait")

SECTOR_BYTES = 512
"""The unit of /proc/diskstats, whatever the sectors of the device are."""


class DiskConfig(HostConfig, frozen=True):
    """What the family can be told. Globs are shell patterns."""

    include_mounts: Annotated[list[str], Meta(description="mount points to sample, globs; default: all")] = field(
        default_factory=list
    )
    exclude_mounts: Annotated[list[str], Meta(description="mount points to leave out, globs")] = field(
        default_factory=list
    )
    exclude_types: Annotated[list[str], Meta(description="types of file systems to leave out")] = field(
        default_factory=lambda: list(PSEUDO_TYPES)
    )
    include_devices: Annotated[
        list[str], Meta(description="block devices to sample, globs; default: all but partitions")
    ] = field(default_factory=list)
    exclude_devices: Annotated[list[str], Meta(description="block devices to leave out, globs")] = field(
        default_factory=lambda: ["loop*", "ram*", "fd*", "sr*"]
    )


class DiskSource(HostSource):
    """How full the file systems are (as ``df`` says) and how busy the block devices.

    A file system that hangs is left alone until the call returns; the others are sampled all the same.
    Measured: 0.22 ms of CPU a reading with 2 file systems and 10 block devices, of which the thread for the calls
    that may hang takes 0.09 ms.
    """

    Config = DiskConfig
    config: DiskConfig
    family = "disk"
    metrics = (
        Metric("{mount}.total", "B", "size of the file system"),
        Metric("{mount}.used", "B", "space in use"),
        Metric("{mount}.free", "B", "space left for users"),
        Metric("{mount}.percent", "%", "space in use, of what users can have"),
        Metric("{mount}.inodes.total", "1", "inodes of the file system"),
        Metric("{mount}.inodes.used", "1", "inodes in use"),
        Metric("{mount}.inodes.free", "1", "inodes left"),
        Metric("{mount}.inodes.percent", "%", "inodes in use, of the total"),
        Metric("{mount}.responds", "1", "1, or 0 while the file system hangs", quantity="state"),
        Metric("{device}.read_bytes", "B/s", "read from the device", scope="last"),
        Metric("{device}.written_bytes", "B/s", "written to the device", scope="last"),
        Metric("{device}.reads", "1/s", "read operations completed", scope="last"),
        Metric("{device}.writes", "1/s", "write operations completed", scope="last"),
        Metric("{device}.utilization", "%", "time in which the device had something to do", scope="last"),
        Metric(
            "{device}.wait",
            "s",
            "mean time an operation took, queue included; not a number if there was none",
            scope="last",
            details={"nan": "no operation"},
        ),
    )

    def __init__(
        self,
        token: str,
        url: str | Transport = "",
        *,
        statvfs: Callable[[str], os.statvfs_result] = os.statvfs,
        **options: Unpack[HostOptions],
    ) -> None:
        super().__init__(token, url, **options)
        self._statvfs = statvfs
        self._isolator: Isolator[str, os.statvfs_result] = Isolator(name=f"{self.token}: statvfs")
        self._mount_words = DeviceWords(mount_word)
        self._device_words = DeviceWords()
        self._counters = Counters()
        self._mounts: list[Mount] = []
        self._choose()

    def _choose(self) -> None:
        """What follows from the configuration, to be worked out anew."""
        config = self.config
        self._wanted_mounts = Globs(config.include_mounts, config.exclude_mounts)
        self._wanted_devices = Globs(config.include_devices, config.exclude_devices)
        self._known_devices: dict[str, bool] = {}
        self._mount_text = ""

    async def reconfigure(self, config: AgentConfig) -> None:
        """Put a configuration in force at once."""
        await super().reconfigure(config)
        self._choose()

    def read(self) -> Reading:
        """Space now, activity since the last reading."""
        reading: dict[str, float] = {}
        with self.parts("block devices"):
            reading |= self._activity()
        with self.parts("file systems"):
            reading |= self._space()
        return reading

    # -- file systems ----------------------------------------------------------------------------------

    def _space(self) -> dict[str, float]:
        points = [mount.point for mount in self._current_mounts()]
        outcomes = self._isolator.call_each(self._statvfs, points, self.deadline_s / 4)
        reading: dict[str, float] = {}
        for point in points:
            word = self._mount_words[point]
            outcome = outcomes.get(point)
            with self.parts(f"file system {point}"):
                reading[names_of(word, ("responds",))[0]] = float(outcome is not None)
                if outcome is None:
                    raise TimeoutError("it hangs")
                if isinstance(outcome, Exception):
                    raise outcome
                reading.update(zip(names_of(word, SPACE), space(outcome), strict=False))
        return reading

    def _current_mounts(self) -> list[Mount]:
        """Parsed anew only when something was mounted or unmounted."""
        text = self.proc("self/mountinfo")
        if text != self._mount_text:
            mounts = self.parts.each("mount", text.splitlines(), parse_mount)
            self._mounts = choose(mounts, self._wanted_mounts, self.config.exclude_types)
            self._mount_text = text
        return self._mounts

    # -- block devices ---------------------------------------------------------------------------------

    def _activity(self) -> dict[str, float]:
        now_s = self.clock()
        lines = self.proc("diskstats").splitlines()
        counters = dict(self.parts.each("block device", chosen(lines, self._is_wanted), parse_diskstats))
        return activities(self._counters.update(now_s, counters), self._device_words)

    def _is_wanted(self, device: str) -> bool:
        wanted = self._known_devices.get(device)
        if wanted is None:
            globs = self._wanted_devices
            wanted = device in globs and (globs.named(device) or not self._is_partition(device))
            self._known_devices[device] = wanted
        return wanted

    def _is_partition(self, device: str) -> bool:
        # A "/" in a device's name (cciss/c0d0) is "!" in /sys.
        return (self.roots.sys / "class/block" / device.replace("/", "!") / "partition").exists()


def space(stat: os.statvfs_result) -> list[float]:
    """`SPACE` of a file system, counted as ``df`` does; without inodes where it has no fixed number of them."""
    total, free = stat.f_blocks * stat.f_frsize, stat.f_bavail * stat.f_frsize
    used = total - stat.f_bfree * stat.f_frsize
    return fullness(total, used, free, (stat.f_files, stat.f_files - stat.f_ffree, stat.f_ffree))


def fullness(total: int, used: int, free: int, inodes: tuple[int, int, int] = (0, 0, 0)) -> list[float]:
    """`SPACE` from bytes and inodes (total, used, free); without inodes where there are 0 in total."""
    values = [total, used, free, percent(used, used + free)]
    if inodes[0]:
        values += [*inodes, percent(inodes[1], inodes[0])]
    return values


def chosen(lines: Iterable[str], is_wanted: Callable[[str], bool]) -> list[str]:
    """The lines of wanted devices in /proc/diskstats, and those that make no sense."""
    return [line for line in lines if len(words := line.split(None, 3)) < 4 or is_wanted(words[2])]


def activities(step: Step, words: DeviceWords) -> dict[str, float]:
    """`ACTIVITY` of each device, from a step of its counters."""
    reading: dict[str, float] = {}
    for device, gains in step.gains.items():
        reading.update(zip(names_of(words[device], ACTIVITY), activity(gains, step.elapsed_s), strict=True))
    return reading


def parse_diskstats(line: str) -> tuple[str, list[int]]:
    """A line of /proc/diskstats: the device and the counters that `activity` wants. Raises ValueError or IndexError.

    reads, ms of reads, writes, ms of writes, sectors read, sectors written, ms in use. The kernel counts the
    milliseconds in 32 bits.
    """
    words = line.split()
    return words[2], [int(words[position]) for position in (3, 6, 7, 10, 5, 9, 12)]


def activity(gains: Sequence[int], elapsed_s: float) -> list[float]:
    """`ACTIVITY` of a device from what its counters gained in some seconds."""
    reads, read_ms, writes, write_ms, sectors_read, sectors_written, busy_ms = gains
    operations = reads + writes
    return [
        sectors_read * SECTOR_BYTES / elapsed_s,
        sectors_written * SECTOR_BYTES / elapsed_s,
        reads / elapsed_s,
        writes / elapsed_s,
        min(100.0, busy_ms / 10 / elapsed_s),
        (read_ms + write_ms) / 1e3 / operations if operations else math.nan,
    ]
