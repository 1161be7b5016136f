# SPDX-License-Identifier: MIT
"""`agent run`: what a command costs, in any metric, from its first moment to its last.

The command has stdin, stdout and stderr for itself; what we have to say goes to stderr, before it begins and after
it has ended. The report goes there, too, unless --output names a file.
"""

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from typer.core import TyperCommand

from agents.cli.opening import ArchivePath
from agents.cli.options import File, Format, Output, Timeout, Verbose, examples

if TYPE_CHECKING:
    from agents.cli.spans.figures import Figures
    from agents.cli.spans.foreground import Foreground
    from agents.cli.spans.recording import Recording, Sources
    from agents.cli.spans.spans import Span
    from bus.archive import Event


def register(app: typer.Typer) -> None:
    """Add the command of this file."""
    app.command(
        cls=_Run,
        context_settings={"allow_interspersed_args": False},
        epilog=examples(
            "agent run -m '#.cpu.usage' -- make -j4",
            "agent run -m '#.power' '#.cpu.usage' --label before -- ./solve input.txt",
            "agent run -m 'web1.#' --format json --output run.json -- sleep 10",
        ),
    )(run)


class _Run(TyperCommand):
    """Takes several patterns after one -m, if ``--`` says where they end."""

    def parse_args(self, ctx: typer.Context, args: list[str]) -> list[str]:  # type: ignore[override]
        return super().parse_args(ctx, spread(args))


def spread(arguments: Sequence[str]) -> list[str]:
    """``-m A B --`` as ``-m A -m B --``; the same without ``--``, where nobody knows what is B."""
    if "--" not in arguments:
        return list(arguments)
    end = arguments.index("--")
    found: list[str] = []
    is_pattern = False
    for argument in arguments[:end]:
        if argument.startswith("-"):
            is_pattern = argument in ("-m", "--metrics")
        elif is_pattern and found[-1] not in ("-m", "--metrics"):
            found.append("-m")
        found.append(argument)
    return [*found, *arguments[end:]]


def run(
    command: Annotated[
        list[str],
        typer.Argument(metavar="COMMAND [ARG]...", help="What to run; no shell is between.", show_default=False),
    ],
    metrics: Annotated[
        list[str],
        typer.Option(
            "-m",
            "--metrics",
            envvar="HOSTBUS_METRICS",
            metavar="PATTERN...",
            help="Metric names or patterns; quote them for the shell.",
        ),
    ],
    label: Annotated[
        str,
        typer.Option(
            envvar="HOSTBUS_LABEL",
            help="What 'agent diff' finds the run by.",
            show_default="the command's name and the time",
        ),
    ] = "",
    archive: ArchivePath = "",
    server: Annotated[
        str,
        typer.Option(
            envvar="HOSTBUS_SERVER",
            metavar="URL",
            help="Ask the archive on this bus for the points, if no --archive is given.",
        ),
    ] = "",
    period: Annotated[
        float | None,
        typer.Option(
            envvar="HOSTBUS_PERIOD",
            metavar="SECONDS",
            min=0.001,
            max=86400,
            help="Between samples, if this command has to take them itself.",
            show_default="1",
        ),
    ] = None,
    output: Output = Format.pretty,
    file: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--output",
            envvar="HOSTBUS_OUTPUT",
            metavar="FILE",
            help="Write the report there.",
            show_default="stderr",
        ),
    ] = None,
    config: File = None,
    timeout: Timeout = "5s",
    verbose: Verbose = False,
) -> None:
    """Run a command, and tell what it cost: mean, maximum and integral (energy of W) of metrics.

    The report goes to stderr, or to --output; the span is recorded in the
    archive, for 'agent diff'.

    If nobody writes the archive, this host is sampled for as long as the command
    runs, which then begins some two seconds later.

    Ends with the command's exit code: 128 + n if signal n ended it, 127 if it is
    not found, 126 if it cannot be executed.
    """
    from agents.cli import connection
    from agents.cli.query import checked
    from agents.cli.spans.recording import Sources

    sources = Sources(
        patterns=[checked(pattern) for pattern in metrics],
        archive=archive,
        server=server,
        timeout_s=connection.seconds(timeout, "--timeout"),
        period_s=period,
        file=config,
    )
    code = connection.run(_run(command, label, sources, output, file))
    if code:
        raise typer.Exit(code)


async def _run(command: Sequence[str], label: str, sources: "Sources", output: Format, file: Path | None) -> int:
    from agents.cli.bundles import bundles
    from agents.cli.spans.foreground import SIGNALLED, Foreground, check_command
    from agents.cli.spans.recording import recording

    try:
        check_command(command[0])
    except OSError as error:
        return _not_started(command[0], error)
    async with Foreground() as foreground:
        async with recording(sources, foreground.interrupted, say) as points:
            if foreground.interrupted.is_set():
                return SIGNALLED + foreground.signal
            span, code = await _measured(foreground, command, label, sources)
            if span is None:
                return code
            missing = await _arrived(points, span, foreground)
        if missing:
            names = ", ".join(bundles(missing, missing))
            say(f"{names}: the newest points are {max(missing.values()):.1f} s before the end")
        await _report(span, sources, output, file)
    return code


