# SPDX-License-Identifier: MIT
"""The processes that a test's own process has started, as the kernel sees them."""

from pathlib import Path


def children() -> list[int]:
    """Those of all threads, zombies too."""
    lists = []
    for path in Path("/proc/self/task").glob("*/children"):
        try:
            lists.append(path.read_text())
        except OSError:  # the thread has ended
            continue
    return [int(pid) for pid in " ".join(lists).split()]


def is_alive(pid: int) -> bool:
    """A zombie that its new parent has not reaped yet does not live."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False
