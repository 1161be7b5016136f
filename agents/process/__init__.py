# SPDX-License-Identifier: MIT
"""What groups of processes take of the host, and which single processes take most."""

from agents.process.source import ProcessSource

__all__ = ["ProcessSource"]
