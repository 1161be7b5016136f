# SPDX-License-Identifier: MIT
"""`agent export` and `agent import`: what goes out comes back, also when something breaks in the middle."""

import asyncio
import contextlib
import json
import math
import os
import resource
import signal
import subprocess
import sys
import time
from array import array
from pathlib import Path

import pytest

from agents.cli.exchange.export_job import Request
from agents.cli.exchange.journal import Journal
from bus.archive import Event, MissingFrames, read_points
from bus.errors import StorageError
from bus.frame import Group
from bus.manager import Manager
from sinks.sqlite import SqliteArchive
from tests.sinks.answering import Answering, filled

AGENT = str(Path(sys.executable).with_name("agent"))
METRICS = [f"web{host}.load.{name}" for host in (1, 2) for name in ("1m", "5m", "15m")]
START = 1_795_255_200 * 10**9
FORMATS = ("json", "jsonl", "csv", "parquet", "prometheus")
HASTY = (
    "from agents.cli import main; from agents.cli.exchange import export_job, import_job; "
    "export_job.CHECKPOINT_S = import_job.CHECKPOINT_S = 0; "
)
SMALL = (
    "from sinks.formats import elements, files; files.BLOCK_BYTES = elements.READ_BYTES = 20_000; "
    "from sinks.formats import parquet; parquet.BATCH_POINTS = 300; "
    "from sinks.sqlite import archive; archive.PAGE_POINTS = 100; "
)


def fill(path: Path, points: int = 500) -> Path:
    """An archive with all that there can be."""

    async def work() -> None:
        async with await SqliteArchive.open(path) as archive:
            for number, metric in enumerate(METRICS):
                times = array("q", range(START + number, START + number + points * 10**9, 10**9))
                values = array("d", [math.sin(tick / 7) * 10**number for tick in range(points)])
                values[:4] = array("d", [math.nan, math.inf, -math.inf, -0.0])
                await archive.insert([Group((metric,), times, values)])
            await archive.set_metadata({METRICS[0]: {"unit": "1", "description": 'a "b"\n'}})
            await archive.add_event(Event(time=START + 5, label="reboot", end=START + 10**9, metadata={"by": ["me"]}))
            frames = MissingFrames(source="s", key="k", epoch=1, first=2, last=3, noticed=START + 7)
            await archive.insert([], [frames])

    asyncio.run(work())
    return path


def content(path: Path) -> dict[str, object]:
    """All that is in an archive; values in hex, so that NaN equals NaN."""

    async def work() -> dict[str, object]:
        async with await SqliteArchive.open(path, "read") as archive:
            points = {}
            for metric in await archive.metrics():
                chunk = await read_points(archive, metric)
                points[metric] = list(zip(chunk.times, map(float.hex, chunk.values), strict=True))
            events = [(event.time, event.label, event.end, dict(event.metadata)) for event in await archive.events()]
            return {
                "points": points,
                "metadata": await archive.metrics(),
                "events": events,
                "missing": await archive.missing(),
            }

    return asyncio.run(work())


@pytest.fixture(scope="module")
def full(tmp_path_factory) -> Path:
    return fill(tmp_path_factory.mktemp("full") / "full.db")


def process(*arguments: object, before: str = HASTY + SMALL, **options: object) -> "subprocess.Popen[str]":
    """A command line with small pages, which notes after each of them how far it is."""
    program = f"import sys; {before} sys.argv[1:] = {[str(argument) for argument in arguments]!r}; main()"
    return subprocess.Popen([sys.executable, "-c", program], stderr=subprocess.PIPE, text=True, **options)


def ended(running: "subprocess.Popen[str]") -> tuple[int, str]:
    _, err = running.communicate(timeout=60)
    return running.returncode, err


def kill_at(running: "subprocess.Popen[str]", journal: Path, lines: int) -> bool:
    """Kill it when its journal has so many lines; False if it was done before."""
    while running.poll() is None:
        with contextlib.suppress(FileNotFoundError):
            if journal.read_bytes().count(b"\n") >= lines:
                running.send_signal(signal.SIGKILL)
                return ended(running)[0] == -signal.SIGKILL
        time.sleep(0.001)
    ended(running)
    return False


