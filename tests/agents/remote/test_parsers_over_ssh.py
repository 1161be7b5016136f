# SPDX-License-Identifier: MIT
"""The built-in parsers through a real SSH server, in one held shell."""

from agents.remote.registry import DEFAULT_PARSERS
from agents.remote.target import MonitorTarget
from tests.agents.remote.conftest import polled, until


async def test_this_host_is_measured_over_ssh_as_any_other(ssh_home, memory_url) -> None:
    server = ssh_home.server()
    expected = ["cpu.usage", "memory.percent", "load.1m_per_core", "load.processes.total", "network.lo.up"]
    expected += ["disk.root.total"]
    async with polled(memory_url, [MonitorTarget(server.address, dict(DEFAULT_PARSERS), name="db1")]) as (_, points):
        await until(lambda: all(f"db1.{name}" in points.all for name in expected))
