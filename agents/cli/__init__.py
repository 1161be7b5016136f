# SPDX-License-Identifier: MIT
"""The command `agent`. Every command imports what it needs when it runs, so that an agent stays small."""

from agents.cli.entry import main

__all__ = ["main"]
