# SPDX-License-Identifier: MIT
"""`agent diff`: the spans of an archive, and two of them side by side."""

import json

import pytest

from bus.archive import Event
from tests.agents.cli.archived import NS, archive_file

BEGIN = 1_795_000_000
POWER, LOAD = "web1.sensors.package-0.power", "web1.load.1m"
METADATA = {POWER: {"unit": "W", "interval": 1.0}, LOAD: {"unit": "1", "interval": 1.0}}


def span(label, start, end, *, patterns=("#",), host="web1", code=0):
    metadata = {"argv": ["make"], "exit_code": code, "metrics": list(patterns)}
    return Event(
        time=(BEGIN + start) * NS, end=(BEGIN + end) * NS, label=label, source="run", host=host, metadata=metadata
    )


def every_second(start, end, value):
    return [(BEGIN + second, value) for second in range(start, end + 1)]


@pytest.fixture
def path(tmp_path):
    points = {
        POWER: [*every_second(0, 100, 50.0), *every_second(101, 300, 60.0)],
        LOAD: [*every_second(0, 100, 1.0), *every_second(101, 150, 4.0)],
    }
    spans = [
        span("old one", 0, 100),
        span("new one", 100, 140, code=2),
        span("new one", 100, 200),
        span("other", 200, 300, patterns=[POWER]),
        span("before time", -5000, -4000),
    ]
    return archive_file(tmp_path / "a.db", points, metadata=METADATA, spans=spans)


def test_without_labels_all_spans_are_listed_and_those_of_one_label_numbered(agent, path):
    outcome = agent("diff", "--archive", path)
    assert (outcome.code, outcome.err) == (0, "")
    lines = outcome.out.splitlines()
    assert [line.split("  ")[0].strip() for line in lines] == [
        *("label", "before time", "old one", "new one#1", "new one#2", "other")
    ]
    assert lines[3].split()[-3:] == ["40", "s", "2"]
    told = [json.loads(line) for line in agent("diff", "--archive", path, "--format", "json").out.splitlines()]
    assert (told[2]["label"], told[2]["number"], told[2]["duration"], told[2]["exit_code"]) == ("new one", 1, 40.0, 2)


def test_two_spans_side_by_side_with_what_changed_most_first(agent, path):
    outcome = agent("diff", "old one", "new one", "--archive", path)
    assert (outcome.code, outcome.err) == (0, "")
    lines = [line.rstrip() for line in outcome.out.splitlines()]
    assert lines[0].startswith("old  old one, 20")
    assert lines[1].startswith("new  new one#2, 20")
    assert lines[1].endswith(", exit code 0")
    assert [" ".join(line.split()) for line in lines[3:]] == [
        "old new difference change",
        "duration 1 min 40 s 1 min 40 s 0 ms +0.0 %",
        f"{LOAD} (1)",
        "mean 1 4 +3 +300.0 %",
        "max 1 4 +3 +300.0 %",
        "integral 100 s 200 s +100 s +100.0 %",
        "coverage 100 % 50 %",
        f"{POWER} (W)",
        "mean 50 W 60 W +10 W +20.0 %",
        "max 50 W 60 W +10 W +20.0 %",
        "integral 5 kJ 6 kJ +1 kJ +20.0 %",
    ]
    assert all(len(line) <= 80 for line in lines)


def test_for_programs_one_metric_a_line_and_only_those_of_m(agent, path):
    arguments = ("--archive", path, "--format", "json")
    (told,) = [
        json.loads(line) for line in agent("diff", "old one", "new one#2", "-m", "#.power", *arguments).out.splitlines()
    ]
    assert told["metric"] == POWER
    assert (told["old"]["mean"], told["new"]["mean"]) == (50.0, 60.0)
    assert told["integral"] == {"difference": 1000.0, "ratio": 1.2}
    told = [json.loads(line) for line in agent("diff", "old one", "other", *arguments).out.splitlines()]
    assert [(pair["metric"], pair["new"] is None) for pair in told] == [(POWER, False), (LOAD, True)]


def test_metrics_of_two_hosts_are_compared_by_what_follows_the_host(agent, tmp_path):
    points = {"web1.load.1m": every_second(0, 50, 1.0), "web2.load.1m": every_second(0, 50, 3.0)}
    metadata = {name: {"unit": "1", "interval": 1.0} for name in points}
    spans = [
        span("a", 0, 50, patterns=["web1.load.1m"]),
        span("b", 0, 50, patterns=["web2.load.1m"], host="web2"),
    ]
    path = archive_file(tmp_path / "two.db", points, metadata=metadata, spans=spans)
    told = json.loads(agent("diff", "a", "b", "--archive", path, "--format", "json").out)
    assert (told["metric"], told["mean"]["ratio"]) == ("load.1m", 3.0)


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (
            ("old on", "other"),
            1,
            "no span is called 'old on'; did you mean 'old one'? the newest: other, new one, old one",
        ),
        (("new one#3", "other"), 1, "'new one' has no number 3: it has 2, counted from 1"),
        (("before time", "other"), 1, "has no points of # in the archive"),
        (("old one", "other", "-m", "nobody.#"), 1, "has no points of nobody.# in the archive"),
        (("old one",), 2, "two labels, or none for a list of all"),
    ],
)
def test_what_cannot_be_compared_is_one_line(agent, path, arguments, code, said):
    outcome = agent("diff", *arguments, "--archive", path)
    assert outcome.code == code
    assert said in outcome.err
    assert outcome.err.count("\n") == 1
    assert outcome.out == ""


def test_an_archive_without_spans_says_who_records_them(agent, tmp_path):
    path = archive_file(tmp_path / "none.db", {LOAD: every_second(0, 5, 1.0)})
    assert agent("diff", "--archive", path).err == "no span is recorded; 'agent run' records them\n"
    assert "none is recorded; 'agent run' records them" in agent("diff", "a", "b", "--archive", path).err


def test_means_whose_quotient_is_no_float_are_compared_and_a_label_does_nothing_to_the_terminal(agent, tmp_path):
    points = {
        "web1.tiny": [*every_second(0, 10, 1e200), *every_second(11, 20, 1e-200)],
        "web1.huge": [*every_second(0, 10, 1e-200), *every_second(11, 20, 1e200)],
        "web1.inf": [*every_second(0, 10, 1.0), *every_second(11, 20, float("inf"))],
        "web1.same": every_second(0, 20, -1.0),
        "web1.twice": [*every_second(0, 10, -1.0), *every_second(11, 20, -2.0)],
    }
    about = {name: {"interval": 1.0} for name in points}
    spans = [span("a", 1, 10), span("b\x1b[31m", 11, 20)]
    path = archive_file(tmp_path / "a.db", points, metadata=about, spans=spans)
    outcome = agent("diff", "a", "b\x1b[31m", "--archive", path)
    assert (outcome.code, outcome.err) == (0, "")
    order = [line for line in outcome.out.splitlines() if line.startswith("web1.")]
    assert order == ["web1.inf", "web1.huge", "web1.tiny", "web1.twice", "web1.same"]
    assert "\x1b" not in outcome.out + agent("diff", "--archive", path).out
    told = [
        json.loads(line)
        for line in agent("diff", "a", "b\x1b[31m", "--archive", path, "--format", "json").out.splitlines()
    ]
    assert [one["metric"] for one in told] == order
