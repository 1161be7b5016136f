# SPDX-License-Identifier: MIT
"""A PostgreSQL server for all tests, and a database for each."""

import os
import uuid
from collections.abc import AsyncIterator, Iterator

import asyncpg
import pytest

from bus.manager import Manager
from sinks.postgres.address import Address
from sinks.postgres.archive import PostgresArchive
from tests.services.postgres import NoPostgres, Postgres, postgres_for_tests


@pytest.fixture(autouse=True)
def no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test uses a database of the user who runs it."""
    for name in [name for name in os.environ if name.startswith(("PG", "POSTGRES_"))]:
        monkeypatch.delenv(name)


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """A PostgreSQL server, started when the first test asks for it. In CI its absence is a failure."""
    try:
        with postgres_for_tests() as server:
            yield server
    except NoPostgres as error:
        if os.environ.get("CI"):
            pytest.fail(str(error), pytrace=False)
        pytest.skip(str(error))


@pytest.fixture
async def database_url(postgres: Postgres) -> AsyncIterator[str]:
    """The URL of an empty database of the test's own."""
    name = f"test_{uuid.uuid4().hex}"
    connection = await asyncpg.connect(postgres.url("postgres"))
    try:
        await connection.execute(f"CREATE DATABASE {name}")
    finally:
        await connection.close()
    yield postgres.url(name)
    connection = await asyncpg.connect(postgres.url("postgres"))
    try:
        await connection.execute(f"DROP DATABASE {name} WITH (FORCE)")
    finally:
        await connection.close()


@pytest.fixture
def address(database_url: str) -> Address:
    return Address.from_url(database_url, {})


@pytest.fixture
async def archive(address: Address) -> AsyncIterator[PostgresArchive]:
    """An archive, open to write."""
    async with await PostgresArchive.open(address) as opened:
        yield opened


@pytest.fixture
async def network(any_url: str) -> AsyncIterator[str]:
    """A broker with a manager on it; its URL."""
    async with Manager("manager", any_url):
        yield any_url


@pytest.fixture
async def amqp_network(amqp_url: str) -> AsyncIterator[str]:
    """The same, on RabbitMQ."""
    async with Manager("manager", amqp_url):
        yield amqp_url
