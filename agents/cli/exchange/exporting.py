# SPDX-License-Identifier: MIT
"""`agent export`: points of an archive into a file, in little memory, and going on where it was interrupted."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from agents.cli.exchange.formats import FileFormat
from agents.cli.opening import ArchivePath
from agents.cli.options import Server, Timeout, Verbose, examples
from agents.cli.timespan import From, To

if TYPE_CHECKING:
    from agents.cli.exchange.export_job import ExportJob, Request
    from bus.formats import Format


def register(app: typer.Typer) -> None:
    """Add the command of this file."""
    app.command(
        name="export",
        epilog=examples(
            "agent export --output all.jsonl",
            "agent export --metrics 'web1.#' --from -1d --output web1.parquet",
            "agent export -m '*.load.1m' --from 2026-11-20 --to 2026-11-21 --format csv",
        ),
    )(export)


def export(
    metrics: Annotated[
        list[str] | None,
        typer.Option(
            "--metrics",
            "-m",
            envvar="HOSTBUS_METRICS",
            metavar="PATTERN",
            help="Names or patterns; may be given several times.",
            show_default="#",
        ),
    ] = None,
    begin: From = "",
    end: To = "now",
    file_format: FileFormat = "",
    output: Annotated[
        str, typer.Option("--output", "-o", envvar="HOSTBUS_OUTPUT", metavar="FILE|-", help="The file; - is stdout.")
    ] = "-",
    archive: ArchivePath = "",
    server: Server = "",
    overwrite: Annotated[
        bool, typer.Option("--overwrite", envvar="HOSTBUS_OVERWRITE", help="Replace the file if there is one.")
    ] = False,
    restart: Annotated[
        bool,
        typer.Option("--restart", envvar="HOSTBUS_RESTART", help="Do not go on with what was interrupted: begin anew."),
    ] = False,
    timeout: Timeout = "5s",
    verbose: Verbose = False,
) -> None:
    """Write points of an archive to a file. Interrupted, the same command goes on.

    jsonl and parquet hold everything that an archive has; json all but which frames are missing; csv and
    prometheus points only. --from is the beginning of the archive unless given.
    """
    from agents.cli import connection
    from agents.cli.exchange.formats import chosen
    from agents.cli.query import checked

    wait_s = connection.seconds(timeout, "--timeout")
    patterns = [checked(pattern) for pattern in metrics or ["#"]]
    path = None if output == "-" else Path(output)
    form = chosen(file_format, path, to_write=True)
    request = _request(form, patterns, begin, end, archive, server)
    if path is None:
        _check_stdout(form)
    else:
        _check_output(path, overwrite=overwrite)
    try:
        told = connection.run(_work(form, request, path, wait_s, restart=restart))
    except KeyboardInterrupt:
        if path is not None:
            typer.echo(f"{path}.part keeps what is done: the same command goes on with it", err=True)
        raise
    for line in told:
        typer.echo(line, err=True)


def _request(form: "Format", patterns: list[str], begin: str, end: str, archive: str, server: str) -> "Request":
    from agents.cli.exchange.export_job import Request
    from agents.cli.timespan import moment
    from bus.archive import MIN_NS
    from bus.timestamp import Timestamp

    now = Timestamp.now()
    stop = moment(end, "--to", now).posix_ns
    start = moment(begin, "--from", now).posix_ns if begin else MIN_NS
    if start >= stop:
        raise typer.BadParameter(f"--from: {begin} is not before --to {end}")
    return Request(
        format=form.name,
        metrics=patterns,
        begin=begin,
        end=end,
        archive=archive,
        server="" if archive else server,
        start_ns=start,
        end_ns=stop,
    )


def _check_stdout(form: "Format") -> None:
    if form.assembles and sys.stdout.isatty():
        raise typer.BadParameter(f"--output: {form.name} is nothing for a terminal: name a file")


def _check_output(path: Path, *, overwrite: bool) -> None:
    if path.suffix == ".gz":
        raise typer.BadParameter(f"--output: {path} would not be compressed: agent export ... | gzip > {path}")
    if not path.parent.is_dir():
        raise typer.BadParameter(f"--output: {path.parent} is not a directory")
    if not path.exists():
        return
    if not path.is_file():  # such a thing as /dev/null would be replaced by a file
        raise typer.BadParameter(f"--output: {path} is not a file: - is stdout")
    if not overwrite:
        raise typer.BadParameter(f"--output: {path} is there already: --overwrite replaces it")


async def _work(form: "Format", request: "Request", path: Path | None, wait_s: float, *, restart: bool) -> list[str]:
    from agents.cli.exchange.export_job import ExportJob
    from agents.cli.opening import history, opened
    from agents.cli.progress import bar

    name = str(path) if path else "stdout"
    with bar(f"export to {name}") as report:
        job = ExportJob(form, request, report)
        if request.server:
            async with history("", request.server, wait_s) as source:
                await job.run(source, None, path, restart=restart)
        else:
            async with opened(request.archive) as found:
                await job.run(found, found, path, restart=restart)
    return list(_summary(job, name, request))


def _summary(job: "ExportJob", name: str, request: "Request") -> Iterator[str]:
    gone_on = " (went on where it was interrupted)" if job.resumed else ""
    yield f"{name}: {job.points:,} points of {job.metrics:,} metrics{gone_on}"
    if request.server:
        yield "events are not told over the bus: they stay out (export from the archive itself with --archive)"
    for kind, count in job.left_out.items():
        yield f"{request.format} cannot hold {kind} ({count:,} here): jsonl can"
