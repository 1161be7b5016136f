# SPDX-License-Identifier: MIT
"""`agent import`: files into an archive; each is checked to its end before the first point is stored."""

from datetime import datetime, timedelta, tzinfo
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from agents.cli.exchange.formats import FileFormat
from agents.cli.opening import ArchivePath
from agents.cli.options import Verbose, examples

if TYPE_CHECKING:
    from agents.cli.exchange.import_job import ImportJob


def register(app: typer.Typer) -> None:
    """Add the command of this file."""
    app.command(
        name="import",
        epilog=examples(
            "agent import all.jsonl",
            "agent import monday.csv tuesday.csv.gz --archive lab.db",
            "agent import otto.json --zone Europe/Berlin",
        ),
    )(import_)


def import_(
    files: Annotated[list[Path], typer.Argument(metavar="FILE", help="What to read; text may be compressed by gzip.")],
    file_format: FileFormat = "",
    archive: ArchivePath = "",
    zone: Annotated[
        str,
        typer.Option(
            "--zone",
            envvar="HOSTBUS_ZONE",
            metavar="ZONE",
            help="Of times that have none: UTC, local, Europe/Berlin; unless given they are refused.",
        ),
    ] = "",
    any_order: Annotated[
        bool,
        typer.Option(
            "--any-order",
            envvar="HOSTBUS_ANY_ORDER",
            help="Take metrics whose times do not increase; of points with one time the first counts.",
        ),
    ] = False,
    verbose: Verbose = False,
) -> None:
    """Store what files hold in an archive. Interrupted, the same command goes on.

    All files are checked to their ends first: one bad line, and nothing of any file is stored. Points that the
    archive has already are passed over, so that a file may be imported again. The files stay as they are.
    """
    from agents.cli import connection
    from agents.cli.exchange.formats import chosen
    from agents.cli.exchange.import_job import ImportJob

    where = _zone(zone)
    jobs = [
        ImportJob(path, chosen(file_format, path, to_write=False), archive, where, zone=zone, any_order=any_order)
        for path in dict.fromkeys(files)
    ]
    try:
        connection.run(_work(jobs, archive))
    except KeyboardInterrupt:
        typer.echo("what is stored stays: the same command goes on", err=True)
        raise


async def _work(jobs: "list[ImportJob]", archive: str) -> None:
    from agents.cli.opening import Access, opened
    from agents.cli.progress import bar

    try:
        for job in jobs:
            with bar(f"check {job.path}") as report:
                await job.check(report)
        async with opened(archive, Access.write) as found:
            for job in jobs:
                with bar(f"import {job.path}") as report:
                    await job.store(found, report)
                typer.echo(job.summary(), err=True)
    finally:
        for job in jobs:
            job.close()


class _LocalZone(tzinfo):
    """This machine's time zone, with its summers."""

    def utcoffset(self, when: datetime | None) -> timedelta | None:
        """How far local time is ahead of UTC at a local time."""
        return when.replace(tzinfo=None).astimezone().utcoffset() if when else None

    def dst(self, when: datetime | None) -> timedelta | None:
        """Not known."""
        return None

    def tzname(self, when: datetime | None) -> str | None:
        """Its name."""
        return "local"


def _zone(text: str) -> tzinfo | None:
    """The time zone with a name. Raises typer.BadParameter."""
    from zoneinfo import ZoneInfo

    if not text:
        return None
    if text == "local":
        return _LocalZone()
    try:
        return ZoneInfo(text)
    except (ValueError, OSError, KeyError):
        raise typer.BadParameter(f"--zone: {text!r} is no time zone, like UTC, local or Europe/Berlin") from None
