# SPDX-License-Identifier: MIT
"""What comes over a shell is what the families themselves would read on that host: names, values, metadata."""

import os
from pathlib import Path

import pytest

import agents.load
from agents.cpu import CpuSource
from agents.disk import DiskSource
from agents.host import HostSource
from agents.load import LoadSource
from agents.memory import PAGE_BYTES, MemorySource
from agents.metric import MetricTable
from agents.network import NetworkSource
from agents.remote.registry import DEFAULT_PARSERS
from tests.agents.remote.shell import FixtureShell

GOLDEN = Path(__file__).parents[1] / "fixtures" / "names"

STATVFS = os.statvfs_result((4096, 4096, 1000, 400, 300, 100, 75, 75, 0, 255))
DF = """
case $1 in
-kP) figures="4000 2400 1200 67%" ;;
-iP) figures="100 25 75 25%" ;;
esac
shift
echo "Filesystem 1024-blocks Used Available Capacity Mounted on"
for point; do echo "/dev/x $figures $point" | tr '?' ' '; done
"""

LATER = {
    "stat": [
        ("cpu  10000 200 3000 80000", "cpu  10060 210 3020 80110"),
        ("cpu0 4000 100 1000 30000", "cpu0 4060 110 1020 30010"),
        ("cpu1 3000 50 1000 25000", "cpu1 3000 50 1000 25100"),
        ("cpu3 3000 50 1000 25000", "cpu3 3001 50 1000 25099"),
        ("intr 5000000", "intr 5000300"),
        ("ctxt 9000000", "ctxt 9000500"),
    ],
    "vmstat": [("pswpin 1000", "pswpin 1010"), ("pswpout 2000", "pswpout 2003")],
    "pressure/io": [("total=2000000", "total=2100000")],
    "net/dev": [("eth0: 5000000   40000", "eth0: 5003000   40006")],
    "diskstats": [("sda 1000 20 80000 4000 500", "sda 1010 20 80800 4030 500")],
}
"""What happens between two readings."""

FAMILIES = [CpuSource, MemorySource, LoadSource, NetworkSource, DiskSource]


@pytest.fixture
def shell(host) -> FixtureShell:
    made = FixtureShell(host)
    pages = 100
    (host.proc / "self/stat").write_text(f"7 (cat) R 1 7 7{' 0' * 16} {pages * PAGE_BYTES} 80 1844\n")
    (host.proc / "self/statm").write_text(f"{pages} 50 40 5 0 30 0\n")
    made.program("df", DF)
    made.program("who", "echo 'root tty1 2026-01-01 10:00'; echo 'joe pts/0 2026-01-01 10:01 (::1)'")
    return made


def left_out(family: str, name: str) -> bool:
    """Names that no parser gives: a file system's `responds`, because one that hangs is the session's to notice;
    and TCP states, which would take a line for each connection."""
    if family == "network":
        return name.startswith("tcp.") and name != "tcp.time_wait"
    return family == "disk" and name.endswith(".responds")


def by_parsers(shell: FixtureShell, family: str) -> dict[str, dict[str, float]]:
    """What each parser of a family gives now."""
    readings: dict[str, dict[str, float]] = {}
    now_s = shell.host.now_s
    for name, parser in DEFAULT_PARSERS.items():
        if parser.family == family:
            shell.host.now_s = now_s
            readings[name] = shell.ask(parser)
    return readings


def by_family(shell: FixtureShell, source: HostSource) -> dict[str, float]:
    """What a family reads now, but for what no parser gives."""
    now_s = shell.host.now_s
    reading = shell.host.read(source)
    shell.host.now_s = now_s
    return {name: value for name, value in reading.items() if not left_out(source.family, name)}


def merged(readings: dict[str, dict[str, float]]) -> dict[str, float]:
    """All values, of which no two have one name."""
    found = {name: value for reading in readings.values() for name, value in reading.items()}
    assert len(found) == sum(len(reading) for reading in readings.values())
    return found


@pytest.mark.parametrize("family", FAMILIES)
def test_the_parsers_give_what_the_family_reads_on_the_same_host(family, host, shell, monkeypatch) -> None:
    monkeypatch.setattr(agents.load, "count_users", lambda: 2)
    source = host.source(family, **({"statvfs": lambda _: STATVFS} if family is DiskSource else {}))
    first = by_family(shell, source)
    assert merged(by_parsers(shell, family.family)) == pytest.approx(first, nan_ok=True)
    host.now_s = 2000.0
    for file, changes in LATER.items():
        for old, new in changes:
            host.replace(file, old, new)
    second = by_family(shell, source)
    readings = by_parsers(shell, family.family)
    found = merged(readings)
    counted = {name for name in found if name.startswith("processes.")}  # by the family every 10 s only
    expected = second | {name: first[name] for name in counted}
    assert found == pytest.approx(expected, nan_ok=True)

    golden = (GOLDEN / f"{family.family}.txt").read_text().split()
    assert sorted(found) == [name for name in golden if not left_out(family.family, name)]
    table = MetricTable(family.metrics)
    assert any(value > 0 and table.find(name).scope == "last" for name, value in found.items())
    for name, reading in readings.items():
        metrics = DEFAULT_PARSERS[name].metrics
        used = {MetricTable(metrics).find(found_name) for found_name in reading}
        assert name == "disk_network" or used == set(metrics)


def test_every_metric_of_the_families_comes_from_one_parser_or_is_left_out_on_purpose() -> None:
    for family in FAMILIES:
        given: list[str] = []
        for name, parser in DEFAULT_PARSERS.items():
            if parser.family == family.family and name != "disk_network":  # which shares those of "disk"
                assert all(metric in family.metrics for metric in parser.metrics)
                given += [metric.name for metric in parser.metrics]
        expected = [metric.name for metric in family.metrics if not left_out(family.family, metric.name)]
        assert sorted(given) == sorted(expected)
