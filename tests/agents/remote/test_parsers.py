# SPDX-License-Identifier: MIT
"""What holds for every built-in parser."""

import shutil
import subprocess
import sys

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from agents.base.absent import NothingFound
from agents.metric import MetricTable
from agents.remote.parser import Context
from agents.remote.registry import DEFAULT_PARSERS, MORE_PARSERS
from bus.names import is_metric
from tests.agents.remote.shell import FixtureShell

ALL = {**DEFAULT_PARSERS, **MORE_PARSERS}
SHOWS = {
    "cpu": "/proc/stat",
    "memory": "/proc/meminfo",
    "load": "/proc/loadavg",
    "processes": "/proc/PID/stat",
    "network": "/proc/net/dev",
    "disk": "/proc/self/mountinfo",
    "disk_io": "/proc/diskstats",
}


@pytest.fixture
def shell(host) -> FixtureShell:
    return FixtureShell(host)


@pytest.mark.parametrize("name", ALL)
def test_a_command_is_one_line_that_writes_nothing(name: str) -> None:
    command = ALL[name].command
    assert "\n" not in command
    assert len(command) < 2000
    assert ">" not in command.replace("2>/dev/null", "")


def test_what_is_dear_does_not_run_every_second() -> None:
    dear = {name: parser.every_s for name, parser in ALL.items() if parser.every_s}
    assert dear == dict.fromkeys(("cpu_frequency", "processes", "users", "disk", "disk_network", "nvidia_smi"), 10.0)


@pytest.mark.parametrize("name", SHOWS)
def test_a_host_without_the_files_of_linux_is_an_error_that_says_so(name: str, shell) -> None:
    for folder in (shell.host.proc, shell.host.sys):
        shutil.rmtree(folder)
        folder.mkdir()
    for output in (shell.run(ALL[name].command), "", "sh: cat: not found\n"):
        with pytest.raises(ValueError, match=f"the host shows no {SHOWS[name]}, as every Linux does: it printed"):
            shell.parse(ALL[name], output)


@pytest.mark.parametrize("name", DEFAULT_PARSERS)
def test_a_command_runs_on_this_host_and_its_values_are_described(name: str) -> None:
    parser = DEFAULT_PARSERS[name]
    context = Context(host="here", core_count=2)
    reading: dict[str, float] = {}
    try:
        for now_s in (1.0, 2.0):
            done = subprocess.run(["/bin/sh", "-c", parser.command], capture_output=True, text=True, check=True)
            context.now_s = now_s
            reading = dict(parser.parse(done.stdout, context))
    except NothingFound as nothing:
        pytest.skip(str(nothing))
    table = MetricTable(parser.table())
    assert [found for found in reading if table.find(found) is None or not is_metric(found)] == []
    assert all(isinstance(value, int | float) for value in reading.values())
    if name in ("cpu", "memory", "load", "processes"):
        assert reading


@pytest.mark.parametrize("name", ALL)
def test_any_output_parses_or_is_an_error(name: str, shell) -> None:
    good = shell.run(DEFAULT_PARSERS[name].command) if name in DEFAULT_PARSERS else ""
    words = st.lists(
        st.one_of(st.sampled_from(good.split() or ["0,"]), st.sampled_from(list("\n\n :,-/=%")), st.text(max_size=8)),
        max_size=40,
    )
    parser = ALL[name]
    context = Context(host="web1", core_count=2)

    @settings(max_examples=60, deadline=None, database=None)
    @given(words=words, cut=st.integers(0, max(len(good), 1)), garbage=st.text(max_size=20))
    @example(words=[], cut=0, garbage="\0\udcff")
    def check(words: list[str], cut: int, garbage: str) -> None:
        for output in (" ".join(words), good[:cut] + garbage + good[cut:]):
            context.now_s += 1
            try:
                found = parser.parse(output, context)
            except (ValueError, LookupError, NothingFound):
                continue
            assert all(is_metric(found_name) and isinstance(value, int | float) for found_name, value in found.items())

    check()


def test_importing_the_parsers_loads_neither_ssh_nor_nvml() -> None:
    code = (
        "import sys, agents.remote.registry; print([m for m in ('asyncssh', 'pynvml', 'aiohttp') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
