# SPDX-License-Identifier: MIT
"""`agent archive`: an archive's inside: what it costs, whether it is whole, SQL."""

from collections.abc import Mapping, Sequence
from contextlib import aclosing
from enum import StrEnum
from importlib.metadata import entry_points
from typing import Annotated, Any, cast

import typer

from agents.cli.opening import DEFAULT_SCHEME, ArchivePath
from agents.cli.options import Format, Output, Verbose, examples
from bus.errors import ConfigError, HostbusError
from bus.maintenance import Maintenance, Migrated, Progress

GROUP = "hostbus.maintenance"
MOST_FINDINGS = 100
"""More are counted, not shown."""


class Table(StrEnum):
    """How the rows of a statement are printed."""

    pretty = "pretty"
    json = "json"
    csv = "csv"


def register(app: typer.Typer) -> None:
    """Add the command group of this file."""
    group = typer.Typer(help="An archive's inside: what it costs, whether it is whole, SQL.", no_args_is_help=True)
    group.command("info", epilog=examples("agent archive info", "agent archive info --format json"))(info)
    group.command("verify", epilog=examples("agent archive verify", "agent archive verify --thorough"))(verify)
    group.command("compact", epilog=examples("agent archive compact", "agent archive compact --hot 1h --keep raw=7d"))(
        compact
    )
    group.command("migrate", epilog=examples("agent archive migrate --archive old.db"))(migrate)
    group.command(
        "sql",
        epilog=examples(
            "agent archive sql \"SELECT metric, avg(value) FROM points WHERE metric LIKE 'web1.cpu.%' GROUP BY 1\"",
            "agent archive sql --from -1d --format csv \"SELECT * FROM rollup_10s WHERE metric = 'web1.load.1m'\"",
        ),
    )(sql)
    app.add_typer(group, name="archive")


def info(archive: ArchivePath = "", output: Output = Format.pretty, verbose: Verbose = False) -> None:
    """Show what is in an archive, and what it costs."""
    from agents.cli import connection
    from agents.cli.output import print_json

    kind, where = _maintenance(archive)
    about = connection.run(kind.info(where))
    if output is Format.json:
        print_json(about)
    else:
        _show(about)


def verify(
    archive: ArchivePath = "",
    thorough: Annotated[
        bool, typer.Option("--thorough", envvar="HOSTBUS_THOROUGH", help="Compare all aggregates, not only some.")
    ] = False,
    output: Output = Format.pretty,
    verbose: Verbose = False,
) -> None:
    """Check that an archive is whole: exit code 1 if something is wrong. A sink may be writing it."""
    from agents.cli import connection, exits
    from agents.cli.output import print_json, print_line
    from agents.cli.progress import bar
    from agents.cli.quantity import counted

    kind, where = _maintenance(archive)

    async def check() -> int:
        count = 0
        with bar("checking", "metrics") as report:
            async for one in kind.verify(where, thorough=thorough):
                if isinstance(one, Progress):
                    report(one.share, one.count)
                    continue
                count += 1
                if output is Format.json:
                    print_json({"where": one.where, "what": one.what})
                elif count <= MOST_FINDINGS:
                    print_line(f"{one.where}: {one.what}")
        return count

    count = connection.run(check())
    if not count:
        typer.echo(f"{where}: whole", err=output is Format.json)
        return
    if count > MOST_FINDINGS and output is Format.pretty:
        print_line(f"... and {count - MOST_FINDINGS} more")
    exits.complain(
        f"{where}: something is wrong in {counted(count, 'place')}: keep a copy of it; "
        "'agent export' saves what can be read, 'agent import' makes a new archive of that"
    )
    raise typer.Exit(exits.RUN_TIME)


def compact(
    archive: ArchivePath = "",
    hot: Annotated[
        str,
        typer.Option(
            envvar="HOSTBUS_HOT",
            metavar="TIME",
            help="Pack six hours as soon as all of them are older; 0s: as soon as they are over.",
        ),
    ] = "48h",
    keep: Annotated[
        list[str],
        typer.Option(
            metavar="TIER=TIME",
            envvar="HOSTBUS_COMPACT_KEEP",
            help="Remove what is older, as raw=7d or 10s=30d. Repeatable.",
            show_default="remove nothing",
        ),
    ] = [],  # noqa: B006  # never changed
    verbose: Verbose = False,
) -> None:
    """Make an archive small that no sink writes: a sink does the same by itself, a little every minute."""
    from agents.cli import connection
    from agents.cli.progress import bar
    from agents.cli.quantity import human_bytes

    kind, where = _maintenance(archive)
    kept = _tiers(keep)

    async def work() -> tuple[int, int, dict[str, int]]:
        before = await _size(kind, where)
        done: dict[str, int] = {}
        stages = kind.compact(where, hot=hot, keep=kept)
        stage = await anext(stages, None)
        while stage is not None:
            what = stage.what
            with bar("compacting", what) as report:
                while stage is not None and stage.what == what:
                    report(stage.share, stage.count)
                    done[what] = stage.count
                    stage = await anext(stages, None)
        return before, await _size(kind, where), done

    try:
        before, after, done = connection.run(work())
    except ConfigError as error:
        raise typer.BadParameter(str(error)) from None
    did = ", ".join(f"{count:,} {what}" for what, count in done.items() if count) or "nothing to do"
    typer.echo(f"{where}: {human_bytes(before)} → {human_bytes(after)}; {did}")


