# SPDX-License-Identifier: MIT
"""`agent up`: everything in one process, seen from outside."""

import contextlib
import fcntl
import json
import os
import pty
import re
import select
import signal
import sqlite3
import struct
import subprocess
import termios
import time
from itertools import pairwise

import pytest

from agents.cli.up import fleet
from tests.agents.cli.conftest import AGENT
from tests.services.clock import ClockWatch

NS = 1_000_000_000
FAMILIES = {"cpu", "disk", "load", "memory", "network", "process"}
"""What every machine has."""


def points(path, condition="1"):
    with contextlib.closing(sqlite3.connect(path)) as connection:
        return connection.execute(f"SELECT metric, time, value FROM points WHERE {condition} ORDER BY time").fetchall()


def test_the_archive_holds_every_family_at_the_aligned_seconds_none_missing_none_doubled(start_agent, tmp_path):
    clock = ClockWatch()
    path = tmp_path / "a.db"
    process = start_agent("up", "--duration", "4s", "--archive", str(path))
    out, err = process.communicate(timeout=30)
    assert (process.returncode, err) == (0, "")
    assert out.splitlines()[0] == f"archive {path}"
    assert re.fullmatch(rf"archived to {re.escape(str(path))} \(.* kB\)", out.splitlines()[-1])

    found = points(path)
    assert FAMILIES <= {name.split(".")[1] for name, _, _ in found} <= FAMILIES | {"gpu", "sensors"}
    assert {ns % NS for _, ns, _ in found} == {0}
    for name in ("cpu.frequency", "memory.used", "load.1m", "network.lo.up"):
        times = [ns for full, ns, _ in found if full.split(".", 1)[1] == name]
        assert len(times) >= 3, (name, times)
        assert clock.was_set or times == list(range(times[0], times[0] + len(times) * NS, NS))


