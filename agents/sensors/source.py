# SPDX-License-Identifier: MIT
"""Temperatures, fans, voltages, currents, power, energy and batteries, from /sys."""

import logging
from collections import Counter, deque
from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import cache
from typing import Annotated, Unpack

from msgspec import Meta, field

from agents.base.devices import DeviceWords, Globs
from agents.base.files import OpenFiles, read_once
from agents.base.isolate import Isolator
from agents.host import HostConfig, HostOptions, HostSource, Metric, NothingFound, Reading
from agents.sensors.channels import Device, Outcome, ReadFile, read_device, unique
from agents.sensors.hwmon import find_chips, find_zones
from agents.sensors.rapl import EnergyMeter, find_energies
from agents.sensors.remarks import Remarks
from agents.sensors.supplies import STATES, find_supplies
from bus.config import AgentConfig
from bus.transport.base import Transport

logger = logging.getLogger(__name__)

LOOK_EVERY_S = 60.0
"""How often devices and limits are looked for: 0.27 ms a device."""

MAX_OPEN_FILES = 256

LATE_S = 10.0
"""What a slow device says counts if it was asked less than this ago, or less than two periods."""

PROMPT_S = 60.0
"""A device that was late works again after this long without being late."""

TOO_LATE = "it does not answer in time; the others go on, and what it says later counts when it comes"

ENERGY = "Linux, Intel or AMD; for root"


class SensorsConfig(HostConfig, frozen=True):
    """What the family can be told. Globs are shell patterns of names, like ``nct6775.*`` or ``*.voltage``."""

    include: Annotated[list[str], Meta(description="sensors to sample, globs of their names; default: all")] = field(
        default_factory=list
    )
    exclude: Annotated[list[str], Meta(description="sensors to leave out, globs of their names")] = field(
        default_factory=list
    )


