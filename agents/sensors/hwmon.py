# SPDX-License-Identifier: MIT
"""Which sensors the kernel's hardware monitoring has (/sys/class/hwmon), and the thermal zones that it lacks.

Names and units of the files: the kernel's Documentation/hwmon/sysfs-interface.rst and driver-api/thermal.
"""

import os
import re
from collections.abc import Callable, Container, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from agents.sensors.channels import (
    MAX_LABEL,
    Channel,
    Device,
    ReadFile,
    address_of,
    entries,
    files_in,
    millionths,
    natural,
    read_text,
    thousandths,
    unique,
    whole,
    word_of,
)

LIMITS = {"high": "max", "critical": "crit", "low": "min", "low_critical": "lcrit"}
"""What a limit is called in the metadata, and the end of its file's name."""

EVERY_S = {"drivetemp": 60.0}
"""Chips that are read less often: a disk that is asked for its temperature all the time may never go to sleep."""

_INPUT = re.compile(r"(temp|fan|in|curr|power|energy|humidity|freq)(\d{1,4})_(input|average)")


@dataclass(frozen=True, slots=True)
class _Kind:
    quantity: str
    value_of: Callable[[str], float]
    limits: tuple[tuple[str, str], ...] = tuple(LIMITS.items())


KINDS = {
    "temp": _Kind("temperature", thousandths, (*LIMITS.items(), ("emergency", "emergency"))),
    "fan": _Kind("speed", whole),
    "in": _Kind("voltage", thousandths),
    "curr": _Kind("current", thousandths),
    "power": _Kind("power", millionths, (*LIMITS.items(), ("cap", "cap"))),
    "energy": _Kind("energy", millionths, ()),
    "humidity": _Kind("humidity", thousandths),
    "freq": _Kind("frequency", whole, ()),
}
"""What the files of a chip are about, by the beginnings of their names."""


def find_chips(sys: Path, read: ReadFile) -> list[Device]:
    """All chips that have sensors. Batteries are left out: /sys/class/power_supply says more about them."""
    found = []
    for entry in entries(sys / "class/hwmon"):
        folder = Path(os.path.realpath(entry))
        place = Path(os.path.realpath(folder / "device")) if (folder / "device").exists() else folder
        if place.parent.name == "power_supply":
            continue
        # Old drivers (applesmc) have their files not in the chip's folder but in the device's.
        for home in dict.fromkeys((folder, place)):
            channels = _channels(home, read)
            if channels:
                found.append(_chip(place, home, channels, read))
                break
    return found


def _chip(place: Path, home: Path, channels: tuple[Channel, ...], read: ReadFile) -> Device:
    name = read_text(home / "name", read)
    word = word_of(name or place.name)
    return Device(
        key=f"{place}:{word}",
        word=word,
        address=address_of(place, name),
        channels=channels,
        every_s=EVERY_S.get(name, 0.0),
        awake=_sleeps(place, read),
    )


def _sleeps(place: Path, read: ReadFile) -> str:
    """The file that says whether a device is suspended, if it may be: some GPUs wake up when they are read."""
    status = place / "power/runtime_status"
    if read_text(place / "power/control", read) != "auto" or read_text(status, read) in ("", "unsupported"):
        return ""
    return str(status)


def _channels(home: Path, read: ReadFile) -> tuple[Channel, ...]:
    names = {path.name for path in files_in(home)}
    inputs: dict[str, tuple[str, str]] = {}
    for name in sorted(names, key=natural):
        match = _INPUT.fullmatch(name)
        if match and (match[3] == "input" or match[1] == "power"):  # power1_input comes after power1_average
            inputs[match[1] + match[2]] = match[1], name
    found = []
    for kind in KINDS:
        sensors = {sensor: file for sensor, (of, file) in inputs.items() if of == kind}
        labels = [read_text(home / f"{sensor}_label", read) for sensor in sensors]
        words = unique(word_of(label or sensor) for label, sensor in zip(labels, sensors, strict=True))
        for (sensor, file), label, word in zip(sensors.items(), labels, words, strict=True):
            found.append(_channel(home, names, kind, sensor, file, label, word))
    return tuple(found)


def _channel(home: Path, names: Container[str], kind: str, sensor: str, file: str, label: str, word: str) -> Channel:
    about = KINDS[kind]
    limits = [(limit, f"{sensor}_{end}") for limit, end in about.limits]
    return Channel(
        name=f"{word}.{about.quantity}",
        paths=(f"{home}/{file}",),
        value_of=about.value_of,
        fault=f"{home}/{sensor}_fault" if f"{sensor}_fault" in names else "",
        limits=tuple((limit, f"{home}/{name}") for limit, name in limits if name in names),
        label=label[:MAX_LABEL],
    )


# -- thermal zones -------------------------------------------------------------------------------------


def find_zones(sys: Path, read: ReadFile, chips: Iterable[Device]) -> list[Device]:
    """The thermal zones whose temperature no chip has.

    The kernel makes most zones a chip, called as the zone's type and placed at a zone of that type; and
    x86_pkg_temp is what coretemp says about the package.
    """
    chips = list(chips)
    covered = {chip.word for chip in chips if "/thermal_zone" in chip.key}
    if any(chip.word == "coretemp" for chip in chips):
        covered.add("x86_pkg_temp")
    found = []
    for entry in entries(sys / "class/thermal"):
        place = Path(os.path.realpath(entry))
        if not entry.name.startswith("thermal_zone") or not (place / "temp").exists():
            continue
        kind = read_text(place / "type", read)
        word = word_of(kind.replace("-", "_") or place.name)
        if word not in covered:
            channel = Channel(
                name="temperature",
                paths=(f"{place}/temp",),
                value_of=thousandths,
                limits=tuple(_trips(place, read)),
                label=kind[:MAX_LABEL],
            )
            found.append(Device(key=str(place), word=word, address=address_of(place, kind), channels=(channel,)))
    return found


def _trips(place: Path, read: ReadFile) -> Iterator[tuple[str, str]]:
    """The trip points that are limits, each kind once."""
    limits = {"critical": "critical", "hot": "high"}
    for path in files_in(place):
        if path.name.startswith("trip_point_") and path.name.endswith("_type"):
            limit = limits.pop(read_text(path, read), "")
            if limit:
                yield limit, str(path).removesuffix("type") + "temp"
