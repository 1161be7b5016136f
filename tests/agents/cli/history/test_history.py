# SPDX-License-Identifier: MIT
"""`agent history`: what it prints of an archive, and what it says when there is nothing to print."""

import asyncio
import csv
import io
import json
import math
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from textwrap import dedent

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.cli import opening
from agents.cli.history import rows as history_rows
from bus.archive import MIN_NS, Event
from bus.chunk import MAX_NS
from bus.timestamp import Timestamp
from sinks.sqlite import open_archive
from tests.agents.cli.conftest import Outcome
from tests.agents.cli.history.recorded import NS, T0, record, time_zone, wave
from tests.sinks.memory_archive import MemoryArchive

HOUR = ("--from", "2026-11-21T00:00:00Z", "--to", "2026-11-21T01:00:00Z")
Show = Callable[..., Outcome]


@pytest.fixture(autouse=True)
def utc(monkeypatch) -> Iterator[None]:
    with time_zone(monkeypatch, "UTC"):
        yield


async def filled(archive: MemoryArchive) -> MemoryArchive:
    """An hour of two metrics at 1 Hz, and one that is hardly ever sent."""
    await record(archive, "web1.cpu.usage", wave(3600), unit="%", description="CPU time that was not idle", interval=1)
    await record(archive, "web1.network.eth0.rx_bytes", wave(3600, scale=1e6), unit="B/s", interval=1)
    await record(archive, "web1.load.1m", {0: 0.25, 60: math.nan, 120.25: 1e9}, unit="1", interval=60)
    return archive


@pytest.fixture
def archive() -> MemoryArchive:
    return asyncio.run(filled(MemoryArchive()))


@pytest.fixture
def show(agent, archive, monkeypatch) -> Show:
    """Runs ``agent history`` on that archive, over the first hour of 2026-11-21."""

    @asynccontextmanager
    async def opened(*_: object) -> AsyncIterator[MemoryArchive]:
        yield archive

    monkeypatch.setattr(opening, "history", opened)
    return lambda *arguments: agent("history", *HOUR, *arguments)


def one_line(err: str) -> str:
    (line,) = err.splitlines()
    return line


# -- tables -------------------------------------------------------------------------------------------------


def test_few_points_are_shown_one_by_one_and_nothing_is_aggregated(show):
    done = show("web1.load.1m")
    assert done.code == 0
    assert done.out == dedent(
        """\
        web1.load.1m
        time (UTC+00:00)                 value
        2026-11-21 00:00:00.000           0.25
        2026-11-21 00:01:00.000            nan
        2026-11-21 00:02:00.250     1000000000
        """
    )
    assert one_line(done.err) == "all points (2); --every TIME aggregates"


def test_many_points_are_aggregated_over_steps_that_fit_a_screen(show):
    done = show("web1.cpu.usage")
    lines = done.out.splitlines()
    assert lines[:3] == [
        "web1.cpu.usage [%]  CPU time that was not idle",
        "time (UTC+00:00)       count          min         mean          max         last",
        "2026-11-21 00:00:00      120           50      72.0195      87.9107      87.9107",
    ]
    assert len(lines) == 2 + 30
    assert max(map(len, lines)) == 80
    assert one_line(done.err) == "steps of 2min; --every points shows all 3600 points"


def test_what_was_asked_for_is_shown_without_comment(show):
    assert len(show("web1.cpu.usage", "--every", "10m").out.splitlines()) == 2 + 6
    every_point = show("web1.cpu.usage", "--every", "points")
    assert len(every_point.out.splitlines()) == 2 + 3600
    assert every_point.err == ""


def test_several_metrics_stand_one_below_the_other_each_once(show):
    done = show("web1.cpu.*", "web1.cpu.usage", "web1.load.1m", "--every", "30m")
    blocks = done.out.split("\n\n")
    assert [block.split()[0] for block in blocks] == ["web1.cpu.usage", "web1.load.1m"]
    assert "\n2026-11-21 00:00:00        2         0.25" in blocks[1]


