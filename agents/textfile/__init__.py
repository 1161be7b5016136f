# SPDX-License-Identifier: MIT
"""Metrics that programs leave in files."""

from agents.textfile.source import TextfileSource

__all__ = ["TextfileSource"]
