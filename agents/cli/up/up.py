# SPDX-License-Identifier: MIT
"""`agent up`: the whole of hostbus in one process, with no broker and no configuration."""

from pathlib import Path
from typing import Annotated

import typer

from agents.cli.options import File, Verbose, examples


def register(app: typer.Typer) -> None:
    """Add the command of this file."""
    app.command(
        epilog=examples(
            "agent up", "agent up --duration 30s --only cpu,load", "agent up --server amqp://localhost/ --no-archive"
        )
    )(up)


def up(
    period: Annotated[
        float | None,
        typer.Option(envvar="HOSTBUS_PERIOD", metavar="SECONDS", help="Between samples.", show_default="1"),
    ] = None,
    duration: Annotated[
        str,
        typer.Option(
            envvar="HOSTBUS_DURATION", metavar="TIME", help="End after sampling for so long.", show_default="at Ctrl-C"
        ),
    ] = "",
    only: Annotated[
        str, typer.Option(envvar="HOSTBUS_ONLY", metavar="FAMILY,...", help="Only these families.", show_default="all")
    ] = "",
    archive: Annotated[
        Path | None,
        typer.Option(
            envvar="HOSTBUS_ARCHIVE",
            metavar="PATH",
            help="The SQLite file that keeps the points.",
            show_default="hostbus/archive.db under $XDG_STATE_HOME or ~/.local/state",
        ),
    ] = None,
    no_archive: Annotated[
        bool, typer.Option("--no-archive", envvar="HOSTBUS_NO_ARCHIVE", help="Keep nothing.")
    ] = False,
    server: Annotated[
        str,
        typer.Option(
            envvar="HOSTBUS_SERVER", metavar="URL", help="Over a broker: amqp://...", show_default="within this process"
        ),
    ] = "",
    file: File = None,
    verbose: Verbose = False,
) -> None:
    """Sample this machine, archive what is seen and show it: one process, no broker, no configuration."""
    from agents.cli import connection, log
    from agents.cli.up.fleet import Fleet, Order

    if archive is not None and ":/" in str(archive):  # a Path has lost the second slash of a URL
        raise typer.BadParameter(
            "--archive: agent up keeps an SQLite file; a database is for 'agent start postgres-sink'"
        )
    order = Order(
        period_s=period,
        duration_s=connection.seconds(duration, "--duration") if duration else None,
        only=tuple(word.strip() for word in only.split(",") if word.strip()),
        keep=not no_archive,
        archive=archive,
        server=server,
        file=file,
    )

    async def run() -> None:
        with log.hushed("agents.base.absent"):  # the table and the summaries say it
            await Fleet(order).run()

    connection.run(run())
