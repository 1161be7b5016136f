# SPDX-License-Identifier: MIT
"""The whole thing, as its users run it: separate processes over a real RabbitMQ.

Manager, `agent start cpu-source`, `agent start sqlite-sink`, a blocking script and `agent spy`; the period
is changed while all of it runs, and the broker is restarted under it.
"""

import itertools
import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from tests.services.clock import ClockWatch

AGENT = str(Path(sys.executable).with_name("agent"))
NS = 1_000_000_000

SCRIPT = """
import sys, time
from bus.synchronous import SynchronousSource
from bus.timestamp import Timestamp

with SynchronousSource("source-script", sys.argv[1], prefix="lab") as source:
    source.declare_metrics({"lab.voltage": {"unit": "V"}})
    print("ready", flush=True)
    count = 0
    while sys.stdin.readable() and not select_ready():
        source.send("lab.voltage", Timestamp.now(), float(count))
        count += 1
        time.sleep(0.05)
print("sent", count, flush=True)
""".replace("select_ready()", "__import__('select').select([sys.stdin], [], [], 0)[0]")


class Agents:
    """Processes of one test: all ended with it, each with its log in a file."""

    def __init__(self, folder: Path, url: str) -> None:
        self._folder = folder
        self.url = url
        self._environment = {
            **os.environ,
            "HOSTBUS_SERVER": url,
            "XDG_STATE_HOME": str(folder / "state"),
            "COLUMNS": "80",
        }
        self._running: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, name: str, *command: str) -> subprocess.Popen[bytes]:
        """Run in the background; stdout goes to NAME.out, stderr to NAME.err."""
        with (self._folder / f"{name}.out").open("wb") as out, (self._folder / f"{name}.err").open("wb") as err:
            process = subprocess.Popen(
                command, env=self._environment, stdin=subprocess.PIPE, stdout=out, stderr=err, cwd=self._folder
            )
        self._running[name] = process
        return process

    def run(self, *command: str) -> str:
        """Run to the end; its stdout. Fails the test if it fails."""
        done = subprocess.run(
            command, env=self._environment, capture_output=True, text=True, timeout=60, check=False, cwd=self._folder
        )
        assert done.returncode == 0, f"{command}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def answers(self, *command: str) -> bool:
        """Run to the end; whether it succeeded."""
        return (
            subprocess.run(command, env=self._environment, capture_output=True, timeout=60, check=False).returncode == 0
        )

    def stop(self, name: str) -> None:
        """End by SIGTERM; it must end in order, within 10 s."""
        process = self._running.pop(name)
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=10)
        assert process.returncode == 0, self.log(name)

    def interrupt(self, name: str) -> None:
        """End a one-shot command by Ctrl-C."""
        process = self._running.pop(name)
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=10)
        assert process.returncode == 130, self.log(name)

    def end_script(self) -> int:
        """Let the script end by itself; how many points it sent."""
        process = self._running.pop("script")
        process.communicate(b"\n", timeout=30)
        assert process.returncode == 0, self.log("script")
        return int(self.log("script").split("sent ")[1].split()[0])

    def log(self, name: str) -> str:
        """All that it wrote so far."""
        return "\n".join((self._folder / f"{name}.{kind}").read_text(errors="replace") for kind in ("out", "err"))

    def kill_all(self) -> None:
        """Whatever is left."""
        for process in self._running.values():
            process.kill()
            process.communicate(timeout=10)


@contextmanager
def agents_in(folder: Path, url: str) -> Iterator[Agents]:
    """The processes of a test."""
    agents = Agents(folder, url)
    try:
        yield agents
    finally:
        agents.kill_all()


@pytest.fixture
def agents(tmp_path: Path, amqp_url: str) -> Iterator[Agents]:
    """Processes that use a virtual host of their own."""
    with agents_in(tmp_path, amqp_url) as running:
        yield running


def rows(archive: Path, metric: str) -> list[tuple[int, float]]:
    """What the archive holds of a metric, by time."""
    if not archive.exists():
        return []
    with closing(sqlite3.connect(f"file:{archive}?mode=ro", uri=True)) as connection:
        try:
            return connection.execute(
                "SELECT time, value FROM points WHERE metric = ? ORDER BY time", (metric,)
            ).fetchall()
        except sqlite3.OperationalError:
            return []  # it is being made


