# SPDX-License-Identifier: MIT
"""`agent start`: options, environment, file, and the life of the process."""

import json
import signal
import time

import pytest

from agents.cli import catalog, sampling
from tests.agents.cli.toys import entries

QUICK = ("--once", "--dry-run", "--format", "json")


def names(out: str) -> set[str]:
    return {json.loads(line)["metric"] for line in out.splitlines()}


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "hostbus.toml"
    path.write_text(
        '[agent]\nperiod = 0.05\n[load-source]\nprefix = "file"\n[second]\nagent = "load-source"\nprefix = "second"\n'
    )
    return str(path)


def test_once_prints_the_newest_point_of_every_metric(agent):
    outcome = agent("start", "cpu-source", "--period", "0.05", "--prefix", "web1", *QUICK)
    assert outcome.code == 0, outcome
    points = [json.loads(line) for line in outcome.out.splitlines()]
    found = {point["metric"]: point for point in points}
    assert len(found) == len(points)
    assert 0 <= found["web1.cpu.usage"]["value"] <= 100
    assert set(found["web1.cpu.usage"]) == {"metric", "time", "value"}


@pytest.fixture
def toys(monkeypatch):
    families = ("Slow", "Endless", "Hung", "Broken", "Empty", "Idle", "Talk")
    monkeypatch.setattr(catalog, "entry_points", lambda group: entries(families))


def test_once_waits_until_a_source_has_got_hold_of_what_it_samples(agent, toys):
    outcome = agent("start", "slow", "--period", "0.1", "--prefix", "web1", *QUICK)
    assert (outcome.code, outcome.err) == (0, "")
    points = {point["metric"]: point["value"] for point in map(json.loads, outcome.out.splitlines())}
    assert points.keys() == {"web1.slow.readings", "web1.slow.late"}
    assert points["web1.slow.readings"] >= 4  # two whole readings


def test_once_prints_what_it_has_if_a_source_never_gets_hold_of_all(agent, toys, monkeypatch):
    monkeypatch.setattr(sampling, "UPDATES_S", 0.6)
    outcome = agent("start", "endless", "--period", "0.1", "--prefix", "web1", *QUICK)
    assert outcome.code == 0
    assert names(outcome.out) == {"web1.endless.readings"}
    assert "endless-source has not got hold of all that it samples within 0.6 s" in outcome.err


def test_once_of_a_source_whose_reading_does_not_end_is_an_error(agent, toys, monkeypatch):
    monkeypatch.setattr(sampling, "UPDATES_S", 0.3)
    outcome = agent("start", "hung", "--period", "0.1", *QUICK)
    assert (outcome.code, outcome.out) == (1, "")
    assert outcome.err.endswith("agent: error: hung-source took no reading within 0.3 s\n")


def test_once_of_a_source_that_fails_ends_with_its_error(agent, toys):
    outcome = agent("start", "broken", "--period", "0.1", *QUICK)
    assert (outcome.code, outcome.err) == (1, "agent: error: the toy is broken\n")


def test_once_of_a_source_that_finds_nothing_says_why_there_are_no_points(agent, toys):
    outcome = agent("start", "empty", "--period", "0.1", *QUICK)
    assert (outcome.code, outcome.out) == (0, "")
    (line,) = outcome.err.splitlines()
    assert ": nothing to measure: no such thing in this machine; looking again every 60 s" in line


@pytest.mark.parametrize("more", [QUICK, ("--dry-run",)])
def test_a_source_that_lacks_something_says_what(agent, toys, more):
    outcome = agent("start", "idle", *more)
    assert (outcome.code, outcome.out, outcome.err.count("\n")) == (78, "", 1)
    assert "no jobs; name them under [idle-source] jobs = [...]" in outcome.err


def test_lines_for_people_fit_80_columns(agent):
    outcome = agent("start", "load-source", "--period", "0.05", "--prefix", "web1", "--once", "--dry-run")
    lines = outcome.out.splitlines()
    assert any("web1.load.1m " in line for line in lines)
    assert max(map(len, lines)) <= 80


