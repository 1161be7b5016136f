# SPDX-License-Identifier: MIT
"""Metrics of hosts that run no agent, over SSH."""

from agents.remote.parser import Context, MetricParser
from agents.remote.registry import DEFAULT_PARSERS, register_host_parsers, register_parsers
from agents.remote.source import RemoteSource
from agents.remote.target import MonitorTarget

__all__ = [
    "DEFAULT_PARSERS",
    "Context",
    "MetricParser",
    "MonitorTarget",
    "RemoteSource",
    "register_host_parsers",
    "register_parsers",
]