class SensorsSource(HostSource):
    """What the sensors of the hardware say: chips, thermal zones, batteries and the energy counters of processors.

    Limits are in the metadata of their metrics, in the same unit. A device that hangs is left alone until it answers;
    the others are sampled all the same. Where several chips have one name, all of them are called by name and
    address: ``nvme-01_00_0``.
    Measured: 0.33 ms of CPU a reading with 41 values of 13 devices, of which the thread for the calls that may hang
    takes 0.09 ms; and 3.5 ms a minute to list them all anew. Drivers that ask slow buses come on top.
    """

    Config = SensorsConfig
    config: SensorsConfig
    family = "sensors"
    metrics = (
        Metric(
            "rapl.{zone...}.power",
            "W",
            "power of the processor or a part of it, since the last value",
            scope="last",
            platform=ENERGY,
        ),
        Metric("rapl.{zone...}.energy", "J", "energy used since the agent's first look", platform=ENERGY),
        Metric("{chip}.{sensor}.temperature", "Cel", "temperature"),
        Metric("{chip}.{sensor}.speed", "1/min", "speed of the fan"),
        Metric("{chip}.{sensor}.voltage", "V", "voltage"),
        Metric("{chip}.{sensor}.current", "A", "current"),
        Metric("{chip}.{sensor}.power", "W", "power"),
        Metric("{chip}.{sensor}.energy", "J", "energy used since the chip was started"),
        Metric("{chip}.{sensor}.humidity", "%", "relative humidity", quantity="humidity"),
        Metric("{chip}.{sensor}.frequency", "Hz", "clock frequency"),
        Metric("{device}.temperature", "Cel", "temperature of a thermal zone or a battery"),
        Metric("{supply}.charge", "%", "how full the battery is"),
        Metric(
            "{supply}.state",
            "1",
            "what the battery does: " + ", ".join(f"{code} {state}" for code, state in enumerate(STATES)),
            quantity="state",
        ),
        Metric("{supply}.online", "1", "1 while the supply gives power, 0 while it does not", quantity="state"),
        Metric("{supply}.power", "W", "power into or out of the battery, as its state says"),
        Metric("{supply}.voltage", "V", "voltage of the supply"),
        Metric("{supply}.current", "A", "current into or out of the battery, as its state says"),
        Metric("{supply}.energy", "J", "energy in the battery"),
        Metric("{supply}.health", "%", "what the battery holds when full, of what it held when it was new"),
    )

    def __init__(
        self, token: str, url: str | Transport = "", *, read: ReadFile | None = None, **options: Unpack[HostOptions]
    ) -> None:
        super().__init__(token, url, **options)
        self.files = OpenFiles(limit=MAX_OPEN_FILES)
        self._read_once: ReadFile = read or read_once
        self._read_again: ReadFile = read or self.files.read
        self._isolator: Isolator[str, None] = Isolator(name=f"{self.token}: device")
        self._outcomes: deque[tuple[Device, Outcome]] = deque()
        self._devices: dict[str, Device] = {}
        self._proposals: dict[str, str] = {}
        self._words = DeviceWords(self._proposals.__getitem__)
        self._meters: dict[str, EnergyMeter] = {}
        self._limits: dict[str, Mapping[str, float]] = {}
        self._about: dict[str, tuple[Mapping[str, str], float]] = {}
        self._limits_due: set[str] = set()
        self._late_s: dict[str, float] = {}
        self._remarks = Remarks(self.token)
        self._why_empty = ""
        self._choose()

    def _choose(self) -> None:
        """What follows from the configuration, to be worked out anew."""
        self._is_wanted = cache(Globs(self.config.include, self.config.exclude).__contains__)
        self._look_now = True

    async def reconfigure(self, config: AgentConfig) -> None:
        """Put a configuration in force at once."""
        await super().reconfigure(config)
        self._choose()

    async def teardown(self) -> None:
        """Let go of the files."""
        if self._isolator.hung():  # a call that hangs may still be reading them; they are closed when it ends
            self.files = OpenFiles()
        await super().teardown()

    def read(self) -> Reading:
        """What all sensors say now, and the power since the last reading. Raises NothingFound."""
        if self.due("devices", LOOK_EVERY_S) or self._look_now or not self._devices:
            self._look_now = False
            self._look()
        if not self._devices:
            raise NothingFound(self._why_empty)
        self._ask()
        return self._heard()

    def describe(self, name: str) -> Metric | None:
        """The table's entry, with the limits and the label of the sensor."""
        metric = super().describe(name)
        if metric is None:
            return None
        labels, every_s = self._about.get(name, ({}, 0.0))
        return replace(metric, details={**labels, **self._limits.get(name, {})}, every_s=every_s)

    # -- which devices there are -----------------------------------------------------------------------

    def _look(self) -> None:
        """List all devices anew. Their words stay, and what is known about them."""
        found, locked = self._find()
        self._propose(found)
        devices = {device.key: self._named(device) for device in found}
        wanted = {key: device for key, device in devices.items() if device.channels}
        before, self._devices = self._devices, wanted
        self._tell(before, wanted)
        self._let_go(before, wanted)
        self._limits_due = set(wanted)
        self._keep_labels(wanted.values())
        if locked:
            self._remarks.once(
                logging.INFO, "rapl", f"only root may read {locked[0]}: the processor's energy is left out"
            )
        self._why_empty = self._explain(found, locked)

    def _find(self) -> tuple[list[Device], list[str]]:
        """All devices, no two with the same key, and the counters that this user may not read."""
        sys, read = self.roots.sys, self._read_once
        found: list[Device] = []
        locked: list[str] = []
        with self.parts("chips"):
            found += find_chips(sys, read)
        with self.parts("thermal zones"):
            found += find_zones(sys, read, list(found))
        with self.parts("power supplies"):
            found += find_supplies(sys, read)
        with self.parts("energy counters"):
            energies = find_energies(sys, read)
            found += energies.zones
            locked += energies.locked
        keys = unique(device.key for device in found)
        return [replace(device, key=key) for device, key in zip(found, keys, strict=True)], locked

    def _propose(self, found: Iterable[Device]) -> None:
        """A word for each device that is new: its own, or with its address where others are called the same."""
        alike = Counter(device.word for device in found)
        for device in found:
            if device.key not in self._proposals:
                alone = alike[device.word] == 1 and device.word not in self._proposals.values()
                self._proposals[device.key] = device.word if alone else f"{device.word}-{device.address}"

    def _named(self, device: Device) -> Device:
        """The device with the names of its metrics, and only with the channels that are wanted."""
        word = self._words[device.key]
        channels = [replace(channel, name=f"{word}.{channel.name}") for channel in device.channels]
        if device.max_energy_uj is None:
            channels = [channel for channel in channels if self._is_wanted(channel.name)]
        elif not any(map(self._is_wanted, energy_names(word))):
            channels = []
        return replace(device, word=word, channels=tuple(channels))

    def _tell(self, before: Mapping[str, Device], now: Mapping[str, Device]) -> None:
        for change, devices in (
            ("found", [device for key, device in now.items() if key not in before]),
            ("no longer there", [device for key, device in before.items() if key not in now]),
        ):
            if devices:
                logger.info("%s: %s: %s", self.token, change, ", ".join(device.word for device in devices))

    def _let_go(self, before: Mapping[str, Device], now: Mapping[str, Device]) -> None:
        """Close the files of what is gone, but not those that a call may hang in."""
        hung = self._isolator.hung()
        kept = {path for device in now.values() for path in files_of(device)}
        for key, device in before.items():
            if key not in hung:
                for path in files_of(device):
                    if path not in kept:
                        self.files.forget(path)
            if key not in now and self._late_s.pop(key, None) is not None:
                self.parts.well(f"device {device.word}")

    def _keep_labels(self, devices: Iterable[Device]) -> None:
        about = {
            channel.name: ({"label": channel.label} if channel.label else {}, device.every_s)
            for device in devices
            for channel in device.channels
        }
        self.redescribe([name for name, said in about.items() if self._about.get(name, said) != said])
        self._about |= about

    def _explain(self, found: Iterable[Device], locked: Iterable[str]) -> str:
        """Why there is nothing to measure, if that is so."""
        if found:
            return "include and exclude leave no sensor of those that there are"
        if locked:
            return f"no sensors but energy counters that only root may read, like {next(iter(locked))}"
        return f"no sensors in {self.roots.sys}; virtual machines have none"

    # -- what they say ---------------------------------------------------------------------------------

    def _visit(self, key: str) -> None:
        """Read one device, in a thread that may hang."""
        device = self._devices.get(key)
        if device is not None:
            limits = self._read_once if key in self._limits_due else None
            self._outcomes.append((device, read_device(device, self._read_again, self.clock, limits)))

    def _ask(self) -> None:
        """Have all devices read that are due. Those that were late come last: the others need not wait for them."""
        devices = self._devices
        keys = [key for key, device in devices.items() if not device.every_s or self.due(key, device.every_s)]
        if self._late_s:
            keys.sort(key=self._late_s.__contains__)
        answered = self._isolator.call_each(self._visit, keys, self.deadline_s / 4)
        now_s = self.clock()
        for key in keys:
            if key not in answered:
                self._late_s[key] = now_s
                self.parts.failed(f"device {devices[key].word}", TimeoutError(TOO_LATE))
            elif self._late_s and now_s - self._late_s.get(key, now_s) >= PROMPT_S:
                del self._late_s[key]
                self.parts.well(f"device {devices[key].word}")

    def _heard(self) -> dict[str, float]:
        """What the devices said since the last time."""
        reading: dict[str, float] = {}
        oldest_s = self.clock() - max(LATE_S, 2 * self.config.period)
        while self._outcomes:
            device, outcome = self._outcomes.popleft()
            if device != self._devices.get(device.key) or outcome.started_s < oldest_s:
                continue  # it is gone, has other channels by now or took too long
            if outcome.failures:
                self._remarks.left_out(outcome.failures)
            if device.key in self._limits_due and outcome.limits is not None:
                self._limits_due.discard(device.key)
                self._keep_limits(outcome.limits)
            if device.max_energy_uj is None:
                reading |= outcome.values
            else:
                reading |= self._energy(device, device.max_energy_uj, outcome)
        return reading

    def _energy(self, device: Device, max_energy_uj: int, outcome: Outcome) -> dict[str, float]:
        meter = self._meters.get(device.key)
        if meter is None:
            meter = self._meters[device.key] = EnergyMeter(max_energy_uj)
        if self.config.period >= meter.longest_s:
            rule = f"its counter may wrap twice in a period of {meter.longest_s:.0f} s or more: left out"
            self._remarks.once(logging.WARNING, device.word, rule)
            return {}
        found: dict[str, float] = {}
        power_name, energy_name = energy_names(device.word)
        for energy_uj in outcome.values.values():
            power_w = meter.update(outcome.ended_s, energy_uj)
            found[energy_name] = meter.energy_j
            if power_w is not None:
                found[power_name] = power_w
        return {name: value for name, value in found.items() if self._is_wanted(name)}

    def _keep_limits(self, limits: Mapping[str, Mapping[str, float | None]]) -> None:
        """Declare the metrics anew whose limits changed. A limit that could not be read stays."""
        for name, new in limits.items():
            old = self._limits.get(name, {})
            known = {limit: old.get(limit) if value is None else value for limit, value in new.items()}
            kept = {limit: value for limit, value in known.items() if value is not None}
            if kept != old:
                self._limits[name] = kept
                self.redescribe([name])


def energy_names(word: str) -> tuple[str, str]:
    """The metrics of an energy counter: power and energy."""
    return f"{word}.power", f"{word}.energy"


def files_of(device: Device) -> list[str]:
    """The files that reading a device keeps open."""
    files = [path for channel in device.channels for path in (*channel.paths, channel.fault) if path]
    return [*files, device.awake] if device.awake else files
