# SPDX-License-Identifier: MIT
"""The /sys of made-up machines with sensors: real names and numbers, as drivers give them."""

import errno
import os
import shutil
import threading
from pathlib import Path

from agents.base.files import read_once

PCI = "devices/pci0000:00"
PLATFORM = "devices/platform"

CORETEMP = {
    "name": "coretemp",
    **{f"temp1_{file}": text for file, text in {"label": "Package id 0", "input": "61000", "max": "80000"}.items()},
    "temp1_crit": "100000",
    "temp1_crit_alarm": "0",
    **{f"temp2_{file}": text for file, text in {"label": "Core 0", "input": "58500", "max": "80000"}.items()},
    "temp2_crit": "100000",
    **{f"temp10_{file}": text for file, text in {"label": "Core 8", "input": "59000", "max": "80000"}.items()},
    "temp10_crit": "100000",
}

NCT6775 = {
    "name": "nct6775",
    "fan1_input": "0",
    "fan1_min": "0",
    "fan2_input": "1204",
    "fan2_min": "300",
    "in0_input": "1048",
    "in0_label": "Vcore",
    "in0_min": "0",
    "in0_max": "1744",
    "in7_input": "3344",
    "in7_label": "+3.3V",
    "temp1_input": "34000",
    "temp1_label": "SYSTIN",
    "temp1_max": "0",
    "temp1_fault": "0",
    "temp2_input": "-62000",
    "temp2_label": "AUXTIN",
    "temp2_fault": "1",
    "pwm1": "128",
    "intrusion0_alarm": "0",
}

NVME = {
    "name": "nvme",
    "temp1_label": "Composite",
    "temp1_input": "38850",
    "temp1_max": "81850",
    "temp1_crit": "84850",
    "temp1_min": "-5150",
    "temp2_label": "Sensor 1",
    "temp2_input": "38850",
    "temp2_max": "65261850",
    "temp2_min": "-273150",
}

AMDGPU = {
    "name": "amdgpu",
    "temp1_label": "edge",
    "temp1_input": "47000",
    "temp1_crit": "100000",
    "temp1_emergency": "105000",
    "fan1_input": "850",
    "fan1_max": "3300",
    "in0_label": "vddgfx",
    "in0_input": "793",
    "power1_label": "PPT",
    "power1_average": "28000000",
    "power1_cap": "203000000",
    "freq1_label": "sclk",
    "freq1_input": "500000000",
}

METER = {
    "name": "meter",
    "curr1_input": "1500",
    "curr1_max": "4000",
    "power1_average": "17000000",
    "power1_input": "18000000",
    "energy1_input": "3600000000",
    "humidity1_input": "45300",
    "humidity1_max": "80000",
}

BAT0 = {
    "type": "Battery",
    "status": "Discharging",
    "present": "1",
    "capacity": "83",
    "capacity_alert_min": "5",
    "energy_now": "41500000",
    "energy_full": "50000000",
    "energy_full_design": "57000000",
    "power_now": "9120000",
    "voltage_now": "11700000",
    "voltage_min_design": "11400000",
    "temp": "312",
    "model_name": "45N1001",
}

BAT1 = {
    "status": "Full",
    "charge_now": "2000000",
    "charge_full": "2500000",
    "charge_full_design": "2500000",
    "voltage_now": "12000000",
    "current_now": "-500000",
}


