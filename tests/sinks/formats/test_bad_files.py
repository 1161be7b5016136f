# SPDX-License-Identifier: MIT
"""What is wrong with a file is said with its name and the place in it; any bytes are read, or refused so."""

import gzip
import sqlite3
from datetime import UTC
from zoneinfo import ZoneInfo

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bus.errors import StorageError
from bus.formats import Rules
from sinks.formats import sqlite
from tests.sinks.formats.copies import ALL, extras_of, points_of, read_all

GOOD = {
    "jsonl": b'{"metric":"a.b","time":5,"value":1.5}\n',
    "csv": b"metric,time,value\r\na.b,5,1.5\r\n",
    "json": b'{"metrics": [{"timestamp": "1970-01-01T00:00:00.000000005Z", "host": "a", "label": "b", "value": 1.5}]}',
    "prometheus": b'b{host="a",metric="a.b"} 1.5 0.000000005\n# EOF\n',
}


@pytest.mark.parametrize("name", GOOD)
async def test_one_point_as_others_may_write_it(tmp_path, name):
    path = tmp_path / "file"
    for content in (GOOD[name], gzip.compress(GOOD[name]), b"\xef\xbb\xbf" + GOOD[name]):
        path.write_bytes(content)
        assert points_of(await read_all(ALL[name], path)) == {"a.b": [(5, (1.5).hex())]}


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("jsonl", '{"metric":"a.b","time":5,"val', "line 1: is cut off"),
        ("jsonl", '\n{"metric":"a.b","time":5,"value":1}\n{"metric":"a.b","time":6}\n', "line 3: needs"),
        ("jsonl", '{"metric":"a b","time":5,"value":1}', "line 1: 'a b' is not a metric name"),
        ("jsonl", '{"metric":"a","time":5.5,"value":1}', "line 1: Expected `int | str"),
        ("jsonl", '{"metric":"a","time":5,"value":true}', "line 1: Expected `float | str | null`, got `bool`"),
        ("jsonl", '{"metric":"a","time":5,"value":"12"}', "line 1: the value '12' is not a number"),
        ("jsonl", '{"metric":"a","time":9223372036854775808,"value":1}', "line 1: the time is not between"),
        ("jsonl", '{"metric":"a","time":"2026-11-21T10:00:00","value":1}', "line 1: '2026-11-21T10:00:00' has no time"),
        ("jsonl", '{"metric":"a","time":5,"value":1,"unit":"W"}', "line 1: Object contains unknown field `unit`"),
        (
            "jsonl",
            '{"metric":"a","time":5,"value":1}\n{"metric":"a","time":5,"value":1}',
            "line 2: 1970-01-01T00:00:00",
        ),
        ("jsonl", '{"metric":"a","time":5,"value":1}\n' * 2, "comes twice"),
        ("jsonl", '{"metric":"a","time":5,"value":1}\n{"metric":"a","time":4,"value":1}', "line 2: "),
        ("jsonl", '{"metric":"a","time":5,"value":1}{"metric":"a","time":6,"value":1}', "line 1: "),
        ("jsonl", '{"metric":\n"a","time":5,"value":1}\n', "line 1: is cut off"),
        ("jsonl", "\0", "line 1: holds a NUL byte"),
        ("jsonl", b'{"metric":"\xff"}', "line 1: is not UTF-8 text (byte 0xff)"),
        ("jsonl", "[" * 10_000, "line 1: "),
        ("jsonl", '{"metadata":{},"metric":"a b"}', "metadata: 'a b' is not a metric name"),
        ("csv", "", "is empty"),
        ("csv", "time,metric,value\n1,a,1\n", "line 1: the header must be metric,time,value, not 'time,metric,value'"),
        ("csv", "metric,time,value\na,1\n", "line 2: 2 fields, where there must be 3"),
        ("csv", "metric,time,value\na,1,1\na,2,x\n", "line 3: the value 'x' is not a number"),
        ("csv", "metric,time,value\na,1,1_0\n", "line 2: '1_0' is not a number"),
        ("csv", "metric,time,value\na,2026-11-21T10:00:60.5Z,1\n", "line 2: '2026-11-21T10:00:60.5Z' has more than 60"),
        ("csv", "metric,time,value\na,one,1\n", "line 2: 'one' is not an ISO 8601 time"),
        ("csv", "metric,time,value\na,1763719200,1\n", "line 2: the time 1763719200 looks like seconds"),
        (
            "csv",
            "metric,time,value\na,99999999999999999999,1\n",
            "line 2: the time 99999999999999999999 is not",
        ),
        ("csv", 'metric,time,value\n"a,1,1\n', "is not CSV: unexpected end of data"),
        (
            "csv",
            "metric,time,value\n\na,5,1\nb,5,1\na,4,1\n",
            "line 5: 1970-01-01T00:00:00.000000004Z of a is",
        ),
        ("csv", "metric,time,value\nä,5,1\n", "line 2: 'ä' is not a metric name"),
        ("csv", "metric,time,value\na,5,1\n".encode("utf-16"), "line 1: "),
        ("json", "", "the file is cut off"),
        ("json", "[]", "line 1, column 1: '[]' where '{' is due"),
        ("json", "{}", 'has no "metrics"'),
        ("json", '{"metrics": [{"timestamp": "19', "line 1, column 31: the file is cut off"),
        ("json", '{"metrics": []', "the file is cut off"),
        ("json", '{"metrics": [],}', "'}' where a key is due"),
        ("json", '{"metrics": []}}', "stands behind the end"),
        ("json", '{"metrics": 5}', "'5}' where '[' is due"),
        ("json", '{"metrics": [5]}', "column 14: Expected `object`, got `int`"),
        ("json", '{"metrics": [\n{"label": "a"}]}', "line 2, column 1: Object missing required field `timestamp`"),
        ("json", '{"metrics": [{"timestamp": 5, "label": "a", "value": 1}]}', "Expected `str`, got `int`"),
        ("json", '{"metrics": [{"timestamp": "x", "label": "a", "value": 1}]}', "column 14: 'x' is not an ISO 8601"),
        ("json", '{"events": 1, "metrics": []}', "where '[' is due"),
        ("json", '{"metrics": [' + '{"a":' * 100_000, "line 1, column 14: is nested too deeply"),
        ("json", '{"metrics": [' + '{"a":' * 900, "the file is cut off"),
        ("json", '{"metrics": [{"timestamp":"' + "a" * 18_000_000, "no element ends within 16 MiB"),
        ("json", '{"metrics": [], "x":"' + "\\" * 18_000_000, "no element ends within 16 MiB"),
        ("json", '{"metrics": [], "metadata": {"a": {"unit": "\\ud800"}}}', "metadata of a: cannot be kept as JSON"),
        (
            "json",
            '{"metrics": [], "events": [{"timestamp": "2026-11-21T10:00:00Z", "label": "\\ud800"}]}',
            "event '\\ud800': cannot be kept as JSON in UTF-8",
        ),
        (
            "json",
            '{"metrics": [{"timestamp": "1970-01-01T00:00:01Z", "label": "CPU %", "value": 1},\n'
            '{"timestamp": "1970-01-01T00:00:02Z", "label": "CPU_%", "value": 1}]}',
            "line 2, column 1: '/CPU %' and '/CPU_%' would both become the metric CPU__",
        ),
        (
            "json",
            '{"metrics": [{"timestamp": "1970-01-01T00:00:02Z", "label": "a", "value": 1},\n'
            ' {"timestamp": "1970-01-01T00:00:02Z", "label": "a", "value": 1}]}',
            "line 2, column 2: 1970-01-01T00:00:02.000000000Z of a comes twice",
        ),
        ("prometheus", 'b{metric="a.b"} 1 5\n', "is cut off: its last line is not '# EOF'"),
        ("prometheus", 'b{host="a"} 1 5\n# EOF\n', "line 1: has no label metric="),
        ("prometheus", 'b{metric="a.b"} 1\n# EOF\n', "line 1: is not NAME"),
        ("prometheus", "b{" + 'metric="a",' * 300_000 + "\n# EOF\n", "line 1: is not NAME"),
        ("prometheus", 'b{metric="a.b"} 1 ' + "9" * 5000 + "\n# EOF\n", "line 1: is not NAME"),
        ("prometheus", 'b{metric="a.b"} one 1\n# EOF\n', "line 1: 'one' is not a number"),
        ("prometheus", '# EOF\nb{metric="a.b"} 1 1\n', "line 2: stands behind '# EOF'"),
        ("prometheus", 'b{metric="a.b"} 1 99999999999\n# EOF\n', "line 1: the time 99999999999 s is not between"),
        ("parquet", "", "is not a Parquet file that can be read"),
        ("parquet", "PAR1 and no more PAR1", "is not a Parquet file that can be read"),
    ],
)
async def test_a_bad_file_is_refused_with_the_place(tmp_path, name, content, says):
    path = tmp_path / f"bad.{name}"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    with pytest.raises(StorageError) as caught:
        await read_all(ALL[name], path)
    assert str(caught.value).startswith(f"{path}: ")
    assert says in str(caught.value)


