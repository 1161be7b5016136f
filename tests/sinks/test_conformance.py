# SPDX-License-Identifier: MIT
"""The suite of all archives, on those that need no server."""

import asyncio
import uuid
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from bus import history as client_module
from bus.history import HistoryClient
from bus.manager import Manager
from sinks import history as history_module
from sinks.sqlite import SqliteArchive, compaction
from sinks.sqlite import archive as archive_module
from sinks.sqlite.compaction import compact_step
from tests.sinks.answering import Answering
from tests.sinks.conformance import ArchiveSuite, Features, HistorySuite, Kept
from tests.sinks.memory_archive import MemoryArchive


class TestMemory(ArchiveSuite):
    """The stand-in of other tests."""

    features = Features(all_or_nothing=False, knows_when_closed=False)

    @pytest.fixture
    async def kept(self) -> Kept:
        return Kept(MemoryArchive())


class TestSqliteRows(ArchiveSuite):
    """Everything is as young as in an archive of the last days."""

    features = Features(negative_zero=False)

    @pytest.fixture
    async def kept(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Kept]:
        monkeypatch.setattr(archive_module, "PAGE_POINTS", 1000)
        async with await SqliteArchive.open(tmp_path / "archive.db") as archive:
            yield Kept(archive)


class Packed(Kept):
    """All that has come lies in blocks before it is read."""

    async def settle(self) -> None:
        assert isinstance(self.archive, SqliteArchive)
        while await self.archive.database.write(compact_step, 2**62):
            pass


class TestSqliteBlocks(ArchiveSuite):
    """Everything is old; what comes is late."""

    features = Features(negative_zero=False)

    @pytest.fixture
    async def kept(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Kept]:
        monkeypatch.setattr(archive_module, "PAGE_POINTS", 1000)
        monkeypatch.setattr(compaction, "FEWEST_POINTS", 1)
        monkeypatch.setattr(compaction, "MOST_POINTS", 300)
        async with await SqliteArchive.open(tmp_path / "archive.db") as archive:
            yield Packed(archive)


class OverTheBus(Kept):
    """Reads when the manager knows what there is."""

    def __init__(self, agent: Answering, client: HistoryClient, archive: MemoryArchive) -> None:
        super().__init__(archive, client)
        self.agent = agent

    async def settle(self) -> None:
        self.agent.service.notice()
        while (await self.history.metrics()).keys() != (await self.archive.metrics()).keys():
            await asyncio.sleep(0.01)


class TestHistoryClient(HistorySuite):
    """An archive at the other end of the bus."""

    features = Features(metadata=False)

    @pytest.fixture
    async def kept(self, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Kept]:
        monkeypatch.setattr(history_module, "GATHER_S", 0.01)
        monkeypatch.setattr(client_module, "PAGE_POINTS", 1000)
        url = f"memory://test-{uuid.uuid4().hex}"
        archive = MemoryArchive()
        async with (
            Manager("manager", url),
            Answering("sink", url, archive) as agent,
            HistoryClient("asker", url) as client,
        ):
            yield OverTheBus(agent, client, archive)
