# SPDX-License-Identifier: MIT
"""The live table of `agent up`, for terminals from 60 columns on."""

from collections.abc import Callable

from rich import box
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from agents.cli.output import number
from agents.cli.quantity import human_bytes
from agents.cli.up.report import Report
from agents.cli.up.watch import FamilyWatch

REFRESHES_PER_S = 1
"""Each costs 5 ms of CPU."""

HEADLINES = {
    "cpu": {"usage": "usage", "user": "user", "system": "system", "iowait": "iowait"},
    "disk": {"root.percent": "/", "root.free": "free", "*.read_bytes": "read", "*.written_bytes": "written"},
    "load": {"1m": "1m", "5m": "5m", "15m": "15m", "tasks.total": "tasks"},
    "memory": {"used": "used", "available": "available", "swap.used": "swap"},
    "network": {"*.rx_bytes": "in", "*.tx_bytes": "out", "tcp.established": "tcp"},
    "process": {"top.cpu.1": "busiest", "top.memory.1": "largest"},
    "sensors": {"max:*.*.temperature": "hottest", "rapl.package-*.power": "packages", "*.charge": "battery"},
    "gpu": {"max:*.utilization": "usage", "*.memory.used": "memory", "*.power": "power", "max:*.temperature": "heat"},
}
"""What is worth a glance and what it is called, see `FamilyWatch.value`. Other families show what comes first."""

UNITS = {"%": "%", "Cel": "°C", "W": "W", "J": "J", "V": "V", "A": "A", "s": "s", "1/min": "/min", "1/s": "/s"}
"""Units as they are written behind a number; those that are not here are left out."""


def live_table(render: Callable[[int], Group], *, redirect_stderr: bool) -> Live:
    """A table that redraws itself, by `render(width)`; logs are printed above it if they go to the same terminal."""
    console = Console()
    return Live(
        get_renderable=lambda: render(console.width),
        console=console,
        refresh_per_second=REFRESHES_PER_S,
        redirect_stdout=False,
        redirect_stderr=redirect_stderr,
        vertical_overflow="crop",
    )


def picture(report: Report, width: int) -> Group:
    """All families, their totals, and the archive. The text beside a family says what is wrong with it."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, expand=True, header_style="bold")
    table.add_column("family", style="cyan", no_wrap=True)
    table.add_column("metrics", justify="right", no_wrap=True)
    table.add_column("points/s", justify="right", no_wrap=True)
    table.add_column("newest values", ratio=1, no_wrap=True, overflow="ellipsis")
    room = width - 32
    for family in report.found:
        watch = family.watch
        newest = Text(family.trouble, style="red") if family.trouble else headline(watch, room)
        table.add_row(watch.family, str(len(watch.newest)), f"{watch.rate():.1f}", newest)
    remarks = [Text(remark, style="dim", no_wrap=True, overflow="ellipsis") for remark in report.remarks()]
    where = Text(f"over {report.where} · Ctrl-C ends it", style="dim")
    return Group(table, *remarks, Text(report.totals), where)


def headline(watch: FamilyWatch, room: int) -> Text:
    """The newest values that fit in `room` characters: those of `HEADLINES`, or else what comes first."""
    text = Text()
    for name, label in (HEADLINES.get(watch.family) or {name: name for name in _outermost(watch)}).items():
        value = watch.value(name)
        if value is None:
            continue
        quantity = with_unit(value, watch.unit_of(name))
        if len(text) + len(label) + len(quantity) + 3 <= room:
            text.append("  " if text else "").append(f"{label} ", style="dim").append(quantity)
    return text


def _outermost(watch: FamilyWatch) -> list[str]:
    """The metrics of the whole host before those of single devices."""
    return sorted(watch.newest, key=lambda name: name.count("."))


def with_unit(value: float, unit: str) -> str:
    """A value for people: ``1.5 MB/s``, ``2.6 GHz``, ``51.2 %``."""
    if value != value:  # NaN: measured, no answer
        return "?"
    if unit.startswith("B"):
        return human_bytes(value) + unit[1:]
    if unit == "Hz":
        return f"{value / 1e9:.2f} GHz"
    if unit in ("%", "Cel", "W"):
        return f"{value:.1f} {UNITS[unit]}"
    return f"{number(value)} {UNITS.get(unit, '')}".rstrip()