class Desktop:
    """A /sys that tests build and change."""

    def __init__(self, sys: Path) -> None:
        self.sys = sys
        self._chips = 0

    def files(self, folder: str, files: dict[str, str]) -> Path:
        """Write files as the kernel does, each with a newline at its end."""
        place = self.sys / folder
        place.mkdir(parents=True, exist_ok=True)
        for name, text in files.items():
            (place / name).write_text(f"{text}\n")
        return place

    def link(self, link: str, target: str) -> None:
        place = self.sys / link
        place.parent.mkdir(parents=True, exist_ok=True)
        place.symlink_to(os.path.relpath(self.sys / target, place.parent))

    def on_bus(self, device: str, bus: str) -> None:
        """Say what bus a device is on."""
        (self.sys / "bus" / bus).mkdir(parents=True, exist_ok=True)
        self.link(f"{device}/subsystem", f"bus/{bus}")

    def chip(self, device: str, files: dict[str, str], *, bus: str = "", number: int | None = None) -> Path:
        """A chip of the hardware monitoring, at a device."""
        number = self._chips if number is None else number
        self._chips = max(self._chips, number) + 1
        folder = f"{device}/hwmon/hwmon{number}"
        place = self.files(folder, files)
        self.link(f"{folder}/device", device)
        self.link(f"class/hwmon/hwmon{number}", folder)
        if bus and not (self.sys / device / "subsystem").exists():
            self.on_bus(device, bus)
        return place

    def nvme(self, address: str, number: int, files: dict[str, str] = NVME) -> Path:
        """A disk; its chip is at the nvme device, which has no address of its own."""
        port = f"{PCI}/0000:00:1d.0/{address}"
        (self.sys / port).mkdir(parents=True)
        self.on_bus(port, "pci")
        return self.chip(f"{port}/nvme/nvme{number}", files, bus="nvme")

    def zone(self, number: int, kind: str, millidegrees: str, trips: dict[str, str] | None = None) -> Path:
        """A thermal zone; trips: temperatures by type."""
        files = {"type": kind, "temp": millidegrees}
        for trip, (of, temperature) in enumerate((trips or {}).items()):
            files |= {f"trip_point_{trip}_type": of, f"trip_point_{trip}_temp": temperature}
        folder = f"devices/virtual/thermal/thermal_zone{number}"
        self.link(f"class/thermal/thermal_zone{number}", folder)
        return self.files(folder, files)

    def supply(self, name: str, files: dict[str, str]) -> Path:
        folder = f"devices/LNXSYSTM:00/PNP0C0A:00/power_supply/{name}"
        self.link(f"class/power_supply/{name}", folder)
        return self.files(folder, files)

    def rapl(self, zone: str, name: str, energy_uj: int, max_uj: int = 262_143_328_850) -> Path:
        """An energy counter: ``rapl("intel-rapl:0:0", "core", 1000)``."""
        control, *numbers = zone.split(":")
        around = [":".join((control, *numbers[:depth])) for depth in range(1, len(numbers) + 1)]
        folder = f"devices/virtual/powercap/{control}/" + "/".join(around)
        self.link(f"class/powercap/{zone}", folder)
        files = {"name": name, "energy_uj": str(energy_uj), "max_energy_range_uj": str(max_uj), "enabled": "1"}
        return self.files(folder, files)

    def remove(self, place: Path) -> None:
        """Take a device away, and the links to it."""
        shutil.rmtree(place)
        for link in self.sys.glob("class/*/*"):
            if link.is_symlink() and not link.exists():
                link.unlink()


def furnish(desktop: Desktop) -> Desktop:
    """A desktop that has everything."""
    desktop.chip(f"{PLATFORM}/coretemp.0", CORETEMP, bus="platform")
    desktop.chip(f"{PLATFORM}/nct6775.656", NCT6775, bus="platform")
    desktop.nvme("0000:01:00.0", 0)
    desktop.nvme("0000:04:00.0", 1)
    desktop.chip(f"{PCI}/0000:03:00.0", AMDGPU, bus="pci")
    desktop.chip(f"{PCI}/0000:00:1f.4/i2c-0/0-0040", METER, bus="i2c")
    desktop.zone(0, "acpitz", "27800", {"critical": "119000"})
    desktop.chip("devices/virtual/thermal/thermal_zone0", {"name": "acpitz", "temp1_input": "27800"})
    desktop.zone(1, "x86_pkg_temp", "61000")
    desktop.zone(2, "INT3400 Thermal", "20000", {"critical": "110000", "hot": "95000", "passive": "80000"})
    desktop.supply("BAT0", BAT0)
    desktop.chip("devices/LNXSYSTM:00/PNP0C0A:00/power_supply/BAT0", {"name": "BAT0", "in0_input": "11700"})
    desktop.supply("AC", {"type": "Mains", "online": "0"})
    desktop.supply("BAT1", BAT1)
    desktop.files("class/powercap/intel-rapl", {"enabled": "1"})
    desktop.rapl("intel-rapl:0", "package-0", 1_000_000)
    desktop.rapl("intel-rapl:0:0", "core", 500_000)
    desktop.rapl("intel-rapl-mmio:0", "package-0", 7)
    return desktop


class Files:
    """Reads files, of which some fail and some block until the test lets them go; what was read is in `read`."""

    def __init__(self) -> None:
        self.failing: dict[str, OSError] = {}
        self.hanging: dict[str, threading.Event] = {}
        self.read: list[str] = []

    def __call__(self, path: str) -> str:
        self.read.append(path)
        for end, gate in list(self.hanging.items()):
            if path.endswith(end):
                gate.wait()
        for end, error in list(self.failing.items()):
            if path.endswith(end):
                raise error
        return read_once(path)


def io_error(number: int = errno.EIO) -> OSError:
    return OSError(number, os.strerror(number))