def test_where_the_clock_is_put_back_there_is_a_new_heading(agent, archive, monkeypatch, show):
    change = 1_792_890_000 - T0 // NS  # 2026-10-25T01:00:00Z
    asyncio.run(record(archive, "a.b", {change - 1800: 1, change + 1800: 2}))
    with time_zone(monkeypatch, "Europe/Berlin"):
        done = agent("history", "a.b", "--from", "2026-10-25", "--to", "2026-10-26")
    assert done.out == dedent(
        """\
        a.b
        time (UTC+02:00)                 value
        2026-10-25 02:30:00.000              1
        time (UTC+01:00)                 value
        2026-10-25 02:30:00.000              2
        """
    )


def test_steps_below_a_second_show_milliseconds_and_still_fit(show):
    lines = show("web1.cpu.usage", "--to", "2026-11-21T00:00:02Z", "--every", "500ms").out.splitlines()
    assert [line[:18] for line in lines[2:]] == ["11-21 00:00:00.000", "11-21 00:00:01.000"]
    assert max(map(len, lines)) == 80


def test_texts_of_others_cannot_steer_the_terminal(show, archive):
    asyncio.run(record(archive, "web1.evil", {1: 1}, unit="\x1b[2J", description="a\nb\x07"))
    for format_ in ((), ("--plot",)):
        done = show("web1.evil", *format_)
        assert "\x1b" not in done.out
        assert done.out.splitlines()[0] == "web1.evil [[2J]  ab"


# -- for programs -------------------------------------------------------------------------------------------


def test_json_has_every_point_exactly(show):
    lines = show("web1.load.1m", "web1.cpu.usage", "--format", "json").out.splitlines()
    assert len(lines) == 3 + 3600
    assert [json.loads(line) for line in lines[:3]] == [
        {"metric": "web1.load.1m", "time": "2026-11-21T00:00:00.000000000Z", "value": 0.25},
        {"metric": "web1.load.1m", "time": "2026-11-21T00:01:00.000000000Z", "value": None},
        {"metric": "web1.load.1m", "time": "2026-11-21T00:02:00.250000000Z", "value": 1e9},
    ]
    assert json.loads(lines[103])["value"] == wave(3600)[100.0]


def test_csv_is_rfc_4180_with_values_exactly(show):
    text = show("web1.load.1m", "web1.cpu.usage", "--format", "csv").out
    assert text.startswith(
        "metric,time,value\r\nweb1.load.1m,2026-11-21T00:00:00.000000000Z,0.25\r\n"
        "web1.load.1m,2026-11-21T00:01:00.000000000Z,nan\r\n"
    )
    rows = list(csv.DictReader(io.StringIO(text, newline="")))
    assert [float(row["value"]) for row in rows[3:]] == list(wave(3600).values())


@pytest.mark.parametrize("format_", ["json", "csv"])
def test_aggregates_for_programs_have_all_there_is(show, format_):
    text = show("web1.cpu.usage", "--format", format_, "--every", "30m").out
    rows = list(csv.DictReader(io.StringIO(text))) if format_ == "csv" else list(map(json.loads, text.splitlines()))
    assert [row["time"] for row in rows] == ["2026-11-21T00:00:00.000000000Z", "2026-11-21T00:30:00.000000000Z"]
    second = {name: float(value) for name, value in rows[1].items() if name not in ("metric", "time")}
    assert second == pytest.approx(
        {
            "count": 1800, "sum": 90000, "min": 10, "max": 90, "first": 50, "last": wave(3600)[3599],
            "integral": 90000, "covered": 1800, "mean": 50,
        }
    )  # fmt: skip


def test_aggregates_are_read_page_by_page_and_come_to_the_same(show, monkeypatch):
    whole = show("web1.cpu.usage", "--every", "7s", "--format", "csv")
    monkeypatch.setattr("agents.cli.history.rows._PAGE_STEPS", 10)
    assert show("web1.cpu.usage", "--every", "7s", "--format", "csv") == whole
    assert len(whole.out.splitlines()) == 1 + 3600 // 7 + 1


@given(st.integers(MIN_NS, MAX_NS))
def test_times_are_written_as_everywhere_else(time_ns):
    assert history_rows._iso(time_ns) == Timestamp(time_ns).isoformat()


# -- charts -------------------------------------------------------------------------------------------------


