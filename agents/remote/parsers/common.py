# SPDX-License-Identifier: MIT
"""What the built-in parsers share: what they remember of a host, reading of several files, the families' tables."""

from collections.abc import Callable
from typing import TypeVar

from agents.host import HostSource, Metric
from agents.remote.parser import Context

T = TypeVar("T")

SHOWN = 80


def kept(context: Context, key: str, make: Callable[[], T]) -> T:
    """What a parser remembers of a host under a key; made the first time."""
    if key not in context.state:
        context.state[key] = make()
    value: T = context.state[key]
    return value


def by_file(output: str) -> dict[str, list[str]]:
    """The lines of each file, from what ``grep -H '' FILE...`` prints: each line after its file's name and a colon."""
    files: dict[str, list[str]] = {}
    for line in output.splitlines():
        file, colon, text = line.partition(":")
        if colon:
            files.setdefault(file, []).append(text)
    return files


def missing(file: str, output: str) -> ValueError:
    """The error for an output that lacks a file of Linux."""
    got = f"it printed {output[:SHOWN]!r}" if output.strip() else "it printed nothing"
    return ValueError(f"the host shows no {file}, as every Linux does: {got}")


def table_of(source: type[HostSource], wanted: Callable[[str], bool]) -> tuple[Metric, ...]:
    """The metrics of a family that a parser gives, chosen by their names."""
    return tuple(metric for metric in source.metrics if wanted(metric.name))
