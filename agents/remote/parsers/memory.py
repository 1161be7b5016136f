# SPDX-License-Identifier: MIT
"""Memory and swap of a remote host: the metrics of agents/memory.py."""

import re
from collections.abc import Mapping

from agents.base.rates import Counters
from agents.memory import MemorySource, amounts, parse_meminfo, parse_swapped, swap_rates
from agents.remote.parser import Context, MetricParser
from agents.remote.parsers.common import kept, missing

_STAT = re.compile(r"^\d+ \(.*\) [A-Za-z] .*$", re.MULTILINE)
_STATM = re.compile(r"^(\d+)(?: \d+){6}$", re.MULTILINE)
_VSIZE = 20
"""Where /proc/PID/stat has the size of the process, counted from the state that follows its name."""

PAGES = frozenset(1 << bits for bits in range(12, 19))
"""Page sizes of Linux: 4 KiB to 256 KiB."""


class MemoryParser(MetricParser):
    """Amounts, and swap rates. The kernel counts what is swapped in pages, whose size is the remote host's own."""

    family = "memory"
    command = "cat /proc/meminfo /proc/vmstat /proc/self/stat /proc/self/statm || :"
    metrics = MemorySource.metrics

    def parse(self, output: str, context: Context) -> Mapping[str, float]:
        """Amounts now, swap rates since the last run."""
        info = parse_meminfo(output)
        if "MemTotal" not in info:
            raise missing("/proc/meminfo", output)
        reading = amounts(info)
        with context.parts("swap rates"):
            swapped = {"swap": parse_swapped(output, kept(context, "page", lambda: page_bytes(output)))}
            reading |= swap_rates(kept(context, "swap", Counters).update(context.now_s, swapped))
        return reading


def page_bytes(text: str) -> int:
    """The size of a page, from /proc/PID/stat and /proc/PID/statm of one process. Raises ValueError.

    The one has the size of the process in bytes, the other in pages.
    """
    stat, statm = _STAT.search(text), _STATM.search(text)
    if stat is None or statm is None:
        raise ValueError("the size of a page is not known without /proc/self/stat and /proc/self/statm")
    size, pages = int(stat[0].rpartition(") ")[2].split()[_VSIZE]), int(statm[1])
    found = size // pages if pages else 0
    if found not in PAGES or found * pages != size:
        raise ValueError(f"a process of {size} B has {pages} pages, which is no size of a page")
    return found
