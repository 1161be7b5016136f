# SPDX-License-Identifier: MIT
import re

import pytest

import agents.remote.registry as module
from agents.remote.parser import Context, MetricParser
from agents.remote.registry import DEFAULT_PARSERS, MORE_PARSERS, ParserRegistry
from bus.errors import ConfigError


class Toy(MetricParser):
    family = "toy"
    command = "echo 1"

    def parse(self, output: str, context: Context) -> dict[str, float]:
        return {"number": float(output)}


A, B, C = Toy(), Toy(), Toy()


def test_a_host_gets_the_parsers_that_come_with_the_source_but_for_those_that_are_dear() -> None:
    registry = ParserRegistry()
    assert registry.parsers_for("db1") == dict(DEFAULT_PARSERS)
    assert "nvidia_smi" not in DEFAULT_PARSERS
    assert registry.find_parser("nvidia_smi") is MORE_PARSERS["nvidia_smi"]


def test_a_parser_is_added_or_replaced_for_all_hosts() -> None:
    registry = ParserRegistry({"cpu": A})
    registry.register_parsers({"cpu": B, "toy": C})
    assert registry.parsers_for("db1") == {"cpu": B, "toy": C}
    assert registry.find_parser("cpu") is B


def test_what_is_known_by_name_only_runs_everywhere_once_it_is_registered() -> None:
    registry = ParserRegistry({}, {"dear": A})
    assert registry.parsers_for("db1") == {}
    registry.register_parsers({"dear": registry.find_parser("dear")})
    assert registry.parsers_for("db1") == {"dear": A}


def test_a_parser_for_one_host_is_for_no_other() -> None:
    registry = ParserRegistry({"cpu": A})
    registry.register_host_parsers("db1", {"toy": B})
    assert registry.parsers_for("db1") == {"cpu": A, "toy": B}
    assert registry.parsers_for("db10") == registry.parsers_for("adb1") == {"cpu": A}


def test_a_pattern_matches_the_whole_name() -> None:
    registry = ParserRegistry({"cpu": A})
    registry.register_host_parsers(re.compile(r"db\d+"), {"toy": B})
    assert "toy" in registry.parsers_for("db12")
    assert "toy" not in registry.parsers_for("db12.example.com")
    assert "toy" not in registry.parsers_for("xdb12")


def test_a_name_is_no_pattern() -> None:
    registry = ParserRegistry({})
    registry.register_host_parsers("db.1", {"toy": A})
    assert registry.parsers_for("db.1") == {"toy": A}
    assert registry.parsers_for("dbx1") == {}


def test_the_case_of_a_host_does_not_matter() -> None:
    registry = ParserRegistry({})
    registry.register_host_parsers("DB1", {"a": A})
    registry.register_host_parsers(re.compile("DB."), {"b": B})
    assert registry.parsers_for("db1") == {"a": A, "b": B}


def test_of_two_registrations_the_later_one_counts() -> None:
    registry = ParserRegistry({"cpu": A})
    registry.register_host_parsers("db1", {"cpu": B})
    registry.register_host_parsers(re.compile("db."), {"cpu": C})
    assert registry.parsers_for("db1") == {"cpu": C}
    registry.register_host_parsers("db1", {"cpu": B})
    assert registry.parsers_for("db1") == {"cpu": B}


def test_what_is_said_of_a_host_counts_before_what_is_said_of_all() -> None:
    registry = ParserRegistry({"cpu": A})
    registry.register_host_parsers("db1", {"cpu": B})
    registry.register_parsers({"cpu": C})
    assert registry.parsers_for("db1") == {"cpu": B}
    assert registry.parsers_for("db2") == {"cpu": C}


def test_none_takes_a_parser_from_a_host_until_a_later_one_gives_it_back() -> None:
    registry = ParserRegistry({"cpu": A, "disk": B})
    registry.register_host_parsers(re.compile("db."), {"disk": None, "unknown": None})
    assert registry.parsers_for("db1") == {"cpu": A}
    assert registry.parsers_for("web1") == {"cpu": A, "disk": B}
    registry.register_host_parsers("db1", {"disk": C})
    assert registry.parsers_for("db1") == {"cpu": A, "disk": C}


def test_a_parser_is_found_by_name_for_a_host_before_those_for_all() -> None:
    registry = ParserRegistry({"cpu": A}, {"dear": A})
    registry.register_host_parsers("db1", {"cpu": B, "toy": C})
    assert registry.find_parser("cpu", "db1") is B
    assert registry.find_parser("toy", "db1") is C
    assert registry.find_parser("cpu") is registry.find_parser("cpu", "db2") is A
    assert registry.find_parser("dear", "db1") is A


