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
    from agents.cli.output import print_json, print_line

    reply = _ask(server, timeout, lambda client, wait_s: client.rpc("config.get", timeout=wait_s, token=token))
    if output is Format.json:
        print_json(reply)
        return
    if not reply["version"]:
        print_line(f"the manager keeps no configuration for {token}")
        return
    print_line(f"{token}, version {reply['version']}")
    _show_values(reply["config"])


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
    _show_change(token, reply, output)


def history(
    token: Token, server: Server = "", output: Output = Format.pretty, timeout: Timeout = "5s", verbose: Verbose = False
) -> None:
    """List the versions of an agent's configuration, the newest last."""
    from agents.cli.output import print_json, print_table

    reply = _ask(server, timeout, lambda client, wait_s: client.rpc("config.history", timeout=wait_s, token=token))
    versions = reply["versions"]
    if output is Format.json:
        for version in versions:
            print_json(version)
        return
    print_table(
        ("version", "time", "by", "configuration"),
        [(old["version"], old["time"][:19], old["by"], _json(old["config"])) for old in versions],
        empty=f"the manager keeps no configuration for {token}",
    )


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
    _show_change(token, reply, output)


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


def _show_change(token: str, reply: dict[str, Any], output: Format) -> None:
    from agents.cli.output import print_json, print_line

    if output is Format.json:
        print_json(reply)
        return
    state = "in force" if reply["applied"] else "stored; the agent does not run, and gets it when it starts"
    print_line(f"{token}, version {reply['version']}, {state}")
    _show_values(reply["config"])


def _show_values(config: dict[str, Any]) -> None:
    """``key=value``, the value as JSON: what `agent config set` takes."""
    from agents.cli.output import print_line

    for key, value in sorted(config.items()):
        print_line(f"  {key}={_json(value)}")


def _json(value: Any) -> str:
    import msgspec

    return msgspec.json.encode(value).decode()
