# SPDX-License-Identifier: MIT
"""`agent history`: what an archive knows of metrics, as a table, for programs, as a chart or as a page."""

import io
import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from agents.cli.history.query import Query, chosen, note
from agents.cli.history.resolution import POINT_BY_POINT, POINTS, Extent, Limits, wanted_step_ns
from agents.cli.opening import ArchivePath
from agents.cli.options import Server, Timeout, Verbose, examples
from agents.cli.timespan import From, To, span

if TYPE_CHECKING:
    from agents.cli.history.charts.series import Series

IN_A_TABLE = Limits(name="a table", points=60, steps=30, most_points=sys.maxsize, most_steps=5_000_000)
MOST_DRAWN = 20_000
"""Values of one metric that --every may ask a chart or page to draw."""
ON_A_PAGE = 60_000
"""Values on a page, of all its metrics, unless --every says otherwise: 4 MB."""


class Format(StrEnum):
    """How history is printed."""

    pretty = "pretty"
    json = "json"
    csv = "csv"


Every = Annotated[
    str,
    typer.Option(
        "--every",
        envvar="HOSTBUS_EVERY",
        metavar="TIME",
        help=f"Aggregates over steps of 10s, 1m, 1h, 1d, ...; '{POINTS}': every point as it is.",
        show_default="what fits; for json and csv all points",
    ),
]


def register(app: typer.Typer) -> None:
    """Add the command of this file."""
    app.command(
        epilog=examples(
            "agent history web1.cpu.usage",
            "agent history 'web1.load.*' --from -1d --every 1h --plot",
            "agent history 'web1.#' --from 2026-11-20 --to 2026-11-21 --html day.html",
            "agent history web1.cpu.usage --from -7d --every 10m --format csv > week.csv",
        )
    )(history)


def history(
    metrics: Annotated[
        list[str], typer.Argument(metavar="METRIC", help="Metric names or patterns; quote them for the shell.")
    ],
    begin: From = "-1h",
    end: To = "now",
    every: Every = "",
    output: Annotated[
        Format, typer.Option("--format", envvar="HOSTBUS_FORMAT", help="For people, or for programs: JSON lines, CSV.")
    ] = Format.pretty,
    plot: Annotated[bool, typer.Option("--plot", envvar="HOSTBUS_PLOT", help="A chart in the terminal.")] = False,
    html: Annotated[
        Path | None,
        typer.Option(envvar="HOSTBUS_HTML", metavar="FILE", help="A page for the browser.", show_default=False),
    ] = None,
    archive: ArchivePath = "",
    server: Server = "",
    timeout: Timeout = "5s",
    verbose: Verbose = False,
) -> None:
    """Show what an archive has of metrics: values, aggregates, charts."""
    from agents.cli import connection, opening
    from agents.cli.query import checked
    from bus.timestamp import Timestamp

    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a °C or a description that the terminal cannot show
    if output is not Format.pretty and (plot or html):
        raise typer.BadParameter(f"--plot and --html are for people: leave out --format {output}")
    now = Timestamp.now()
    start, stop = span(begin, end, now)
    wanted_ns = wanted_step_ns(every)
    patterns = [checked(metric) for metric in metrics]
    wait_s = connection.seconds(timeout, "--timeout")
    if html:
        from agents.cli.history.charts.page import check_target

        check_target(html)

    async def show() -> None:
        async with opening.history(archive, server, wait_s) as source:
            query = Query(
                source=source,
                metrics=await chosen(source, patterns),
                start_ns=start.posix_ns,
                end_ns=stop.posix_ns,
                now_ns=now.posix_ns,
                wanted_ns=wanted_ns,
            )
            if plot:
                await _plot(query)
            if html:
                await _page(query, html)
            if not plot and not html:
                await _table(query, output)

    connection.run(show())


async def _table(query: Query, output: Format) -> None:
    from agents.cli.history import rows as history_rows

    if output is not Format.pretty and not query.wanted_ns:
        span_ns, step_ns = (query.start_ns, query.end_ns), POINT_BY_POINT
    else:
        found, step_ns = await query.resolve(IN_A_TABLE)
        span_ns = found.start_ns, found.end_ns
    rows: history_rows.Rows
    if output is Format.json:
        rows = history_rows.Json()
    elif output is Format.csv:
        rows = history_rows.Csv(stepped=step_ns != POINT_BY_POINT)
    else:
        rows = history_rows.Pretty()
    shown = await history_rows.write(rows, query.source, query.metrics, span_ns, step_ns)
    if without := [metric for metric in query.metrics if metric not in shown]:
        note(await query.nothing(without))


async def _plot(query: Query) -> None:
    from agents.cli.history.charts.terminal import MOST_SERIES, chart
    from agents.cli.history.charts.tty import canvas, show

    size = canvas()
    limits = Limits(
        name="a chart", points=2 * size.steps, steps=size.steps, most_points=MOST_DRAWN, most_steps=MOST_DRAWN
    )
    found, series = await _series(query, limits, MOST_SERIES, "--plot")
    show(chart(series, found.start_ns, found.end_ns, size))


async def _page(query: Query, file: Path) -> None:
    import asyncio

    from agents.cli.history.charts.page import MOST_EVENTS, MOST_SERIES, Picture, write_page
    from agents.cli.output import print_line

    share = ON_A_PAGE // len(query.metrics)
    limits = Limits(
        name="a page", points=min(3000, share), steps=min(2000, share), most_points=MOST_DRAWN, most_steps=MOST_DRAWN
    )
    found, series = await _series(query, limits, MOST_SERIES, "--html")
    events = await query.events()
    if len(events) > MOST_EVENTS:
        note(f"{len(events)} events are in that range: the page shows the last {MOST_EVENTS}")
    picture = Picture(series=series, events=events[-MOST_EVENTS:], start_ns=found.start_ns, end_ns=found.end_ns)
    await asyncio.to_thread(write_page, file, picture)
    print_line(str(file))


async def _series(query: Query, limits: Limits, most: int, option: str) -> "tuple[Extent, list[Series]]":
    """What is to be drawn. Raises HostbusError if that is nothing, BadParameter if it is too much."""
    from agents.cli.history.charts.series import load
    from bus.errors import HostbusError

    if len(query.metrics) > most:
        raise typer.BadParameter(
            f"{option}: {len(query.metrics)} metrics are selected, but {limits.name} holds {most}: name fewer"
        )
    found, step_ns = await query.resolve(limits)
    if not found.counts:
        raise HostbusError(await query.nothing(list(query.metrics)))
    if without := [metric for metric in query.metrics if metric not in found.counts]:
        note(await query.nothing(without))
    span_ns = found.start_ns, found.end_ns
    series = []
    for name, count in found.counts.items():
        few = query.wanted_ns is None and count <= limits.points
        step = POINT_BY_POINT if few else step_ns
        series.append(await load(query.source, name, query.metrics[name], span_ns, step))
    return found, series
