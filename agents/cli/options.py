# SPDX-License-Identifier: MIT
"""The options that several commands share, each also an environment variable."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer


class Format(StrEnum):
    """How data is printed on stdout."""

    pretty = "pretty"
    json = "json"


def _verbose(value: bool) -> bool:
    if value:
        from agents.cli import log

        log.set_up(verbose=True)
    return value


Server = Annotated[
    str,
    typer.Option(
        "--server",
        envvar="HOSTBUS_SERVER",
        metavar="URL",
        help="Where the broker is: amqp://USER:PASSWORD@HOST/, amqps://...",
        show_default="amqp://localhost/",
    ),
]
Output = Annotated[
    Format,
    typer.Option("--format", envvar="HOSTBUS_FORMAT", help="For people, or for programs: one JSON value a line."),
]
Verbose = Annotated[
    bool,
    typer.Option(
        "-v", "--verbose", envvar="HOSTBUS_VERBOSE", help="Debug messages, and tracebacks.", callback=_verbose
    ),
]
File = Annotated[
    Path | None,
    typer.Option("--config", envvar="HOSTBUS_CONFIG", metavar="FILE", help="A hostbus.toml.", show_default=False),
]
Timeout = Annotated[
    str,
    typer.Option(
        "--timeout", envvar="HOSTBUS_TIMEOUT", metavar="TIME", help="How long to wait for the broker and for an answer."
    ),
]


def examples(*lines: str) -> str:
    """The end of a command's help: command lines that work."""
    return "\n\n".join(("Examples:", *(f"[bold]{line}[/bold]" for line in lines)))
