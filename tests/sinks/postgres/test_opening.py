# SPDX-License-Identifier: MIT
"""Which databases are taken, and what is said of the others; never a password."""

import asyncio
from dataclasses import replace
from urllib.parse import urlsplit, urlunsplit

import pytest

from bus.errors import ConfigError, StorageBusy, StorageError
from sinks.postgres import schema, tables
from sinks.postgres.address import Address
from sinks.postgres.archive import PostgresArchive, open_archive
from tests.services.postgres import PASSWORD
from tests.sinks.postgres.test_archive import group, query, stored


async def refused(address: Address, access: str = "write") -> str:
    """What is said when an archive is not opened."""
    with pytest.raises(StorageError) as caught:
        await PostgresArchive.open(address, access)
    assert "\n" not in str(caught.value)
    assert address.password not in str(caught.value)
    return f"{type(caught.value).__name__}: {caught.value}"


async def test_many_that_start_at_once_make_one_archive(address: Address) -> None:
    archives = await asyncio.gather(*(PostgresArchive.open(address) for _ in range(5)))
    for number, archive in enumerate(archives):
        await archive.insert([group({f"web{number}.a": [float(number)]})])
    assert len(await archives[0].metrics()) == 5
    for archive in archives:
        await archive.aclose()


async def test_a_wrong_password_is_said_and_not_repeated(address: Address) -> None:
    said = await refused(replace(address, password="hush-hush"))
    assert said.startswith("StorageError: postgresql://tester@127.0.0.1:")
    assert "refuses the password: set POSTGRES_PASSWORD, or see to ~/.pgpass" in said


async def test_no_password_is_said(address: Address) -> None:
    with pytest.raises(StorageError, match="POSTGRES_PASSWORD"):
        await PostgresArchive.open(replace(address, password=""))


async def test_a_database_that_does_not_exist_is_named(address: Address) -> None:
    said = await refused(replace(address, database="no_such"))
    assert said.startswith("StorageError: ")
    assert "/no_such does not exist: make it with createdb" in said


async def test_a_server_that_is_not_there_may_come_later(address: Address) -> None:
    assert (await refused(replace(address, port=1))).startswith("StorageBusy: ")
    assert (await refused(replace(address, host="no-such-host.invalid"))).startswith("StorageBusy: ")


async def test_a_schema_of_another_program_is_left_alone(address: Address, database_url: str) -> None:
    await query(database_url, "CREATE SCHEMA hostbus")
    await query(database_url, "CREATE TABLE hostbus.thing (id int)")
    assert "has a schema hostbus of another program" in await refused(address)
    assert (
        await query(database_url, "SELECT * FROM pg_tables WHERE schemaname = 'hostbus' AND tablename <> 'thing'") == []
    )


async def test_an_empty_schema_that_an_administrator_made_is_used(address: Address, database_url: str) -> None:
    await query(database_url, "CREATE SCHEMA hostbus")
    async with await PostgresArchive.open(address) as archive:
        assert await archive.insert([group({"web1.a": [1.0]})]) == 1


async def test_an_archive_of_a_newer_version_is_left_alone(
    archive: PostgresArchive, address: Address, database_url: str
) -> None:
    await query(database_url, "UPDATE hostbus.version SET version = 99")
    for access in ("read", "write", "events"):
        assert "was made by a newer hostbus (schema 99; this one knows up to 1): upgrade" in await refused(
            address, access
        )


async def test_an_older_archive_is_brought_up_to_date_by_a_writer_only(
    archive: PostgresArchive, address: Address, monkeypatch: pytest.MonkeyPatch
) -> None:
    await archive.insert([group({"web1.a": [1.0]})])
    more = (*tables.MIGRATIONS, "CREATE TABLE hostbus.more (id int); INSERT INTO hostbus.more VALUES (1)")
    monkeypatch.setattr(schema, "MIGRATIONS", more)
    monkeypatch.setattr("sinks.postgres.database.MIGRATIONS", more)
    assert "has schema 1, older than the 2" in await refused(address, "read")
    for opened in await asyncio.gather(*(PostgresArchive.open(address) for _ in range(3))):
        async with opened, opened.database.connection() as connection:
            assert await connection.fetchval("SELECT count(*) FROM hostbus.more") == 1
            assert await stored(opened)


