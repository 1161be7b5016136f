# SPDX-License-Identifier: MIT
"""The README's table of metrics is what the families measure: no more, no less, and made from the code as it is.

`fixtures/names` holds the names of all metrics that each family found on a made-up host; the families' own tests hold
them against what they read there.
"""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from agents.metric import Metric, MetricTable

ROOT = Path(__file__).parents[2]
NAMES = Path(__file__).parent / "fixtures" / "names"
SECTION = re.compile(
    r"<details><summary><b>(\w+)</b> \(([\w-]+)\): (\d+) metrics</summary>\n(.*?)</details>", re.DOTALL
)
ROW = re.compile(r"^\| `HOST\.([^`]+)` \| ([^|]+) \| (.+?) \| ([^|]+) \|$", re.MULTILINE)

Row = tuple[str, str, str, str]
"""Name without the host, unit, description, platform."""


def tables() -> dict[str, list[Row]]:
    """The README's rows, by family."""
    found = {}
    for family, agent, number, body in SECTION.findall((ROOT / "README.md").read_text()):
        rows = ROW.findall(body)
        assert len(rows) == int(number) > 0, family
        assert agent == f"{family}-source"
        found[family] = rows
    return found


TABLES = tables()
LOCAL = sorted(set(TABLES) - {"remote"})


def golden(family: str) -> set[str]:
    """The names that a family found on its fixture, without the host."""
    prefix = "" if family == "remote" else f"{family}."
    return {prefix + name for name in (NAMES / f"{family}.txt").read_text().split()}


def table_of(rows: list[Row]) -> MetricTable:
    return MetricTable(Metric(name, unit, description) for name, unit, description, _ in rows)


def test_every_family_has_its_table_and_its_golden_names() -> None:
    assert set(TABLES) == {path.stem for path in NAMES.glob("*.txt")}
    assert len(TABLES) >= 12


@pytest.mark.parametrize("family", LOCAL)
def test_the_names_found_are_those_of_the_table(family: str) -> None:
    table = table_of(TABLES[family])
    names = golden(family)
    assert [name for name in sorted(names) if table.find(name) is None] == []
    used = {metric.name for name in names if (metric := table.find(name))}
    assert [name for name, *_ in TABLES[family] if name not in used] == []


def test_remote_hosts_have_their_own_metrics_and_those_of_the_local_families() -> None:
    own = {name for name, *_ in TABLES["remote"] if name.startswith("remote.")}
    assert own == golden("remote")
    others = {row for row in TABLES["remote"] if row[0] not in own}
    local = {(name, unit, description) for family in LOCAL for name, unit, description, _ in TABLES[family]}
    assert {row[:3] for row in others} - local == set()
    assert {name.split(".")[0] for name, *_ in others} == {"cpu", "memory", "disk", "network", "load", "gpu"}


@pytest.mark.parametrize("family", sorted(TABLES))
def test_every_row_has_a_unit_a_description_and_a_platform(family: str) -> None:
    for name, unit, description, platform in TABLES[family]:
        assert unit.strip(), name
        assert len(description) >= 2, name
        assert platform.strip(), name


def test_the_tables_are_made_from_the_code_as_it_is() -> None:
    done = subprocess.run([sys.executable, ".ci/docs.py", "--check"], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