def test_a_parser_that_was_taken_from_a_host_can_still_be_asked_for_by_name() -> None:
    registry = ParserRegistry({"cpu": A})
    registry.register_host_parsers("db1", {"cpu": None})
    assert registry.find_parser("cpu", "db1") is A


def test_a_name_that_is_not_known_is_an_error_with_the_nearest() -> None:
    registry = ParserRegistry()
    with pytest.raises(ConfigError, match=r"there is no parser 'nvidia-smi'; did you mean 'nvidia_smi'\?"):
        registry.find_parser("nvidia-smi")
    with pytest.raises(ConfigError, match=r"there is no parser 'memori' for db1; did you mean 'memory'\?"):
        registry.find_parser("memori", "db1")
    with pytest.raises(ConfigError, match="known: cpu, cpu_frequency, disk"):
        registry.find_parser("zzz")


def test_registries_do_not_share_what_is_registered() -> None:
    one, other = ParserRegistry(), ParserRegistry()
    one.register_parsers({"toy": A})
    one.register_host_parsers("db1", {"cpu": None})
    assert other.parsers_for("db1") == dict(DEFAULT_PARSERS)
    assert "toy" not in DEFAULT_PARSERS
    assert "toy" not in module.parsers_for("db1")


def test_what_is_handed_out_or_taken_in_can_be_changed_without_harm() -> None:
    mine = {"cpu": A}
    registry = ParserRegistry(mine)
    registry.parsers_for("db1").clear()
    theirs: dict[str, MetricParser | None] = {"toy": B}
    registry.register_host_parsers("db1", theirs)
    mine.clear()
    theirs.clear()
    assert registry.parsers_for("db1") == {"cpu": A, "toy": B}


def changed(**attributes: object) -> MetricParser:
    return type("Odd", (Toy,), attributes)()


@pytest.mark.parametrize(
    ("parsers", "error", "message"),
    [
        ({"toy": Toy}, TypeError, r"not an instance of a MetricParser; make one: Toy\(\)"),
        ({"toy": "echo"}, TypeError, "the parser 'toy' is 'echo', not an instance"),
        ({"a b": A}, ValueError, "'a b' is not a name for a parser"),
        ({"": A}, ValueError, "'' is not a name for a parser"),
        ({1: A}, ValueError, "1 is not a name for a parser"),
        ({"toy": changed(family="a.b")}, ValueError, "its family 'a.b' is not one word"),
        ({"toy": changed(family=None)}, TypeError, "Odd has no family"),
        ({"toy": changed(command=None)}, TypeError, "Odd has no command"),
        ({"toy": changed(command=" ")}, ValueError, "its command must be one line"),
        ({"toy": changed(command="a\nb")}, ValueError, "its command must be one line"),
        ({"toy": changed(command="a\0b")}, ValueError, "its command must be one line"),
    ],
)
def test_what_is_no_parser_is_refused_and_nothing_changes(parsers, error, message) -> None:
    registry = ParserRegistry({"cpu": A})
    with pytest.raises(error, match=message):
        registry.register_parsers({"good": B, **parsers})
    with pytest.raises(error, match=message):
        registry.register_host_parsers("db1", {"good": B, **parsers})
    assert registry.parsers_for("db1") == {"cpu": A}


def test_what_cannot_be_the_name_of_a_parser_cannot_be_taken_away_either() -> None:
    with pytest.raises(ValueError, match="'a b' is not a name for a parser"):
        ParserRegistry().register_host_parsers("db1", {"a b": None})


@pytest.mark.parametrize(
    ("host", "error"), [("", ValueError), (None, TypeError), (re.compile(b"db."), TypeError), (7, TypeError)]
)
def test_what_is_no_host_is_refused(host, error) -> None:
    with pytest.raises(error, match="host"):
        ParserRegistry().register_host_parsers(host, {"toy": A})


def test_the_functions_are_those_of_one_registry() -> None:
    assert module.parsers_for("db1") == dict(DEFAULT_PARSERS)
    assert module.find_parser("cpu") is DEFAULT_PARSERS["cpu"]
    owners = {function.__self__ for function in (module.register_parsers, module.register_host_parsers)}
    assert owners == {module.parsers_for.__self__} == {module.find_parser.__self__}
