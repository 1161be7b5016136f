# SPDX-License-Identifier: MIT
"""The suite of all archives, on a PostgreSQL server."""

import pytest

from sinks.postgres import archive as archive_module
from sinks.postgres.archive import PostgresArchive
from tests.sinks.conformance import ArchiveSuite, Features, Kept


class TestPostgres(ArchiveSuite):
    """What was just written, without upkeep."""

    features = Features()

    @pytest.fixture
    async def kept(self, archive: PostgresArchive, monkeypatch: pytest.MonkeyPatch) -> Kept:
        monkeypatch.setattr(archive_module, "PAGE_POINTS", 1000)
        return Kept(archive)
