# SPDX-License-Identifier: MIT
import pytest

from agents.base.absent import NothingFound
from agents.remote.parsers.load import LoadParser, UsersParser
from agents.remote.parsers.processes import ProcessesParser
from tests.agents.remote.shell import FixtureShell


@pytest.fixture
def shell(host) -> FixtureShell:
    return FixtureShell(host)


def test_averages_are_divided_by_the_cores_of_the_context(shell) -> None:
    reading = shell.ask(LoadParser())
    assert (reading["1m"], reading["5m"], reading["15m"]) == (0.9, 0.6, 0.3)
    assert reading["1m_per_core"] == pytest.approx(0.3)
    assert (reading["tasks.running"], reading["tasks.total"], reading["uptime"]) == (2.0, 350.0, 86400.5)


def test_pressure_is_also_told_since_the_last_run(shell) -> None:
    parser = LoadParser()
    assert shell.ask(parser)["pressure.io.some.avg10"] == 1.5
    shell.host.replace("pressure/io", "total=2000000", "total=2500000")
    reading = shell.ask(parser, after_s=2.0)
    assert (reading["pressure.io.some.total"], reading["pressure.io.full.total"]) == (25.0, 0.0)


@pytest.mark.parametrize(
    ("file", "text", "lost"),
    [
        ("loadavg", "nonsense\n", "1m"),
        ("uptime", "\n", "uptime"),
        ("pressure/cpu", "some avg10=x\n", "pressure.cpu.some.avg10"),
        ("pressure/memory", None, "pressure.memory.some.avg10"),
        ("uptime", None, "uptime"),
    ],
)
def test_a_file_that_is_garbled_or_missing_costs_only_its_own(file: str, text: str | None, lost: str, shell) -> None:
    everything = shell.ask(LoadParser()).keys()
    if text is None:
        (shell.host.proc / file).unlink()
    else:
        (shell.host.proc / file).write_text(text)
    found = shell.ask(LoadParser()).keys()
    assert lost not in found
    assert len(everything - found) <= 8
    assert "pressure.io.some.avg10" in found


def test_a_kernel_that_does_not_measure_pressure_is_no_failure(shell, caplog) -> None:
    for name in ("cpu", "memory", "io"):
        (shell.host.proc / "pressure" / name).unlink()
    assert not any(name.startswith("pressure") for name in shell.ask(LoadParser()))
    assert caplog.records == []


def test_users_are_the_lines_of_who(shell) -> None:
    shell.program("who", "echo 'root tty1 2026-01-01 10:00'; echo 'joe pts/0 2026-01-01 10:01'")
    assert shell.ask(UsersParser()) == {"users": 2.0}
    shell.program("who", ":")
    assert shell.ask(UsersParser()) == {"users": 0.0}


def test_a_who_that_fails_or_is_missing_does_not_mean_that_nobody_is_there(shell) -> None:
    shell.program("who", "echo 'root tty1 2026-01-01 10:00'; exit 1")
    with pytest.raises(NothingFound, match="no `who`"):
        shell.ask(UsersParser())
    with pytest.raises(NothingFound, match="no `who`"):
        shell.parse(UsersParser(), shell.run(UsersParser.command, path="/nowhere"))


def test_processes_are_counted_by_state(shell) -> None:
    assert shell.ask(ProcessesParser()) == {
        "processes.running": 1.0,
        "processes.sleeping": 2.0,
        "processes.blocked": 1.0,
        "processes.zombie": 1.0,
        "processes.stopped": 0.0,
        "processes.idle": 1.0,
        "processes.total": 6.0,
    }


def test_of_a_process_come_its_number_name_and_state_only(shell) -> None:
    assert sorted(shell.run(ProcessesParser.command).splitlines()) == [
        "1 (init) S ",
        "310 (postgres) R ",
        "311 (nfsd) D ",
        "312 (gone) Z ",
        "42 (kworker/0:1-events) I ",
        "77 (odd) R (name) S ",
    ]


def test_a_process_may_be_called_anything(shell) -> None:
    tail = " 0 1 1 0 -1 4194304\n"
    (shell.host.proc / "312/stat").write_bytes(b"312 (\xff\xfe) Z ) T" + tail.encode())
    (shell.host.proc / "311/stat").write_text("311 () D" + tail)
    (shell.host.proc / "310/stat").write_text("310 (dead) X" + tail)
    reading = shell.ask(ProcessesParser())
    assert (reading["processes.stopped"], reading["processes.zombie"], reading["processes.blocked"]) == (1.0, 0.0, 1.0)
    assert reading["processes.total"] == 5.0


def test_a_process_that_ends_meanwhile_costs_only_itself(shell) -> None:
    (shell.host.proc / "1/stat").unlink()
    (shell.host.proc / "1/stat").mkdir()  # grep cannot read it, and goes on
    assert shell.ask(ProcessesParser())["processes.total"] == 5.0
