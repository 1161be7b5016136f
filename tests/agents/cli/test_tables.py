# SPDX-License-Identifier: MIT
"""Agents that take tables: in the file, on the command line, in the list; and agents that are named by their family."""

import json
from importlib.metadata import EntryPoint, entry_points

import pytest

from agents.cli import catalog, settings
from agents.cli.settings import Settings
from bus.errors import ConfigError
from tests.agents.cli.toys import entries

QUICK = ("--once", "--dry-run", "--format", "json", "--prefix", "web1", "--period", "0.05")


@pytest.fixture(autouse=True)
def toys(monkeypatch):
    """Three agents more; two of them share a family."""
    both = (("both-source", "agents.load:LoadSource"), ("both-sink", "sinks.sqlite:SqliteSink"))
    extra = [
        *entries(["Talk"]),
        *(EntryPoint(name=name, value=value, group=catalog.GROUP) for name, value in both),
    ]
    wanted = ("manager", "load-source", "cpu-source", "sqlite-sink")
    known = [entry for entry in entry_points(group=catalog.GROUP) if entry.name in wanted]
    monkeypatch.setattr(catalog, "entry_points", lambda group: [*extra, *known])


@pytest.fixture
def write(tmp_path):
    def write(text: str):
        path = tmp_path / "hostbus.toml"
        path.write_text(text)
        return path

    return write


def values(outcome) -> dict[str, float]:
    assert outcome.code == 0, outcome
    points = map(json.loads, outcome.out.splitlines())
    return {point["metric"].removeprefix("web1.talk."): point["value"] for point in points}


# -- tables in the file ------------------------------------------------------------------------------------

HOSTS = """
[talk-source]
prefix = "web1"
hosts = ["plain", {host = "${TALK_HOST}", user = "${TALK_USER:-me}"}]
labels = {site = "${TALK_HOST}"}

[second]
agent = "talk"
[[second.hosts]]
host = "a"
port = 2222
[[second.hosts]]
host = "b"
user = "${TALK_USER:-you}"
"""


def test_tables_and_arrays_of_tables_are_read_with_their_variables(write, monkeypatch):
    monkeypatch.setenv("TALK_HOST", "db1")
    monkeypatch.delenv("TALK_USER", raising=False)
    read = Settings.read(write(HOSTS))
    talk = read.instance("talk-source").config().to_dict()
    assert talk["hosts"] == ["plain", {"host": "db1", "user": "me", "port": 22}]
    assert talk["labels"] == {"site": "db1"}
    assert read.instance("second").config().to_dict()["hosts"] == [
        {"host": "a", "user": "", "port": 2222},
        {"host": "b", "user": "you", "port": 22},
    ]


def test_a_variable_in_a_table_that_is_not_set_is_named_with_its_place(write, monkeypatch):
    monkeypatch.delenv("TALK_HOST", raising=False)
    (first,) = settings.check(write(HOSTS))
    assert "hostbus.toml: [talk-source] hosts[1].host: the environment variable TALK_HOST is not set" in first


def test_every_mistake_in_a_table_is_told_with_its_place(agent, write):
    path = write('[talk]\nhosts = ["a", {host = "b", usr = "me"}, {port = 0}, {host = "c", port = "x"}, 5]\n')
    outcome = agent("config", "check", str(path))
    assert outcome.code == 78
    assert outcome.err.splitlines() == [
        f"agent: error: {path}: [talk]: {problem}"
        for problem in (
            "hosts[1]: unknown key 'usr'; did you mean 'user'?",
            "hosts[2].port: expected `int` >= 1",
            "hosts[3].port: expected `int`, got `str`",
            "hosts[4]: expected `str | table`, got `int`",
        )
    ]
    started = agent("start", "talk", "--config", str(path), *QUICK)
    assert (started.code, started.err) == (78, outcome.err.splitlines(keepends=True)[0])


