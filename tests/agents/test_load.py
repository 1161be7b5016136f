# SPDX-License-Identifier: MIT
import pytest

from agents import load
from agents.load import LoadSource, parse_cores, parse_loadavg, parse_pressure, parse_state


@pytest.fixture(autouse=True)
def two_users(monkeypatch) -> None:
    monkeypatch.setattr(load, "count_users", lambda: 2)


def test_loadavg() -> None:
    assert parse_loadavg("0.07 0.03 0.00 1/91 7535\n") == ([0.07, 0.03, 0.0], 1, 91)
    for text in ("", "0.07 0.03", "a b c 1/2 3", "1 2 3 4 5"):
        with pytest.raises(ValueError):
            parse_loadavg(text)


def test_cores_in_service() -> None:
    assert [parse_cores(text) for text in ("0\n", "0-3", "0-1,3", "0,2,4-7\n")] == [1, 4, 3, 6]
    with pytest.raises(ValueError):
        parse_cores("")


def test_a_state_follows_the_last_parenthesis() -> None:
    assert parse_state("7 (a) Z) R) S 0 7") == "sleeping"
    assert parse_state("7 (x) t 0") == "stopped"


@pytest.mark.parametrize("stat", ["", "7 (x)", "7 (x) X 0", "no parenthesis"])
def test_what_has_no_living_state_is_an_error(stat: str) -> None:
    with pytest.raises(ValueError):
        parse_state(stat)


def test_pressure_of_a_line() -> None:
    assert parse_pressure("full avg10=1.50 avg60=0.75 avg300=0.25 total=123") == ("full", [1.5, 0.75, 0.25], 123)
    for line in ("", "half avg10=1 avg60=1 avg300=1 total=1", "some avg10=1 avg60=1 total=1", "some avg10"):
        with pytest.raises((ValueError, KeyError)):
            parse_pressure(line)


def test_the_fixture_host(host) -> None:
    reading = host.read(host.source(LoadSource))
    assert {name: value for name, value in reading.items() if not name.startswith("pressure")} == {
        "1m": 0.9,
        "5m": 0.6,
        "15m": 0.3,
        "1m_per_core": pytest.approx(0.3),
        "5m_per_core": pytest.approx(0.2),
        "15m_per_core": pytest.approx(0.1),
        "tasks.running": 2,
        "tasks.total": 350,
        "uptime": 86400.5,
        "users": 2,
        "processes.running": 1,
        "processes.sleeping": 2,
        "processes.blocked": 1,
        "processes.zombie": 1,
        "processes.stopped": 0,
        "processes.idle": 1,
        "processes.total": 6,
    }


def test_pressure_now_and_since_the_last_reading(host) -> None:
    source = host.source(LoadSource)
    first = host.read(source)
    assert (first["pressure.io.some.avg10"], first["pressure.memory.full.avg300"]) == (1.5, 0.1)
    assert "pressure.io.some.total" not in first
    host.replace("pressure/io", "total=2000000", "total=2500000")
    reading = host.read(source, after_s=2.0)
    assert (reading["pressure.io.some.total"], reading["pressure.io.full.total"]) == (25.0, 0.0)


def test_processes_are_counted_once_in_10_s(host) -> None:
    source = host.source(LoadSource)
    host.read(source, after_s=9.0)
    (host.proc / "313").mkdir()
    (host.proc / "313/stat").write_text("313 (new) R 1")
    assert host.read(source, after_s=1.0)["processes.running"] == 2
    assert not any(name.startswith("processes") for name in host.read(source, after_s=9.0))
    assert host.read(source, after_s=1.0)["processes.total"] == 7


def test_a_process_that_ends_while_it_is_counted_is_left_out(host) -> None:
    (host.proc / "310/stat").unlink()
    (host.proc / "311/stat").write_text("")
    assert host.read(host.source(LoadSource))["processes.total"] == 4


def test_counting_processes_can_be_switched_off(host) -> None:
    assert "processes.total" not in host.read(host.source(LoadSource, {"processes": False}))


def test_a_kernel_without_pressure_has_the_rest(host, caplog) -> None:
    for file in (host.proc / "pressure").iterdir():
        file.unlink()
    caplog.set_level("INFO")
    source = host.source(LoadSource)
    for _ in range(3):
        reading = host.read(source)
    assert reading["1m"] == 0.9
    assert not any(name.startswith("pressure") for name in reading)
    assert [record.levelname for record in caplog.records] == ["INFO"] * 3  # once per resource, and no warning


def test_one_garbled_pressure_file_costs_only_itself(host) -> None:
    (host.proc / "pressure/memory").write_text("some\n")
    reading = host.read(host.source(LoadSource))
    assert "pressure.io.some.avg10" in reading
    assert "pressure.memory.some.avg10" not in reading


@pytest.mark.parametrize("text", ["", "nonsense"])
@pytest.mark.parametrize(("file", "lost"), [("loadavg", "1m"), ("uptime", "uptime")])
def test_one_useless_file_costs_only_its_own_metrics(host, file: str, lost: str, text: str) -> None:
    (host.proc / file).write_text(text)
    reading = host.read(host.source(LoadSource))
    assert lost not in reading
    assert {"1m", "uptime", "users", "processes.total"} - {lost} <= reading.keys()
