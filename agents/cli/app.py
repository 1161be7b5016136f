# SPDX-License-Identifier: MIT
"""The command line as a whole: its commands, and what becomes of errors."""

import os
import sys
from typing import NoReturn

import typer
from typer.main import get_command

from agents.cli import configs, exits, listing, log, points, query, start
from agents.cli.archive import archive
from agents.cli.exchange import exporting, importing
from agents.cli.gaps import check, gaps
from agents.cli.history import history
from agents.cli.options import Verbose
from agents.cli.spans import diff
from agents.cli.spans import run as run_command
from agents.cli.up import up
from bus.errors import HostbusError

app = typer.Typer(
    help="Host metrics on a message bus.\n\n"
    "Begin with [bold]agent up[/bold]: it samples this machine, archives what it sees and shows it.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback()
def every_command(verbose: Verbose = False) -> None:
    """What comes before a command's name."""


up.register(app)
start.register(app)
listing.register(app)
query.register(app)
history.register(app)
points.register(app)
run_command.register(app)
diff.register(app)
gaps.register(app)
check.register(app)
exporting.register(app)
importing.register(app)
archive.register(app)
configs.register(app)


def main() -> NoReturn:
    """Run the command line of this process, and exit."""
    log.set_up()
    sys.exit(run(sys.argv[1:]))


def run(arguments: list[str]) -> int:
    """Run one command line; the exit code. An error is one line on stderr, with a traceback after ``-v``."""
    try:
        # The commands return nothing; in this mode typer returns the code of an early exit (--help: 0, Ctrl-C: 130).
        return get_command(app).main(args=arguments, prog_name="agent", standalone_mode=False) or 0
    except typer.TyperException as error:
        return _usage_error(error)
    except HostbusError as error:
        return _end(error, exits.exit_code(error))
    except (KeyboardInterrupt, typer.Abort):
        return exits.INTERRUPTED
    except BrokenPipeError:
        # Who read our output has enough of it (`| head`). Python would complain once more when it flushes stdout.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return exits.BROKEN_PIPE
    except Exception as error:  # noqa: BLE001  # the last line of defence: said in one line, shown whole with -v
        return _end(error, exits.RUN_TIME)


def _usage_error(error: typer.TyperException) -> int:
    context = getattr(error, "ctx", None)
    if type(error).__name__ == "NoArgsIsHelpError":
        typer.echo(error.format_message(), err=True)
    else:
        help_text = f"; see '{context.command_path} --help'" if context is not None else ""
        exits.complain(f"{error.format_message().rstrip('.')}{help_text}")
    return error.exit_code


def _end(error: Exception, code: int) -> int:
    if log.is_verbose():
        import traceback

        traceback.print_exception(error)
    known = isinstance(error, HostbusError | OSError | ValueError)
    exits.complain(str(error) if known else f"{type(error).__name__}: {error} (-v shows where)")
    return code
