# SPDX-License-Identifier: MIT
"""The laboratory of the conformance tests, once per transport."""

from collections.abc import AsyncIterator

import pytest

from tests.bus.transport.lab import AmqpPlace, Lab, MemoryPlace, Place


@pytest.fixture
async def lab(any_url: str, request: pytest.FixtureRequest) -> AsyncIterator[Lab]:
    """A broker of the test's own; its transports are closed afterwards."""
    place: Place
    if any_url.startswith("memory:"):
        place = MemoryPlace(any_url)
    else:
        place = AmqpPlace(any_url, request.getfixturevalue("rabbitmq"))
    lab = Lab(place)
    yield lab
    await lab.aclose()