# -- tables on the command line ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "found"),
    [
        (["--hosts", "a", "--hosts", "b c"], {"a.nobody.port": 22, "b_c.nobody.port": 22}),
        (["--hosts", '{"host": "a", "user": "me"}', "--hosts", "b"], {"a.me.port": 22, "b.nobody.port": 22}),
        (["--hosts", ' {"host": "a", "port": 2222}'], {"a.nobody.port": 2222}),
        (["--set", 'hosts=[{"host": "a"}, "b"]'], {"a.nobody.port": 22, "b.nobody.port": 22}),
        (["--set", 'hosts=["{"]'], {"_.nobody.port": 22}),
        (["--labels", '{"site": "x"}'], {"labels.site.port": 0}),
        (["--set", 'labels={"site": "x"}'], {"labels.site.port": 0}),
    ],
)
def test_tables_may_be_given_as_json_or_by_their_shorthand(agent, arguments, found):
    assert values(agent("start", "talk-source", *QUICK, *arguments)) == found


def test_what_the_command_line_gives_goes_over_the_file(agent, write):
    path = write('[talk]\nhosts = ["file"]\n')
    arguments = ("--config", str(path), *QUICK)
    assert values(agent("start", "talk", *arguments)) == {"file.nobody.port": 22}
    assert values(agent("start", "talk", *arguments, "--hosts", "option")) == {"option.nobody.port": 22}


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--hosts", '{"host": "secret"'], "--hosts: what begins with { must be a JSON object: "),
        (["--hosts", '{"hots": "secret"}'], "talk-source: hosts[0]: unknown key 'hots'; did you mean 'host'?"),
        (["--set", 'hosts=[{"host": ""}]'], "talk-source: hosts[0].host: expected `str` of length >= 1"),
        (["--labels", "secret"], "--labels: expected KEY=VALUE, or all as a JSON object"),
    ],
)
def test_a_table_that_is_wrong_is_named_and_not_repeated(agent, arguments, says):
    outcome = agent("start", "talk-source", *QUICK, *arguments)
    assert outcome.code == 78
    assert f"agent: error: {says}" in outcome.err
    assert "secret" not in outcome.err
    assert outcome.err.count("\n") == 1


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("a b", {"a.nobody.port": 22, "b.nobody.port": 22}),
        ('["a b", "c"]', {"a_b.nobody.port": 22, "c.nobody.port": 22}),
        (' [ {"host": "a", "port": 2222}, "b" ] ', {"a.nobody.port": 2222, "b.nobody.port": 22}),
        ('{"host":"a"}', {"a.nobody.port": 22}),
    ],
)
def test_a_list_in_the_environment_is_words_or_json(agent, monkeypatch, text, found):
    monkeypatch.setenv("HOSTBUS_HOSTS", text)
    assert values(agent("start", "talk", *QUICK)) == found
    assert values(agent("start", "talk", *QUICK, "--hosts", "[option")) == {"_option.nobody.port": 22}


def test_set_in_the_environment_may_be_a_json_list_too(agent, monkeypatch):
    monkeypatch.setenv("HOSTBUS_SET", '["hosts=[\\"a b\\"]", "max_metrics=5"]')
    assert values(agent("start", "talk", *QUICK)) == {"a_b.nobody.port": 22}


def test_a_list_in_the_environment_that_is_wrong_is_named_and_not_repeated(agent, monkeypatch):
    monkeypatch.setenv("HOSTBUS_HOSTS", '["secret", ')
    outcome = agent("start", "talk", *QUICK)
    assert (outcome.code, outcome.out, outcome.err.count("\n")) == (78, "", 1)
    assert "agent: error: HOSTBUS_HOSTS: what begins with [ must be a JSON list: " in outcome.err
    assert "secret" not in outcome.err


def test_help_says_where_json_is_taken(agent):
    out = agent("start", "talk-source", "--help").out
    assert "TEXT|JSON" in out
    assert "HOSTBUS_HOSTS" in out


# -- the list ----------------------------------------------------------------------------------------------


def test_what_is_in_a_table_is_listed_below_it_within_80_columns(agent):
    lines = agent("list", "talk-source").out.splitlines()
    assert max(map(len, lines)) <= 80
    begin = lines.index("  --hosts  list[str | table], default []")
    assert lines[begin + 1 : begin + 8] == [
        "      hosts to talk to",
        "      host  str, required",
        "          its name or address",
        '      user  str, default ""',
        "          who we are there",
        "      port  int, default 22",
        "          where it listens",
    ]


def test_programs_get_what_is_in_a_table_too(agent):
    (line,) = agent("list", "talk", "--format", "json").out.splitlines()
    about = json.loads(line)
    assert about["name"] == "talk-source"
    hosts = next(option for option in about["options"] if option["name"] == "hosts")
    assert [(inner["name"], inner["type"], inner["required"]) for inner in hosts["fields"]] == [
        ("host", "str", True),
        ("user", "str", False),
        ("port", "int", False),
    ]