@pytest.mark.parametrize("name", ALL)
async def test_what_is_no_file_is_refused(tmp_path, name):
    for path in (tmp_path, tmp_path / "none"):
        with pytest.raises(StorageError, match=r"cannot be read: |is not a Parquet file"):
            await read_all(ALL[name], path)


@pytest.mark.parametrize("name", GOOD)
async def test_a_compressed_file_that_is_cut_off_is_refused(tmp_path, name):
    path = tmp_path / "file.gz"
    path.write_bytes(gzip.compress(GOOD[name])[:-6])
    with pytest.raises(StorageError, match="the gzip file is damaged or cut off"):
        await read_all(ALL[name], path)


@pytest.mark.parametrize("name", ALL)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
async def test_any_bytes_are_read_or_refused(tmp_path, name, data):
    good = GOOD.get(name, b"PAR1")
    at = data.draw(st.integers(0, len(good)))
    content = good[:at] + data.draw(st.binary(max_size=20)) + good[at + data.draw(st.integers(0, 5)) :]
    path = tmp_path / "any"
    path.write_bytes(content)
    told = f"{path}: "
    try:
        await read_all(ALL[name], path)
    except StorageError as error:
        told = str(error)
    assert told.startswith(f"{path}: ")


async def test_a_parquet_file_of_others_is_read_if_its_columns_can_be(tmp_path):
    import pyarrow
    from pyarrow import parquet

    path = tmp_path / "theirs.parquet"

    def table(times, values, metrics=("b", "a", "b")):
        return pyarrow.table({"extra": [1, 2, 3], "value": values, "time": times, "metric": list(metrics)})

    in_ms = pyarrow.array([1, 2, 3], pyarrow.timestamp("ms", "Europe/Berlin"))
    parquet.write_table(table(in_ms, pyarrow.array([1, None, 3], pyarrow.int16())), path)
    (batch,) = await read_all(ALL["parquet"], path)
    assert points_of([batch]) == {
        "a": [(2_000_000, "nan")],
        "b": [(1_000_000, (1.0).hex()), (3_000_000, (3.0).hex())],
    }
    assert batch.locate("b", 1) == "row 3"
    for bad, says in (
        (table([1, 2, None], [1.0, 2.0, 3.0]), "row 3: has no time"),
        (table([1, 2, 1], [1.0, 2.0, 3.0]), "row 3: .* of b comes twice"),
        (table([1, 2, 3], [1.0, 2.0, 3.0], ("a", "a", "a b")), "row 3: 'a b' is not a metric name"),
        (table(["x", "y", "z"], [1.0, 2.0, 3.0]), "column time: must be a timestamp with a time zone"),
        (table([1, 2, 3], ["1", "2", "3"]), "column value: must be a number"),
        (table(pyarrow.array([1, 2, 3], pyarrow.timestamp("ns")), [1.0, 2.0, 3.0]), "with a time zone"),
        (pyarrow.table({"metric": ["a"]}), "has no column time"),
    ):
        parquet.write_table(bad, path)
        with pytest.raises(StorageError, match=says):
            await read_all(ALL["parquet"], path)


