# SPDX-License-Identifier: MIT
"""`agent list`, `agent version`, help and completion."""

import json
from importlib.metadata import EntryPoint, entry_points

import pytest

from agents.cli import catalog
from agents.cli.catalog import default_token


@pytest.fixture
def third_party(monkeypatch):
    """Entry points of packages that somebody else wrote, one of them broken."""
    extra = [
        EntryPoint(name="broken-source", value="no_such_module:Source", group=catalog.GROUP),
        EntryPoint(name="wrong-source", value="json:dumps", group=catalog.GROUP),
        EntryPoint(name="cpu-source", value="no_such_module:Impostor", group=catalog.GROUP),
    ]
    monkeypatch.setattr(catalog, "entry_points", lambda group: [*extra, *entry_points(group=group)])
    catalog.known_agents.cache_clear()


def test_every_agent_is_listed_with_its_options(agent):
    outcome = agent("list", "--format", "json")
    assert outcome.code == 0
    listed = {about["name"]: about for about in map(json.loads, outcome.out.splitlines())}
    assert {"cpu-source", "disk-source", "load-source", "manager", "memory-source", "network-source"} <= set(listed)
    assert "sqlite-sink" in listed
    for name, about in listed.items():
        assert "error" not in about, about
        assert about["description"], name
        for option in about["options"]:
            assert option["description"], (name, option)
    period = next(option for option in listed["cpu-source"]["options"] if option["name"] == "period")
    assert period == {
        "name": "period",
        "type": "float",
        "default": 10.0,
        "required": False,
        "description": "seconds between samples",
        "fields": [],
    }


def test_the_list_for_people_fits_80_columns(agent):
    lines = agent("list").out.splitlines()
    assert "cpu-source" in lines
    assert any(line.startswith("  --period  float, default 10.0") for line in lines)
    assert max(map(len, lines)) <= 80


def test_a_broken_package_is_listed_with_its_error(agent, third_party):
    outcome = agent("list", "--format", "json")
    assert outcome.code == 0
    listed = {about["name"]: about for about in map(json.loads, outcome.out.splitlines())}
    assert "ModuleNotFoundError: No module named 'no_such_module'" in listed["broken-source"]["error"]
    assert "is not a subclass of Agent" in listed["wrong-source"]["error"]
    assert listed["cpu-source"]["class"] == "agents.cpu:CpuSource"
    assert "no_such_module:Impostor of package ? is ignored" in outcome.err


def test_a_broken_package_does_not_stop_the_others(agent, third_party):
    outcome = agent("up", "--only", "load", "--duration", "0.2s", "--no-archive")
    assert outcome.code == 0
    assert "left out: broken-source" in outcome.err
    assert agent("start", "--help").code == 0
    started = agent("start", "broken-source")
    assert started.code == 1
    assert "agent: error: broken-source" in started.err


def test_tokens_are_made_of_the_name_and_the_host(monkeypatch):
    monkeypatch.setattr("bus.names.short_host_name", lambda: "web1")
    assert default_token("cpu-source") == "source-cpu-web1"
    assert default_token("sqlite-sink") == "sink-sqlite-web1"
    assert default_token("manager") == "manager"


def test_version_names_what_it_runs_on(agent):
    about = json.loads(agent("version", "--format", "json").out)
    assert about["hostbus"]
    assert about["python"]


COMMANDS = ("up", "start", "list", "metrics", "spy", "send", "discover", "version")
CONFIG_COMMANDS = ("get", "set", "history", "rollback", "check")


@pytest.mark.parametrize("command", [*COMMANDS, *(f"config {command}" for command in CONFIG_COMMANDS)])
def test_every_command_has_help(agent, command):
    outcome = agent(*command.split(), "--help")
    assert outcome.code == 0
    assert "Usage: agent" in outcome.out
    assert "Examples:" in outcome.out or command == "version"


def test_every_option_is_also_an_environment_variable(agent):
    from typer.main import get_command

    from agents.cli.app import app

    def options(command, path=""):
        for name, inner in getattr(command, "commands", {}).items():
            yield from options(inner, f"{path} {name}")
        for parameter in command.params:
            if parameter.param_type_name == "option" and "completion" not in str(parameter.name):
                yield f"{path} {parameter.opts[0]}", parameter.envvar

    found = dict(options(get_command(app)))
    assert len(found) > 25
    assert [option for option, variable in found.items() if not str(variable).startswith("HOSTBUS_")] == []


def test_completion_knows_agents_and_their_options(start_agent, monkeypatch):
    def complete(words: str, position: int) -> list[str]:
        monkeypatch.setenv("_AGENT_COMPLETE", "complete_bash")
        monkeypatch.setenv("COMP_WORDS", words)
        monkeypatch.setenv("COMP_CWORD", str(position))
        out, _ = start_agent().communicate(timeout=30)
        return out.split()

    assert complete("agent start cp", 2) == ["cpu-source"]
    assert "--per-core" in complete("agent start cpu-source --pe", 3)
