# SPDX-License-Identifier: MIT
"""hostbus.toml: its shape, its variables, and what is said about mistakes."""

from pathlib import Path

import pytest

from agents.cli import settings
from agents.cli.settings import Settings
from bus.errors import ConfigError


@pytest.fixture
def write(tmp_path):
    def write(text: str) -> Path:
        path = tmp_path / "hostbus.toml"
        path.write_text(text)
        return path

    return write


def error_of(path: Path) -> str:
    with pytest.raises(ConfigError) as caught:
        Settings.read(path)
    return str(caught.value)


def test_no_file_is_an_empty_one():
    instance = Settings.read(None).instance("cpu-source")
    assert instance.agent.name == "cpu-source"
    assert instance.token.startswith("source-cpu-")
    assert instance.config().to_dict()["period"] == 10.0


def test_an_agents_table_goes_over_the_defaults(write):
    read = Settings.read(write('[agent]\nperiod = 5\nprefix = "web1"\n[cpu-source]\nperiod = 2\n'))
    cpu, memory = read.instance("cpu-source"), read.instance("memory-source")
    assert (cpu.config().to_dict()["period"], cpu.config().to_dict()["prefix"]) == (2.0, "web1")
    assert (memory.config().to_dict()["period"], memory.config().to_dict()["prefix"]) == (5.0, "web1")


def test_what_is_given_later_goes_over_the_file(write):
    instance = Settings.read(write("[cpu-source]\nperiod = 2\n")).instance("cpu-source")
    assert instance.config({"period": "0.5"}).to_dict()["period"] == 0.5


def test_defaults_that_an_agent_does_not_have_are_not_its_business(write):
    read = Settings.read(write("[agent]\nperiod = 5\n"))
    assert "period" not in read.instance("manager").values


def test_an_instance_has_a_name_an_agent_and_a_token_of_its_own(write):
    text = (
        '[second]\nagent = "cpu-source"\ntoken = "source-cpu-second"\nprefix = "second"\n[third]\nagent="cpu-source"\n'
    )
    read = Settings.read(write(text))
    second, third = read.instance("second"), read.instance("third")
    assert (second.agent.name, second.token, second.config().to_dict()["prefix"]) == (
        "cpu-source",
        "source-cpu-second",
        "second",
    )
    assert third.token.startswith("third-")


def test_variables_are_filled_in(write, monkeypatch):
    monkeypatch.setenv("HOSTBUS_T_NAME", "web7")
    monkeypatch.delenv("HOSTBUS_T_NONE", raising=False)
    monkeypatch.setenv("HOSTBUS_T_EMPTY", "")
    text = (
        '[bus]\nserver = "amqp://${HOSTBUS_T_NAME}/${HOSTBUS_T_EMPTY}$${x}"\n'
        '[cpu-source]\nprefix = "${HOSTBUS_T_NONE:-a}${HOSTBUS_T_EMPTY:-b}"\nperiod = "${HOSTBUS_T_NONE:-0.5}"\n'
    )
    read = Settings.read(write(text))
    assert read.bus.server == "amqp://web7/${x}"
    config = read.instance("cpu-source").config().to_dict()
    assert (config["prefix"], config["period"]) == ("ab", 0.5)


def test_a_variable_that_is_not_set_is_named_with_its_key(write, monkeypatch):
    monkeypatch.delenv("HOSTBUS_T_NONE", raising=False)
    message = error_of(write('[bus]\nserver = "amqp://u:${HOSTBUS_T_NONE}@h/"\n'))
    assert "[bus] server" in message
    assert "HOSTBUS_T_NONE is not set" in message
    assert "amqp://" not in message


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[bus\n", "not valid TOML"),
        ("period = 5\n", "period stands outside of any table"),
        ('[bus]\nsrever = "x"\n', "[bus]: unknown key 'srever'; did you mean 'server'?"),
        ("[cpu-sorce]\nperiod = 5\n", "there is no agent 'cpu-sorce'; did you mean 'cpu-source'?"),
        ('[x]\nagent = "cpu-surce"\n', "did you mean 'cpu-source'?"),
        ("[x]\nagent = 5\n", "expected the name of an agent"),
        ('[bus]\nwire = "pigeon"\n', "[bus]: wire: invalid enum value 'pigeon'"),
    ],
)
def test_what_is_wrong_with_the_shape_is_said_at_once(write, text, says):
    path = write(text)
    message = error_of(path)
    assert message.startswith(str(path))
    assert says in message


def test_a_file_that_is_not_there_is_named(tmp_path):
    assert error_of(tmp_path / "no.toml") == f"{tmp_path}/no.toml: cannot be read: No such file or directory"


def test_a_file_that_is_not_text_is_not_toml(tmp_path):
    path = tmp_path / "hostbus.toml"
    path.write_bytes(b"a = '\xff'\n")
    assert "byte 5 is not UTF-8" in error_of(path)


@pytest.mark.parametrize(
    ("table", "says"),
    [
        ("[cpu-source]\nperod = 1\n", "[cpu-source]: unknown key 'perod'; did you mean 'period'?"),
        ("[cpu-source]\nperiod = 0\n", "[cpu-source]: period: expected `float` >= 0.001"),
        ("[agent]\nperod = 1\n[cpu-source]\n", "[agent]: unknown key 'perod'; did you mean 'period'?"),
    ],
)
def test_what_is_wrong_with_a_value_is_said_when_the_agent_is_made(write, table, says):
    read = Settings.read(write(table))
    with pytest.raises(ConfigError) as caught:
        read.instance("cpu-source").config()
    assert says in str(caught.value)


def test_check_finds_every_mistake(write):
    text = (
        '[bus]\nsever = "x"\n[agent]\nperod = 1\n[cpu-source]\nperiod = -1\nchunk_size = "many"\nprefx = ""\n'
        "[memory-source]\nperiod = 1\n[nobody]\nx = 1\n"
    )
    problems = settings.check(write(text))
    assert len(problems) == 6, problems
    for says in ("'sever'", "'perod'", "period: ", "chunk_size: ", "'prefx'", "'nobody'"):
        assert sum(says in problem for problem in problems) == 1, (says, problems)


def test_check_says_nothing_about_a_good_file(write):
    assert settings.check(write('[bus]\nserver = "memory://x"\n[agent]\nperiod = 2\n[sqlite-sink]\n[manager]\n')) == []