@pytest.mark.parametrize("form", FORMATS)
def test_what_is_exported_is_imported_exactly(agent, full, tmp_path, form):
    file, copy = tmp_path / f"all.{form}", tmp_path / "copy.db"
    out = agent("export", "--archive", str(full), "--output", str(file), "--format", form)
    assert (out.code, out.out) == (0, ""), out
    assert out.err.splitlines()[0] == f"{file}: 3,000 points of 6 metrics"
    assert ("cannot hold events (1 here)" in out.err) is (form in ("csv", "prometheus"))
    before = file.read_bytes()
    told = agent("import", str(file), "--archive", str(copy), "--format", form)
    assert told.code == 0, told
    assert f"{file}: 3,000 points, 3,000 of them new" in told.err
    again = agent("import", str(file), "--archive", str(copy), "--format", form)
    assert "3,000 points, 0 of them new" in again.err
    original, found = content(full), content(copy)
    assert found["points"] == original["points"]
    if form in ("json", "jsonl", "parquet"):
        assert (found["metadata"], found["events"]) == (original["metadata"], original["events"])
    if form in ("jsonl", "parquet"):
        assert found["missing"] == original["missing"]
    assert file.read_bytes() == before
    assert sorted(file.name for file in tmp_path.glob("all*")) == [file.name]


def test_an_archive_is_imported_as_a_whole(agent, full, tmp_path):
    copy = tmp_path / "copy.db"
    before = full.read_bytes()
    told = agent("import", str(full), "--archive", str(copy))
    assert told.code == 0, told
    assert content(copy) == content(full)
    assert full.read_bytes() == before


def test_ranges_and_patterns_choose(agent, full):
    told = agent(
        *("export", "--archive", str(full), "-m", "web1.load.1m", "-m", "web2.#", "--format", "csv"),
        *("--from", str(START + 2), "--to", "2026-11-21T10:00:01.000000005Z"),
    )
    assert told.code == 0, told
    assert told.out.splitlines() == [
        "metric,time,value",
        "web1.load.1m,2026-11-21T10:00:01.000000000Z,Infinity",
        "web2.load.15m,2026-11-21T10:00:00.000000005Z,NaN",
        "web2.load.1m,2026-11-21T10:00:00.000000003Z,NaN",
        "web2.load.1m,2026-11-21T10:00:01.000000003Z,Infinity",
        "web2.load.5m,2026-11-21T10:00:00.000000004Z,NaN",
        "web2.load.5m,2026-11-21T10:00:01.000000004Z,Infinity",
    ]


def test_parquet_goes_to_a_pipe(full, tmp_path):
    with (tmp_path / "out").open("wb") as out:
        code, err = ended(process("export", "--archive", full, "--format", "parquet", stdout=out))
    assert code == 0, err
    from pyarrow import parquet

    assert parquet.read_metadata(tmp_path / "out").num_rows == 3000


@pytest.mark.parametrize("form", FORMATS)
def test_an_export_that_is_killed_goes_on_and_ends_as_if_nothing_had_been(agent, full, tmp_path, form):
    whole, file = tmp_path / f"whole.{form}", tmp_path / f"all.{form}"
    arguments = ("export", "--archive", str(full), "--format", form, "--to", "+1h", "--output")
    assert agent(*arguments, str(whole)).code == 0
    kills = sum(kill_at(process(*arguments, file), Path(f"{file}.part.state"), at) for at in (2, 20))
    assert kills == 2
    assert not file.exists()
    told = agent(*arguments, str(file))
    assert told.code == 0, told
    assert "3,000 points of 6 metrics (went on where it was interrupted)" in told.err
    assert sorted(path.name for path in tmp_path.glob("all*")) == [file.name]
    if form != "parquet":
        assert file.read_bytes() == whole.read_bytes()
        return
    from pyarrow import parquet

    assert parquet.read_table(file).to_pydict().__repr__() == parquet.read_table(whole).to_pydict().__repr__()


