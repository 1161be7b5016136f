# SPDX-License-Identifier: MIT
"""The live table of `agent up`, for terminals from 60 columns on."""

from collections.abc import Callable, Sequence

from rich import box
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from agents.cli.output import number
from agents.cli.watch import ArchiveFile, FamilyWatch, human_bytes

REFRESHES_PER_S = 2


def live_table(render: Callable[[], Group], *, redirect_stderr: bool) -> Live:
    """A table that redraws itself; logs are printed above it if they go to the same terminal."""
    return Live(
        get_renderable=render,
        console=Console(),
        refresh_per_second=REFRESHES_PER_S,
        redirect_stdout=False,
        redirect_stderr=redirect_stderr,
        vertical_overflow="crop",
    )


def picture(rows: Sequence[tuple[FamilyWatch, str]], archive: ArchiveFile | None, where: str, width: int) -> Group:
    """All families, their totals, and the archive. The text beside a family says what is wrong with it."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, expand=True, header_style="bold")
    table.add_column("family", style="cyan", no_wrap=True)
    table.add_column("metrics", justify="right", no_wrap=True)
    table.add_column("points/s", justify="right", no_wrap=True)
    table.add_column("newest values", ratio=1, no_wrap=True, overflow="ellipsis")
    room = width - 38
    for watch, trouble in rows:
        newest = Text(trouble, style="red") if trouble else headline(watch.newest, room)
        table.add_row(watch.family, str(len(watch.newest)), f"{watch.rate():.1f}", newest)
    metrics = sum(len(watch.newest) for watch, _ in rows)
    points = sum(watch.points for watch, _ in rows)
    summary = f"{metrics} metrics · {sum(watch.rate() for watch, _ in rows):.1f} points/s · {points} points so far"
    kept = f"archive {human_bytes(archive.size())}" if archive else "no archive"
    return Group(table, Text(f"{summary} · {kept}"), Text(f"over {where} · Ctrl-C ends it", style="dim"))


def headline(newest: dict[str, float], room: int) -> Text:
    """The newest values that fit, those of the whole host before those of single devices."""
    text = Text()
    for name in sorted(newest, key=lambda name: name.count(".")):
        piece = f"{name} {number(newest[name])}"
        if len(text) + len(piece) + 2 > room:
            if not text:
                continue
            break
        if text:
            text.append("  ")
        text.append(f"{name} ", style="dim").append(number(newest[name]))
    return text
