# SPDX-License-Identifier: MIT
"""The command line, in this process and as a process of its own."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

import bus.agent
from agents.cli import app, catalog, connection, log

AGENT = str(Path(sys.executable).with_name("agent"))


@dataclass(frozen=True)
class Outcome:
    """How a command line ended."""

    code: int
    out: str
    err: str


@pytest.fixture(autouse=True)
def own_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No option comes from the environment of whoever runs the tests, and nothing is written to his home."""
    for name in list(os.environ):
        if name.startswith("HOSTBUS_") and not name.startswith("HOSTBUS_TEST"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("COLUMNS", "80")
    catalog.known_agents.cache_clear()
    yield
    catalog.known_agents.cache_clear()


@pytest.fixture
def agent(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Outcome]]:
    """Runs a command line in this process: ``agent("list", "--format", "json")``."""
    # On uvloop the alarm of a test's time-out would end the loop's handling of signals, but not the test.
    for module in (bus.agent, connection):
        monkeypatch.setattr(module, "event_loop_factory", lambda: asyncio.new_event_loop)
    root = log.logging.getLogger()
    handlers, level = root.handlers[:], root.level
    signals = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}

    def run(*arguments: str) -> Outcome:
        log.set_up()
        code = app.run(list(arguments))
        captured = capsys.readouterr()
        return Outcome(code, captured.out, captured.err)

    yield run
    root.handlers[:] = handlers
    root.setLevel(level)
    for number, handler in signals.items():
        signal.signal(number, handler)


@pytest.fixture
def start_agent() -> Iterator[Callable[..., "subprocess.Popen[str]"]]:
    """Starts a command line as a process; what still runs at the end of the test is killed."""
    running: list[subprocess.Popen[str]] = []

    def start(*arguments: str) -> "subprocess.Popen[str]":
        process = subprocess.Popen(
            [AGENT, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True
        )
        running.append(process)
        return process

    yield start
    for process in running:
        if process.poll() is None:
            process.kill()
        process.communicate(timeout=10)
