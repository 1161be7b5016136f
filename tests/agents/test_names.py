# SPDX-License-Identifier: MIT
"""The names of all metrics of the fixture host: dashboards and alerts rely on them, so they change on purpose only."""

import os
from pathlib import Path

import pytest

from agents.cpu import CpuSource
from agents.disk import DiskSource
from agents.load import LoadSource
from agents.memory import MemorySource
from agents.metric import MetricTable
from agents.network import NetworkSource

GOLDEN = Path(__file__).parent / "fixtures" / "names"


@pytest.mark.parametrize("family", [CpuSource, MemorySource, DiskSource, NetworkSource, LoadSource])
def test_the_names_of_a_family_are_as_ever_and_all_described(host, family, monkeypatch) -> None:
    if family is DiskSource:
        answer = os.statvfs_result((4096, 4096, 10, 5, 5, 10, 5, 5, 0, 255))
        source = host.source(family, statvfs=lambda _: answer)
    else:
        source = host.source(family)
    names = set(host.read(source))
    text = (host.proc / "stat").read_text()
    (host.proc / "stat").write_text("".join(_advanced(line) for line in text.splitlines(keepends=True)))
    names |= set(host.read(source))
    assert sorted(names) == (GOLDEN / f"{family.family}.txt").read_text().split()
    table = MetricTable(family.metrics)
    assert [name for name in names if table.find(name) is None] == []
    used = {table.find(name) for name in names}
    assert [metric.name for metric in family.metrics if metric not in used] == []


def _advanced(line: str) -> str:
    """A line of /proc/stat some idle ticks later."""
    words = line.split(" ")
    if line.startswith("cpu"):
        position = 5 if line.startswith("cpu ") else 4
        words[position] = str(int(words[position]) + 100)
    return " ".join(words)