@pytest.mark.parametrize("form", ["json", "jsonl", "parquet"])
def test_an_import_that_is_killed_goes_on(agent, full, tmp_path, form):
    file, copy = tmp_path / f"all.{form}", tmp_path / "copy.db"
    assert agent("export", "--archive", str(full), "--output", str(file), "--format", form).code == 0
    arguments = ("import", str(file), "--archive", str(copy), "--format", form)
    imports = Path(os.environ["XDG_STATE_HOME"], "hostbus", "imports")
    for at in (2, 4):
        running = process(*arguments)
        while running.poll() is None and not list(imports.glob("*")):
            time.sleep(0.001)
        (journal,) = imports.glob("*")
        assert kill_at(running, journal, at)
    told = agent(*arguments)
    assert told.code == 0, told
    assert "3,000 points" in told.err
    assert "(went on where it was interrupted)" in told.err
    assert content(copy)["points"] == content(full)["points"]
    assert content(copy)["metadata"] == content(full)["metadata"]
    assert list(imports.glob("*")) == []


def test_an_import_goes_on_only_into_the_archive_that_has_the_beginning(agent, full, tmp_path):
    file, copy = tmp_path / "all.jsonl", tmp_path / "copy.db"
    assert agent("export", "--archive", str(full), "--output", str(file)).code == 0
    imports = Path(os.environ["XDG_STATE_HOME"], "hostbus", "imports")
    running = process("import", file, "--archive", copy)
    while running.poll() is None and not list(imports.glob("*")):
        time.sleep(0.001)
    assert kill_at(running, next(imports.glob("*")), 3)
    for part in tmp_path.glob("copy.db*"):
        part.unlink()
    told = agent("import", str(file), "--archive", str(copy))
    assert "3,000 points, 3,000 of them new; 1 event" in told.err
    assert content(copy) == content(full)


def test_a_full_disk_is_said_and_nothing_is_lost(agent, full, tmp_path):
    file = tmp_path / "all.csv"
    arguments = ("export", "--archive", str(full), "--output", str(file), "--to", "+1h")

    def little_room() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))

    code, err = ended(process(*arguments, preexec_fn=little_room))
    assert code == 1
    assert err.startswith(f"agent: error: {file}.part: File too large; what is there so far stays")
    assert not file.exists()
    told = agent(*arguments)
    assert "3,000 points of 6 metrics (went on where" in told.err
    whole = agent("export", "--archive", str(full), "--format", "csv").out
    assert file.read_bytes().decode().replace("\r\n", "\n") == whole.replace("\r\n", "\n")


def test_ctrl_c_leaves_what_there_is(agent, full, tmp_path):
    file = tmp_path / "all.jsonl"
    slow = (
        "import time; write = export_job._write_page; "
        "export_job._write_page = lambda *page: (time.sleep(0.05), write(*page))[1]; "
    )
    running = process("export", "--archive", full, "-o", file, before=HASTY + SMALL + slow)
    while not Path(f"{file}.part.state").exists() or Path(f"{file}.part.state").read_bytes().count(b"\n") < 3:
        time.sleep(0.01)
    running.send_signal(signal.SIGINT)
    code, err = ended(running)
    assert code == 130, err
    assert err == f"{file}.part keeps what is done: the same command goes on with it\n"
    assert "(went on where it was" in agent("export", "--archive", str(full), "-o", str(file)).err


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        ('{"metric":"a","time":5,"value":1}\n{"metric":"a","time":6,"va', "line 2: is cut off"),
        ('{"metric":"a","time":5,"value":1}\n{"metric":"a","time":5,"value":1}\n', "line 2: 1970-01-01"),
        ('{"metric":"a","time":5,"value":1}\n{"metric":"a b","time":5,"value":1}\n', "is not a metric name"),
    ],
)
def test_one_bad_line_and_nothing_of_any_file_is_stored(agent, tmp_path, bad, says):
    good, file, copy = tmp_path / "good.jsonl", tmp_path / "bad.jsonl", tmp_path / "copy.db"
    good.write_text('{"metric":"g","time":5,"value":1}\n')
    file.write_text(bad)
    told = agent("import", str(good), str(file), "--archive", str(copy))
    assert told.code == 1
    (line,) = told.err.splitlines()
    assert line.startswith(f"agent: error: {file}: ")
    assert says in line
    assert not copy.exists()
    assert file.read_text() == bad


