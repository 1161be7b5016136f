# SPDX-License-Identifier: MIT
"""`agent check`: dead metrics, values that are none, clocks that are wrong; and its exit code."""

import json
import math
import time

import pytest

from tests.agents.cli.archived import archive_file

SECOND = {"unit": "1", "interval": 1.0}


@pytest.fixture
def check(agent, tmp_path):
    """Checks an archive with these points, given as seconds before now and values."""

    def run(points, *arguments, metadata=None):
        now = time.time()
        series = {name: [(now - ago, value) for ago, value in rows] for name, rows in points.items()}
        about = {name: (metadata or {}).get(name, SECOND) for name in points}
        path = archive_file(tmp_path / "a.db", series, metadata=about)
        return agent("check", *arguments, "--archive", path)

    return run


def every(step, oldest, newest=0.0, value=1.0):
    count = int((oldest - newest) / step)
    return [(oldest - number * step, value) for number in range(count + 1)]


def test_all_well_is_one_line_and_0(check):
    outcome = check({"a.b": every(1, 60), "a.c": every(1, 60)})
    assert (outcome.code, outcome.out, outcome.err) == (0, "2 metrics, all well\n", "")


def test_dead_metrics_are_told_together_and_end_with_1(check):
    dead = {f"web1.cpu.core{number}": every(1, 400, 130) for number in range(35)}
    outcome = check({**dead, "web1.load.1m": every(1, 60)})
    assert outcome.code == 1
    assert outcome.out.splitlines()[0] == "36 metrics: 35 dead"
    (line,) = outcome.out.splitlines()[1:]
    assert line.startswith("dead    web1.cpu.# (35 metrics): no point for 2 min 1")
    assert line.endswith(", should come every 1 s")
    assert all(len(line) <= 80 for line in outcome.out.splitlines())


def test_a_metric_is_dead_after_k_intervals_and_what_an_archive_may_be_behind(check):
    slow = {"a.b": {"interval": 20.0}}
    assert check({"a.b": every(20, 300, 100)}, metadata=slow).code == 0
    assert check({"a.b": every(20, 300, 100)}, "--age", "4", metadata=slow).code == 1
    assert check({"a.b": every(20, 300, 100)}, "a.b", "--age", "8.5", metadata=slow).code == 0


def test_without_a_declared_interval_it_is_learned(check):
    undeclared = {"a.b": {}, "door.open": {}}
    points = {"a.b": every(1, 400, 60), "door.open": [(90_000, 1.0), (80_000, 0.0), (4000, 1.0)]}
    outcome = check(points, metadata=undeclared)
    assert outcome.code == 1
    assert outcome.out.splitlines()[0] == "2 metrics: 1 dead"
    assert "a.b: no point for 1 min" in outcome.out


def test_what_is_no_number_is_found_unless_the_metric_says_that_it_may_be(check):
    points = {
        "a.nan": [*every(1, 60, 1), (0.5, math.nan)],
        "a.inf": [*every(1, 60, 1), (0.5, -math.inf)],
        "a.wait": every(1, 60, value=math.nan),
        "a.long_ago": [(5000, math.nan), *every(1, 60)],
    }
    outcome = check(points, metadata={"a.wait": {"interval": 1.0, "nan": "no operation"}})
    assert outcome.code == 1
    assert outcome.out.splitlines() == [
        "4 metrics: 1 inf, 1 nan",
        "inf     a.inf: 1 of the last 61 points",
        "nan     a.nan: 1 of the last 61 points",
    ]


def test_points_of_the_future_are_clock_trouble(check):
    outcome = check({"a.b": [*every(1, 60), (-7200, 1.0)]})
    assert outcome.code == 1
    assert outcome.out.splitlines()[0] == "1 metric: 1 future"
    assert "in the future" in outcome.out


def test_what_was_silent_for_longer_than_a_week_is_gone_for_good(check):
    points = {"a.usb": every(1, 9 * 86400 + 60, 9 * 86400), "a.b": every(1, 60)}
    assert check(points).out == "1 metric, all well\n"
    assert check(points, "--forget", "30d").out.splitlines()[0] == "2 metrics: 1 dead"


def test_for_programs_a_summary_and_one_finding_a_line(check):
    outcome = check({"a.b": every(1, 400, 130), "a.c": every(1, 60)}, "--format", "json")
    summary, finding = map(json.loads, outcome.out.splitlines())
    assert (outcome.code, summary) == (1, {"metrics": 2, "findings": {"dead": 1}})
    assert (finding["metric"], finding["kind"]) == ("a.b", "dead")


def test_nothing_to_check_is_no_good_news(check, agent, tmp_path):
    outcome = check({"a.b": every(1, 60)}, "nobody.#")
    assert (outcome.code, outcome.out) == (1, "no metric that matches nobody.# has points\n")
    outcome = agent("check", "--archive", str(tmp_path / "none.db"))
    assert outcome.code == 1
    assert outcome.err.count("\n") == 1
