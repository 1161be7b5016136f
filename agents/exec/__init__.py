# SPDX-License-Identifier: MIT
"""Metrics that commands print."""

from agents.exec.source import ExecSource

__all__ = ["ExecSource"]
