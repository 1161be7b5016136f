# SPDX-License-Identifier: MIT
"""The manager's store: what it keeps, and which files it refuses."""

import asyncio
import sqlite3
import stat
from pathlib import Path

import pytest

from bus.errors import StorageError
from bus.registry import SCHEMA_VERSION, MetricEntry, Registry


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "manager.db")


async def test_everything_survives_a_restart(path: str) -> None:
    async with Registry.open(path) as registry:
        await registry.declare("source-a", {"web1.a": {"unit": "V", "nested": {"x": [1, None]}}, "web1.b": {}})
        await registry.declare("source-b", {"web1.b": {"unit": "°C"}})
        first = await registry.set_config("sink-a", {"rate": 1}, "tool")
        second = await registry.set_config("sink-a", {"rate": 2.5, "text": "ü"}, "person")
        await registry.add_sink("sink-a")
        await registry.keep("sink-a", ["web1.a", "web9.later"])
        await registry.keep("sink-b", ["web1.a", "web1.b"])
        await registry.forget("sink-b", ["web1.b", "unknown"])
    async with Registry.open(path) as registry:
        assert registry.metrics == {
            "web1.a": MetricEntry(owner="source-a", metadata={"unit": "V", "nested": {"x": [1, None]}}),
            "web1.b": MetricEntry(owner="source-b", metadata={"unit": "°C"}),
        }
        assert registry.configs == {"sink-a": [first, second]}
        assert [version.version for version in registry.configs["sink-a"]] == [1, 2]
        assert registry.config("sink-a") == {"rate": 2.5, "text": "ü"}
        assert registry.sinks == {"sink-a"}
        assert registry.kept == {"sink-a": {"web1.a", "web9.later"}, "sink-b": {"web1.a"}}


async def test_what_was_never_set_is_empty(path: str) -> None:
    async with Registry.open(path) as registry:
        assert registry.config("sink-a") == {}
        assert registry.metadata("web1.a") == {}


async def test_a_metric_that_is_declared_again_stays_historic(path: str) -> None:
    async with Registry.open(path) as registry:
        await registry.keep("sink-a", ["web1.a"])
        await registry.declare("source-a", {"web1.a": {"unit": "V"}})
        assert registry.metadata("web1.a") == {"unit": "V", "historic": True}
        await registry.declare("source-a", {"web1.a": {"unit": "A"}})
        assert registry.metadata("web1.a") == {"unit": "A", "historic": True}


async def test_a_metric_is_historic_as_long_as_one_archive_keeps_it(path: str) -> None:
    async with Registry.open(path) as registry:
        for archive in ("sink-a", "sink-b"):
            await registry.keep(archive, ["web1.a", "web1.b"])
        await registry.forget("sink-a")
        assert registry.is_historic("web1.a")
        await registry.forget("sink-b", ["web1.a"])
        assert not registry.is_historic("web1.a")
        assert registry.is_historic("web1.b")
        await registry.forget("unknown")
    async with Registry.open(path) as registry:
        assert registry.kept == {"sink-b": {"web1.b"}}


async def test_an_archive_that_keeps_nothing_is_not_remembered(path: str) -> None:
    async with Registry.open(path) as registry:
        await registry.keep("sink-a", [])
        await registry.keep("sink-b", ["web1.a"])
        assert registry.archives_heard(60) == {"sink-b": {"web1.a"}}
        assert registry.archives_heard(0) == {}
        await registry.forget("sink-b", ["web1.a"])
        assert registry.kept == {}
        assert registry.archives_heard(60) == {}


SCHEMA_1 = """
CREATE TABLE metric (name TEXT PRIMARY KEY, owner TEXT NOT NULL, metadata TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE sink (token TEXT PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE historic (metric TEXT PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE config (token TEXT, version INTEGER, config TEXT NOT NULL, set_ns INTEGER NOT NULL,
                     set_by TEXT NOT NULL, PRIMARY KEY (token, version)) WITHOUT ROWID;
INSERT INTO metric VALUES ('web1.a', 'source-a', '{"unit":"V"}');
INSERT INTO sink VALUES ('sink-a');
INSERT INTO historic VALUES ('web1.a'), ('web1.b');
INSERT INTO config VALUES ('sink-a', 1, '{"rate":1}', 5, 'tool');
PRAGMA application_id = 0x68627265;
PRAGMA user_version = 1;
"""


async def test_a_store_of_schema_1_is_brought_up_to_date_and_keeps_everything(path: str) -> None:
    with sqlite3.connect(path) as connection:
        connection.executescript(SCHEMA_1)
    connection.close()
    for _ in range(2):
        async with Registry.open(path) as registry:
            assert registry.metadata("web1.a") == {"unit": "V", "historic": True}
            assert (registry.sinks, registry.config("sink-a")) == ({"sink-a"}, {"rate": 1})
            assert registry.kept == {"": {"web1.a", "web1.b"}}
    async with Registry.open(path) as registry:
        await registry.keep("sink-a", ["web1.a"])
        await registry.forget("sink-a", ["web1.a"])
        assert not registry.is_historic("web1.a")  # it is known by now whose it was
        assert registry.is_historic("web1.b")
    async with Registry.open(path) as registry:
        assert registry.kept == {"": {"web1.b"}}


