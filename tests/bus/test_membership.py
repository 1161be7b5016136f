# SPDX-License-Identifier: MIT
"""When a source registers: after every connection, and again when it was refused on its return."""

import asyncio

import pytest

import bus.membership
from bus.errors import RpcError
from bus.membership import Membership
from tests.bus.support import break_connection, transport_at, until


class Door:
    """Where a source comes in, or is refused."""

    def __init__(self) -> None:
        self.knocks = 0
        self.is_shut = False

    async def __call__(self) -> None:
        self.knocks += 1
        if self.is_shut:
            raise RpcError("not today")


@pytest.fixture(autouse=True)
def in_a_hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bus.membership, "REFUSED_S", 0.01)


async def test_a_source_joins_after_every_connection_and_once_for_each(memory_url: str) -> None:
    door = Door()
    async with transport_at(memory_url) as transport, asyncio.TaskGroup() as group:
        membership = Membership("source-a", transport, door)
        keeping = group.create_task(membership.keep())
        assert not membership.is_begun
        await membership.begin()
        assert membership.is_begun
        for knocks in (2, 3):
            await break_connection(transport)
            await until(lambda knocks=knocks: door.knocks == knocks)
        await asyncio.sleep(0.05)
        assert door.knocks == 3
        keeping.cancel()


async def test_a_source_that_is_refused_the_first_time_fails(memory_url: str) -> None:
    door = Door()
    door.is_shut = True
    async with transport_at(memory_url) as transport:
        membership = Membership("source-a", transport, door)
        with pytest.raises(RpcError, match="not today"):
            await membership.keep()
        assert not membership.is_begun


async def test_a_source_that_is_refused_on_its_return_asks_again_on_the_same_connection(
    memory_url: str, caplog
) -> None:
    door = Door()
    async with transport_at(memory_url) as transport, asyncio.TaskGroup() as group:
        membership = Membership("source-a", transport, door)
        keeping = group.create_task(membership.keep())
        await membership.begin()
        door.is_shut = True
        await break_connection(transport)
        await until(lambda: door.knocks >= 4)
        door.is_shut = False
        before = door.knocks
        await until(lambda: door.knocks > before)
        assert "source-a: refused on its return, asking again in 0.01 s: not today" in caplog.text
        keeping.cancel()
