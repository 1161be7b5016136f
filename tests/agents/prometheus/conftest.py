# SPDX-License-Identifier: MIT
"""A client that scrapes, and a server that says what a test wants."""

from collections.abc import AsyncIterator

import pytest

from tests.agents.prometheus.scrape_lab import METRICS, Probe, probing
from tests.services.exporter import Exporter, exporter


@pytest.fixture
async def probe() -> AsyncIterator[Probe]:
    async with probing() as made:
        yield made


@pytest.fixture
async def server() -> AsyncIterator[Exporter]:
    async with exporter() as made:
        made.say(METRICS)
        yield made