def _not_started(command: str, error: OSError) -> int:
    """Say why a command cannot be started; the exit code that goes with it."""
    from agents.cli.spans.foreground import start_failure

    code, why = start_failure(command, error)
    say(why)
    return code


async def _measured(
    foreground: "Foreground", command: Sequence[str], label: str, sources: "Sources"
) -> "tuple[Span | None, int]":
    """Run the command and record its span: the span, None if it could not be started, and the exit code."""
    from agents.cli.localtime import clock, offset_s
    from agents.cli.spans.spans import SOURCE, Span
    from bus.archive import Event
    from bus.errors import HostbusError
    from bus.names import short_host_name

    start_ns = time.time_ns()
    try:
        code = await foreground.run(command)
    except OSError as error:
        return None, _not_started(command[0], error)
    event = Event(
        time=start_ns,
        end=max(time.time_ns(), start_ns + 1),  # the clock may have been set meanwhile
        label=label or f"{Path(command[0]).name}-{clock(start_ns, offset_s(start_ns), '%Y-%m-%dT%H:%M:%S')}",
        source=SOURCE,
        host=short_host_name(),
        metadata={"argv": list(command), "exit_code": code, "metrics": list(sources.patterns)},
    )
    try:
        await _record(event, sources)
    except HostbusError as error:
        say(f"the span is not recorded: {error}")
    return Span(event=event, number=1, of=1), code


async def _record(event: "Event", sources: "Sources") -> None:
    from agents.cli.opening import Access, on_bus, opened
    from bus.errors import HostbusError

    if sources.is_remote:
        async with on_bus(sources.server, sources.timeout_s) as client:
            if not await client.add_event(event, sources.patterns):
                raise HostbusError("no archive on the bus keeps these metrics and takes events, too")
        return
    async with opened(sources.archive, Access.events) as archive:
        await archive.add_event(event)


async def _arrived(points: "Recording", span: "Span", foreground: "Foreground") -> dict[str, float]:
    """Wait for the points of the span; a signal ends the wait, not more. What is missing."""
    import asyncio

    from bus.errors import HostbusError

    waiting = asyncio.create_task(points.arrived(span.end_ns), name="wait for points")
    interrupted = asyncio.create_task(foreground.interrupted.wait(), name="wait for a signal")
    await asyncio.wait({waiting, interrupted}, return_when=asyncio.FIRST_COMPLETED)
    for task in (waiting, interrupted):
        task.cancel()
    await asyncio.gather(waiting, interrupted, return_exceptions=True)
    if waiting.cancelled():
        return {}
    try:
        return waiting.result()
    except HostbusError as error:
        say(str(error))
        return {}


async def _report(span: "Span", sources: "Sources", output: Format, file: Path | None) -> None:
    import msgspec

    from agents.cli.spans.figures import all_figures, chosen_metrics
    from bus.errors import HostbusError

    try:
        async with sources.history() as history:
            metrics = await chosen_metrics(history, sources.patterns)
            found = await all_figures(history, metrics, span.event.time, span.end_ns)
    except HostbusError as error:
        say(f"no report: {error}")
        return
    if output is Format.json:
        told = {**span.to_json(), "metrics": [figures.to_json() for figures in found.values()]}
        text = msgspec.json.encode(told).decode()
    else:
        text = "\n".join(_lines(span, found, sources.patterns))
    if file is None:
        _write(text)
        return
    try:
        file.write_text(text + "\n", encoding="utf-8")
    except OSError as error:
        say(f"--output: {file} cannot be written: {error.strerror}")
        _write(text)


def _lines(span: "Span", found: "dict[str, Figures]", patterns: Sequence[str]) -> list[str]:
    from agents.cli import columns
    from agents.cli.quantity import digits, integral_amount, length, percent, scale

    code = span.exit_code
    lines = [f"{span.event.label}: {length(span.duration_s)}, exit code {code}"]
    if not found:
        return [*lines, f"no points of {' '.join(patterns)} in that time"]
    rows = []
    for name, of in found.items():
        factor, unit = scale(of.unit, max(abs(of.minimum), abs(of.maximum)))
        numbers = [digits(value / factor) for value in (of.minimum, of.mean, of.maximum)]
        rows.append((name, unit, str(of.count), *numbers, integral_amount(of.integral, of.unit), percent(of.coverage)))
    header = ("metric", "unit", "count", "min", "mean", "max", "integral", "cover")
    return [*lines, *columns.lines(header, rows, left=2)]


def say(text: str) -> None:
    """One line about the run, on stderr."""
    _write(f"agent: {' '.join(text.split())}")


def _write(text: str) -> None:
    """On stderr. Nobody reads it any more: that is no reason to lose the command's exit code."""
    try:
        sys.stderr.write(text + "\n")
        sys.stderr.flush()
    except OSError:
        pass