def migrate(
    archive: ArchivePath = "",
    no_backup: Annotated[
        bool, typer.Option("--no-backup", envvar="HOSTBUS_NO_BACKUP", help="Keep no copy of the old file.")
    ] = False,
    verbose: Verbose = False,
) -> None:
    """Bring an archive of an older hostbus up to date, wholly or not at all. A copy of the old file stays beside it."""
    from agents.cli import connection
    from agents.cli.progress import bar

    kind, where = _maintenance(archive)

    async def work() -> Migrated:
        with bar("copying", "pages") as report:
            async for one in kind.migrate(where, backup=not no_backup):
                if isinstance(one, Migrated):
                    return one
                report(one.share, one.count)
        raise HostbusError(f"{where}: the migration did not end")

    done = connection.run(work())
    if done.before == done.after:
        typer.echo(f"{done.path}: is up to date, schema {done.after}")
        return
    copy = f"; the old file is {done.backup}" if done.backup else ""
    typer.echo(f"{done.path}: schema {done.before} → {done.after}{copy}")


def sql(
    statement: Annotated[str, typer.Argument(metavar="STATEMENT", help="SQL that reads: SELECT ...")],
    archive: ArchivePath = "",
    begin: Annotated[
        str,
        typer.Option(
            "--from",
            envvar="HOSTBUS_FROM",
            metavar="TIME",
            help="What lies before need not be shown, which is faster.",
            show_default="the beginning",
        ),
    ] = "",
    end: Annotated[
        str,
        typer.Option(
            "--to",
            envvar="HOSTBUS_TO",
            metavar="TIME",
            help="What lies after need not be shown.",
            show_default="the end",
        ),
    ] = "",
    output: Annotated[
        Table, typer.Option("--format", envvar="HOSTBUS_FORMAT", help="For people, or for programs.")
    ] = Table.pretty,
    verbose: Verbose = False,
) -> None:
    """Ask an archive in SQL, which can change nothing.

    Views: [bold]points[/bold] (metric, time, value), [bold]rollup_10s[/bold], [bold]rollup_1m[/bold],
    [bold]rollup_10m[/bold], [bold]rollup_1h[/bold], [bold]rollup_1d[/bold] (metric, time, count, sum, min, max,
    first, last, integral, covered, mean). Times are ns since 1970: datetime(time / 1000000000, 'unixepoch').
    """
    from agents.cli import connection
    from agents.cli.archive.sql_output import writer
    from agents.cli.timespan import moment, span
    from bus.archive import MIN_NS
    from bus.chunk import MAX_NS
    from bus.timestamp import Timestamp

    kind, where = _maintenance(archive)
    now = Timestamp.now()
    if begin and end:
        span(begin, end, now)  # checks that there is time between them
    start_ns = moment(begin, "--from", now).posix_ns if begin else MIN_NS
    end_ns = moment(end, "--to", now).posix_ns if end else MAX_NS

    async def ask() -> None:
        async with aclosing(kind.select(where, statement, start_ns, end_ns)) as portions:
            (columns,) = await anext(portions)
            if not columns:
                raise typer.BadParameter("an empty STATEMENT: SQL that reads is wanted, like SELECT ...")
            write = writer(output.value, [str(column) for column in columns])
            found = False
            async for rows in portions:
                found = True
                write(rows)
            if not found and output is Table.pretty:
                typer.echo("no rows", err=True)

    connection.run(ask())


def _maintenance(archive: str) -> tuple[Maintenance, str]:
    """What can be done with the archive at a path or URL, and where that is. Raises HostbusError if nothing can."""
    from bus.state import state_file

    where = archive or state_file("archive.db")
    scheme, separator, _ = where.partition("://")
    kind = scheme if separator else DEFAULT_SCHEME
    kinds = {entry.name: entry for entry in entry_points(group=GROUP)}
    if kind not in kinds:
        raise HostbusError(f"--archive: 'agent archive' is for {', '.join(sorted(kinds))} archives, not for {kind}://")
    return cast("Maintenance", kinds[kind].load()), where


def _tiers(assignments: Sequence[str]) -> Mapping[str, str]:
    """``raw=7d`` as tier and time. Raises typer.BadParameter."""
    found = {}
    for text in assignments:
        tier, equals, span = text.partition("=")
        if not equals:
            raise typer.BadParameter(f"--keep: {text!r} is not TIER=TIME, like raw=7d")
        found[tier.strip()] = span.strip()
    return found


async def _size(kind: Maintenance, where: str) -> int:
    about = await kind.info(where)
    return int(about["bytes"]) + int(about["walBytes"])


def _show(about: dict[str, Any]) -> None:
    from agents.cli.output import print_line, print_table
    from agents.cli.quantity import counted, human_bytes

    writer = about["writer"]
    per_point = about["bytesPerPoint"]
    print_line(f"{about['path']}, schema {about['schema']}, {f'written by {writer}' if writer else 'nobody writes it'}")
    print_line(
        f"{human_bytes(about['bytes'])}, {human_bytes(about['freeBytes'])} of it free, "
        f"log {human_bytes(about['walBytes'])}{f', {per_point:.2f} bytes per point' if per_point else ''}"
    )
    print_line(
        ", ".join(counted(about[f"{what}s"], what) for what in ("metric", "point", "event", "gap")),
    )
    print_line("")
    rows = [
        (
            tier["tier"],
            f"{tier['rows']:,}",
            f"{tier['packed']:,}",
            *("?" if tier[size] is None else human_bytes(tier[size]) for size in ("rowBytes", "packedBytes")),
            *(_local(tier[end]) for end in ("first", "last")),
        )
        for tier in about["tiers"]
    ]
    print_table(("tier", "rows", "packed", "bytes", "packed bytes", "first", "last"), rows, empty="")


def _local(time_ns: int | None) -> str:
    """A time on this machine's clock; "" for none."""
    from agents.cli.localtime import clock, offset_s

    return "" if time_ns is None else clock(time_ns, offset_s(time_ns))
