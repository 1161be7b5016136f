# SPDX-License-Identifier: MIT
"""What the README, CONTRIBUTING and the examples say is what the program does."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from agents.cli import settings
from agents.host import HostSource

ROOT = Path(__file__).parents[3]
README = (ROOT / "README.md").read_text()
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text()


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("name", ["die.py", "blocking.py"])
def test_the_readme_shows_the_examples_as_they_are(name):
    code = (ROOT / "examples" / name).read_text().split('"""\n\n', 1)[1]
    assert code in blocks(README, "python")


def test_files_of_the_documents_are_good(tmp_path, monkeypatch):
    monkeypatch.delenv("BUS_USER", raising=False)
    (text,) = (block for block in blocks(README, "toml") if "[bus]" in block)
    file = tmp_path / "hostbus.toml"
    file.write_text(text)
    assert settings.check(file) == []
    assert settings.check(ROOT / "examples" / "hostbus.toml") == []


COMMANDS = sorted(
    set(re.findall(r"(?:^|`)agent ([a-z]+(?: [a-z]+(?:-[a-z]+)*)?)", README + CONTRIBUTING, re.MULTILINE))
)


@pytest.mark.parametrize("command", [command for command in COMMANDS if "entropy" not in command])
def test_every_command_of_the_documents_exists(agent, command):
    words = [word for word in command.split() if word != "second-archive"]
    assert agent(*words, "--help").code == 0


def test_the_family_of_contributing_works():
    (code,) = blocks(CONTRIBUTING, "python")
    assert len(code.splitlines()) <= 25
    defined: dict[str, object] = {}
    exec(compile(code, "CONTRIBUTING.md", "exec"), defined)
    family = defined["EntropySource"]
    assert isinstance(family, type)
    assert issubclass(family, HostSource)
    reading = family("source-entropy", "memory://contributing").read()
    assert set(reading) == {metric.name for metric in family.metrics}
    assert 0 <= reading["available"] <= reading["pool"]


def run_example(name: str, *arguments: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, str(ROOT / "examples" / name), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=dict(os.environ),
    )


def test_the_examples_run_over_rabbitmq(start_agent, amqp_url, monkeypatch):
    monkeypatch.setenv("HOSTBUS_SERVER", amqp_url)
    manager = start_agent("start", "manager")
    assert any("manager works" in line for line in manager.stderr)
    die = run_example("die.py")
    listener = run_example("listen.py", "lab.die")
    try:
        blocking = run_example("blocking.py")
        out, _ = blocking.communicate(timeout=60)
        assert (blocking.returncode, out.splitlines()[-1]) == (0, "sent 5 points")
        out, _ = listener.communicate(timeout=60)
        points = [line for line in out.splitlines() if " lab.die " in line]
        assert listener.returncode == 0, out
        assert len(points) == 10
        assert {line.split()[-1] for line in points} <= {f"{pips}.0" for pips in range(1, 7)}
        die.send_signal(signal.SIGINT)
        die.communicate(timeout=15)
        assert die.returncode == 0
    finally:
        for process in (die, listener):
            if process.poll() is None:
                process.kill()
            process.communicate()


def test_the_query_of_the_readme_reads_an_archive(agent, tmp_path):
    path = tmp_path / "a.db"
    assert agent("up", "--only", "cpu", "--period", "0.2", "--duration", "1s", "--archive", str(path)).code == 0
    out, _ = run_example("query.py", str(path)).communicate(timeout=30)
    assert re.search(r"\.cpu\.usage +\d+ points, mean", out), out