async def test_parquet_without_pyarrow_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    with pytest.raises(StorageError, match=r"pip install 'hostbus\[parquet\]'"):
        ALL["parquet"].writer()


async def test_names_of_others_become_allowed_and_go_back(tmp_path):
    path = tmp_path / "otto.json"
    path.write_text(
        '{"metrics": [{"timestamp": "2026-11-21T10:00:00", "host": "router1", "label": "CPU %", "value": NaN, '
        '"meta": 1},'
        '{"timestamp": "2026-11-21T10:00:00.5", "host": "10.0.0.1", "label": "mem", "value": 7},'
        '{"timestamp": "2026-11-21 10:00:01+01:00", "label": "load", "value": null}], "other": {"x": []},'
        '"events": [{"timestamp": "2026-07-21T10:00:00", "label": "reboot", "source": "s", '
        '"color": "red", "dash": "dot"}]}'
    )
    batches = await read_all(ALL["json"], path, zone=ZoneInfo("Europe/Berlin"))
    second = 1795251600
    assert points_of(batches) == {
        "router1.CPU__": [(second * 10**9, "nan")],
        "10.0.0.1.mem": [(second * 10**9 + 500_000_000, (7.0).hex())],
        "load": [((second + 1) * 10**9, "nan")],
    }
    extras = extras_of(batches)
    assert extras.metadata == {
        "router1.CPU__": {"host": "router1", "label": "CPU %"},
        "10.0.0.1.mem": {"host": "10.0.0.1", "label": "mem"},
    }
    (event,) = extras.events
    assert (event.time, event.color) == (1784620800 * 10**9, "red")
    writer = ALL["json"].writer()
    chunk = next(chunk for batch in batches for chunk in batch.chunks if chunk.metric == "router1.CPU__")
    assert b'"host":"router1","label":"CPU %"' in writer.points(chunk, extras.metadata["router1.CPU__"])