@pytest.mark.parametrize(("end", "there"), [(START + 7, False), (START + 8, True)])
def test_frames_that_were_missed_later_are_not_in_the_range(agent, full, end, there):
    told = agent("export", "--archive", str(full), "--format", "jsonl", "--to", str(end))
    assert ('{"missing":' in told.out) is there


def test_nothing_stays_of_a_file_that_is_wrong(agent, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    file = tmp_path / "f.jsonl"
    file.write_text("[]")
    assert agent("import", str(file), "--archive", str(tmp_path / "copy.db")).code == 1
    assert list((tmp_path / "hostbus" / "imports").iterdir()) == []


def test_a_full_stdout_is_said(full):
    with open("/dev/full", "wb") as out:
        code, told = ended(process("export", "--archive", full, "--format", "csv", stdout=out))
    assert (code, told) == (1, "agent: error: stdout cannot be written: No space left on device\n")


def test_no_password_is_written_down(agent, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    database, server = "postgresql://me:secret@127.0.0.1:1/db?x=secret", "amqp://me:secret@127.0.0.1:1/"
    request = Request(
        format="csv", metrics=["#"], begin="", end="now", archive=database, server=server, start_ns=0, end_ns=9
    )
    assert "secret" not in json.dumps(request.to_json())
    assert request.same_words(request.to_json())
    file = tmp_path / "f.jsonl"
    file.write_text('{"metric":"a","time":5,"value":1}\n')
    told = agent("import", str(file), "--archive", database)
    assert told.code != 0
    (journal,) = (tmp_path / "hostbus" / "imports").iterdir()  # the check need not be done again
    assert "127.0.0.1:1/db" in journal.read_text()
    assert "secret" not in told.err + journal.read_text()
    assert journal.stat().st_mode & 0o777 == 0o600


def test_a_link_that_others_left_is_not_followed(agent, full, tmp_path):
    mine = tmp_path / "mine"
    mine.write_text("x")
    for name in ("all.csv.part", "all.csv.part.state"):
        (tmp_path / name).symlink_to(mine)
        assert agent("export", "--archive", str(full), "-o", str(tmp_path / "all.csv")).code == 1
        (tmp_path / name).unlink()
        (tmp_path / "all.csv.part.state").unlink(missing_ok=True)
    assert mine.read_text() == "x"


def test_a_file_that_was_put_right_is_checked_again(agent, tmp_path):
    file, copy = tmp_path / "f.jsonl", tmp_path / "copy.db"
    for text, code in (('{"metric":"a","ti', 1), ('{"metric":"a","time":5,"value":1}', 0)):
        file.write_text(text)
        assert agent("import", str(file), "--archive", str(copy)).code == code
    assert content(copy)["points"] == {"a": [(5, (1.0).hex())]}


def test_points_in_any_order_are_taken_if_asked_for(agent, tmp_path):
    file, copy = tmp_path / "f.csv", tmp_path / "copy.db"
    file.write_text("metric,time,value\na,7,1\na,5,2\na,5,3\n")
    assert agent("import", str(file), "--archive", str(copy)).code == 1
    assert agent("import", str(file), "--archive", str(copy), "--any-order").code == 0
    assert content(copy)["points"] == {"a": [(5, (2.0).hex()), (7, (1.0).hex())]}


def test_times_without_a_zone_need_one(agent, tmp_path):
    file, copy = tmp_path / "f.csv", tmp_path / "copy.db"
    file.write_text("metric,time,value\na,2026-07-21T10:00:00,1\n")
    assert "has no time zone: say which one is meant (--zone UTC" in agent("import", str(file)).err
    assert agent("import", str(file), "--archive", str(copy), "--zone", "Europe/Berlin").code == 0
    assert content(copy)["points"] == {"a": [(1_784_620_800 * 10**9, (1.0).hex())]}
    assert "is no time zone" in agent("import", str(file), "--zone", "Mars").err


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        ("export --format xml", 2, "--format: 'xml' is none of csv, json, jsonl, parquet, prometheus"),
        ("export --format sqlite", 2, "'sqlite' is none of"),
        ("export -o x.txt", 2, "x.txt does not end as one of these: csv, json"),
        ("export -o /nowhere/x.csv", 2, "/nowhere is not a directory"),
        (
            "export -o /tmp/x.csv.gz",
            2,
            "x.csv.gz would not be compressed: agent export ... | gzip > /tmp/x",
        ),
        ("export --format csv -o /dev/null --overwrite", 2, "/dev/null is not a file: - is stdout"),
        ("export --format csv -o / --overwrite", 2, "/ is not a file: - is stdout"),
        ("export --format csv -o FULL", 2, "FULL is there already: --overwrite replaces it"),
        ("export --format csv --from now --to -1h", 2, "--from: now is not before --to -1h"),
        ("export --format csv -m a..b", 2, "'a..b' is not a metric name or pattern"),
        ("export --format csv --archive FULL -m nothing", 1, "no metric of the archive matches nothing"),
        ("export --format csv --archive /nowhere/x.db", 1, "/nowhere"),
        ("import /nowhere/x.csv", 1, "/nowhere/x.csv: cannot be read: No such file"),
        ("import /dev/null --format csv", 1, "/dev/null: is not a file"),
        ("import x", 2, "x does not end as one of these: csv, json, jsonl, parquet, prometheus, sqlite"),
    ],
)
def test_what_cannot_be_done_is_said_in_a_line(agent, full, arguments, code, says):
    told = agent(*arguments.replace("FULL", str(full)).split())
    assert (told.code, told.out) == (code, "")
    (line,) = told.err.splitlines()
    assert says.replace("FULL", str(full)) in line


