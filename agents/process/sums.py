# SPDX-License-Identifier: MIT
"""What processes had since the last look, and what groups of them have: sums, from what was read."""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from agents.process.details import Details
from agents.process.groups import Known
from agents.process.procfs import TICKS_PER_S, Stat


class Gain(NamedTuple):
    """What a process had since the last look."""

    ticks: int
    faults: int


_NOTHING = Gain(0, 0)


class Member(NamedTuple):
    """A process of a group at one look."""

    stat: Stat
    known: Known
    gain: Gain | None
    details: Details | None
    io: tuple[int, int] | None


def gains_since(last: Mapping[int, Stat], now: Mapping[int, Stat], last_ticks: int) -> dict[int, Gain]:
    """What each process had since the last look, which was at `last_ticks` after boot.

    One that started later had all it has since then; one that was hidden until now is left out.
    """
    gains = {}
    for pid, stat in now.items():
        old = last.get(pid)
        if old is stat:
            gains[pid] = _NOTHING
        elif old is not None and old.start == stat.start:
            gains[pid] = Gain(max(0, stat.ticks - old.ticks), max(0, stat.faults - old.faults))
        elif stat.start >= last_ticks:
            gains[pid] = Gain(stat.ticks, stat.faults)
    return gains


def amounts(members: Iterable[Member]) -> dict[str, float]:
    """What the processes of a group have now. Open files are left out if they may not be read of any."""
    alive = [member for member in members if not member.stat.ended]
    fds = [member.details.fds for member in alive if member.details and member.details.fds is not None]
    found: dict[str, float] = {
        "count": len(alive),
        "rss": sum(member.stat.rss for member in alive),
        "vms": sum(member.stat.vms for member in alive),
        "threads": sum(member.stat.threads for member in alive),
    }
    return found | {"fds": sum(fds)} if fds or not alive else found


def rates(members: Sequence[Member], elapsed_s: float) -> dict[str, float]:
    """What the processes of a group had since the last look; zombies count with what they did before they ended.

    Bytes are left out if they are not known of any.
    """
    gains = [member.gain for member in members if member.gain]
    found = {
        "cpu": 100 * sum(gain.ticks for gain in gains) / TICKS_PER_S / elapsed_s,
        "faults": sum(gain.faults for gain in gains) / elapsed_s,
    }
    io = [member.io for member in members if member.io]
    if io or all(member.stat.ended for member in members):
        found["read_bytes"] = sum(read for read, _ in io) / elapsed_s
        found["written_bytes"] = sum(written for _, written in io) / elapsed_s
    return found


def shares(members: Iterable[Member]) -> dict[str, float]:
    """The group's memory with what is shared split; left out while a process has not been asked, or none may be."""
    alive = [member for member in members if not member.stat.ended and not member.stat.kernel]
    asked = [member.known for member in alive if member.known.pss_read_s > float("-inf")]
    known = [process.pss for process in asked if process.pss is not None]
    return {"pss": sum(known)} if len(asked) == len(alive) and (known or not alive) else {}
