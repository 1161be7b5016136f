# SPDX-License-Identifier: MIT
"""Where the program `agent` begins: Ctrl-C is no traceback even while the commands are still being loaded."""

import sys
from typing import NoReturn

INTERRUPTED = 130
"""The same as in agents/cli/exits.py, which may not be loaded yet."""


def main() -> NoReturn:
    """Run the command line of this process, and exit."""
    try:
        from agents.cli import app

        app.main()
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
