# SPDX-License-Identifier: MIT
"""The file formats that are installed, by name and by the endings of file names."""

from functools import cache
from importlib.metadata import entry_points
from pathlib import Path
from typing import Annotated, cast

import typer

from bus.formats import GROUP, Format

FileFormat = Annotated[
    str,
    typer.Option(
        "--format",
        envvar="HOSTBUS_FILE_FORMAT",
        metavar="json|jsonl|csv|parquet|prometheus",
        help="What kind of file; else the ending of its name says so.",
        show_default=False,
    ),
]


@cache
def installed() -> dict[str, Format]:
    """All formats by name."""
    return {entry.name: cast("Format", entry.load()) for entry in sorted(entry_points(group=GROUP))}


def chosen(name: str, path: Path | None, *, to_write: bool) -> Format:
    """The format with this name, else that of the file. Raises typer.BadParameter that says which there are."""
    formats = {known: form for known, form in installed().items() if form.writable or not to_write}
    if name:
        if name not in formats:
            raise typer.BadParameter(f"--format: {name!r} is none of {', '.join(formats)}")
        return formats[name]
    ending = Path(path.name.removesuffix(".gz")).suffix if path else ""
    for form in formats.values():
        if ending and ending in form.suffixes:
            return form
    what = f"{path} does not end as one of these" if path else "say which"
    raise typer.BadParameter(f"--format: {what}: {', '.join(formats)}")
