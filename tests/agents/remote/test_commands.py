# SPDX-License-Identifier: MIT
import logging
import math
from collections.abc import Mapping
from typing import Any

import pytest

from agents.base.absent import NothingFound
from agents.base.parts import Parts
from agents.metric import Metric
from agents.remote.commands import CORE_COUNT, Command, HostCommands
from agents.remote.parser import Context, MetricParser
from agents.remote.script import Answer
from bus.timestamp import Timestamp
from tests.agents.remote.conftest import Echo

TICK = Timestamp(1_700_000_000_000_000_000)


class Fake(MetricParser):
    """Returns, or raises, what it is given."""

    family = "fake"
    command = "fake"

    def __init__(self, result: Any = None) -> None:
        self.result: Any = result if result is not None else {"x": 1.0}
        self.contexts: list[tuple[str, int, Timestamp, float]] = []

    def parse(self, output: str, context: Context) -> Mapping[str, float]:
        self.contexts.append((context.host, context.core_count, context.tick, context.now_s))
        context.state["calls"] = context.state.get("calls", 0) + 1
        if isinstance(self.result, Exception):
            raise self.result
        if self.result == "calls":
            return {"calls": context.state["calls"]}
        result: Mapping[str, float] = self.result
        return result


class Host:
    """A host's commands, on a clock of the test's own."""

    def __init__(self, parsers: Mapping[str, MetricParser], core_count: int | None = 4) -> None:
        self.now_s = 100.0
        self.slots: dict[str, int] = {}
        self.parts = Parts("source-remote")
        self.commands = HostCommands(
            "db1", parsers, core_count, parts=self.parts, due=self.due, clock=lambda: self.now_s
        )

    def due(self, part: str, every_s: float) -> bool:
        slot = int(self.now_s // every_s)
        fresh = self.slots.get(part) != slot
        self.slots[part] = slot
        return fresh

    def names(self) -> list[str]:
        return [command.name for command in self.commands.plan()]

    def read(self, name: str, output: str = "", exit_code: int = 0) -> dict[str, float]:
        return self.commands.read([Command(name, "")], [Answer(output, exit_code, self.now_s)], TICK)


def test_values_are_called_by_host_and_family() -> None:
    assert Host({"a": Echo("echo")}).read("a", " 42\n") == {"db1.toy.number": 42.0}


def test_a_parser_knows_its_host_its_cores_and_the_time() -> None:
    fake = Fake()
    host = Host({"a": fake})
    host.read("a")
    assert fake.contexts == [("db1", 4, TICK, 100.0)]


def test_a_parser_keeps_its_state_for_its_host() -> None:
    fake = Fake("calls")
    first, second = Host({"a": fake}), Host({"a": fake})
    assert [first.read("a"), first.read("a"), second.read("a")] == [
        {"db1.fake.calls": 1.0},
        {"db1.fake.calls": 2.0},
        {"db1.fake.calls": 1.0},
    ]


def test_what_fails_alone_within_a_parser_counts_among_the_failures_of_the_source(caplog) -> None:
    class Fans(MetricParser):
        family = "fans"
        command = "fans"

        def parse(self, output: str, context: Context) -> Mapping[str, float]:
            values = context.parts.each("fan", output.split(), float)
            return dict(zip("abc", values, strict=False))

    host = Host({"fans": Fans()})
    assert host.read("fans", "1 x 3") == {"db1.fans.a": 1.0, "db1.fans.b": 3.0}
    host.read("fans", "1 x 3")
    host.read("fans", "1 2 3")
    assert host.parts.errors == 2
    assert caplog.text.count("db1: fans: fan failed") == 1


def test_the_host_is_asked_for_its_cores_once_per_session() -> None:
    fake = Fake()
    host = Host({"a": fake}, core_count=None)
    plan = host.commands.plan()
    assert plan == [Command("", CORE_COUNT), Command("a", "fake")]
    host.commands.read(plan, [Answer("16\n", 0, 0.0), Answer("", 0, 0.0)], TICK)
    assert fake.contexts[0][1] == 16
    assert host.names() == ["a"]
    host.commands.on_session()
    assert host.names() == ["", "a"]


@pytest.mark.parametrize("output", ["", "many", "-1", "0", "4\n4", "999999", "¹"])
def test_a_number_of_cores_that_makes_no_sense_is_one(output: str) -> None:
    fake = Fake()
    host = Host({"a": fake}, core_count=None)
    host.commands.read(host.commands.plan(), [Answer(output, 0, 0.0), Answer("", 0, 0.0)], TICK)
    assert fake.contexts[0][1] == 1
    assert host.names() == ["a"]


def test_a_number_of_cores_that_was_given_is_never_asked_for() -> None:
    host = Host({"a": Fake()})
    host.commands.on_session()
    assert host.names() == ["a"]


def test_asking_for_the_cores_is_given_up_if_that_hangs() -> None:
    host = Host({"a": Fake()}, core_count=None)
    host.commands.hung(host.commands.plan()[0])
    host.commands.on_session()
    assert host.names() == ["a"]


def test_a_dear_command_is_run_as_often_as_its_parser_says() -> None:
    host = Host({"a": Echo("echo", every_s=30.0), "b": Fake()})
    seen = []
    for _ in range(8):
        seen.append(host.names())
        host.now_s += 10
    assert [len(names) for names in seen] == [2, 1, 2, 1, 1, 2, 1, 1]


@pytest.mark.parametrize(
    "nonsense",
    [
        ValueError("no number"),
        KeyError("x"),
        ZeroDivisionError("x"),
        TypeError("x"),
        AttributeError("x"),
        RuntimeError("x"),
        {"x": "many"},
        {"x": None},
        {"x": 10**400},
        [1, 2],
        7,
    ],
)
def test_a_parser_that_fails_costs_its_own_values_and_one_line_in_the_log(nonsense: Any, caplog) -> None:
    host = Host({"bad": Fake(nonsense), "good": Echo("echo")})
    plan = host.commands.plan()
    for _ in range(3):
        answers = [Answer("1", 0, 0.0), Answer("2", 0, 0.0)]
        assert host.commands.read(plan, answers, TICK) == {"db1.toy.number": 2.0}
    assert len([record for record in caplog.records if "db1: bad" in record.message]) == 1


def test_a_failure_tells_the_exit_code_and_the_command(caplog) -> None:
    Host({"a": Fake(ValueError("no number"))}).read("a", "", 2)
    assert "no number (exit code 2 of: fake)" in caplog.text


def test_an_output_counts_whatever_the_exit_code() -> None:
    assert Host({"a": Echo("echo")}).read("a", "42", 1) == {"db1.toy.number": 42.0}
    assert Host({"a": Echo("echo")}).read("a", "42", 127) == {"db1.toy.number": 42.0}


@pytest.mark.parametrize("exit_code", [126, 127])
def test_a_command_that_is_not_there_is_tried_again_in_a_minute_and_said_once(exit_code: int, caplog) -> None:
    caplog.set_level(logging.INFO)
    host = Host({"gpu": Echo("nvidia-smi"), "b": Fake()})
    for _ in range(3):
        assert "gpu" in host.names()
        host.read("gpu", "\n", exit_code)
        assert host.names() == ["b"]
        assert host.commands.aside == ["gpu"]
        host.now_s += 59.9
        assert host.names() == ["b"]
        host.now_s += 0.1
    assert host.commands.aside == []
    assert caplog.text.count("nvidia-smi") == 1
    assert host.read("gpu", "1") == {"db1.toy.number": 1.0}
    assert "something to measure now" in caplog.text


def test_a_parser_that_finds_nothing_is_tried_again_in_a_minute(caplog) -> None:
    caplog.set_level(logging.INFO)
    host = Host({"gpu": Fake(NothingFound("no GPU"))})
    for _ in range(2):
        host.read("gpu", "no devices")
        assert host.names() == []
        host.now_s += 60
        assert host.names() == ["gpu"]
    assert caplog.text.count("no GPU") == 1
    assert host.parts.errors == 0


def test_a_command_that_hangs_each_time_is_tried_ever_more_seldom() -> None:
    host = Host({"df": Fake(), "b": Fake()})
    spans = []
    for _ in range(7):
        df = next(command for command in host.commands.plan() if command.name == "df")
        spans.append(host.commands.hung(df))
        assert host.names() == ["b"]
        host.now_s += spans[-1]
    assert spans == [60, 120, 240, 480, 960, 1920, 1920]
    host.read("df", "1")
    assert host.commands.hung(Command("df", "fake")) == 60


def test_answers_that_did_not_come_cost_only_their_values() -> None:
    host = Host({"a": Echo("echo"), "b": Fake()})
    assert host.commands.read(host.commands.plan(), [Answer("1", 0, 0.0)], TICK) == {"db1.toy.number": 1.0}


def test_what_is_not_a_number_is_a_value() -> None:
    assert math.isnan(Host({"a": Echo("echo")}).read("a", "nan")["db1.toy.number"])


class Tabled(Fake):
    metrics = (Metric("x", "B", "bytes"), Metric("{disk}.y", "s", "seconds", every_s=60.0))
    every_s = 20.0


def test_metrics_are_described_by_their_parsers_and_parsers_may_share_a_family() -> None:
    commands = Host({"a": Tabled(), "b": Echo("echo"), "c": Echo("echo", "other", every_s=5.0)}).commands
    x, y, number = commands.describe("fake", "x"), commands.describe("fake", "sda.y"), commands.describe("toy", "n")
    assert (x and x.unit, x and x.every_s, y and y.every_s) == ("B", 20.0, 60.0)
    assert (number and number.description) == "a number"
    assert commands.describe("fake", "z") is None
    assert commands.describe("other", "x") is None


def test_a_long_command_is_shortened_in_the_log() -> None:
    assert str(Command("df", "df -k")) == "df (df -k)"
    assert str(Command("", "x" * 200)) == f"the number of cores ({'x' * 80}...)"