def test_an_option_goes_over_the_environment_over_the_file_over_the_default(agent, file, monkeypatch):
    def first_word(*more: str) -> str:
        outcome = agent("start", "load-source", *QUICK, *more)
        assert outcome.code == 0, outcome
        (word,) = {name.split(".")[0] for name in names(outcome.out)}
        return word

    monkeypatch.setattr("agents.host.short_host_name", lambda: "default")
    assert first_word("--period", "0.05") == "default"
    assert first_word("--config", file) == "file"
    monkeypatch.setenv("HOSTBUS_PREFIX", "environment")
    assert first_word("--config", file) == "environment"
    assert first_word("--config", file, "--prefix", "option") == "option"
    monkeypatch.delenv("HOSTBUS_PREFIX")
    monkeypatch.setenv("HOSTBUS_CONFIG", file)
    assert first_word() == "file"
    assert first_word("--set", "prefix=123") == "123"


def test_an_instance_of_the_file_is_started_by_its_name(agent, file):
    outcome = agent("start", "second", "--config", file, *QUICK)
    assert outcome.code == 0, outcome
    assert names(outcome.out) >= {"second.load.1m"}


def test_an_agents_help_lists_its_own_options(agent):
    outcome = agent("start", "cpu-source", "--help")
    assert outcome.code == 0
    for option in ("--period", "--per-core", "--prefix", "HOSTBUS_PER_CORE", "--dry-run", "--once"):
        assert option in outcome.out


def read_until(process, text: str) -> str:
    """stderr up to the line with `text`."""
    seen = ""
    for line in process.stderr:
        seen += line
        if text in line:
            return seen
    raise AssertionError(f"{text!r} never came:\n{seen}")


def test_without_a_broker_an_agent_says_what_it_waits_for_and_ends_on_ctrl_c(start_agent):
    process = start_agent("start", "cpu-source", "--server", "amqp://127.0.0.1:1/")
    assert "amqp://127.0.0.1:1/" in read_until(process, "waiting for")
    began = time.monotonic()
    process.send_signal(signal.SIGINT)
    assert process.wait(10) == 0
    assert time.monotonic() - began < 10


def test_dry_run_prints_every_period_until_it_is_ended(start_agent):
    process = start_agent("start", "load-source", "--dry-run", "--period", "0.05", "--format", "json")
    times = set()
    for line in process.stdout:
        times.add(json.loads(line)["time"])
        if len(times) == 3:
            break
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=10)
    assert process.returncode == 0


def test_a_one_shot_command_ends_quietly_on_ctrl_c(start_agent):
    # A server that accepts and says nothing: the command waits until it is interrupted.
    import socket

    with socket.create_server(("127.0.0.1", 0)) as silent:
        process = start_agent("metrics", "--server", f"amqp://127.0.0.1:{silent.getsockname()[1]}/", "--timeout", "60s")
        connection, _ = silent.accept()
        with connection:
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=10)
    assert (process.returncode, out, err) == (130, "", "")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (("--keep", "raw=2d 10s=1d"), "keep: 10s is kept for 1d, less than the finer raw"),
        (("--keep", '{"raw": "2d", "10s": "1d"}'), "keep: 10s is kept for 1d, less than the finer raw"),
        (("--set", 'keep={"raw": "2d", "10s": "1d"}'), "keep: 10s is kept for 1d, less than the finer raw"),
        (("--keep", "raw"), "--keep: expected KEY=VALUE, or all as a JSON object"),
        (("--keep", "{raw"), "--keep: what begins with { must be a JSON object"),
        (("--keep-for", "web1.a=1d"), "keep_for: expected `table`, got `str`"),
        (("--keep-for", '{"web1..a": {"raw": "1d"}}'), "keep_for: 'web1..a' is not a metric name or pattern"),
    ],
)
def test_a_table_is_given_as_json_or_if_of_texts_as_pairs(agent, given, said):
    outcome = agent("start", "sqlite-sink", *given)
    assert outcome.code == 78
    assert said in outcome.err


def test_a_table_may_come_from_the_environment_and_the_file(agent, monkeypatch, tmp_path):
    file = tmp_path / "keep.toml"
    file.write_text('[sqlite-sink]\nkeep = { raw = "3d", 10s = "4d" }\nkeep_for = { "web1.#" = { raw = "5d" } }\n')
    assert agent("config", "check", str(file)).code == 0
    file.write_text('[sqlite-sink]\nkeep = { raw = "3d", 10s = "2d" }\n')
    assert "less than the finer raw (3d)" in agent("config", "check", str(file)).err
    monkeypatch.setenv("HOSTBUS_KEEP", "raw=9d 10s=8d")
    assert "less than the finer raw (9d)" in agent("start", "sqlite-sink").err


def test_help_shows_tables_as_they_may_be_given(agent):
    out = agent("start", "sqlite-sink", "--help").out
    assert "raw=7d 10s=30d" in out
    assert "KEY=VALUE ..." in out
