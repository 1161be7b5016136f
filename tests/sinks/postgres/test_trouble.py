# SPDX-License-Identifier: MIT
"""The server stops, the connection breaks, the disk is full: what was inserted stays, the rest may come again."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace

import asyncpg
import pytest

from bus.errors import StorageBusy, StorageError
from sinks.postgres import database as database_module
from sinks.postgres.address import Address
from sinks.postgres.archive import PostgresArchive
from tests.services.postgres import PrivateCluster, private_postgres
from tests.sinks.postgres.proxy import Proxy, proxy
from tests.sinks.postgres.test_archive import NOW, SECOND, group, query, stored


@pytest.fixture
async def wire(address: Address) -> AsyncIterator[Proxy]:
    """What stands between the archive and its server."""
    async with proxy(address.port) as made:
        yield made


def batch(number: int, points: int = 100) -> list:  # type: ignore[type-arg]
    return [group({"web1.a": [float(number)] * points, "web1.b": [-1.0] * points}, NOW + number * points * SECOND)]


async def until_stored(archive: PostgresArchive, number: int, points: int = 100) -> int:
    """As a sink does: again and again; how many times it was busy."""
    for attempt in range(1000):
        try:
            await archive.insert(batch(number, points))
        except StorageBusy:
            await asyncio.sleep(0.01)
        else:
            return attempt
    raise AssertionError("it is busy for ever")


async def assert_whole(archive: PostgresArchive, batches: int, points: int = 100) -> None:
    found = await stored(archive)
    assert [time for time, _ in found] == [NOW + index * SECOND for index in range(batches * points)]
    assert [value for _, value in found] == [float(index // points) for index in range(batches * points)]


async def test_a_backend_that_is_terminated_in_mid_copy_leaves_nothing_and_the_batch_comes_again(
    address: Address, wire: Proxy, database_url: str
) -> None:
    async with await PostgresArchive.open(replace(address, port=wire.port)) as archive:
        await archive.insert(batch(0, 30_000))
        inserting = asyncio.create_task(archive.insert(batch(1, 30_000)))
        while not await query(
            database_url,
            "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND query LIKE 'COPY%' "
            "AND state = 'active'",
        ):
            await asyncio.sleep(0)
        await query(
            database_url,
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() "
            "AND application_name = 'hostbus'",
        )
        with pytest.raises(StorageBusy):
            await inserting
        assert len(await stored(archive)) == 30_000
        assert await until_stored(archive, 1, 30_000) == 0
        await assert_whole(archive, 2, 30_000)


async def test_a_connection_that_is_cut_anywhere_loses_and_doubles_nothing(address: Address, wire: Proxy) -> None:
    async with await PostgresArchive.open(replace(address, port=wire.port)) as archive:
        await archive.insert(batch(0))
        begin = wire.sent
        await archive.insert(batch(1))
        length = wire.sent - begin
        busy = 0
        for number in range(2, 42):
            wire.cut_after(length * (number - 2) // 38)
            busy += await until_stored(archive, number)
        assert busy > 20
        wire.stay()
        await assert_whole(archive, 42)


async def test_an_answer_to_the_commit_that_never_comes_doubles_nothing(address: Address, wire: Proxy) -> None:
    async with await PostgresArchive.open(replace(address, port=wire.port)) as archive:
        await archive.insert(batch(0))
        wire.unanswered = b"COMMIT"
        with pytest.raises(StorageBusy):
            await archive.insert(batch(1))
        wire.unanswered = b""
        assert await archive.insert(batch(1)) == 0
        await assert_whole(archive, 2)


async def test_a_server_that_says_nothing_any_more_is_given_up(
    address: Address, wire: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with await PostgresArchive.open(replace(address, port=wire.port)) as archive:
        await archive.insert(batch(0))
        monkeypatch.setattr(database_module, "ANSWER_TIMEOUT_S", 0.2)
        wire.is_silent = True
        with pytest.raises(StorageBusy, match="no answer in time"):
            await archive.insert(batch(1))
        wire.is_silent = False
        wire.cut()
        await until_stored(archive, 1)
        await assert_whole(archive, 2)


async def test_a_task_that_is_cancelled_in_mid_insert_leaves_a_usable_archive(archive: PostgresArchive) -> None:
    await archive.insert(batch(0, 20_000))
    for number in range(8):
        inserting = asyncio.create_task(archive.insert(batch(1, 20_000)))
        await asyncio.sleep(0.02 * number)
        inserting.cancel()
        await asyncio.wait({inserting})
    await until_stored(archive, 1, 20_000)
    await assert_whole(archive, 2, 20_000)


async def test_a_full_disk_passes(archive: PostgresArchive, database_url: str) -> None:
    await archive.insert(batch(0))
    await query(
        database_url,
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN RAISE EXCEPTION 'could not extend file' USING ERRCODE = 'disk_full'; END $$",
    )
    await query(
        database_url, "CREATE TRIGGER refuse BEFORE INSERT ON hostbus.unformed FOR EACH ROW EXECUTE FUNCTION refuse()"
    )
    with pytest.raises(StorageBusy, match=r"has a full disk: free some space \(could not extend file"):
        await archive.insert(batch(1))
    await query(database_url, "DROP TRIGGER refuse ON hostbus.unformed")
    await until_stored(archive, 1)
    await assert_whole(archive, 2)


async def test_a_database_that_is_read_only_for_a_while_passes(archive: PostgresArchive, database_url: str) -> None:
    name = database_url.rpartition("/")[2]
    await archive.insert(batch(0))
    await query(database_url, f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    await terminate_all(database_url)
    for _ in range(2):
        with pytest.raises(StorageBusy):
            await archive.insert(batch(1))
    connection = await asyncpg.connect(database_url)
    await connection.execute("SET default_transaction_read_only = off")
    await connection.execute(f"ALTER DATABASE {name} RESET ALL")
    await connection.close()
    await terminate_all(database_url)
    await until_stored(archive, 1)
    await assert_whole(archive, 2)


async def test_a_database_that_was_put_back_from_a_backup_is_learned_anew(
    archive: PostgresArchive, address: Address, database_url: str
) -> None:
    await archive.insert(batch(0))
    await query(database_url, "DROP SCHEMA hostbus CASCADE")
    with pytest.raises(StorageError) as caught:
        await archive.insert(batch(0))
    assert not isinstance(caught.value, StorageBusy)
    async with await PostgresArchive.open(address) as other:  # as a sink does then
        await other.insert([group({"other.a": [1.0]})])
        assert await other.insert(batch(0)) == 200
        await assert_whole(other, 1)
        await terminate_all(database_url)
        await until_stored(archive, 1)  # its metrics have other ids by now
        await assert_whole(archive, 2)


async def terminate_all(url: str) -> None:
    """End all connections of the archive."""
    await query(
        url,
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() "
        "AND application_name = 'hostbus'",
    )


@pytest.fixture(scope="module")
def durable() -> object:
    """A server of its own, which these tests may stop, and which writes to the disk."""
    with private_postgres(fsync=True) as server:
        yield server


@pytest.mark.parametrize("how", ["stop", "kill9"])
async def test_a_server_that_is_stopped_or_crashes_and_starts_again_has_every_point_once(
    durable: PrivateCluster, how: str
) -> None:
    database = f"restarted_{how}"
    await query(durable.url("postgres"), f"CREATE DATABASE {database}")
    async with await PostgresArchive.open(Address.from_url(durable.url(database), {})) as archive:
        busy = 0
        restarts: list[asyncio.Task[None]] = []

        def restart() -> None:
            getattr(durable, how)()
            durable.start()

        for number in range(60):
            if number in (10, 30):
                restarts.append(asyncio.create_task(asyncio.to_thread(restart)))
            busy += await until_stored(archive, number)
            await asyncio.sleep(0.02)
        await asyncio.gather(*restarts)
        assert busy
        await assert_whole(archive, 60)
