# SPDX-License-Identifier: MIT
from agents.remote.target import MonitorTarget
from tests.agents.remote.conftest import Echo, polled, until


async def test_a_host_is_polled_over_one_connection(ssh_home, memory_url) -> None:
    server = ssh_home.server()
    target = MonitorTarget(server.address, {"toy": Echo("echo 42")}, name="db1")
    async with polled(memory_url, [target]) as (source, points):
        await until(lambda: len(points.all.get("db1.toy.number", ())) >= 3)
    assert points.last("db1.toy.number") == 42.0
    assert points.last("db1.remote.up") == 1.0
    assert server.log.count("Accepted publickey") == 1
