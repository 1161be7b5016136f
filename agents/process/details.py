# SPDX-License-Identifier: MIT
"""What only members of groups are asked for, because it is dear: input and output, open files, shares of memory."""

import time
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple, TypeVar

from agents.base.isolate import Isolator
from agents.process.groups import Known
from agents.process.procfs import DENIED, Stat, count_fds, knows_fd_counts, parse_io, parse_pss, read_bytes
from agents.process.visits import isolator

PSS_EVERY_S = 10.0
PSS_SHARE = 0.002
"""How much of one core the shares of memory may cost: 14 µs for a small process, but 0.3 s for one of 64 GiB."""

MOST_GENERATIONS = 64


T = TypeVar("T")


class Details(NamedTuple):
    """Of one process; None for what cannot be read, denied if that is for want of permission."""

    io: tuple[int, int] | None
    fds: int | None
    io_denied: bool = False
    fds_denied: bool = False


class DetailReader:
    """Reads the details of processes, 13 µs each."""

    def __init__(self, proc: str, name: str) -> None:
        self._proc = proc
        self._by_size = knows_fd_counts(proc)
        self._isolator: Isolator[int, Details] = isolator(f"{name}: details")

    @property
    def spent_s(self) -> float:
        """CPU time of the threads that read for it."""
        return self._isolator.spent_s

    def read(self, pids: Iterable[int], patience_s: float) -> dict[int, Details]:
        """The details of those processes that still live, and answer."""
        found = self._isolator.call_each(self._details, pids, patience_s / 2)
        return {pid: details for pid, details in found.items() if isinstance(details, Details)}

    def _details(self, pid: int) -> Details:
        directory = f"{self._proc}/{pid}"
        io, io_denied = _permitted(lambda: parse_io(read_bytes(f"{directory}/io")))
        fds, fds_denied = _permitted(lambda: count_fds(directory, by_size=self._by_size))
        return Details(io, fds, io_denied, fds_denied)


def _permitted(read: Callable[[], T]) -> tuple[T | None, bool]:
    """What `read` returned, or None and whether it was denied."""
    try:
        return read(), False
    except OSError as error:
        return None, error.errno in DENIED
    except ValueError:
        return None, False


def inherited(
    last: Mapping[int, Stat], now: Mapping[int, Stat], known: Mapping[int, Known]
) -> dict[int, tuple[int, int] | None]:
    """What processes got from those that ended since the last look, by pid; None where that is not known.

    The kernel adds the bytes of a process that ended to those of the parent that waits for it: gigabytes that were
    read and written long ago, and in a group with both, counted already.
    """
    heirs: dict[int, tuple[int, int] | None] = {}
    for pid, stat in last.items():
        still = now.get(pid)
        if still is stat or (still is not None and still.start == stat.start):
            continue
        heir = stat.parent
        for _ in range(MOST_GENERATIONS):  # the parent may have ended, too
            if heir in now or heir not in last:
                break
            heir = last[heir].parent
        before = heirs.get(heir, (0, 0))
        old = known.get(pid)
        if before is None or old is None or old.start != stat.start or old.io is None:
            heirs[heir] = None
        else:
            heirs[heir] = (before[0] + old.io[0], before[1] + old.io[1])
    return heirs


def io_gain(
    old: tuple[int, int] | None, new: tuple[int, int], from_ended: tuple[int, int] | None
) -> tuple[int, int] | None:
    """What a process read and wrote since the last look, in bytes; None if that cannot be told.

    A parent that does not wait for its children inherits nothing: it then has less than they had.
    """
    if old is None or from_ended is None:
        return None
    read, written = new[0] - old[0], new[1] - old[1]
    if read < 0 or written < 0:
        return None
    if read >= from_ended[0] and written >= from_ended[1]:
        return read - from_ended[0], written - from_ended[1]
    return read, written


class Shares:
    """The proportional set sizes of processes, read within `PSS_SHARE` of a core.

    The kernel walks through all pages of a process for it. What was not reached this time is first next time.
    """

    def __init__(self, proc: str, name: str) -> None:
        self._proc = proc
        self._isolator: Isolator[int, None] = isolator(f"{name}: shares of memory")
        self._credit_s = PSS_SHARE * PSS_EVERY_S
        self._now_s: float | None = None

    def refresh(self, known: Mapping[int, Known], pids: Iterable[int], now_s: float, patience_s: float) -> None:
        """Read anew what is in `known` of some processes, the oldest first, as far as the credit goes."""
        if self._now_s is not None:
            gained = PSS_SHARE * (now_s - self._now_s)
            self._credit_s = min(self._credit_s + gained, PSS_SHARE * PSS_EVERY_S)
        self._now_s = now_s
        oldest_first = sorted(pids, key=lambda pid: known[pid].pss_read_s)
        self._isolator.call_each(lambda pid: self._read(pid, known[pid], now_s), oldest_first, patience_s / 2)

    def _read(self, pid: int, process: Known, now_s: float) -> None:
        """In a thread: one that comes late leaves what it read all the same."""
        if self._credit_s <= 0:
            return
        began_s = time.thread_time()
        pss, process.pss_denied = _permitted(lambda: parse_pss(read_bytes(f"{self._proc}/{pid}/smaps_rollup")))
        process.pss, process.pss_read_s = pss, now_s
        self._credit_s -= time.thread_time() - began_s