async def test_a_migration_that_fails_changes_nothing(
    address: Address, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(schema, "MIGRATIONS", (*tables.MIGRATIONS, "CREATE TABLE hostbus.x (id int); SELECT 1/0"))
    assert "division by zero" in await refused(address)
    assert await query(database_url, "SELECT 1 FROM pg_namespace WHERE nspname = 'hostbus'") == []


async def test_there_is_nothing_to_read_before_a_sink_has_written(address: Address, database_url: str) -> None:
    assert "there is no hostbus archive in" in await refused(address, "read")
    assert await query(database_url, "SELECT 1 FROM pg_namespace WHERE nspname = 'hostbus'") == []


async def test_a_user_without_the_right_to_make_it_is_told_which(database_url: str) -> None:
    name = f"guest_{urlsplit(database_url).path[6:16]}"
    await query(database_url, f"CREATE ROLE {name} LOGIN PASSWORD 'hush-hush'")
    try:
        guest = replace(Address.from_url(database_url, {}), user=name, password="hush-hush")
        said = await refused(guest)
        assert "lacks a right for this user: one who owns the database may GRANT CREATE ON DATABASE" in said
    finally:
        await query(database_url, f"DROP ROLE {name}")


def test_an_address_never_shows_its_password() -> None:
    address = Address.from_url("postgresql://me:hush-hush@db:5433/metrics?sslmode=require", {})
    assert address == Address(host="db", port=5433, user="me", password="hush-hush", database="metrics", ssl="require")
    assert "hush" not in repr(address) + address.label
    assert address.label == "postgresql://me@db:5433/metrics"


def test_what_a_url_leaves_out_comes_from_the_environment() -> None:
    environment = {
        "POSTGRES_HOST": "db",
        "POSTGRES_PORT": "5433",
        "POSTGRES_USER": "me",
        "POSTGRES_PASSWORD": "hush-hush",
        "POSTGRES_DB": "metrics",
    }
    everything = Address(host="db", port=5433, user="me", password="hush-hush", database="metrics")
    assert Address.from_url("postgres://", environment) == everything
    assert Address.from_options(environment=environment) == everything
    assert Address.from_url("postgres://you@%2Frun%2Fpg/", environment) == replace(
        everything, user="you", host="/run/pg"
    )
    assert Address.from_options(host="other", database="x", environment=environment) == replace(
        everything, host="other", database="x"
    )
    assert Address.from_options(environment={}) == Address()


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("postgresql://me:hush-hush@db:port/x", "no valid host and port"),
        ("mysql://me:hush-hush@db/x", "begins with postgresql://"),
        ("postgresql://me:hush-hush@db/x?sslmodus=hush-hush", "has an option 'sslmodus'"),
    ],
)
async def test_a_url_that_is_wrong_is_not_repeated(url: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        await open_archive(url, "read")
    assert "hush" not in str(caught.value)


def test_a_port_that_is_none_is_said() -> None:
    with pytest.raises(ConfigError, match="POSTGRES_PORT: expected a port, 1 to 65535, not 'http'"):
        Address.from_options(environment={"POSTGRES_PORT": "http"})


async def test_tls_that_the_server_does_not_have_is_said(address: Address) -> None:
    with pytest.raises(StorageError, match="SSL"):
        await PostgresArchive.open(replace(address, ssl="require"))
    with pytest.raises(StorageError, match="sslmode"):
        await PostgresArchive.open(replace(address, ssl="perhaps"))


async def test_a_closed_archive_says_so(address: Address, database_url: str) -> None:
    archive = await PostgresArchive.open(Address.from_url(urlunsplit(urlsplit(database_url)), {}))
    await archive.aclose()
    for use in (archive.metrics(), archive.insert([group({"web1.a": [1.0]})])):
        with pytest.raises(StorageError, match="is closed") as caught:
            await use
        assert not isinstance(caught.value, StorageBusy)
        assert PASSWORD not in str(caught.value)
