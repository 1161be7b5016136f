# SPDX-License-Identifier: MIT
"""`agent spy` and `agent send`: points, live, in and out."""

from typing import Annotated

import typer

from agents.cli.options import Format, Output, Server, Timeout, Verbose, examples


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    app.command(
        epilog=examples(
            "agent spy 'web1.cpu.#'", "agent spy '*.load.1m' --count 10", "agent spy '#' --duration 30s --format json"
        )
    )(spy)
    # A negative value looks like an option: `agent send room.temperature -3.5`.
    app.command(
        context_settings={"ignore_unknown_options": True},
        epilog=examples(
            "agent send room.temperature 21.5 --unit Cel", "agent send door.open 1 --time 2026-11-21T10:00:00Z"
        ),
    )(send)


def spy(
    patterns: Annotated[
        list[str], typer.Argument(metavar="PATTERN", help="Metric names or patterns; quote them for the shell.")
    ],
    count: Annotated[int | None, typer.Option(envvar="HOSTBUS_COUNT", min=1, help="End after so many points.")] = None,
    duration: Annotated[
        str, typer.Option(envvar="HOSTBUS_DURATION", metavar="TIME", help="End after so long.", show_default="forever")
    ] = "",
    server: Server = "",
    output: Output = Format.pretty,
    timeout: Timeout = "5s",
    verbose: Verbose = False,
) -> None:
    """Show points as they travel, until Ctrl-C."""
    import asyncio

    from agents.cli import connection
    from agents.cli.output import point_line, print_json, print_line
    from agents.cli.query import checked
    from bus.subscription import Subscriber

    wanted = [checked(pattern) for pattern in patterns]
    wait_s = connection.seconds(timeout, "--timeout")
    duration_s = connection.seconds(duration, "--duration") if duration else None

    async def listen() -> None:
        left = count
        async with connection.broker(server, wait_s) as transport, Subscriber(wanted, transport) as points:
            async for metric, time, value in points:
                if output is Format.json:
                    print_json({"metric": metric, "time": time.isoformat(), "value": value})
                else:
                    print_line(point_line(metric, time, value))
                if left is not None:
                    left -= 1
                    if left == 0:
                        return

    async def watch() -> None:
        try:
            async with asyncio.timeout(duration_s):
                await listen()
        except TimeoutError:
            pass  # --duration is over

    connection.run(watch())


def send(
    metric: Annotated[str, typer.Argument(help="The metric's name, like room.temperature")],
    value: Annotated[float, typer.Argument(help="A number; 'nan' for: measured, no answer.")],
    unit: Annotated[str, typer.Option(envvar="HOSTBUS_UNIT", help="Declared with the metric: Cel, %, B/s, ...")] = "",
    time: Annotated[
        str, typer.Option(envvar="HOSTBUS_TIME", metavar="ISO8601", help="The time of the point.", show_default="now")
    ] = "",
    server: Server = "",
    timeout: Timeout = "5s",
    verbose: Verbose = False,
) -> None:
    """Declare a metric and send one point of it."""
    from agents.cli import connection
    from bus.names import check_metric
    from bus.source import Source
    from bus.timestamp import Timestamp

    wait_s = connection.seconds(timeout, "--timeout")
    try:
        name = check_metric(metric)
        when = Timestamp.from_iso8601(time) if time else Timestamp.now()
    except (ValueError, TypeError) as error:
        raise typer.BadParameter(str(error)) from None

    class OnePoint(Source):
        """Sends the point that was asked for."""

        async def task(self) -> None:
            await self.declare_metrics({name: {"unit": unit} if unit else {}})
            await self.send(name, when, value)
            await self.drain(timeout=wait_s)
            await self.stop()

    async def publish() -> None:
        async with connection.broker(server, wait_s) as transport:
            # The same name every time: the metric keeps its owner.
            agent = OnePoint(f"agent-send-{name[:180]}", transport)
            await connection.begin(agent, wait_s)
            await agent.stopped()

    connection.run(publish())
