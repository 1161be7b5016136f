# SPDX-License-Identifier: MIT
"""A source, a sink in this process or one of its own, and what has come of it."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import asyncpg

from bus.archive import read_points
from bus.source import Source
from bus.timestamp import Timestamp
from sinks.postgres.address import Address
from sinks.postgres.archive import PostgresArchive
from sinks.postgres.config import PostgresConfig
from tests.sinks.postgres.test_archive import NOW, SECOND, query


class HandSource(Source):
    """Sends from outside."""

    async def task(self) -> None:
        await self.task_stop_future

    ticks = 0

    def tick(self, index: int, **values: float) -> None:
        """One sample of ``web1.NAME`` each, `index` seconds after the start."""
        self.ticks += 1
        self.sample(Timestamp(NOW + index * SECOND), {f"web1.{name}": value for name, value in values.items()})


def environment_of(address: Address) -> dict[str, str]:
    return {
        "POSTGRES_HOST": address.host,
        "POSTGRES_PORT": str(address.port),
        "POSTGRES_USER": address.user,
        "POSTGRES_PASSWORD": address.password,
        "POSTGRES_DB": address.database,
    }


def config(**others: object) -> PostgresConfig:
    return PostgresConfig.load({"metrics": ["web1.#"], "persist_period": 0, "live_period": 0, **others})


@asynccontextmanager
async def source(url: str) -> AsyncIterator[HandSource]:
    async with HandSource("source-web1", url, prefix="web1") as made:
        yield made


async def until(condition: Callable[[], Awaitable[bool] | bool], timeout_s: float = 30) -> None:
    async with asyncio.timeout(timeout_s):
        while True:
            answer = condition()
            if answer if isinstance(answer, bool) else await answer:
                return
            await asyncio.sleep(0.01)


async def stored(url: str, metric: str = "web1.a") -> list[tuple[int, float]]:
    """(seconds after the start, value) of a metric in the database."""
    async with await PostgresArchive.open(Address.from_url(url, {})) as archive:
        chunk = await read_points(archive, metric)
    return [((time - NOW) // SECOND, value) for time, value in zip(chunk.times, chunk.values, strict=True)]


@asynccontextmanager
async def process(url: str, address: Address, token: str, *options: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """``agent start postgres-sink`` in a process of its own."""
    started = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "agents.cli", "start", "postgres-sink", "--token", token, "--server", url),
        *("--live-period", "0.1", *options),
        env={**os.environ, **environment_of(address)},
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        yield started
    finally:
        if started.returncode is None:
            started.kill()
        _, errors = await started.communicate()
        assert address.password.encode() not in errors


async def count(url: str, table: str = "hostbus.point") -> int:
    """How many rows it has; 0 if there is no archive yet."""
    try:
        (row,) = await query(url, f"SELECT count(*) FROM {table}")
    except asyncpg.UndefinedTableError:
        return 0
    return int(row[0])