def test_a_chart_fits_the_terminal_and_says_what_it_shows(show):
    done = show("web1.cpu.usage", "web1.network.#", "--plot")
    lines = done.out.splitlines()
    assert (done.code, lines[0]) == (0, "web1.cpu.usage [%]  CPU time that was not idle")
    assert lines[-1] == "2026-11-21 00:00:00 to 01:00:00 UTC+00:00; means of 30s, dots: min to max"
    assert max(map(len, lines)) <= 80
    assert len(lines) <= 24
    assert "\x1b" not in done.out


def test_a_page_is_written_and_its_path_printed(show, archive, tmp_path):
    asyncio.run(archive.add_event(Event(time=T0 + 60 * NS, label="deploy")))
    file = tmp_path / "page.html"
    done = show("web1.#", "--html", str(file))
    assert (done.code, done.out) == (0, f"{file}\n")
    data = json.loads(file.read_text().split('id="data">')[1].split("</script>")[0])
    assert {one["metric"]: (one["step"], len(one["times"])) for one in data["series"]} == {
        "web1.cpu.usage": (2000, 1800),
        "web1.network.eth0.rx_bytes": (2000, 1800),
        "web1.load.1m": (0, 3),  # so few that they are shown as they are
    }
    assert [event["label"] for event in data["events"]] == ["deploy"]


def test_a_page_never_holds_more_than_a_browser_can_draw(show, archive, tmp_path):
    for number in range(50):
        asyncio.run(record(archive, f"many.m{number}", wave(3600)))
    file = tmp_path / "page.html"
    assert show("many.#", "--html", str(file)).code == 0
    data = json.loads(file.read_text().split('id="data">')[1].split("</script>")[0])
    assert sum(len(one["times"]) for one in data["series"]) <= 60_000


# -- nothing, too much, wrong -------------------------------------------------------------------------------


def test_where_there_is_nothing_it_says_when_there_is_something(show):
    done = show("web1.cpu.usage", "--from", "2026-11-20", "--to", "2026-11-21")
    assert (done.code, done.out) == (0, "")
    assert one_line(done.err) == (
        "no values of web1.cpu.usage from 2026-11-20 00:00:00 UTC+00:00 to 2026-11-21 00:00:00 UTC+00:00: "
        "the archive has web1.cpu.usage from 2026-11-21 00:00:00 UTC+00:00 to 2026-11-21 00:59:59 UTC+00:00"
    )
    assert show("web1.cpu.usage", "--from", "2026-11-20", "--to", "2026-11-21", "--plot").code == 1


