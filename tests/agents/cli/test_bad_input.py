# SPDX-License-Identifier: MIT
"""What is wrong is said in one line, with the exit code that goes with it; the traceback comes with -v only."""

import os
import sqlite3
import subprocess

import pytest

from tests.agents.cli.conftest import AGENT

NOBODY = "amqp://user:secret@127.0.0.1:1/"


def only_line(err: str) -> str:
    """The one line of an error."""
    lines = err.splitlines()
    assert len(lines) == 1, err
    assert lines[0].startswith("agent: error: ")
    return lines[0]


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        ("nope", 2, "No such command 'nope'"),
        ("spy", 2, "Missing argument 'PATTERN'"),
        ("list --format xml", 2, "'xml' is not one of 'pretty', 'json'"),
        ("start cpu-sorce", 2, "there is no agent 'cpu-sorce'; did you mean 'cpu-source'?"),
        ("start cpu-source --perod 1", 2, "No such option"),
        ("start --period 5 cpu-source", 2, "the agent's name comes first"),
        ("start sqlite-sink --once", 2, "takes no samples"),
        ("up --archive postgresql://localhost/db", 2, "agent up keeps an SQLite file"),
        ("start cpu-source --period fast", 78, "period: expected `float`"),
        ("start cpu-source --period -1", 78, "period: expected `float` >= 0.001"),
        ("start cpu-source --set perod=1", 78, "unknown key 'perod'; did you mean 'period'?"),
        ("start cpu-source --set period", 78, "'period' is not key=value"),
        ("start cpu-source --token a/b", 78, "'a/b' is not an agent token"),
        ("start cpu-source --server htp://x", 78, "right is amqp://"),
        ("start cpu-source --config /nowhere/h.toml", 78, "/nowhere/h.toml: cannot be read: No such file"),
        ("list cpu-sorce", 2, "did you mean 'cpu-source'?"),
        ("up --only cpu,lod", 2, "there is no family 'lod'; did you mean 'load'?"),
        ("up --duration 5x", 2, "'x' in '5x' is not a unit of time"),
        ("up --duration 0s", 2, "'0s' is not more than 0 s"),
        ("up --period 0", 78, "period: expected `float` >= 0.001"),
        ("up --server htp://x", 78, "right is amqp://"),
        ("up --config /nowhere/h.toml", 78, "cannot be read"),
        ("up --archive /nowhere/x.db", 1, "/nowhere is not a directory"),
        ("config check /nowhere/h.toml", 78, "cannot be read"),
        ("config set t period --server memory://t", 78, "'period' is not key=value"),
        ("config rollback t zero", 2, "Invalid value for 'version'"),
        ("metrics a..b", 2, "'a..b' is not a metric name or pattern"),
        ("spy web1.cpu.u*", 2, "is not a metric name or pattern"),
        ("send a..b 1", 2, "'a..b' is not a metric name"),
        ("send a.b one", 2, "Invalid value for 'value'"),
        ("send a.b 1 --time yesterday", 2, "'yesterday' is not an ISO 8601 time"),
        ("send a.b 1 --time 2026-11-21T10:00:00", 2, "has no time zone"),
        ("metrics --server htp://x", 78, "right is amqp://"),
        (f"metrics --server {NOBODY}", 69, "127.0.0.1:1/: Connection refused"),
        (f"send a.b -1 --server {NOBODY}", 69, "Connection refused"),
        (f"spy # --server {NOBODY}", 69, "Connection refused"),
        (f"discover --server {NOBODY}", 69, "Connection refused"),
        (f"config get t --server {NOBODY}", 69, "Connection refused"),
        (f"start load-source --once --server {NOBODY}", 69, "Connection refused"),
        ("metrics --server memory://empty", 69, "no manager takes requests: start one with 'agent start manager'"),
        ("send a.b 1 --server memory://empty --timeout 0.2s", 69, "no manager at memory://empty answered"),
        ("spy # --server memory://empty", 69, "no manager takes requests"),
    ],
)
def test_an_error_is_one_line_and_an_exit_code(agent, arguments, code, says):
    outcome = agent(*arguments.split())
    assert outcome.code == code, outcome
    assert says in only_line(outcome.err)
    assert "secret" not in outcome.err


def test_a_traceback_comes_with_verbose(agent):
    outcome = agent("-v", "start", "cpu-source", "--set", "perod=1")
    assert outcome.code == 78
    assert "Traceback (most recent call last)" in outcome.err
    assert outcome.err.splitlines()[-1].startswith("agent: error: ")


def test_ctrl_c_while_the_commands_are_being_loaded_is_no_traceback(tmp_path):
    slow = "import os, signal, time\nos.kill(os.getpid(), signal.SIGINT)\ntime.sleep(10)\n"
    (tmp_path / "typer.py").write_text(slow)
    done = subprocess.run(
        [AGENT, "list"], env={**os.environ, "PYTHONPATH": str(tmp_path)}, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")


def test_a_refused_login_says_so_and_tells_no_password(agent, rabbitmq):
    url = rabbitmq.url().replace("guest:guest@", "guest:wrong-secret@")
    assert "wrong-secret" in url
    outcome = agent("metrics", "--server", url)
    assert outcome.code == 69
    line = only_line(outcome.err)
    assert "refused" in line.lower()
    assert "wrong-secret" not in line


def test_toml_that_is_none_is_named_with_its_place(agent, tmp_path):
    file = tmp_path / "hostbus.toml"
    file.write_text("[cpu-source]\nperiod = \n")
    outcome = agent("start", "cpu-source", "--config", str(file))
    assert outcome.code == 78
    assert "hostbus.toml: not valid TOML: Invalid value (at line 2, column 10)" in only_line(outcome.err)


def test_config_check_prints_every_problem_of_a_file(agent, tmp_path):
    file = tmp_path / "hostbus.toml"
    file.write_text('[bus]\nsever = "x"\n[cpu-source]\nperod = 1\nchunk_size = 0\n')
    outcome = agent("config", "check", str(file))
    assert outcome.code == 78
    assert [line.split(": ", 2)[0:2] for line in outcome.err.splitlines()] == [["agent", "error"]] * 3


def test_config_check_is_content_with_a_good_file(agent, tmp_path):
    file = tmp_path / "hostbus.toml"
    file.write_text("[cpu-source]\nperiod = 1\n")
    assert agent("config", "check", str(file)).code == 0


@pytest.mark.parametrize("command", ["up --only load --archive", "start sqlite-sink --server memory://t --path"])
def test_an_archive_from_a_newer_hostbus_is_refused(agent, tmp_path, command):
    path = tmp_path / "new.db"
    made = agent("up", "--only", "load", "--duration", "1s", "--archive", str(path))
    assert made.code == 0, made
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()
    outcome = agent(*command.split(), str(path))
    assert outcome.code == 1
    assert "made by a newer hostbus (schema 99" in only_line(outcome.err)


def test_a_file_that_is_no_archive_is_refused(agent, tmp_path):
    path = tmp_path / "letter.db"
    path.write_text("Dear archive, " * 100)
    outcome = agent("up", "--archive", str(path))
    assert outcome.code == 1
    assert str(path) in only_line(outcome.err)
    assert path.read_text().startswith("Dear archive")
