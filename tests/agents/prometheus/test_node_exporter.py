# SPDX-License-Identifier: MIT
"""Debian's prometheus-node-exporter, scraped onto a bus and compared with what the host itself says."""

import asyncio
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agents.prometheus.source import PrometheusSource
from bus.subscription import Subscriber
from tests.services.node_exporter import NoNodeExporter, node_exporter

PERIOD_S = 1.0
"""Its scrape may take 0.9 of it, which has to be enough on a machine that is busy."""


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """Where a node_exporter answers. In CI its absence is a failure."""
    try:
        with node_exporter("--no-collector.systemd") as where:
            yield where
    except NoNodeExporter as error:
        if os.environ.get("CI"):
            pytest.fail(str(error), pytrace=False)
        pytest.skip(str(error))


def source(network: str, address: str, **settings: object) -> PrometheusSource:
    endpoint = {"url": f"http://{address}", "name": "node", **settings}
    config = PrometheusSource.Config.load({"prefix": "web1", "period": PERIOD_S, "endpoints": [endpoint]})
    return PrometheusSource("source-prometheus", network, config=config)


class Seen:
    """The last points of all metrics, by their names behind ``web1.prometheus.node.``."""

    def __init__(self, points: Subscriber) -> None:
        self._points = points
        self.values: dict[str, float] = {}
        self.times: dict[str, list[int]] = {}

    async def until(self, wanted: str, number: int = 1) -> None:
        """Wait for so many points of one metric."""
        if len(self.times.get(wanted, [])) >= number:
            return
        async with asyncio.timeout(60):
            async for chunk in self._points.chunks():
                name = chunk.metric.removeprefix("web1.prometheus.node.")
                self.values[name] = chunk.values[-1]
                self.times.setdefault(name, []).extend(chunk.times)
                if len(self.times.get(wanted, [])) >= number:
                    return


@pytest.fixture
async def scraped(network: str, address: str) -> tuple[dict[str, float], dict[str, Any], dict[str, list[int]]]:
    """Values, metadata and times of two scrapes."""
    async with Subscriber(["web1.#"], network) as points, source(network, address):
        seen = Seen(points)
        await seen.until("promhttp_metric_handler_requests_total.code_200", 2)
        metadata = await points.get_metrics("web1\\.prometheus\\.node\\..*")
    return (
        seen.values,
        {name.removeprefix("web1.prometheus.node."): about for name, about in metadata.items()},
        seen.times,
    )


def meminfo(field: str) -> int:
    found = re.search(rf"^{field}: +(\d+) kB$", Path("/proc/meminfo").read_text(), re.MULTILINE)
    assert found is not None
    return int(found[1]) * 1024


async def test_what_it_says_is_what_the_host_says(scraped) -> None:
    values, _, times = scraped
    assert values["up"] == 1.0
    assert values["samples"] > 200
    assert values["node_memory_MemTotal_bytes"] == meminfo("MemTotal")
    assert values["node_memory_MemAvailable_bytes"] == pytest.approx(
        meminfo("MemAvailable"), abs=0.1 * meminfo("MemTotal")
    )
    assert values["node_load15"] == pytest.approx(os.getloadavg()[2], abs=0.5)
    boot = int(re.search(r"^btime (\d+)$", Path("/proc/stat").read_text(), re.MULTILINE)[1])  # type: ignore[index]
    assert values["node_boot_time_seconds"] == pytest.approx(boot, abs=2)
    cores = {name for name in values if re.fullmatch(r"node_cpu_seconds_total\.cpu_\d+\.mode_idle", name)}
    assert len(cores) == Path("/proc/stat").read_text().count("\ncpu")
    assert values["node_network_mtu_bytes.device_lo"] == int(Path("/sys/class/net/lo/mtu").read_text())
    assert all(stamp % round(PERIOD_S * 1e9) == 0 for stamps in times.values() for stamp in stamps)


async def test_its_metadata_are_on_the_bus(scraped) -> None:
    _, metadata, _ = scraped
    idle = metadata["node_cpu_seconds_total.cpu_0.mode_idle"]
    assert (idle["unit"], idle["quantity"], idle["interval"]) == ("s", "time", PERIOD_S)
    assert (idle["type"], idle["labels"]) == ("counter", {"cpu": "0", "mode": "idle"})
    assert "Seconds the" in idle["description"]
    assert metadata["node_memory_MemTotal_bytes"]["unit"] == "B"
    machine = [about["labels"] for about in metadata.values() if about.get("name") == "node_uname_info"]
    assert [(labels["nodename"], labels["release"]) for labels in machine] == [
        (os.uname().nodename, os.uname().release)
    ]


async def test_all_that_it_says_gets_a_name_of_its_own(scraped) -> None:
    values, metadata, _ = scraped
    series = [(about["name"], *sorted(about["labels"].items())) for about in metadata.values() if "labels" in about]
    assert len(set(series)) == len(series) >= values["samples"]
    assert len(values) >= values["samples"] + 3


async def test_it_goes_and_comes_back_and_the_points_with_it(network: str) -> None:
    async with Subscriber(["web1.#"], network) as points:
        seen = Seen(points)
        with node_exporter("--collector.disable-defaults", "--collector.loadavg") as where:
            running = source(network, where)
            await running.__aenter__()
            await seen.until("node_load1")
        try:
            seen.times.clear()
            while seen.values["up"]:
                await seen.until("up", len(seen.times.get("up", [])) + 1)
            seen.times.clear()
            with node_exporter("--collector.disable-defaults", "--collector.loadavg", f"--web.listen-address={where}"):
                await seen.until("node_load1")
        finally:
            await running.__aexit__(None, None, None)
    assert running.health.failed == 0
