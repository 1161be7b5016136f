# SPDX-License-Identifier: MIT
"""Devices of /sys whose files hold one number each: what a device has, and how it is read.

A `Device` is a chip, a battery, a thermal zone or an energy counter; its `Channel`s are its metrics. What devices
there are is found by the modules beside this one.
"""

import math
import re
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from bus.names import clean_word

ADDRESSED = frozenset({"acpi", "hid", "i2c", "mdio_bus", "pci", "platform", "scsi", "spi", "usb"})
"""Buses whose addresses say where a device is plugged in, and so stay the same when the host is started again."""

MAX_LABEL = 64
COLDEST_CEL, HOTTEST_CEL = -200.0, 1000.0

BAD_FILE = (OSError, ValueError, ArithmeticError)
"""What a file that cannot be read, or makes no sense, leads to."""

ReadFile = Callable[[str], str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Channel:
    """One metric of a device.

    name: within the device, ``core_0.temperature``. paths: the files that `value_of` makes the value from. fault:
    a file that says 1 while the value means nothing. limits: names of limits and their files, in the same unit.
    label: what the driver calls it.
    """

    name: str
    paths: tuple[str, ...]
    value_of: Callable[..., float]
    fault: str = ""
    limits: tuple[tuple[str, str], ...] = ()
    label: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """Something with channels.

    key: where it is in /sys. word: what it is called in metric names, where it is alone with that word; address:
    what tells it from others. every_s: how often it is to be read, at most. awake: a file that says ``suspended``
    while reading the device would wake it. max_energy_uj: where its energy counter wraps, 0 if that is not known; None
    for devices that are not energy counters.
    """

    key: str
    word: str
    address: str
    channels: tuple[Channel, ...]
    every_s: float = 0.0
    awake: str = ""
    max_energy_uj: int | None = None


@dataclass(slots=True, kw_only=True)
class Outcome:
    """What the channels of a device said, by their names.

    started_s and ended_s: when, by a monotonic clock. limits: where one is None it could not be read; None if they
    were not read at all.
    """

    started_s: float
    ended_s: float = 0.0
    values: dict[str, float] = field(default_factory=dict)
    failures: dict[str, Exception] = field(default_factory=dict)
    limits: dict[str, dict[str, float | None]] | None = None


class FaultySensor(OSError):
    """The chip itself says that a sensor is broken or not connected."""


def read_device(
    device: Device, read: ReadFile, clock: Callable[[], float], read_limit: ReadFile | None = None
) -> Outcome:
    """Read all channels of a device; one that fails costs only itself. May block for as long as the driver does.

    read_limit: reads the files of the limits; None if they are not wanted.
    """
    outcome = Outcome(started_s=clock())
    if device.awake and _is_suspended(device.awake, read):
        return outcome
    for channel in device.channels:
        try:
            if channel.fault and read(channel.fault).strip() == "1":
                raise FaultySensor("the chip says that the sensor is faulty or not connected")
            outcome.values[channel.name] = channel.value_of(*[read(path) for path in channel.paths])
        except BAD_FILE as error:
            outcome.failures[channel.name] = error
    outcome.ended_s = clock()
    if read_limit:
        outcome.limits = {channel.name: read_limits(channel, read_limit) for channel in device.channels}
    return outcome


def read_limits(channel: Channel, read: ReadFile) -> dict[str, float | None]:
    """The limits of a channel that are set, in its unit; None for one that cannot be read now."""
    found: dict[str, float | None] = {}
    for limit, path in channel.limits:
        try:
            value = channel.value_of(read(path))
        except BAD_FILE:
            found[limit] = None
        else:
            if is_set(channel.name.rpartition(".")[2], limit, value):
                found[limit] = value
    return found


def is_set(quantity: str, limit: str, value: float) -> bool:
    """False for what drivers say where there is no limit: 0, and temperatures that no chip survives."""
    if quantity == "temperature":
        return COLDEST_CEL < value < HOTTEST_CEL and (value != 0 or limit.startswith("low"))
    return value != 0


def _is_suspended(path: str, read: ReadFile) -> bool:
    with suppress(OSError):
        return read(path).strip() == "suspended"
    return False


# -- numbers in files ----------------------------------------------------------------------------------


def whole(text: str) -> float:
    """As it stands. Raises ValueError, as all of these do."""
    return float(int(text))


def tenths(text: str) -> float:
    """Tenths of a unit."""
    return int(text) / 10


def thousandths(text: str) -> float:
    """Thousandths of a unit."""
    return int(text) / 1000


def millionths(text: str) -> float:
    """Millionths of a unit."""
    return int(text) / 1_000_000


def watt_hours(text: str) -> float:
    """µWh, in J."""
    return int(text) * 3600 / 1_000_000


def amount(text: str) -> float:
    """Millionths of a unit, of what drivers give a sign for a direction."""
    return abs(int(text)) / 1_000_000


def product(volts: str, amperes: str) -> float:
    """µV times µA, in W, without a sign."""
    return abs(int(volts) * int(amperes)) / 1e12


def share(part: str, total: str) -> float:
    """A part of a whole in %. Raises ZeroDivisionError for a part of nothing."""
    return 100 * int(part) / int(total)


# -- names and places ----------------------------------------------------------------------------------


def word_of(text: str) -> str:
    """A word of a metric name from what a driver calls something: ``Core 0`` → ``core_0``, ``+3.3V`` → ``3_3v``."""
    return re.sub("__+", "_", clean_word(text.strip().lower()[:MAX_LABEL])).strip("_") or "_"


def read_text(path: str | Path, read: ReadFile) -> str:
    """What a file says, without blanks around it; nothing if it cannot be read."""
    with suppress(OSError):
        return read(str(path)).strip()
    return ""


def entries(folder: Path) -> list[Path]:
    """What is in a folder, in the order of the numbers in the names; nothing if it does not exist. Raises OSError."""
    with suppress(FileNotFoundError, NotADirectoryError):
        return sorted(folder.iterdir(), key=lambda path: natural(path.name))
    return []


def natural(text: str) -> list[tuple[float, str]]:
    """A key that sorts ``temp10`` behind ``temp9``."""
    return [(int(piece[:18]), "") if piece.isdecimal() else (math.inf, piece) for piece in re.split(r"(\d+)", text)]


def files_in(folder: Path) -> list[Path]:
    """What is in a device's folder; nothing if it cannot be listed, as while the device goes away."""
    with suppress(OSError):
        return entries(folder)
    return []


def address_of(device: Path, word: str) -> str:
    """A word for where a device is plugged in: the nearest address on the way up to the root of the devices.

    ``0000:01:00.0`` on PCI → ``01_00_0``; ``coretemp.1`` on the platform → ``1``.
    """
    for place in (device, *device.parents):
        with suppress(OSError):
            if (place / "subsystem").readlink().name in ADDRESSED:
                return word_of(place.name.removeprefix("0000:").removeprefix(f"{word}."))
        if place.name == "devices":
            break
    return word_of(device.name)


def unique(words: Iterable[str]) -> list[str]:
    """The same words, where each that comes again gets a number: ``core``, ``core-2``."""
    taken: set[str] = set()
    found = []
    for base in words:
        word, number = base, 1
        while word in taken:
            number += 1
            word = f"{base}-{number}"
        taken.add(word)
        found.append(word)
    return found