async def test_in_memory_nothing_is_kept() -> None:
    for _ in range(2):
        async with Registry.open(":memory:") as registry:
            assert registry.metrics == {}
            await registry.declare("source-a", {"web1.a": {}})


async def test_writes_of_many_tasks_at_once_do_not_mix(path: str) -> None:
    async with Registry.open(path) as registry:
        await asyncio.gather(
            *(registry.declare(f"source-{number}", {f"web{number}.a": {}}) for number in range(50)),
            *(registry.set_config("sink-a", {"number": number}, "tool") for number in range(50)),
        )
    async with Registry.open(path) as registry:
        assert len(registry.metrics) == 50
        assert [version.version for version in registry.configs["sink-a"]] == list(range(1, 51))


async def test_a_write_that_fails_changes_nothing_and_says_so(path: str) -> None:
    async with Registry.open(path) as registry:
        await registry.set_config("sink-a", {"rate": 1}, "tool")
        await registry.declare("source-a", {"web1.a": {"unit": "V"}})
        await registry._connection.execute_fetchall("PRAGMA query_only = ON")
        for attempt in (
            registry.set_config("sink-a", {"rate": 2}, "tool"),
            registry.declare("source-b", {"web1.a": {}, "web1.b": {}}),
            registry.add_sink("sink-a"),
            registry.keep("sink-a", ["web1.a"]),
        ):
            with pytest.raises(StorageError, match=r"cannot write the store .*manager\.db: .*; nothing was changed"):
                await attempt
        assert registry.config("sink-a") == {"rate": 1}
        assert registry.metrics == {"web1.a": MetricEntry(owner="source-a", metadata={"unit": "V"})}
        assert (registry.sinks, registry.is_historic("web1.a")) == (set(), False)
        await registry._connection.execute_fetchall("PRAGMA query_only = OFF")
        assert (await registry.set_config("sink-a", {"rate": 3}, "tool")).version == 2


async def test_the_file_is_in_wal_mode_with_a_schema_version(path: str) -> None:
    async with Registry.open(path):
        pass
    with sqlite3.connect(path) as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        assert connection.execute("PRAGMA user_version").fetchone() == (SCHEMA_VERSION,)
    connection.close()


# -- files that are refused --------------------------------------------------------------------------------


async def refusal(path: str) -> str:
    with pytest.raises(StorageError) as refused:
        async with Registry.open(path):
            pytest.fail("it must not open")
    text = str(refused.value)
    assert path in text
    assert "--store" in text
    return text


async def test_a_store_from_a_newer_schema_is_refused_and_left_alone(path: str) -> None:
    async with Registry.open(path) as registry:
        await registry.declare("source-a", {"web1.a": {}})
    with sqlite3.connect(path) as connection:
        connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    connection.close()
    before = Path(path).read_bytes()
    assert f"newer hostbus (schema {SCHEMA_VERSION + 1}, this one knows {SCHEMA_VERSION})" in await refusal(path)
    assert Path(path).read_bytes() == before


async def test_a_sqlite_file_of_another_program_is_refused_and_left_alone(path: str) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE bookmarks (url TEXT)")
    connection.close()
    before = Path(path).read_bytes()
    assert "SQLite file of another program" in await refusal(path)
    assert Path(path).read_bytes() == before


async def test_a_file_that_is_no_database_is_refused_and_left_alone(path: str) -> None:
    Path(path).write_text("my notes, which are precious. " * 100)
    assert "not a database" in await refusal(path)
    assert Path(path).read_text().startswith("my notes")


async def test_a_path_without_its_folder_and_a_folder_are_refused(tmp_path: Path) -> None:
    assert "is its folder there and writable?" in await refusal(str(tmp_path / "missing" / "manager.db"))
    assert "Is a directory" in await refusal(str(tmp_path))


async def test_the_store_is_readable_by_its_owner_alone(path: str) -> None:
    # Configurations may hold passwords.
    async with Registry.open(path) as registry:
        await registry.set_config("sink-a", {"password": "x"}, "tool")
        for file in Path(path).parent.iterdir():
            assert stat.S_IMODE(file.stat().st_mode) & 0o077 == 0, file


async def test_an_error_of_whoever_uses_the_store_is_not_the_stores(path: str) -> None:
    with pytest.raises(ConnectionError, match="the network"):
        async with Registry.open(path):
            raise ConnectionError("the network")
