# SPDX-License-Identifier: MIT
"""Batteries, UPSs and mains adapters: what /sys/class/power_supply has.

Names and units of the files: the kernel's Documentation/ABI/testing/sysfs-class-power.
"""

import os
from collections.abc import Callable
from pathlib import Path

from agents.sensors.channels import (
    Channel,
    Device,
    ReadFile,
    address_of,
    amount,
    entries,
    files_in,
    millionths,
    product,
    share,
    tenths,
    watt_hours,
    whole,
    word_of,
)

STATES = ("unknown", "charging", "discharging", "not charging", "full")
"""What a battery does; `state_code` is the position, as in the kernel's power_supply.h."""


def state_code(text: str) -> float:
    """The number of a battery's state. Raises ValueError."""
    return float(STATES.index(text.strip().lower()))


def is_on(text: str) -> float:
    """1, also where the kernel says 2: a supply whose voltage can be chosen. Raises ValueError."""
    return float(int(text) != 0)


WAYS: dict[str, tuple[tuple[tuple[str, ...], Callable[..., float]], ...]] = {
    "charge": (
        (("capacity",), whole),
        (("energy_now", "energy_full"), share),
        (("charge_now", "charge_full"), share),
    ),
    "state": ((("status",), state_code),),
    "online": ((("online",), is_on),),
    "power": ((("power_now",), amount), (("voltage_now", "current_now"), product)),
    "voltage": ((("voltage_now",), millionths),),
    "current": ((("current_now",), amount),),
    "energy": ((("energy_now",), watt_hours),),
    "health": (
        (("energy_full", "energy_full_design"), share),
        (("charge_full", "charge_full_design"), share),
    ),
    "temperature": ((("temp",), tenths),),
}
"""What a supply may have, and the ways to know it: the first whose files there are."""

LIMITS = {
    "charge": (("low", "capacity_alert_min"), ("high", "capacity_alert_max")),
    "energy": (("full", "energy_full"),),
    "temperature": (("low", "temp_alert_min"), ("high", "temp_alert_max")),
}


def find_supplies(sys: Path, read: ReadFile) -> list[Device]:
    """All power supplies that say something about themselves."""
    found = []
    for entry in entries(sys / "class/power_supply"):
        place = Path(os.path.realpath(entry))
        channels = _channels(place)
        if channels:
            word = word_of(entry.name)
            found.append(
                Device(
                    key=str(place),
                    word=word,
                    address=address_of(place, word),
                    channels=channels,
                )
            )
    return found


def _channels(place: Path) -> tuple[Channel, ...]:
    names = {path.name for path in files_in(place)}
    found = []
    for quantity, ways in WAYS.items():
        files, value_of = next(((files, way) for files, way in ways if names.issuperset(files)), ((), None))
        if value_of:
            limits = LIMITS.get(quantity, ()) if len(files) == 1 else ()
            found.append(
                Channel(
                    name=quantity,
                    paths=tuple(f"{place}/{file}" for file in files),
                    value_of=value_of,
                    limits=tuple((limit, f"{place}/{file}") for limit, file in limits if file in names),
                )
            )
    return tuple(found)