def test_another_export_is_not_mixed_with_what_was_left(agent, full, tmp_path):
    file = tmp_path / "all.csv"
    assert kill_at(process("export", "--archive", full, "-o", file), Path(f"{file}.part.state"), 3)
    told = agent("export", "--archive", str(full), "-o", str(file), "-m", "web1.#")
    assert told.code == 1
    assert "is what another export left (--format csv, --metrics #, --from the beginning, --to now)" in told.err
    told = agent("export", "--archive", str(full), "-o", str(file), "-m", "web1.#", "--restart")
    assert (told.code, told.err) == (
        0,
        f"{file}: 1,500 points of 3 metrics\ncsv cannot hold events (1 here): jsonl can\n"
        "csv cannot hold ranges of missing frames (1 here): jsonl can\n",
    )
    assert len(file.read_text().splitlines()) == 1501
    assert agent("export", "--archive", str(full), "-o", str(file), "--overwrite").code == 0
    assert len(file.read_text().splitlines()) == 3001


def test_a_journal_survives_a_torn_line_and_has_one_owner(tmp_path):
    path = tmp_path / "journal"
    one = Journal(path)
    one.begin({"a": 1})
    one.note({"n": 1})
    one.note({"n": 2})
    with pytest.raises(StorageError, match="another process has it"):
        Journal(path)
    one.close()
    path.write_bytes(path.read_bytes() + b'{"n": 3')
    two = Journal(path)
    assert (two.request, two.last) == ({"a": 1}, {"n": 2})
    two.note({"n": 4})
    assert [json.loads(line) for line in path.read_text().splitlines()][-2:] == [{"n": 2}, {"n": 4}]
    two.remove()
    assert not path.exists()
    path.write_text("no\n")
    with pytest.raises(StorageError, match=r"is damaged .* remove it to begin anew"):
        Journal(path)


async def test_points_are_exported_over_the_bus(amqp_url, tmp_path):
    file = tmp_path / "all.csv"
    async with Manager("manager", amqp_url), Answering("archive", amqp_url, await filled(METRICS, points=1000)):
        command = ("export", "--server", amqp_url, "-m", "web1.#", "-o", str(file), "--from", "2026-09-21T14:20:00Z")
        async with asyncio.timeout(30):
            while True:  # until the manager knows who answers for the metrics
                running = await asyncio.create_subprocess_exec(AGENT, *command, stderr=asyncio.subprocess.PIPE)
                _, err = await running.communicate()
                if "no metric" not in err.decode():
                    break
    assert running.returncode == 0, err
    told = err.decode().splitlines()
    assert told[0] == f"{file}: 1,800 points of 3 metrics"
    assert told[1].startswith("events are not told over the bus")
    assert file.read_text().splitlines()[1] == "web1.load.15m,2026-09-21T14:20:00.000000000Z,400.0"