def test_a_range_that_begins_long_before_the_archive_is_shown_from_where_that_begins(show):
    done = show("web1.cpu.usage", "--from", "1970-01-01", "--every", "10m")
    assert len(done.out.splitlines()) == 2 + 6


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        ("web1.cpu.usag", 1, "there is no metric web1.cpu.usag; did you mean web1.cpu.usage?"),
        ("load.1m", 1, "there is no metric load.1m; did you mean web1.load.1m?"),
        ("zzz", 1, "there is no metric zzz; known: web1.cpu.usage, web1.load.1m, web1.network.eth0.rx_bytes"),
        ("web2.#", 1, "no metric matches web2.#"),
        ("a..b", 2, "'a..b' is not a metric name or pattern"),
        ("web1.cpu.usage --from now --to -1h", 2, "--from: now ("),
        ("web1.cpu.usage --every 0", 2, "--every: '0' is not more than 0 s"),
        ("web1.cpu.usage --every often", 2, "--every: 'often' is not a duration"),
        (
            "web1.cpu.usage --every 1ns",
            2,
            "makes 3600000000000 steps, but a table takes 5000000 a metric: --every 1ms will",
        ),
        (
            "web1.cpu.usage --every 1ms --plot",
            2,
            "makes 3600000 steps, but a chart takes 20000 a metric: --every 200ms will do",
        ),
        ("web1.cpu.usage --every 1ms --html x.html", 2, "but a page takes 20000 a metric: --every 200ms will do"),
        ("web1.cpu.usage --plot --format csv", 2, "--plot and --html are for people: leave out --format csv"),
        ("web1.cpu.usage --format xml", 2, "'xml' is not one of 'pretty', 'json', 'csv'"),
        ("web1.cpu.usage --html /nowhere/x.html", 1, "/nowhere/x.html: there is no directory /nowhere"),
        ("many.# --plot", 2, "--plot: 13 metrics are selected, but a chart holds 12: name fewer"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(show, archive, arguments, code, says):
    for number in range(13 if "many" in arguments else 0):
        asyncio.run(record(archive, f"many.m{number}", {0: 1}))
    done = show(*arguments.split())
    assert (done.code, done.out) == (code, ""), done
    assert says in one_line(done.err)
    assert one_line(done.err).startswith("agent: error: ")


def test_points_that_are_too_many_for_a_chart_are_refused_with_what_will_do(show, archive):
    asyncio.run(record(archive, "fast", {second / 10: 1.0 for second in range(30_000)}))
    done = show("fast", "--every", "points", "--plot")
    assert "--every points: there are 30000, but a chart takes 20000 a metric: --every 200ms will do" in one_line(
        done.err
    )


@pytest.mark.parametrize("plot", [(), ("--plot",)])
def test_an_output_that_can_show_only_ascii_gets_ascii(start_agent, monkeypatch, tmp_path, plot):
    asyncio.run(_heat(tmp_path / "a.db"))
    monkeypatch.setenv("PYTHONIOENCODING", "ascii")
    process = start_agent("history", "web1.heat", *HOUR, "--archive", str(tmp_path / "a.db"), *plot)
    out, err = process.communicate(timeout=30)
    assert process.returncode == 0, err
    assert out.isascii()
    assert out.splitlines()[0] == "web1.heat [?C]"


async def _heat(path: Path) -> None:
    archive = await open_archive(str(path), "write")
    await record(archive, "web1.heat", wave(60), unit="Cel")
    await archive.aclose()


def test_an_empty_archive_says_so(agent, monkeypatch, tmp_path):
    asyncio.run(_empty(tmp_path / "a.db"))
    done = agent("history", "web1.cpu.usage", "--archive", str(tmp_path / "a.db"))
    assert (done.code, one_line(done.err)) == (
        1,
        "agent: error: there is no metric web1.cpu.usage: the archive is empty",
    )


async def _empty(path: Path) -> None:
    await (await open_archive(str(path), "write")).aclose()


def test_it_reads_what_agent_up_archived(agent, tmp_path):
    path = str(tmp_path / "a.db")
    assert agent("up", "--only", "load", "--period", "0.2", "--duration", "1s", "--archive", path).code == 0
    done = agent("history", "*.load.1m", "--archive", path, "--format", "json")
    assert done.code == 0, done
    assert len(done.out.splitlines()) >= 3
    page = tmp_path / "page.html"
    assert agent("history", "*.load.#", "--archive", path, "--html", str(page)).code == 0
    assert agent("history", "*.load.1m", "--archive", path, "--plot").out.count("\n") > 8


async def deployed(path: str) -> None:
    """An event of now, in an archive that another process writes."""
    async with opening.opened(path, opening.Access.events) as archive:
        await archive.add_event(Event(time=Timestamp.now().posix_ns, label="deployed here"))


def test_over_the_bus_it_shows_what_the_archives_there_have(agent, start_agent, amqp_url, tmp_path, monkeypatch):
    monkeypatch.setenv("HOSTBUS_SERVER", amqp_url)
    manager = start_agent("start", "manager")
    assert any("manager works" in line for line in manager.stderr)
    path = str(tmp_path / "a.db")
    start_agent("start", "sqlite-sink", "--path", path, "--batch-age", "0.3")
    start_agent("start", "load-source", "--prefix", "web1", "--period", "0.2")
    deadline = time.monotonic() + 30
    while (done := agent("history", "web1.load.1m", "--format", "json")).out.count("\n") < 3:
        assert time.monotonic() < deadline, done
    assert json.loads(done.out.splitlines()[0])["metric"] == "web1.load.1m"
    assert agent("history", "web1.load.1m", "--every", "1s").out.startswith("web1.load.1m")
    asyncio.run(deployed(path))
    assert agent("history", "web1.load.#", "--html", str(tmp_path / "page.html")).code == 0
    assert "deployed here" in (tmp_path / "page.html").read_text()
    unknown = agent("history", "web1.load.2m")
    assert "there is no metric web1.load.2m; did you mean web1.load." in unknown.err
    nothing = agent("history", "web1.load.1m", "--from", "2020-01-01", "--to", "2020-01-02")
    assert "the archive has web1.load.1m from 20" in nothing.err
