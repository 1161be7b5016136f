# SPDX-License-Identifier: MIT
"""How busy the block devices of a remote host are: metrics of agents/disk.py."""

from collections.abc import Mapping

from agents.base.devices import DeviceWords, Globs
from agents.base.rates import Counters
from agents.disk import ACTIVITY, DiskConfig, DiskSource, activities, chosen, parse_diskstats
from agents.remote.parser import Context, MetricParser
from agents.remote.parsers.common import kept, missing, table_of

_BLOCK = "/sys/class/block/"


class DiskIoParser(MetricParser):
    """Activity of whole disks. The shell itself lists the partitions, which are those with a file of that name."""

    family = "disk"
    command = f"cat /proc/diskstats && echo {_BLOCK}*/partition"
    metrics = table_of(DiskSource, lambda name: name.partition(".")[2] in ACTIVITY)
    wanted = Globs((), DiskConfig().exclude_devices)

    def parse(self, output: str, context: Context) -> Mapping[str, float]:
        """Activity since the last run; nothing in a container without block devices."""
        *lines, last = output.splitlines() or [""]
        if not last.startswith(_BLOCK):
            raise missing("/proc/diskstats", output)
        partitions = partitions_of(last)
        wanted = chosen(lines, lambda device: device in self.wanted and device not in partitions)
        counters = dict(context.parts.each("block device", wanted, parse_diskstats))
        step = kept(context, "counters", Counters).update(context.now_s, counters)
        return activities(step, kept(context, "words", DeviceWords))


def partitions_of(line: str) -> frozenset[str]:
    """The devices in ``/sys/class/block/sda1/partition ...``. A "/" in a name (cciss/c0d0p1) is "!" there."""
    return frozenset(path.removeprefix(_BLOCK).removesuffix("/partition").replace("!", "/") for path in line.split(" "))
