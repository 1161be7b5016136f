# SPDX-License-Identifier: MIT
"""Networks that the tests of agents share: a broker with a manager on it."""

from collections.abc import AsyncIterator

import pytest

from bus.manager import Manager
from tests.services.wiretap import Wiretap, wiretap


@pytest.fixture
async def network(any_url: str) -> AsyncIterator[str]:
    """A broker with a manager on it; its URL."""
    async with Manager("manager", any_url):
        yield any_url


@pytest.fixture
async def quick_network(memory_url: str) -> AsyncIterator[str]:
    """The same in this process only, for what does not depend on the broker."""
    async with Manager("manager", memory_url):
        yield memory_url


@pytest.fixture
async def manager(memory_url: str) -> AsyncIterator[Manager]:
    """The manager of a network in this process."""
    async with Manager("manager", memory_url) as made:
        yield made


@pytest.fixture
async def tap(memory_url: str) -> AsyncIterator[Wiretap]:
    """Sees all data of that network."""
    async with wiretap(memory_url) as made:
        yield made
