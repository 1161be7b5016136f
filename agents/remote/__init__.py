# SPDX-License-Identifier: MIT
"""Metrics of hosts that run no agent, over SSH."""

from agents.remote.parser import Context, MetricParser

__all__ = ["Context", "MetricParser"]
