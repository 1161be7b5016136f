# SPDX-License-Identifier: MIT
"""`agent start NAME`: one agent in the foreground.

Each agent is a command of its own, made when it is asked for: its options are the fields of its
configuration struct, so that the options, their help and `agent list` cannot differ.
"""

import inspect
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup
from typer.main import get_command

from agents.cli.options import File, Format, Output, Server, Verbose, examples

if TYPE_CHECKING:
    from agents.cli.catalog import KnownAgent
    from agents.cli.settings import Instance
    from bus.config import Option

Token = Annotated[
    str,
    typer.Option(
        "--token", envvar="HOSTBUS_TOKEN", help="Its unique name on the bus.", show_default="from NAME and host"
    ),
]
Settings = Annotated[
    list[str],
    typer.Option(
        "--set", envvar="HOSTBUS_SET", metavar="KEY=VALUE", help="Any option of the agent, value as JSON. Repeatable."
    ),
]
Once = Annotated[bool, typer.Option("--once", envvar="HOSTBUS_ONCE", help="Sample once, send, print, and end.")]
DryRun = Annotated[
    bool, typer.Option("--dry-run", envvar="HOSTBUS_DRY_RUN", help="Print what would be sent; no broker is needed.")
]


class StartGroup(TyperGroup):
    """The agents as commands: those that are installed, and the instances that the file of --config names."""

    def list_commands(self, ctx: typer.Context) -> list[str]:  # type: ignore[override]  # typer's own name for it
        """Every agent, loaded or not."""
        from agents.cli.catalog import known_agents

        return sorted(known_agents())

    def get_command(self, ctx: typer.Context, cmd_name: str) -> Any:  # type: ignore[override]
        """The command that starts one agent. A wrong name is an error that names the nearest right one."""
        from agents.cli.catalog import UnknownAgent, find_agent
        from agents.cli.settings import find

        file = ctx.meta.get(_FILE)
        try:
            known = find(cmd_name, file) if file else find_agent(cmd_name)
        except UnknownAgent as error:
            if ctx.resilient_parsing:
                return None
            raise typer.BadParameter(str(error)) from None
        return get_command(_app_of(cmd_name, known))

    def parse_args(self, ctx: typer.Context, args: list[str]) -> list[str]:  # type: ignore[override]
        """As ever; an option in front of the name gets an error that says where it belongs."""
        if args and args[0].startswith("-") and args[0] not in ctx.help_option_names:
            raise typer.BadParameter(f"the agent's name comes first: 'agent start NAME {args[0]} ...'")
        return super().parse_args(ctx, args)

    def resolve_command(self, ctx: typer.Context, args: list[str]) -> Any:  # type: ignore[override]
        """As ever; the file is looked up first, because it may name what is to be started."""
        ctx.meta[_FILE] = _file_in(args)
        return super().resolve_command(ctx, args)


_FILE = "hostbus.file"
_FIELD = "field_"
_KEYWORD = inspect.Parameter.KEYWORD_ONLY


def register(app: typer.Typer) -> None:
    """Add the command group of this file."""
    group = typer.Typer(
        cls=StartGroup,
        no_args_is_help=True,
        subcommand_metavar="NAME [OPTIONS]",
        help="Run one agent until Ctrl-C. 'agent start NAME --help' lists its options.\n\n"
        "It starts with no broker and no manager there, says what it waits for, and carries on when they come.",
        epilog=examples(
            "agent start manager --store m.db",
            "agent start cpu-source --period 5",
            "agent start sqlite-sink --metrics 'web1.#' --path a.db",
            "agent start load-source --dry-run",
        ),
    )
    app.add_typer(group, name="start")


def _file_in(arguments: Sequence[str]) -> str:
    """The value of --config among arguments that are not parsed yet, or in the environment."""
    import os

    for position, argument in enumerate(arguments):
        if argument == "--config" and position + 1 < len(arguments):
            return arguments[position + 1]
        if argument.startswith("--config="):
            return argument.removeprefix("--config=")
    return os.environ.get("HOSTBUS_CONFIG", "")


def _app_of(name: str, known: "KnownAgent") -> typer.Typer:
    """One agent's command. If its package is broken, a command that says so."""
    from agents.cli.catalog import config_of
    from bus.config import options
    from bus.errors import HostbusError

    app = typer.Typer(
        rich_markup_mode="rich", add_completion=False, context_settings={"help_option_names": ["-h", "--help"]}
    )
    try:
        agent = known.load()
        fields = options(config_of(agent))
        about = inspect.getdoc(agent) or ""
    except HostbusError as error:
        failure = error

        def broken() -> None:
            raise failure

        app.command(name, help="(cannot be loaded)")(broken)
        return app
    # The docstring's first paragraph; what comes after it is for those who read the code.
    lines = examples(f"agent start {name}", f"agent start {name} --server amqp://USER:PASSWORD@HOST/")
    app.command(name, epilog=lines, help=about.split("\n\n")[0].replace("\n", " ").replace("[", r"\["))(
        _command(name, fields)
    )
    return app


def _command(name: str, fields: "Sequence[Option]") -> Callable[..., None]:
    """A function whose parameters are the common options and one option per field."""

    def command(context: typer.Context, **given: Any) -> None:
        given["settings"] = _listed(context, "settings", "HOSTBUS_SET") or given["settings"]
        values = {}
        for field in fields:
            parameter = _FIELD + field.name
            if parameter in given:
                text = given.pop(parameter)
                listed = _listed(context, parameter, _variable(field)) if _is_list(field) else []
                values[field.name] = listed or _value(field, text)
        _start(name, values, **given)

    common = inspect.signature(_common).parameters
    taken = {f"--{key.replace('_', '-')}" for key in common} | {"--format", "--config", "--set"}
    parameters = [
        inspect.Parameter("context", _KEYWORD, annotation=typer.Context),
        *(
            inspect.Parameter(_FIELD + field.name, _KEYWORD, default=None, annotation=_option(field))
            for field in fields
            if _flag(field.name) not in taken
        ),
    ]
    parameters += [one.replace(kind=_KEYWORD) for one in common.values()]
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {one.name: one.annotation for one in parameters}
    return command


