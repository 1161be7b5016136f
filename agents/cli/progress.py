# SPDX-License-Identifier: MIT
"""Progress of long commands: a bar on stderr if that is a terminal, else nothing."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

Report = Callable[[float, int], None]
"""Takes the share that is done, 0 to 1, and the number of points (or of what `bar` was told) so far."""


@contextmanager
def bar(label: str, unit: str = "points") -> Iterator[Report]:
    """A bar while the block runs."""
    if not sys.stderr.isatty():
        yield lambda share, points: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn(f"{{task.fields[points]:,}} {unit}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(label, total=1.0, points=0)
        yield lambda share, points: progress.update(task, completed=min(share, 1.0), points=points)