def until(condition: object, what: str, timeout_s: float = 40) -> None:
    """Wait for a condition (a callable that becomes true)."""
    assert callable(condition)
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"did not happen within {timeout_s} s: {what}"
        time.sleep(0.1)


def start_all(agents: Agents, folder: Path) -> Path:
    """Everything of the picture, sources and sink first: they wait for the manager."""
    archive = folder / "archive.db"
    agents.start(
        "cpu", AGENT, "start", "cpu-source", "--period", "1", "--prefix", "host1", "--token", "source-cpu-host1"
    )
    agents.start("archive", AGENT, "start", "sqlite-sink", "--path", str(archive))
    agents.start("manager", AGENT, "start", "manager", "--store", str(folder / "manager.db"))
    until(lambda: len(rows(archive, "host1.cpu.usage")) >= 3, "three rows of cpu", 60)
    # Not before: what is sent while no queue is bound for it is nobody's.
    agents.start("script", sys.executable, "-c", SCRIPT, agents.url)
    agents.start("spy", AGENT, "spy", "host1.cpu.#", "--format", "json")
    until(lambda: len(rows(archive, "lab.voltage")) >= 3, "three rows of the script")
    return archive


def test_separate_processes_archive_spy_and_take_a_new_period_live(agents: Agents, tmp_path: Path) -> None:
    clock = ClockWatch()
    archive = start_all(agents, tmp_path)
    times = [when for when, _ in rows(archive, "host1.cpu.usage")]
    assert all(when % NS == 0 for when in times), "ticks are aligned to whole seconds"

    agents.run(AGENT, "config", "set", "source-cpu-host1", "period=0.2")
    began = time.time_ns()
    until(
        lambda: sum(when > began for when, _ in rows(archive, "host1.cpu.usage")) >= 10, "ten rows with the new period"
    )
    fast = [when for when, _ in rows(archive, "host1.cpu.usage") if when > began]
    assert clock.was_set or {after - before for before, after in itertools.pairwise(fast)} == {NS // 5}
    assert json.loads(agents.run(AGENT, "config", "get", "source-cpu-host1", "--format", "json")) == {
        "version": 1,
        "config": {"period": 0.2},
    }

    until(lambda: agents.log("spy").count("host1.cpu.usage") >= 5, "spy shows points")
    known = [json.loads(line)["metric"] for line in agents.run(AGENT, "metrics", "--format", "json").splitlines()]
    assert {"host1.cpu.usage", "lab.voltage"} <= set(known)

    count = agents.end_script()
    until(lambda: len(rows(archive, "lab.voltage")) == count, f"all {count} points of the script")
    assert [value for _, value in rows(archive, "lab.voltage")] == [float(index) for index in range(count)]
    agents.interrupt("spy")
    for name in ("cpu", "archive", "manager"):
        agents.stop(name)


def test_a_restart_of_the_broker_leaves_no_hole_and_no_double(rabbitmq: object, agents: Agents, tmp_path: Path) -> None:
    clock = ClockWatch()
    archive = start_all(agents, tmp_path)
    restarted = time.time_ns()
    rabbitmq.restart()  # type: ignore[attr-defined]
    back = time.time_ns()
    until(
        lambda: any(when > back + 3 * NS for when, _ in rows(archive, "host1.cpu.usage")), "rows after the restart", 90
    )
    count = agents.end_script()
    until(lambda: len(rows(archive, "lab.voltage")) == count, f"all {count} points of the script")
    assert [value for _, value in rows(archive, "lab.voltage")] == [float(index) for index in range(count)]

    agents.stop("cpu")
    agents.stop("archive")
    times = [when for when, _ in rows(archive, "host1.cpu.usage")]
    assert times[0] < restarted
    steps = [after - before for before, after in itertools.pairwise(times)]
    assert clock.was_set or steps == [NS] * len(steps)
    # The management side recovers too; each agent tries again at a moment of its own, at most 30 s apart.
    until(lambda: agents.answers(AGENT, "config", "get", "source-cpu-host1"), "the manager answers again")
    agents.stop("manager")