def make_database(path, *statements):
    connection = sqlite3.connect(path)
    for statement in statements:
        connection.execute(statement)
    connection.commit()
    connection.close()


async def test_a_database_of_others_is_read(tmp_path):
    path = tmp_path / "theirs.db"
    make_database(
        path,
        "CREATE TABLE metrics(id INTEGER PRIMARY KEY, timestamp, host, label, value)",
        "INSERT INTO metrics(timestamp, host, label, value) VALUES ('2026-11-21T10:00:00', 'web1', 'cpu', 1.5),"
        " (1795255201000000000, 'web1', 'cpu', 2), (1795255202.5, 'web1', 'cpu', NULL)",
        "CREATE TABLE events(timestamp, label, color)",
        "INSERT INTO events VALUES (1.5, 'boom', NULL)",
    )
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    batches = await read_all(sqlite.FORMAT, path, zone=UTC)
    assert points_of(batches) == {
        "web1.cpu": [
            (1795255200 * 10**9, (1.5).hex()),
            (1795255201 * 10**9, (2.0).hex()),
            (1795255202_500_000_000, "nan"),
        ]
    }
    assert [(event.time, event.label, event.color) for event in extras_of(batches).events] == [
        (1_500_000_000, "boom", "#888888")
    ]
    for number, batch in enumerate(batches, 1):
        rest = await read_all(sqlite.FORMAT, path, start=batch.position, zone=UTC)
        assert (points_of(rest), extras_of(rest)) == (points_of(batches[number:]), extras_of(batches[number:]))
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before


@pytest.mark.parametrize(
    ("statement", "says"),
    [
        ("CREATE TABLE other(x)", "is no archive, and has no table metrics"),
        ("CREATE TABLE metrics(timestamp, value)", "table metrics: has no column label; it has timestamp, value"),
        ("CREATE VIEW metrics AS SELECT 'x' timestamp, 'a' label, 1 value", "table metrics, row 1: 'x' is not an ISO"),
        ("CREATE VIEW metrics AS SELECT 1 timestamp, 'a' label, 'x' value", "table metrics, row 1: the value 'x'"),
        ("CREATE VIEW metrics AS SELECT NULL timestamp, 'a' label, 1 value", "row 1: the timestamp None"),
        ("CREATE VIEW metrics AS SELECT 9e999 timestamp, 'a' label, 1 value", "row 1: the timestamp inf is neither"),
        ("CREATE VIEW metrics AS SELECT 1 timestamp, 1 label, 1 value", "row 1: host None and label 1 must be text"),
    ],
)
async def test_a_database_that_does_not_fit_is_refused(tmp_path, statement, says):
    path = tmp_path / "theirs.db"
    make_database(path, statement)
    with pytest.raises(StorageError) as caught:
        await read_all(sqlite.FORMAT, path)
    assert says in str(caught.value)


async def test_what_a_transaction_that_was_killed_has_left_is_not_read(tmp_path):
    path, copy = tmp_path / "theirs.db", tmp_path / "copy.db"
    rows = ", ".join(f"({n}, 'a', {n})" for n in range(5000))
    make_database(path, "CREATE TABLE metrics(timestamp, label, value)", f"INSERT INTO metrics VALUES {rows}")
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA cache_size = 1")  # so that half of it is in the file
    connection.execute("BEGIN")
    connection.execute("UPDATE metrics SET value = value + 1000")
    for end in ("", "-journal"):
        (tmp_path / f"copy.db{end}").write_bytes((tmp_path / f"theirs.db{end}").read_bytes())
    connection.close()
    with pytest.raises(StorageError, match=f"{copy}: cannot be read"):
        await read_all(sqlite.FORMAT, copy)


async def test_numbers_in_parquet_that_no_archive_holds_are_refused(tmp_path):
    import pyarrow as arrow
    from pyarrow import parquet

    path = tmp_path / "f.parquet"
    kept = b'{"missing":[{"source":"s","key":"k","epoch":99999999999999999999,"first":1,"last":2,"noticed":3}]}'
    table = arrow.table({"metric": ["a"], "time": [1], "value": [1.0]}).replace_schema_metadata({"hostbus": kept})
    parquet.write_table(table, path)
    with pytest.raises(StorageError, match=r"missing frames of 's': a number is not between"):
        await read_all(ALL["parquet"], path)


async def test_no_database_is_refused(tmp_path):
    path = tmp_path / "theirs.db"
    path.write_bytes(b"SQLite format 3\0" + b"x" * 5000)
    for content in (path.read_bytes(), b"no", b""):
        path.write_bytes(content)
        with pytest.raises(StorageError, match=r"cannot be read: |is not an SQLite database"):
            await read_all(sqlite.FORMAT, path)


def test_the_rules_remember_metrics_not_points(tmp_path):
    assert Rules(tmp_path).metrics == 0