# -- agents by their family --------------------------------------------------------------------------------


def test_a_table_may_be_named_by_the_family(write):
    read = Settings.read(write('[load]\nprefix = "a"\n[sqlite]\npath = "/x.db"\n'))
    for name in ("load", "load-source"):
        instance = read.instance(name)
        assert (instance.name, instance.agent.name) == ("load-source", "load-source")
        assert instance.token.startswith("source-load-")
        assert instance.config().to_dict()["prefix"] == "a"
    assert read.instance("sqlite-sink").config().to_dict()["path"] == "/x.db"


def test_an_instance_keeps_its_name_though_a_family_is_called_so(write):
    read = Settings.read(write('[load]\nagent = "cpu"\nprefix = "a"\n[load-source]\nprefix = "b"\n'))
    assert (read.instance("load").agent.name, read.instance("load").config().to_dict()["prefix"]) == ("cpu-source", "a")
    assert read.instance("load-source").config().to_dict()["prefix"] == "b"


@pytest.mark.parametrize("names", [("load", "load-source"), ("load-source", "load")])
def test_one_agent_under_both_its_names_is_a_mistake(write, names):
    first, second = names
    path = write(f'[{first}]\nprefix = "a"\n[{second}]\nprefix = "b"\n')
    with pytest.raises(ConfigError) as refused:
        Settings.read(path)
    assert str(refused.value) == (
        f"{path}: [{first}] and [{second}] are the same agent, load-source: put all into one of them, "
        'or make one of them another instance with a key agent = "load-source"'
    )
    assert settings.check(path) == [str(refused.value)]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[lod]\n", "[lod]: there is no agent 'lod'; did you mean 'load'?"),
        ("[cpu-sorce]\n", "[cpu-sorce]: there is no agent 'cpu-sorce'; did you mean 'cpu-source'?"),
        ("[zzz]\n", "known: agent, both-sink, both-source, bus, cpu-source, load-source, manager, sqlite-sink, "),
        ("[both]\n", "[both]: 'both' may be both-source or both-sink: say which"),
        ('[x]\nagent = "both"\n', "[x]: 'both' may be both-source or both-sink: say which"),
        ("[load]\nperod = 1\n", "[load]: unknown key 'perod'; did you mean 'period'?"),
    ],
)
def test_mistakes_are_told_in_the_words_of_the_file(write, text, says):
    path = write(text)
    (problem,) = settings.check(path)
    assert problem.startswith(str(path))
    assert says in problem


def test_every_command_takes_a_family_for_its_agent(agent, write):
    path = write('[load]\nprefix = "file"\nperiod = 0.05\n')
    outcome = agent("start", "load", "--config", str(path), *QUICK[:4])
    assert outcome.code == 0
    assert "file.load.1m" in outcome.out
    assert "web1.load.1m" in agent("start", "load", *QUICK).out
    assert agent("list", "load").out.startswith("load-source\n")
    assert "Usage: agent start sqlite" in agent("start", "sqlite", "--help").out


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ("list both", "'both' may be both-source or both-sink: say which"),
        ("start both", "'both' may be both-source or both-sink: say which"),
        ("list lod", "there is no agent 'lod'; did you mean 'load'?"),
        ("start lod", "there is no agent 'lod'; did you mean 'load'?"),
        ("start zzz", "known: both-sink, both-source, cpu-source, load-source, manager, sqlite-sink, talk-source"),
    ],
)
def test_a_family_that_is_none_or_two_is_an_error_in_the_command_line(agent, arguments, says):
    outcome = agent(*arguments.split())
    assert outcome.code == 2
    assert says in outcome.err


def test_up_takes_tables_that_are_named_by_the_family(agent, write, monkeypatch):
    made = []
    monkeypatch.setattr("agents.load.LoadSource.read", lambda self: made.append(self.prefix) or {})
    path = write('[load]\nprefix = "file"\nperiod = 0.05\n')
    outcome = agent("up", "--only", "load", "--config", str(path), "--no-archive", "--duration", "0.5s")
    assert outcome.code == 0, outcome
    assert set(made) == {"file.load"}