def _common(
    token: Token = "",
    server: Server = "",
    file: File = None,
    settings: Settings = [],  # noqa: B006  # a signature, never called
    once: Once = False,
    dry_run: DryRun = False,
    output: Output = Format.pretty,
    verbose: Verbose = False,
) -> None:
    """The options that `agent start` takes for every agent."""


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def _variable(field: "Option") -> str:
    return f"HOSTBUS_{field.name.upper()}"


def _option(field: "Option") -> Any:
    """The annotation of a field's option. Values stay text: the struct checks them, and says what is right."""
    flag = _flag(field.name)
    kind: Any = str
    if field.type == "bool":
        kind, flag = bool, f"{flag}/--no-{flag[2:]}"
    elif _is_list(field):
        kind = list[str]
    default = "" if field.default is None else field.default
    if isinstance(default, list | tuple):
        default = " ".join(map(str, default))
    elif isinstance(default, dict):
        default = " ".join(f"{key}={value}" for key, value in default.items())
    return Annotated[
        kind | None,
        typer.Option(
            flag,
            envvar=_variable(field),
            help=field.description.replace("[", r"\["),
            metavar=None if kind is bool else _metavar(field),
            show_default=str(default) or False,
        ),
    ]


def _is_list(field: "Option") -> bool:
    return field.type.startswith(("list", "tuple", "set", "frozenset"))


def _takes_tables(field: "Option") -> bool:
    return bool(field.fields) or field.type.startswith("dict")


def _takes_pairs(field: "Option") -> bool:
    return field.type == "dict[str, str]"


def _value(field: "Option", given: Any) -> Any:
    """What was given for a field; text that begins with ``{`` is a table, as JSON, where the field takes one.

    A table of texts may be given as ``KEY=VALUE KEY=VALUE``, too.
    """
    if isinstance(given, list):
        return [_value(field, item) for item in given]
    if isinstance(given, str) and _takes_pairs(field) and not given.lstrip().startswith("{"):
        return _pairs(_flag(field.name), given)
    if not (isinstance(given, str) and _takes_tables(field) and given.lstrip().startswith("{")):
        return given

    import msgspec

    from bus.errors import ConfigError

    try:
        return msgspec.json.decode(given)
    except msgspec.DecodeError as error:
        # Without the text, which may have a password in it.
        raise ConfigError(f"{_flag(field.name)}: what begins with {{ must be a JSON object: {error}") from None


def _pairs(flag: str, text: str) -> dict[str, str]:
    from bus.errors import ConfigError

    found = {}
    for word in text.split():
        key, equals, value = word.partition("=")
        if not key or not equals:
            raise ConfigError(f"{flag}: expected KEY=VALUE, or all as a JSON object")
        found[key] = value
    return found


def _listed(context: typer.Context, parameter: str, variable: str) -> list[Any]:
    """The items of a list that the environment gives as JSON: what begins with ``[``. Else none.

    What typer makes of a variable are words without blanks.
    """
    import os

    source = context.get_parameter_source(parameter)
    text = os.environ.get(variable, "").strip()
    if source is None or source.name != "ENVIRONMENT" or not text.startswith("["):
        return []

    import msgspec

    from bus.errors import ConfigError

    try:
        return msgspec.json.decode(text, type=list[Any])
    except msgspec.DecodeError as error:
        raise ConfigError(f"{variable}: what begins with [ must be a JSON list: {error}") from None


def _metavar(field: "Option") -> str:
    plain = field.type.removesuffix(" | None")
    if _takes_pairs(field):
        return "KEY=VALUE ..."
    if _takes_tables(field):
        return "TEXT|JSON" if "str |" in plain else "JSON"
    return {"str": "TEXT", "float": "NUMBER", "int": "INTEGER"}.get(plain, "TEXT" if _is_list(field) else plain)


def _start(
    name: str,
    fields: dict[str, Any],
    *,
    token: str,
    server: str,
    file: Any,
    settings: list[str],
    once: bool,
    dry_run: bool,
    output: Format,
    verbose: bool,
) -> None:
    """Make the agent and run it."""
    from agents.cli.settings import Settings as HostbusFile
    from bus.agent import event_loop_factory
    from bus.config import AgentConfig

    over = {key: value for key, value in fields.items() if value not in (None, [])}
    content = HostbusFile.read(file)
    instance = content.instance(name)
    over.update(_assigned(instance, settings))
    config = instance.config(over)

    def reread() -> AgentConfig:
        return HostbusFile.read(file).instance(name).config(over)

    async def run() -> None:
        from agents.cli import sampling
        from agents.cli.running import run_agent

        url = server or content.bus.server
        agent_token = token or instance.token
        if once or dry_run:
            await sampling.show(instance, agent_token, config, url, once=once, dry_run=dry_run, output=output)
            return
        agent = instance.make(agent_token, url, config)
        await run_agent(agent, reread if file else None)

    import asyncio

    with asyncio.Runner(loop_factory=event_loop_factory()) as runner:
        runner.run(run())


def _assigned(instance: "Instance", settings: Sequence[str]) -> dict[str, Any]:
    """The values of --set; fields that want text get text."""
    from agents.cli.catalog import config_of
    from agents.cli.values import assignments
    from bus.config import options

    text = {field.name for field in options(config_of(instance.agent.load())) if field.type.startswith("str")}
    return assignments(settings, text)
