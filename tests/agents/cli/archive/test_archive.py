# SPDX-License-Identifier: MIT
"""`agent archive`: on files as people have them: good ones, old ones, damaged ones, ones that are being written."""

import asyncio
import csv
import datetime as dt
import io
import json
import re
import signal
import sqlite3
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from sinks.sqlite import schema
from sinks.sqlite.archive import SqliteArchive
from tests.agents.cli.conftest import AGENT, Outcome
from tests.agents.cli.history.recorded import time_zone
from tests.sinks.sqlite.upkeep import NOW_NS, T0, H, S, compact, group, noise, points_of, seconds

Agent = Callable[..., Outcome]
VALUES = noise(3600)
RECENT = NOW_NS // S * S - 60 * S


async def fill(path: Path, *, packed: bool = True) -> None:
    """An hour of web1.a and web1.b some days ago, and a minute just now."""
    async with await SqliteArchive.open(path) as archive:
        await archive.insert([group(["web1.a", "web1.b"], seconds(T0, 3600), VALUES, [float("nan")] * 3600)])
        if packed:
            await compact(archive, NOW_NS - 10 * H)
        await archive.insert([group(["web1.a"], seconds(RECENT, 60), [7.0] * 60)])


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "archive.db"
    asyncio.run(fill(file))
    return file


def test_info_says_what_is_in_an_archive_and_who_writes_it(agent: Agent, path: Path) -> None:
    plain = agent("archive", "info", "--archive", str(path))
    assert plain.code == 0
    assert f"{path}, schema {len(schema.MIGRATIONS)}, nobody writes it" in plain.out
    assert "2 metrics, 7,260 points, 0 events, 0 gaps" in plain.out
    told = json.loads(agent("archive", "info", "--archive", f"sqlite://{path}", "--format", "json").out)
    assert (told["metrics"], told["points"], told["writer"]) == (2, 7260, None)
    assert 1 < told["bytesPerPoint"] < 60
    raw, finest, *_ = told["tiers"]
    assert (raw["tier"], raw["rows"], raw["packed"], raw["first"], raw["last"]) == (
        "raw",
        60,
        7200,
        T0,
        RECENT + 59 * S,
    )
    assert (finest["tier"], finest["packed"], finest["first"]) == ("10s", 360, T0)
    assert [tier["tier"] for tier in told["tiers"]] == ["raw", "10s", "1m", "10m", "1h", "1d"]

    async def written() -> Outcome:
        async with await SqliteArchive.open(path):
            return await asyncio.to_thread(agent, "archive", "info", "--archive", str(path))

    assert "written by this process already" in asyncio.run(written()).out


