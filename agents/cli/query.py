# SPDX-License-Identifier: MIT
"""`agent metrics` and `agent discover`: what is on the bus."""

import re
from typing import Annotated

import typer

from agents.cli.options import Format, Output, Server, Timeout, Verbose, examples


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    app.command(
        epilog=examples("agent metrics", "agent metrics 'web1.cpu.#'", "agent metrics '*.load.1m' --format json")
    )(metrics)
    app.command(epilog=examples("agent discover", "agent discover --window 5s --format json"))(discover)


def metrics(
    pattern: Annotated[
        str, typer.Argument(metavar="PATTERN", help="Metric name or pattern; '*' is one word, '#' any number.")
    ] = "#",
    limit: Annotated[int | None, typer.Option(envvar="HOSTBUS_LIMIT", min=1, help="At most so many.")] = None,
    server: Server = "",
    output: Output = Format.pretty,
    timeout: Timeout = "5s",
    verbose: Verbose = False,
) -> None:
    """List the metrics that the manager knows, with their units."""
    from agents.cli import connection
    from agents.cli.output import print_json, print_table
    from bus.names import compile_pattern

    wait_s = connection.seconds(timeout, "--timeout")
    matches = compile_pattern(checked(pattern))

    async def ask() -> dict[str, dict[str, object]]:
        async with connection.client(server, wait_s, "metrics") as client:
            return await client.get_metrics(timeout=wait_s, prefix=_plain_beginning(pattern))

    found = connection.run(ask())
    chosen = {name: about for name, about in sorted(found.items()) if matches.fullmatch(name + ".")}
    chosen = dict(list(chosen.items())[:limit])
    if output is Format.json:
        for name, about in chosen.items():
            print_json({"metric": name, **about})
        return
    print_table(
        ("metric", "unit", "description"),
        [(name, about.get("unit", ""), about.get("description", "")) for name, about in chosen.items()],
        empty=f"no metric matches {pattern}",
    )


def discover(
    window: Annotated[
        str, typer.Option(envvar="HOSTBUS_WINDOW", metavar="TIME", help="How long to wait for answers.")
    ] = "2s",
    server: Server = "",
    output: Output = Format.pretty,
    timeout: Timeout = "5s",
    verbose: Verbose = False,
) -> None:
    """Ask all agents on the bus who they are."""
    from agents.cli import connection
    from agents.cli.output import print_json, print_table
    from bus.timestamp import Timedelta

    wait_s = connection.seconds(timeout, "--timeout")
    window_s = connection.seconds(window, "--window")

    async def ask() -> dict[str, dict[str, object]]:
        async with connection.client(server, wait_s, "discover") as client:
            replies = await client.discover(window_s)
            return {token: reply for token, reply in sorted(replies.items()) if token != client.token}

    found = connection.run(ask())
    if output is Format.json:
        for token, reply in found.items():
            print_json({"token": token, **reply})
        return
    rows = []
    for token, reply in found.items():
        uptime = reply.get("uptime")
        up = f"{Timedelta(uptime).s:.0f} s" if isinstance(uptime, int) else ""
        rows.append((token, reply.get("hostname", ""), reply.get("type", ""), up, reply.get("metricqVersion", "")))
    print_table(("token", "host", "type", "up", "version"), rows, empty="no agent answered")


def checked(pattern: str) -> str:
    """`pattern`; typer.BadParameter if it is none."""
    from bus.names import check_pattern

    try:
        return check_pattern(pattern)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None


def _plain_beginning(pattern: str) -> str | None:
    """What all names that match begin with, so that the manager need not send the others."""
    return re.split(r"\.?[*#]", pattern, maxsplit=1)[0] or None
