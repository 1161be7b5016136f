# SPDX-License-Identifier: MIT
import pytest

from agents.remote.parsers.cpu import CpuFrequencyParser, CpuParser, parse_clock
from tests.agents.remote.shell import FixtureShell

CPUINFO = """processor\t: 0
cpu MHz\t\t: 2000.500
processor\t: 1
cpu MHz\t\t: 3000.000
"""


@pytest.fixture
def shell(host) -> FixtureShell:
    return FixtureShell(host)


def test_shares_of_time_are_those_since_the_last_run(shell) -> None:
    parser = CpuParser()
    assert shell.ask(parser) == {}
    shell.host.replace("stat", "cpu  10000 200 3000 80000", "cpu  10050 200 3025 80025")
    shell.host.replace("stat", "ctxt 9000000", "ctxt 9000500")
    reading = shell.ask(parser, after_s=2.0)
    assert (reading["user"], reading["system"], reading["idle"], reading["usage"]) == (50.0, 25.0, 25.0, 75.0)
    assert (reading["context_switches"], reading["interrupts"]) == (250.0, 0.0)


def test_idle_time_that_falls_a_little_does_not_cost_the_core(shell) -> None:
    parser = CpuParser()
    shell.ask(parser)
    shell.host.replace("stat", "cpu0 4000 100 1000 30000", "cpu0 4010 100 1000 29999")
    assert shell.ask(parser)["core0.user"] == 100.0


def test_a_garbled_core_costs_only_itself_and_one_line_in_the_log(shell, caplog) -> None:
    parser = CpuParser()
    shell.host.replace("stat", "cpu1 3000", "cpu1 oops")
    shell.ask(parser)
    shell.host.replace("stat", "cpu  10000", "cpu  10001")
    assert "core1.user" not in shell.ask(parser)
    shell.host.replace("stat", "cpu  10001", "cpu  10002")
    assert shell.ask(parser)["user"] == 100.0
    assert [record.message for record in caplog.records if "oops" in record.message] == [
        "web1: cpu: core times failed: ValueError: cannot read the line 'cpu1 oops 50 1000 25000 150 0 25 15 0 0': "
        "invalid literal for int() with base 10: 'oops'"
    ]


def test_garbled_events_cost_only_themselves(shell) -> None:
    parser = CpuParser()
    shell.host.replace("stat", "ctxt 9000000", "ctxt many")
    shell.ask(parser)
    shell.host.replace("stat", "cpu  10000", "cpu  10001")
    reading = shell.ask(parser)
    assert reading["user"] == 100.0
    assert "interrupts" not in reading


def test_one_parser_serves_two_hosts(shell, tmp_path, host) -> None:
    parser = CpuParser()
    output = shell.run(parser.command)
    shell.parse(parser, output)
    other = FixtureShell.__new__(FixtureShell)
    other.host, other.contexts = host, {}
    assert other.parse(parser, output) == {}


def test_clocks_come_from_the_frequency_driver(shell) -> None:
    parser = CpuFrequencyParser()
    reading = shell.ask(parser)
    files = shell.host.sys.glob("devices/system/cpu/cpu*/cpufreq/scaling_cur_freq")
    expected = {f"core{file.parts[-3][3:]}.frequency": 1e3 * int(file.read_text()) for file in files}
    assert reading == {**expected, "frequency": sum(expected.values()) / 3}


def test_clocks_come_from_cpuinfo_where_there_is_no_driver(shell) -> None:
    for core in (0, 1, 3):
        (shell.host.sys / f"devices/system/cpu/cpu{core}/cpufreq/scaling_cur_freq").unlink()
    (shell.host.proc / "cpuinfo").write_text(CPUINFO)
    assert shell.ask(CpuFrequencyParser()) == {
        "core0.frequency": 2.0005e9,
        "core1.frequency": 3e9,
        "frequency": pytest.approx(2.50025e9),
    }


def test_a_core_whose_clock_is_unknown_has_none(shell) -> None:
    (shell.host.sys / "devices/system/cpu/cpu1/cpufreq/scaling_cur_freq").write_text("<unknown>\n")
    assert set(shell.ask(CpuFrequencyParser())) == {"frequency", "core0.frequency", "core3.frequency"}


def test_a_host_that_does_not_tell_its_clocks_has_none(shell) -> None:
    assert shell.parse(CpuFrequencyParser(), "") == {}
    assert shell.parse(CpuFrequencyParser(), "processor\t: 0\n") == {}


def test_a_clock_is_in_hertz() -> None:
    assert parse_clock("/sys/devices/system/cpu/cpu12/cpufreq/scaling_cur_freq:2400000") == ("core12", 2.4e9)