def test_ctrl_c_flushes_everything_and_ends_with_0(start_agent, tmp_path):
    path = tmp_path / "a.db"
    # Chunks that never fill, in batches that never age: only the end stores what is there.
    file = tmp_path / "hostbus.toml"
    file.write_text("[agent]\nchunk_size = 1000\n[sqlite-sink]\nbatch_age = 60\n")
    process = start_agent("up", "--only", "load", "--period", "0.05", "--archive", str(path), "--config", str(file))
    assert process.stdout.readline() == f"archive {path}\n"
    time.sleep(1.5)  # what is sampled meanwhile is what the end must save
    began = time.monotonic()
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=15)
    assert process.returncode == 0
    assert time.monotonic() - began < 10
    times = [ns for name, ns, _ in points(path, "metric LIKE '%.load.1m'")]
    assert len(times) >= 10
    assert {(later - earlier) % (NS // 20) for earlier, later in pairwise(times)} == {0}  # a busy machine skips ticks


def test_a_second_up_on_the_same_archive_is_refused(start_agent, agent, tmp_path):
    path = tmp_path / "a.db"
    first = start_agent("up", "--only", "load", "--archive", str(path))
    assert first.stdout.readline()
    deadline = time.monotonic() + 20
    while not path.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    outcome = agent("up", "--only", "load", "--archive", str(path))
    assert outcome.code == 1
    assert outcome.err.count("\n") == 1
    assert str(path) in outcome.err
    first.send_signal(signal.SIGTERM)
    assert first.wait(10) == 0


def test_without_a_terminal_a_line_sums_up(agent, monkeypatch):
    monkeypatch.setattr(fleet, "SUMMARY_EVERY_S", 0.5)
    outcome = agent("up", "--only", "load,cpu", "--period", "0.1", "--duration", "3s", "--no-archive")
    assert (outcome.code, outcome.err) == (0, "")
    assert re.search(r"^\d\d:\d\d:\d\d 2 of 2 families, \d+ metrics, [\d.]+ points/s$", outcome.out, re.MULTILINE)
    assert "archive" not in outcome.out


def test_sighup_reads_the_file_again_and_a_mistake_in_it_changes_nothing(start_agent, tmp_path):
    path, file = tmp_path / "a.db", tmp_path / "hostbus.toml"
    file.write_text("[load-source]\nperiod = 60\n")
    process = start_agent("up", "--only", "load", "--archive", str(path), "--config", str(file))
    assert process.stdout.readline()
    deadline = time.monotonic() + 20
    while not path.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    file.write_text("[load-source]\nperod = 1\n")
    process.send_signal(signal.SIGHUP)
    assert "the configuration stays as it is" in process.stderr.readline()
    file.write_text("[load-source]\nperiod = 0.1\n")
    process.send_signal(signal.SIGHUP)
    assert "read again" in process.stderr.readline()
    time.sleep(1)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=15)
    assert len(points(path, "metric LIKE '%.load.1m'")) >= 5


class Terminal:
    """A terminal of 80 columns that remembers all that was written to it."""

    def __init__(self, *arguments: str) -> None:
        self._fd, inner = pty.openpty()
        fcntl.ioctl(inner, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
        environment = {
            name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES", "NO_COLOR")
        }
        self.process = subprocess.Popen(
            [AGENT, *arguments],
            stdin=inner,
            stdout=inner,
            stderr=inner,
            env={**environment, "TERM": "xterm-256color"},
            start_new_session=True,
        )
        os.close(inner)
        self.text = ""

    def read_until(self, wanted: str, timeout_s: float = 20) -> None:
        """Read on until the text was written. Fails the test if it never comes."""
        deadline = time.monotonic() + timeout_s
        while wanted not in self.text:
            ready, _, _ = select.select([self._fd], [], [], max(0, deadline - time.monotonic()))
            assert ready, f"{wanted!r} never came:\n{self.text}"
            try:
                self.text += os.read(self._fd, 65536).decode()
            except OSError:  # the other end is closed
                assert wanted in self.text, f"{wanted!r} never came:\n{self.text}"

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait(10)
        os.close(self._fd)


@pytest.fixture
def terminal():
    opened = []

    def start(*arguments: str) -> Terminal:
        opened.append(Terminal(*arguments))
        return opened[-1]

    yield start
    for one in opened:
        one.close()


CURSOR_UP = re.compile(r"\x1b\[\d*A")
ESCAPE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


def test_a_terminal_gets_a_live_table_of_80_columns(terminal, tmp_path):
    screen = terminal("up", "--period", "0.2", "--archive", str(tmp_path / "a.db"))
    screen.read_until("usage ")
    screen.process.send_signal(signal.SIGINT)
    screen.read_until("archived to")
    assert screen.process.wait(10) == 0
    lines = ESCAPE.sub("", CURSOR_UP.sub("\n", screen.text)).replace("\r", "").splitlines()
    assert {line.split()[0] for line in lines if line.split()} >= FAMILIES
    # The path of the archive may be longer than a line; the table may not.
    assert max(len(line) for line in lines if "archive" not in line or "points/s" in line) <= 80
    assert any(re.search(r"\d+ metrics · [\d.]+ points/s · \d+ points so far · archive", line) for line in lines)


def test_one_family_that_fails_is_started_again_while_the_others_go_on(agent, tmp_path, monkeypatch):
    from agents.cli.up import supervisor
    from agents.load import LoadSource

    lives = []

    class Fragile(LoadSource):
        """Fails shortly after each of its first two starts."""

        async def task(self):
            lives.append(self.token)
            if len(lives) <= 2:
                raise RuntimeError("the sky fell")
            await super().task()

    monkeypatch.setattr(supervisor, "LOWEST_RESTART_S", 0.05)
    monkeypatch.setattr("agents.load.LoadSource", Fragile)
    path = tmp_path / "a.db"
    outcome = agent("up", "--only", "load,cpu", "--period", "0.1", "--duration", "2s", "--archive", str(path))
    assert outcome.code == 0, outcome
    assert len(lives) == 3
    assert outcome.err.count("load-source failed: RuntimeError: the sky fell; it is started again") == 2
    assert points(path, "metric LIKE '%.load.1m'")
    assert "cpu-source" not in outcome.err
    assert len(points(path, "metric LIKE '%.cpu.frequency'")) >= 5


def test_the_same_works_over_rabbitmq(agent, amqp_url, tmp_path):
    path = tmp_path / "a.db"
    outcome = agent(
        "up", "--only", "load", "--period", "0.1", "--duration", "2s", "--archive", str(path), "--server", amqp_url
    )
    assert outcome.code == 0, outcome
    assert len(points(path, "metric LIKE '%.load.1m'")) >= 5


def test_up_uses_the_manager_that_a_broker_has(agent, start_agent, amqp_url, monkeypatch):
    monkeypatch.setenv("HOSTBUS_SERVER", amqp_url)
    manager = start_agent("start", "manager")
    assert any("manager works" in line for line in manager.stderr)
    outcome = agent("up", "--only", "load", "--period", "0.1", "--duration", "1s", "--no-archive")
    assert outcome.code == 0, outcome
    assert "has a manager already, which is used" in outcome.err
    assert ".load.1m" in agent("metrics").out
    second = agent("start", "manager", "--token", "another")
    assert second.code == 1
    assert "has a manager already" in second.err


def test_sending_a_metric_again_is_no_change_of_its_owner(agent, start_agent, amqp_url, monkeypatch):
    monkeypatch.setenv("HOSTBUS_SERVER", amqp_url)
    manager = start_agent("start", "manager")
    assert any("manager works" in line for line in manager.stderr)
    for value in ("1", "2"):
        sent = agent("send", "room.temperature", value)
        assert (sent.code, sent.err) == (0, "")
    manager.send_signal(signal.SIGTERM)
    assert "takes over" not in manager.communicate(timeout=10)[1]


def test_the_one_shot_commands_over_rabbitmq(agent, start_agent, amqp_url, monkeypatch):
    monkeypatch.setenv("HOSTBUS_SERVER", amqp_url)
    manager = start_agent("start", "manager")
    assert any("manager works" in line for line in manager.stderr)
    sent = agent("send", "room.temperature", "-3.5", "--unit", "Cel", "--time", "2026-11-21T10:00:00Z")
    assert (sent.code, sent.err) == (0, "")
    listed = json.loads(agent("metrics", "room.#", "--format", "json").out)
    assert (listed["metric"], listed["unit"]) == ("room.temperature", "Cel")
    assert agent("metrics", "cellar.#").err == "no metric matches cellar.#\n"
    assert "manager" in agent("discover", "--window", "0.5s").out

    assert agent("config", "get", "source-x").out == "the manager keeps no configuration for source-x\n"
    assert "version 1, stored" in agent("config", "set", "source-x", "period=0.5", 'devices=["sd*"]').out
    assert agent("config", "set", "source-x", "period=2").code == 0
    assert agent("config", "get", "source-x").out.splitlines() == [
        "source-x, version 2",
        '  devices=["sd*"]',
        "  period=2",
    ]
    assert agent("config", "rollback", "source-x", "1").code == 0
    history = [json.loads(line) for line in agent("config", "history", "source-x", "--format", "json").out.splitlines()]
    assert [old["config"]["period"] for old in history] == [0.5, 2, 0.5]
    assert agent("config", "rollback", "source-x", "9").code == 1

    source = start_agent("start", "load-source", "--period", "0.1", "--prefix", "web1")
    seen = agent("spy", "web1.load.1m", "--count", "3", "--format", "json", "--timeout", "20s")
    assert (seen.code, seen.err) == (0, "")
    assert [json.loads(line)["metric"] for line in seen.out.splitlines()] == ["web1.load.1m"] * 3
    line = agent("spy", "web1.load.1m", "--count", "1").out
    assert "web1.load.1m" in line
    assert len(line) <= 81
    assert agent("spy", "nobody.#", "--duration", "0.2s").code == 0
    for process in (source, manager):
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0
