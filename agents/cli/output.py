# SPDX-License-Identifier: MIT
"""Data on stdout: tables for people, one JSON value a line for programs."""

import sys
from collections.abc import Sequence
from typing import Any

import msgspec

from bus.timestamp import Timestamp


def print_line(text: str) -> None:
    """One line, at once: who reads a pipe sees it now."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def print_json(value: Any) -> None:
    """One line of JSON. NaN becomes null: JSON has no NaN."""
    print_line(msgspec.json.encode(value).decode())


def point_line(metric: str, time: Timestamp, value: float) -> str:
    """A point in 80 columns, for names of up to 50 characters: local time of day, name, value."""
    clock = f"{time.datetime.astimezone():%H:%M:%S}.{time.posix_ns // 1_000_000 % 1000:03d}"
    return f"{clock}  {metric:<50} {number(value):>15}"


def number(value: float) -> str:
    """A value in at most 12 characters: six digits that count, large whole numbers whole."""
    return f"{value:.0f}" if value.is_integer() and abs(value) < 1e12 else f"{value:.6g}"


def print_table(columns: Sequence[str], rows: Sequence[Sequence[object]], *, empty: str) -> None:
    """A table that fits the terminal; in a pipe, columns of text that are never cut. `empty` on stderr if no rows."""
    if not rows:
        sys.stderr.write(empty + "\n")
        return
    texts = [[str(cell) for cell in row] for row in rows]
    if not sys.stdout.isatty():
        widths = [max(map(len, column)) for column in zip(columns, *texts, strict=True)]
        for row in [list(columns), *texts]:
            print_line("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
        return

    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold")
    for number, column in enumerate(columns):
        table.add_column(column, overflow="fold", no_wrap=False, style="cyan" if number == 0 else "")
    for row in texts:
        table.add_row(*(Text(cell) for cell in row))
    Console().print(table)


def wrapped(text: str, indent: str) -> str:
    """A paragraph that fits the terminal (80 columns in a pipe), every line indented."""
    import textwrap
    from shutil import get_terminal_size

    width = min(get_terminal_size().columns, 100)
    return textwrap.fill(text, width, initial_indent=indent, subsequent_indent=indent)