def test_info_tells_times_of_this_machines_clock(agent: Agent, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shown = {}
    for zone in ("UTC0", "JST-9"):
        with time_zone(monkeypatch, zone):
            shown[zone] = agent("archive", "info", "--archive", str(path)).out
    for zone, hours in (("UTC0", 0), ("JST-9", 9)):
        first = dt.datetime.fromtimestamp(T0 // S, dt.UTC) + dt.timedelta(hours=hours)
        assert f"{first:%Y-%m-%d %H:%M:%S}" in shown[zone]


def test_verify_finds_nothing_in_a_good_file_and_what_is_wrong_in_another(agent: Agent, path: Path) -> None:
    assert agent("archive", "verify", "--archive", str(path)) == Outcome(0, f"{path}: whole\n", "")
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE series SET columns = zeroblob(1000) WHERE tier = 0 AND metric = 1")
    connection.close()
    bad = agent("archive", "verify", "--thorough", "--archive", str(path))
    assert bad.code == 1
    assert "web1.a, points from" in bad.out
    assert "its checksum does not fit" in bad.out
    assert f"agent: error: {path}: something is wrong in 1 place: keep a copy of it; 'agent export' saves" in bad.err
    (line,) = agent("archive", "verify", "--format", "json", "--archive", str(path)).out.splitlines()
    assert json.loads(line)["where"].startswith("web1.a, points from")


def test_verify_of_a_file_that_cannot_be_read_at_all_says_so_as_a_finding(agent: Agent, path: Path) -> None:
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    outcome = agent("archive", "verify", "--archive", str(path))
    assert outcome.code == 1
    assert outcome.out.startswith("the file: ")
    assert "'agent export' saves what can be read" in outcome.err
    assert "archive verify" not in outcome.err


def test_compact_with_hot_0s_packs_all_six_hours_that_are_over(agent: Agent, tmp_path: Path) -> None:
    path = tmp_path / "archive.db"
    asyncio.run(fill(path, packed=False))
    assert "rows packed" in agent("archive", "compact", "--hot", "0s", "--archive", str(path)).out
    assert "7,260 points" in agent("archive", "info", "--archive", str(path)).out
    assert "less than 0 s" in agent("archive", "compact", "--hot", "-1s", "--archive", str(path)).err


def test_compact_makes_a_file_small_and_removes_only_what_it_is_told_to(agent: Agent, tmp_path: Path) -> None:
    path = tmp_path / "archive.db"
    asyncio.run(fill(path, packed=False))
    outcome = agent("archive", "compact", "--archive", str(path))
    assert outcome.code == 0
    assert "7,200 rows packed" in outcome.out
    assert "pages given back" in outcome.out
    assert "removed" not in outcome.out
    assert "nothing to do" in agent("archive", "compact", "--archive", str(path)).out
    assert agent("archive", "verify", "--thorough", "--archive", str(path)).code == 0

    removed = agent("archive", "compact", "--archive", str(path), "--keep", "raw=1d")
    assert "2 rows and series removed" in removed.out
    left = agent("archive", "sql", "SELECT count(*) AS n FROM points", "--archive", str(path), "--format", "json")
    assert json.loads(left.out) == {"n": 60}

    for keep, said in (("raw", "TIER=TIME"), ("raw=soon", "is not a duration"), ("xyz=1d", "is no tier")):
        wrong = agent("archive", "compact", "--archive", str(path), "--keep", keep)
        assert wrong.code == 2
        assert said in wrong.err
    assert "--hot: 'x' is not a duration" in agent("archive", "compact", "--archive", str(path), "--hot", "x").err


def test_an_archive_that_a_sink_writes_is_left_to_it(agent: Agent, path: Path) -> None:
    async def refused(command: str) -> Outcome:
        async with await SqliteArchive.open(path):
            return await asyncio.to_thread(agent, "archive", command, "--archive", str(path))

    for command in ("compact", "migrate"):
        outcome = asyncio.run(refused(command))
        assert outcome.code == 1
        assert "is being written by this process already, which sees to it by itself" in outcome.err


def first_version(path: Path) -> None:
    """A file as schema 1 was."""
    with sqlite3.connect(path) as connection:
        for statement in schema.MIGRATIONS[0]:
            assert isinstance(statement, str)
            connection.execute(statement)
        connection.execute(f"PRAGMA application_id = {schema.APPLICATION_ID}")
        connection.execute("PRAGMA user_version = 1")
        connection.execute("INSERT INTO metric (name) VALUES ('web1.a')")
        points = zip(seconds(T0, 3600), VALUES, strict=True)
        connection.executemany("INSERT INTO point VALUES (1, ?, ?)", points)
    connection.close()


def test_migrate_brings_an_old_file_up_to_date_and_keeps_a_copy(agent: Agent, tmp_path: Path) -> None:
    path, copy = tmp_path / "old.db", tmp_path / "old.db.schema-1.backup"
    first_version(path)
    assert "'agent archive migrate' brings it up to date" in agent("archive", "info", "--archive", str(path)).err
    outcome = agent("archive", "migrate", "--archive", str(path))
    assert outcome == Outcome(0, f"{path}: schema 1 → {len(schema.MIGRATIONS)}; the old file is {copy}\n", "")
    with sqlite3.connect(copy) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (1,)
        assert connection.execute("SELECT count(*) FROM point").fetchone() == (3600,)
    connection.close()
    assert agent("archive", "verify", "--thorough", "--archive", str(path)).code == 0
    assert "is up to date" in agent("archive", "migrate", "--archive", str(path)).out


def test_a_migration_that_cannot_be_changes_nothing(
    agent: Agent, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, copy = tmp_path / "old.db", tmp_path / "old.db.schema-1.backup"
    first_version(path)
    before = path.read_bytes()
    copy.write_text("mine")
    assert (
        "is there already: move it away, or migrate with --no-backup"
        in agent("archive", "migrate", "--archive", str(path)).err
    )
    assert (path.read_bytes(), copy.read_text()) == (before, "mine")
    copy.unlink()

    with monkeypatch.context() as patch:
        patch.setattr("shutil.disk_usage", lambda _path: type("Usage", (), {"free": 1000})())
        full = agent("archive", "migrate", "--archive", str(path))
    assert full.code == 1
    assert "make some room" in full.err
    assert path.read_bytes() == before
    assert list(tmp_path.glob("*backup*")) == []

    assert agent("archive", "migrate", "--no-backup", "--archive", str(path)).code == 0
    assert list(tmp_path.glob("*backup*")) == []

    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()
    newer = agent("archive", "migrate", "--archive", str(path))
    assert newer.code == 1
    assert "was made by a newer hostbus (schema 99" in newer.err


@pytest.mark.parametrize("command", [("info",), ("verify",), ("compact",), ("migrate",), ("sql", "SELECT 1")])
def test_no_file_and_no_archive_are_one_clear_line(agent: Agent, tmp_path: Path, command: tuple[str, ...]) -> None:
    missing = agent("archive", *command, "--archive", str(tmp_path / "no.db"))
    assert (missing.code, missing.err) == (
        1,
        f"agent: error: there is no archive at {tmp_path / 'no.db'}: 'agent up' and a sqlite-sink make one\n",
    )
    assert list(tmp_path.iterdir()) == []
    assert (
        f"{tmp_path} is a directory: an archive is a file" in agent("archive", *command, "--archive", str(tmp_path)).err
    )
    (tmp_path / "empty.db").touch()
    assert "empty.db is empty: " in agent("archive", *command, "--archive", str(tmp_path / "empty.db")).err
    (tmp_path / "text.db").write_text("no archive" * 1000)
    assert "is not an SQLite file" in agent("archive", *command, "--archive", str(tmp_path / "text.db")).err
    assert "archives, not for nats://" in agent("archive", *command, "--archive", "nats://x").err


# -- SQL -----------------------------------------------------------------------------------------------


def ask(agent: Agent, path: Path, statement: str, *options: str) -> list[dict[str, object]]:
    outcome = agent("archive", "sql", statement, "--archive", str(path), "--format", "json", *options)
    assert (outcome.code, outcome.err) == (0, "")
    return [json.loads(line) for line in outcome.out.splitlines()]


def test_sql_sees_rows_and_blocks_as_one(agent: Agent, path: Path) -> None:
    async def right() -> list[tuple[int, float]]:
        async with await SqliteArchive.open(path, "read") as archive:
            return await points_of(archive, "web1.a")

    found = ask(agent, path, "SELECT time, value FROM points WHERE metric = 'web1.a' ORDER BY time")
    assert [(row["time"], row["value"]) for row in found] == asyncio.run(right())
    assert ask(agent, path, "SELECT metric, count(*) AS n, count(value) AS v FROM points GROUP BY 1 ORDER BY 1") == [
        {"metric": "web1.a", "n": 3660, "v": 3660},
        {"metric": "web1.b", "n": 3600, "v": 0},
    ]
    for tier, buckets in (("10s", 360), ("1m", 60), ("10m", 6), ("1h", 1), ("1d", 1)):
        (row,) = ask(
            agent,
            path,
            f"SELECT count(*) AS n, sum(count) AS c, min(min) AS low FROM rollup_{tier} WHERE time < {T0 + 20 * H}",
        )
        assert row == {"n": buckets, "c": 3600, "low": min(VALUES)}, tier
    (mean,) = ask(agent, path, f"SELECT mean FROM rollup_10s WHERE time = {T0 + 10 * S}")
    assert mean["mean"] == pytest.approx(sum(VALUES[10:20]) / 10)


def test_sql_joins_blocks_with_blocks(agent: Agent, path: Path) -> None:
    (row,) = ask(
        agent,
        path,
        "SELECT count(*) AS n, sum(a.value = b.value) AS same, sum(c.value IS NULL) AS none FROM points a "
        "JOIN points b ON b.metric = a.metric AND b.time = a.time JOIN points c ON c.metric = 'web1.b' "
        f"AND c.time = a.time WHERE a.metric = 'web1.a' AND a.time < {T0 + 200 * S}",
    )
    assert row == {"n": 200, "same": 200, "none": 200}


def test_sql_of_a_range_leaves_out_what_lies_elsewhere(agent: Agent, path: Path) -> None:
    count = "SELECT count(*) AS n FROM points WHERE metric = 'web1.a'"
    assert ask(agent, path, count, "--from", "-1h") == [{"n": 60}]
    assert ask(agent, path, count, "--to", "-1h") == [{"n": 3600}]


def test_sql_prints_tables_and_csv(agent: Agent, path: Path) -> None:
    statement = "SELECT metric, min(time) AS first, x'00ff' AS bytes, NULL AS none FROM points GROUP BY 1 ORDER BY 1"
    plain = agent("archive", "sql", statement, "--archive", str(path))
    assert plain.out.splitlines()[:2] == [
        "metric  first                bytes  none",
        f"web1.a  {T0}  00ff",
    ]
    rows = list(
        csv.reader(io.StringIO(agent("archive", "sql", statement, "--archive", str(path), "--format", "csv").out))
    )
    assert rows == [
        ["metric", "first", "bytes", "none"],
        ["web1.a", str(T0), "00ff", ""],
        ["web1.b", str(T0), "00ff", ""],
    ]
    assert agent("archive", "sql", "SELECT 1 WHERE 0", "--archive", str(path), "--format", "csv").out == "1\n"
    assert agent("archive", "sql", "SELECT 1 WHERE 0", "--archive", str(path)) == Outcome(0, "", "no rows\n")


def test_sql_without_a_statement_or_without_time_in_its_range_is_a_wrong_command_line(agent: Agent, path: Path) -> None:
    for arguments, said in (
        (("",), "an empty STATEMENT"),
        (("SELECT 1", "--from", "now", "--to", "-1h"), "is not before"),
    ):
        outcome = agent("archive", "sql", *arguments, "--archive", str(path))
        assert outcome.code == 2
        assert said in outcome.err


@pytest.mark.parametrize(
    ("statement", "said"),
    [
        ("SELECT * FROM absent", "the statement is wrong: no such table: absent"),
        ("SELCT 1", 'the statement is wrong: near "SELCT": syntax error'),
        ("SELECT 1; SELECT 2", "one statement at a time"),
        ("DELETE FROM point", "only reading is allowed"),
        ("INSERT INTO event VALUES (1)", "the statement is wrong: table event has 9 columns|only reading is allowed"),
        ("ATTACH '/tmp/other.db' AS other", "only reading is allowed"),
        ("PRAGMA journal_mode = DELETE", "only reading is allowed"),
        ("PRAGMA query_only = OFF", "only reading is allowed"),
        ("CREATE TEMP TABLE mine (x)", "only reading is allowed"),
        ("DROP VIEW temp.points", "only reading is allowed"),
        ("VACUUM INTO '/tmp/other.db'", "only reading is allowed|the statement is wrong"),
        ("BEGIN EXCLUSIVE", "only reading is allowed"),
        ("SELECT load_extension('x')", "not authorized to use function|no such function"),
    ],
)
def test_sql_that_is_wrong_or_would_change_something_is_refused(
    agent: Agent, path: Path, statement: str, said: str
) -> None:
    before = path.read_bytes()
    outcome = agent("archive", "sql", statement, "--archive", str(path))
    assert (outcome.code, outcome.out) == (1, "")
    assert re.search(said, outcome.err), outcome.err
    assert outcome.err.count("\n") == 1
    assert path.read_bytes() == before


def test_sql_says_which_block_is_damaged(agent: Agent, path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE series SET columns = zeroblob(1000) WHERE tier = 0 AND metric = 1")
    connection.close()
    outcome = agent("archive", "sql", "SELECT sum(value) FROM points", "--archive", str(path))
    assert outcome.code == 1
    assert "web1.a" in outcome.err
    assert "checksum does not fit" in outcome.err


def test_ctrl_c_ends_a_statement_that_would_take_for_ever(path: Path) -> None:
    statement = "SELECT count(*) FROM points a, points b, points c"
    with subprocess.Popen(
        [AGENT, "archive", "sql", statement, "--archive", str(path)], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as running:
        time.sleep(1.0)
        assert running.poll() is None
        running.send_signal(signal.SIGINT)
        out, err = running.communicate(timeout=20)
    assert (running.returncode, out, err) == (130, b"", b"")


def test_who_has_read_enough_of_a_long_answer_gets_no_complaint(path: Path) -> None:
    statement = "SELECT a.time, b.time FROM points a, points b"
    with subprocess.Popen(
        [AGENT, "archive", "sql", statement, "--archive", str(path), "--format", "csv"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as running:
        assert running.stdout is not None
        assert running.stderr is not None
        assert running.stdout.readline() == b"time,time\n"
        running.stdout.close()
        assert running.wait(timeout=20) in {1, 141}
        assert running.stderr.read() == b""
