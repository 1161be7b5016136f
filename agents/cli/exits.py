# SPDX-License-Identifier: MIT
"""How `agent` ends: exit codes, and one line that says what went wrong.

0 done · 1 it went wrong at run time · 2 the command line is wrong · 69 a one-shot command cannot reach the
broker · 78 the configuration is wrong · 130 interrupted (one-shot commands; agents exit 0)
"""

import sys

from bus.errors import ConfigError, HostbusError, NotConnected

RUN_TIME = 1
USAGE = 2
UNREACHABLE = 69
BAD_CONFIG = 78
INTERRUPTED = 130
BROKEN_PIPE = 141


def exit_code(error: HostbusError) -> int:
    """The exit code that goes with an error."""
    if isinstance(error, ConfigError):
        return BAD_CONFIG
    if isinstance(error, NotConnected):
        return UNREACHABLE
    return RUN_TIME


def complain(message: str) -> None:
    """One line on stderr."""
    print(f"agent: error: {' '.join(message.split())}", file=sys.stderr)  # noqa: T201  # what the command line is for
