# SPDX-License-Identifier: MIT
"""Energy counters of processors (/sys/class/powercap: Intel's RAPL, and AMD's the same way), and power from them."""

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from agents.sensors.channels import Channel, Device, ReadFile, entries, read_text, whole, word_of

MOST_W = 1000.0
"""No zone takes more. A gain beyond it is no wrap: the counter was reset, as by a suspend to memory."""

_ZONE = re.compile(r"[a-z-]*rapl[a-z-]*(:\d{1,4})+")


@dataclass(slots=True)
class Energies:
    """What was found: counters, and the files of those that this user may not read."""

    zones: list[Device] = field(default_factory=list)
    locked: list[str] = field(default_factory=list)


def find_energies(sys: Path, read: ReadFile) -> Energies:
    """The energy counters of all zones: packages, and what is in them.

    Zones that the kernel offers again through memory (intel-rapl-mmio) are left out where the registers have them.
    """
    found = Energies()
    taken: set[str] = set()
    zones = [path for path in entries(sys / "class/powercap") if _ZONE.fullmatch(path.name)]
    for zone in sorted(zones, key=lambda path: "mmio" in path.name):
        place = Path(os.path.realpath(zone))
        word = ".".join(("rapl", *_words(zone, read)))
        if "mmio" in zone.name and word in taken:
            continue
        counter = f"{place}/energy_uj"
        try:
            read(counter)
        except PermissionError:
            found.locked.append(counter)
            continue
        except FileNotFoundError:
            continue
        except OSError:  # it may answer later
            pass
        taken.add(word)
        found.zones.append(_zone(place, word, counter, read))
    return found


def _zone(place: Path, word: str, counter: str, read: ReadFile) -> Device:
    limit = read_text(place / "max_energy_range_uj", read)
    channel = Channel(name="energy", paths=(counter,), value_of=whole, label=read_text(place / "name", read))
    return Device(
        key=str(place),
        word=word,
        address=word_of(place.name),
        channels=(channel,),
        max_energy_uj=int(limit) if limit.isdecimal() else 0,
    )


def _words(zone: Path, read: ReadFile) -> Iterable[str]:
    """The names of a zone and those around it: intel-rapl:0:1 → package-0, core."""
    control, *numbers = zone.name.split(":")
    for depth in range(1, len(numbers) + 1):
        around = ":".join((control, *numbers[:depth]))
        yield word_of(read_text(zone.parent / around / "name", read) or around)


class EnergyMeter:
    """The energy and the power of one zone, from its counter.

    Args:
        max_energy_uj: the counter starts at 0 again after this; 0 if that is not known
    """

    def __init__(self, max_energy_uj: int) -> None:
        self._range_uj = max_energy_uj
        self._seen_s = float("-inf")
        self._last_uj = 0.0
        self.energy_j = 0.0
        """Since the first look, as far as it is known: what was used in a gap that is too long is not."""

    @property
    def longest_s(self) -> float:
        """Looks that are farther apart than this say nothing: the counter may have wrapped twice."""
        return self._range_uj / 1e6 / MOST_W or float("inf")

    def update(self, now_s: float, energy_uj: float) -> float | None:
        """Take what the counter says. Returns the power since the last look in W, None if it cannot be told."""
        elapsed_s, gain_uj = now_s - self._seen_s, energy_uj - self._last_uj
        if elapsed_s <= 0:
            return None
        self._seen_s, self._last_uj = now_s, energy_uj
        if gain_uj < 0:
            gain_uj += self._range_uj
        power_w = gain_uj / 1e6 / elapsed_s
        if elapsed_s >= self.longest_s or not 0 <= power_w <= MOST_W:
            return None
        self.energy_j += gain_uj / 1e6
        return power_w
