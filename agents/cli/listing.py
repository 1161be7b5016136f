# SPDX-License-Identifier: MIT
"""`agent list` and `agent version`: what is installed."""

import inspect
from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from agents.cli.options import Format, Output, Verbose, examples

if TYPE_CHECKING:
    from agents.cli.catalog import KnownAgent


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    app.command("list", epilog=examples("agent list", "agent list cpu-source", "agent list --format json"))(list_agents)
    app.command()(version)


def list_agents(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Only this agent.", show_default=False)] = "",
    output: Output = Format.pretty,
    verbose: Verbose = False,
) -> None:
    """List every agent that can be started, with its options."""
    from agents.cli.catalog import UnknownAgent, find_agent, known_agents
    from agents.cli.output import print_json

    if name:
        try:
            chosen = [find_agent(name)]
        except UnknownAgent as error:
            raise typer.BadParameter(str(error)) from None
    else:
        chosen = sorted(known_agents().values(), key=lambda known: known.name)
    described = [describe(known) for known in chosen]
    if output is Format.json:
        for about in described:
            print_json(about)
        return
    for about in described:
        _print(about)


def describe(known: "KnownAgent") -> dict[str, Any]:
    """An agent for programs; `error` instead of its options if its package is broken."""
    from agents.cli.catalog import config_of
    from bus.config import options
    from bus.errors import HostbusError

    about: dict[str, Any] = {"name": known.name, "package": known.package, "class": known.entry.value}
    try:
        agent = known.load()
    except HostbusError as error:
        return {**about, "error": str(error)}
    about["description"] = (inspect.getdoc(agent) or "").split("\n\n")[0].replace("\n", " ")
    about["options"] = [asdict(option) for option in options(config_of(agent))]
    return about


def _print(about: dict[str, Any]) -> None:
    """One agent: its name and what it does, then its options, one a line and wrapped to the terminal."""
    from agents.cli.output import print_line, wrapped

    from_package = "" if about["package"] == "hostbus" else f" (package {about['package']})"
    print_line(f"{about['name']}{from_package}")
    if "error" in about:
        print_line(wrapped(f"broken: {about['error']}", "  "))
    else:
        print_line(wrapped(about["description"], "  "))
        for option in about["options"]:
            for line in _option_lines(option, f"--{option['name'].replace('_', '-')}", "  "):
                print_line(line)
    print_line("")


def _option_lines(option: dict[str, Any], name: str, indent: str) -> Iterator[str]:
    """An option, and below it what is in its tables."""
    from agents.cli.output import wrapped

    default = "required" if option["required"] else f"default {_plain(option['default'])}"
    yield wrapped(f"{name}  {option['type']}, {default}", indent)
    yield wrapped(option["description"], indent + "    ")
    for inner in option["fields"]:
        yield from _option_lines(inner, inner["name"], indent + "    ")


def _plain(value: Any) -> str:
    import msgspec

    return "none" if value is None else msgspec.json.encode(value).decode()


def version(output: Output = Format.pretty, verbose: Verbose = False) -> None:
    """Show the version of hostbus, and of what it runs on."""
    import platform
    import re
    from importlib.metadata import requires
    from importlib.metadata import version as version_of

    from agents.cli.output import print_json, print_line

    required = [line for line in requires("hostbus") or () if "extra ==" not in line]
    libraries = sorted(re.split(r"[^A-Za-z0-9_.-]", line)[0] for line in required)
    about = {
        "hostbus": version_of("hostbus"),
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()}",
        **{name: version_of(name) for name in libraries},
    }
    if output is Format.json:
        print_json(about)
    else:
        for name, number in about.items():
            print_line(f"{name:<10} {number}")
