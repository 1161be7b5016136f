# SPDX-License-Identifier: MIT
"""`agent up` says which families found nothing, and which were told nothing to do."""

import io
from importlib.metadata import entry_points

import pytest
from rich.console import Console

from agents.cli import catalog
from agents.cli.settings import Settings
from agents.cli.up import fleet, live
from agents.cli.up.report import Family, Report
from agents.cli.up.supervisor import Supervised
from agents.cli.up.watch import FamilyWatch
from agents.metric import Metric, MetricTable
from bus.frame import CONTENT_TYPE, Frame, encode_frame, group_columns
from bus.timestamp import Timestamp
from bus.transport.base import Message
from tests.agents.cli.toys import EmptySource, entries


@pytest.fixture(autouse=True)
def toys(monkeypatch):
    known = [entry for entry in entry_points(group=catalog.GROUP) if entry.name in ("load-source", "manager")]
    monkeypatch.setattr(catalog, "entry_points", lambda group: [*entries(["Empty", "Idle"]), *known])


def up(agent, *arguments):
    return agent("up", "--period", "0.5", "--duration", "2s", "--no-archive", *arguments)


def test_a_family_that_finds_nothing_is_said_once_and_not_counted(agent, monkeypatch):
    monkeypatch.setattr(fleet, "SUMMARY_EVERY_S", 0.4)
    outcome = up(agent, "--only", "load,empty")
    assert (outcome.code, outcome.err) == (0, "")
    assert outcome.out.count("empty: nothing to measure: no such thing in this machine\n") == 1
    assert " 1 of 1 families, " in outcome.out


def test_a_family_that_was_told_nothing_is_not_started(agent, monkeypatch):
    monkeypatch.setattr(fleet, "SUMMARY_EVERY_S", 0.4)
    outcome = up(agent)
    assert (outcome.code, outcome.err) == (0, "")
    assert outcome.out.count("not configured: idle ('agent list NAME' says how)\n") == 1
    assert " 1 of 1 families, " in outcome.out  # load; `empty` found nothing


def test_a_family_that_was_told_something_is_started(agent, monkeypatch, tmp_path):
    file = tmp_path / "hostbus.toml"
    file.write_text('[idle-source]\njobs = ["a", "b"]\n')
    monkeypatch.setattr(fleet, "SUMMARY_EVERY_S", 0.4)
    outcome = up(agent, "--only", "idle", "--config", str(file))
    assert outcome.code == 0
    assert " 1 of 1 families, 1 metrics" in outcome.out


def test_asking_for_a_family_that_was_told_nothing_is_an_error_that_says_what_it_lacks(agent):
    outcome = up(agent, "--only", "idle")
    assert (outcome.code, outcome.err.count("\n")) == (78, 1)
    assert "idle-source: no jobs; name them under [idle-source] jobs = [...]" in outcome.err


def test_the_live_table_has_a_line_for_what_is_absent_and_no_row(memory_url):
    source = EmptySource("source-empty", memory_url)
    source.absence.begin(Timestamp(10**18), "no such thing in this machine, " + "which is a long story " * 5)
    runner = Supervised("empty-source", lambda: source)
    runner.agent, runner.state = source, "working"
    watch = FamilyWatch("empty", MetricTable(EmptySource.metrics))
    family = Family(watch=watch, runner=runner, instance=Settings().instance("empty-source"))
    report = Report(families=[family], unconfigured={"idle": "no jobs"}, archive=None, where="memory://up")
    screen = io.StringIO()
    Console(file=screen, width=80).print(live.picture(report, 80))
    lines = screen.getvalue().splitlines()
    assert [line[:60] for line in lines if line.startswith("empty")] == [
        "empty: nothing to measure: no such thing in this machine, which is a long story"[:60]
    ]
    assert any(line.startswith("not configured: idle") for line in lines)
    assert max(map(len, lines)) <= 80


def frame_message(values):
    frame = Frame(
        groups=tuple(group_columns([(name, [1], [value]) for name, value in values.items()])), epoch=1, sequence=0
    )
    return Message(body=encode_frame(frame), exchange="hostbus.data", routing_key="web1.toy", content_type=CONTENT_TYPE)


def test_a_glance_at_many_devices_is_their_sum_or_the_highest():
    watch = FamilyWatch(
        "toy", MetricTable([Metric("{device}.heat", "Cel", "how hot"), Metric("{device}.a.b", "W", "")])
    )
    values = {"x.heat": 30.0, "y.heat": 50.0, "z.heat": float("nan"), "lo.heat": 900.0, "x.a.b": 1.0, "plain": 7.0}
    watch.on_data(frame_message({f"web1.toy.{name}": value for name, value in values.items()}))
    names = ("*.heat", "max:*.heat", "*.a.b", "x.*.b", "plain", "*.cold", "absent", "*")
    assert [watch.value(name) for name in names] == [80.0, 50.0, 1.0, 1.0, 7.0, None, None, 7.0]
    assert [watch.unit_of(name) for name in ("max:*.heat", "x.heat", "*.a.b", "*.cold")] == ["Cel", "Cel", "W", ""]
    watch.on_data(frame_message({"web1.toy.new.heat": 60.0}))
    assert watch.value("max:*.heat") == 60.0
    assert live.headline(watch, 60).plain.startswith("plain 7")


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (40.25, "Cel", "40.2 °C"),
        (3.0, "W", "3.0 W"),
        (1200.0, "1/min", "1200 /min"),
        (5.0, "1", "5"),
        (2e9, "Hz", "2.00 GHz"),
    ],
)
def test_values_have_units_for_people(value, unit, text):
    assert live.with_unit(value, unit) == text
