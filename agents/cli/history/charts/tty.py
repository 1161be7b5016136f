# SPDX-License-Identifier: MIT
"""The terminal that charts are shown on, or the pipe in its place: 80 columns without colours."""

import sys
from collections.abc import Iterable
from shutil import get_terminal_size

from rich.console import Console
from rich.text import Text

from agents.cli.history.charts.raster import style_for
from agents.cli.history.charts.terminal import Canvas, Line
from agents.cli.output import print_line


def canvas() -> Canvas:
    """What stdout can show. Colours are left out where NO_COLOR or a dumb TERM says so."""
    columns, lines = get_terminal_size()
    return Canvas(
        columns=columns,
        lines=lines,
        style=style_for(sys.stdout.encoding or "ascii"),
        colours=Console().color_system is not None,
    )


def show(lines: Iterable[Line]) -> None:
    """Print them."""
    console = Console()
    for line in lines:
        if console.color_system is None:
            print_line("".join(text for text, _ in line).rstrip())
        else:
            console.print(Text.assemble(*line), no_wrap=True, crop=True, highlight=False)
