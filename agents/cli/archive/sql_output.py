# SPDX-License-Identifier: MIT
"""The rows of an SQL statement on stdout, as they come."""

import csv
import sys
from collections.abc import Callable, Sequence
from typing import Any

Rows = Sequence[Sequence[Any]]
Write = Callable[[Rows], None]


def writer(kind: str, columns: Sequence[str]) -> Write:
    """What prints rows, portion by portion: as ``json``, one object a line; ``csv``; or ``pretty``, a table."""
    return {"json": _json, "csv": _csv, "pretty": _pretty}[kind](columns)


def _json(columns: Sequence[str]) -> Write:
    from agents.cli.output import print_json

    def write(rows: Rows) -> None:
        for row in rows:
            print_json(dict(zip(columns, map(_plain, row), strict=True)))

    return write


def _csv(columns: Sequence[str]) -> Write:
    lines = csv.writer(sys.stdout, lineterminator="\n")
    lines.writerow(columns)

    def write(rows: Rows) -> None:
        lines.writerows([_plain(cell) for cell in row] for row in rows)

    return write


def _pretty(columns: Sequence[str]) -> Write:
    """Columns as wide as the first portion needs; what is longer later sticks out."""
    from agents.cli.output import print_line

    widths: list[int] = []

    def line(cells: Sequence[str]) -> None:
        print_line("  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip())

    def write(rows: Rows) -> None:
        texts = [["" if cell is None else str(_plain(cell)) for cell in row] for row in rows]
        if not widths:
            widths.extend(max(map(len, column)) for column in zip(columns, *texts, strict=True))
            line(columns)
        for row in texts:
            line(row)

    return write


def _plain(cell: Any) -> Any:
    """Bytes as hex; everything else can be printed as it is."""
    return cell.hex() if isinstance(cell, bytes) else cell
