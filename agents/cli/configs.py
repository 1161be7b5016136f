# SPDX-License-Identifier: MIT
"""`agent config`: the configurations that the manager keeps, and files."""

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from agents.cli.options import Format, Output, Server, Timeout, Verbose, examples

Token = Annotated[str, typer.Argument(help="The agent's token; 'agent discover' lists those that run.")]


def register(app: typer.Typer) -> None:
    """Add the command group of this file."""
    group = typer.Typer(
        help="Configurations: what the manager keeps for each agent, and hostbus.toml.", no_args_is_help=True
    )
    group.command("get", epilog=examples("agent config get source-cpu-web1"))(get)
    group.command("set", epilog=examples("agent config set source-cpu-web1 period=0.2"))(set_values)
    group.command("history", epilog=examples("agent config history source-cpu-web1"))(history)
    group.command("rollback", epilog=examples("agent config rollback source-cpu-web1 3"))(rollback)
    group.command("check", epilog=examples("agent config check hostbus.toml"))(check)
    app.add_typer(group, name="config")


def get(
    token: Token, server: Server = "", output: Output = Format.pretty, timeout: Timeout = "5s", verbose: Verbose = False
) -> None:
    """Show the configuration that the manager keeps for an agent."""
    reply = _ask(server, timeout, lambda client, wait_s: client.rpc("config.get", timeout=wait_s, token=token))
    _show(reply, output)


def set_values(
    token: Token,
    values: Annotated[list[str], typer.Argument(metavar="KEY=VALUE", help="Values as JSON; what is not JSON is text.")],
    replace: Annotated[
        bool,
        typer.Option("--replace", envvar="HOSTBUS_REPLACE", help="Forget all other keys, instead of keeping them."),
    ] = False,
    server: Server = "",
    output: Output = Format.pretty,
    timeout: Timeout = "5s",
    verbose: Verbose = False,
) -> None:
    """Change the configuration of an agent: stored, and in force at once if it runs."""
    from agents.cli.values import assignments

    config = assignments(values)
    reply = _ask(
        server,
        timeout,
        lambda client, wait_s: client.rpc("config.set", timeout=wait_s, token=token, config=config, merge=not replace),
    )
    _show(reply, output)


def history(
    token: Token, server: Server = "", output: Output = Format.pretty, timeout: Timeout = "5s", verbose: Verbose = False
) -> None:
    """List the versions of an agent's configuration, the newest last."""
    reply = _ask(server, timeout, lambda client, wait_s: client.rpc("config.history", timeout=wait_s, token=token))
    _show(reply, output)


def rollback(
    token: Token,
    version: Annotated[int, typer.Argument(min=1, help="The version to go back to; see 'agent config history'.")],
    server: Server = "",
    output: Output = Format.pretty,
    timeout: Timeout = "5s",
    verbose: Verbose = False,
) -> None:
    """Put an earlier version of an agent's configuration in force."""
    reply = _ask(
        server,
        timeout,
        lambda client, wait_s: client.rpc("config.rollback", timeout=wait_s, token=token, version=version),
    )
    _show(reply, output)


def check(
    file: Annotated[Path, typer.Argument(help="A hostbus.toml.")],
    verbose: Verbose = False,
) -> None:
    """Check a hostbus.toml: every mistake in it on a line of its own, exit code 78 if there is one."""
    from agents.cli import exits, settings

    problems = settings.check(file)
    for problem in problems:
        exits.complain(problem)
    if problems:
        raise typer.Exit(exits.BAD_CONFIG)
    typer.echo(f"{file}: good")


def _ask(server: str, timeout: str, question: Callable[[Any, float], Awaitable[dict[str, Any]]]) -> dict[str, Any]:
    from agents.cli import connection

    wait_s = connection.seconds(timeout, "--timeout")

    async def ask() -> dict[str, Any]:
        async with connection.client(server, wait_s, "config") as client:
            return await question(client, wait_s)

    return connection.run(ask())


def _show(reply: dict[str, Any], output: Format) -> None:
    from agents.cli.output import print_json

    print_json(reply)
