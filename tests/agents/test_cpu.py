# SPDX-License-Identifier: MIT
import pytest

from agents.cpu import KINDS, SLACK_TICKS, CpuSource, core_names, parse_cpuinfo, parse_events, parse_times, shares


def test_shares_of_literal_ticks() -> None:
    #                 user nice sys idle iow irq soft steal guest gnice
    values = shares([30, 10, 20, 100, 20, 4, 6, 10, 20, 4])
    assert values == [15.0, 5.0, 10.0, 50.0, 10.0, 2.0, 3.0, 5.0, 12.0, 40.0]


def test_the_kinds_add_up_to_100_percent_without_guest() -> None:
    assert sum(shares([3, 1, 4, 1, 5, 9, 2, 6, 5, 3])[: len(KINDS)]) == pytest.approx(100)


def test_no_time_has_no_shares() -> None:
    assert shares([0] * 10) == []


def test_times_of_a_line() -> None:
    assert parse_times("cpu  1 2 3 4 5 6 7 8 9 10") == ("", [1, 2, 3, 4, 5, 6, 7, 8, 9, 10])
    assert parse_times("cpu12 1 2 3 4 5 6 7 8 9 10 11") == ("core12", [1, 2, 3, 4, 5, 6, 7, 8, 9, 10])


def test_an_old_kernel_without_steal_and_guest_gets_zeros() -> None:
    assert parse_times("cpu0 1 2 3 4 5 6 7") == ("core0", [1, 2, 3, 4, 5, 6, 7, 0, 0, 0])


@pytest.mark.parametrize("line", ["cpu0", "cpu0 1 2 3", "cpu0 1 2 3 x", ""])
def test_a_garbled_line_is_an_error(line: str) -> None:
    with pytest.raises(ValueError):
        parse_times(line)


def test_events_and_cores_of_stat() -> None:
    lines = ["cpu  1", "cpu0 1", "cpu11 1", "intr 12345 1 2 3", "ctxt 678", "btime 1"]
    assert parse_events(lines) == {"interrupts": [12345], "context_switches": [678]}
    assert core_names(lines) == ["core0", "core11"]


def test_cpuinfo_of_a_machine_without_megahertz_is_empty() -> None:
    assert parse_cpuinfo("processor\t: 0\nBogoMIPS\t: 100.00\n") == {}
    assert parse_cpuinfo("") == {}


def test_the_first_reading_has_clocks_but_no_shares(host) -> None:
    assert host.read(host.source(CpuSource)) == {
        "frequency": 1.6e9,
        "core0.frequency": 2.4e9,
        "core1.frequency": 0.8e9,
        "core3.frequency": 1.6e9,
    }


def test_shares_since_the_last_reading(host) -> None:
    source = host.source(CpuSource)
    host.read(source)
    host.replace("stat", "cpu0 4000 100 1000 30000 200 0 50 20 1000 20", "cpu0 4060 110 1010 30115 203 0 51 21 1030 25")
    host.replace("stat", "ctxt 9000000", "ctxt 9002500")
    host.replace("stat", "intr 5000000", "intr 5000100")
    reading = host.read(source, after_s=2.0)
    core0 = {name.removeprefix("core0."): value for name, value in reading.items() if name.startswith("core0.")}
    assert core0 == {
        "user": 30.0,
        "nice": 5.0,
        "system": 5.0,
        "idle": 57.5,
        "iowait": 1.5,
        "irq": 0.0,
        "softirq": 0.5,
        "steal": 0.5,
        "guest": 17.5,
        "usage": 41.0,
        "frequency": 2.4e9,
    }
    assert reading["context_switches"] == 1250.0
    assert reading["interrupts"] == 50.0
    assert "core1.user" not in reading  # its ticks did not advance
    assert "user" not in reading


def test_iowait_that_falls_a_little_counts_as_none(host) -> None:
    source = host.source(CpuSource)
    host.read(source)
    host.replace("stat", "cpu1 3000 50 1000 25000 150", "cpu1 3050 50 1000 25050 149")
    reading = host.read(source)
    assert (reading["core1.user"], reading["core1.idle"], reading["core1.iowait"]) == (50.0, 50.0, 0.0)


def test_a_core_that_was_away_starts_anew(host) -> None:
    source = host.source(CpuSource)
    host.read(source)
    core1 = "cpu1 3000 50 1000 25000 150 0 25 15 0 0\n"
    host.replace("stat", core1, "")
    assert "core1.user" not in host.read(source)
    host.replace("stat", "cpu3", f"{core1.replace('3000', '3100')}cpu3")
    assert "core1.user" not in host.read(source)
    host.replace("stat", "cpu1 3100", "cpu1 3200")
    assert host.read(source)["core1.user"] == 100.0


def test_times_that_were_reset_have_no_value_for_one_reading(host) -> None:
    source = host.source(CpuSource)
    host.read(source)
    host.replace("stat", "cpu1 3000 50 1000 25000", f"cpu1 3000 50 1000 {25000 - SLACK_TICKS - 1}")
    assert "core1.idle" not in host.read(source)
    host.replace("stat", "cpu1 3000", "cpu1 3010")
    assert host.read(source)["core1.user"] == 100.0


def test_a_garbled_core_costs_only_itself(host, caplog) -> None:
    source = host.source(CpuSource)
    host.read(source)
    host.replace("stat", "cpu1 3000", "cpu1 garbage")
    host.replace("stat", "cpu0 4000", "cpu0 4010")
    for _ in range(3):
        assert host.read(source).keys() >= {"frequency", "core3.frequency", "interrupts"}
    assert source.parts.errors == 3
    assert [record.message for record in caplog.records if "garbage" in record.message] != []
    assert len([record for record in caplog.records if "core times" in record.message]) == 1


def test_without_a_frequency_driver_the_clocks_come_from_cpuinfo_every_10_s(host) -> None:
    for file in host.sys.glob("devices/system/cpu/cpu*/cpufreq/scaling_cur_freq"):
        file.unlink()
    source = host.source(CpuSource)
    reading = host.read(source)
    assert reading["core1.frequency"] == 2_400_125_000.0
    assert reading["frequency"] == pytest.approx(2_399_875_000.0)
    (host.proc / "cpuinfo").write_text("")
    assert host.read(source)["core1.frequency"] == 2_400_125_000.0
    assert "frequency" not in host.read(source, after_s=10.0)


def test_a_machine_without_any_clock_has_the_rest(host) -> None:
    for file in host.sys.glob("devices/system/cpu/cpu*/cpufreq/scaling_cur_freq"):
        file.unlink()
    (host.proc / "cpuinfo").unlink()
    source = host.source(CpuSource)
    host.read(source)
    host.replace("stat", "cpu  10000", "cpu  10100")
    assert host.read(source)["user"] == 100.0


def test_per_core_can_be_switched_off(host) -> None:
    source = host.source(CpuSource, {"per_core": False})
    host.read(source)
    host.replace("stat", "cpu  10000", "cpu  10100")
    assert host.read(source).keys() == {*KINDS, "guest", "usage", "frequency", "context_switches", "interrupts"}


def test_a_missing_stat_fails_the_whole_reading(host) -> None:
    (host.proc / "stat").unlink()
    with pytest.raises(FileNotFoundError):
        host.read(host.source(CpuSource))


def test_an_empty_stat_has_no_times(host) -> None:
    (host.proc / "stat").write_text("")
    assert host.read(host.source(CpuSource)).keys() <= {"frequency"} | {f"core{n}.frequency" for n in (0, 1, 3)}
