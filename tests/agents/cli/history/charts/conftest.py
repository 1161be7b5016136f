# SPDX-License-Identifier: MIT
"""A browser, for tests of pages."""

import os
from collections.abc import AsyncIterator

import pytest
from playwright.async_api import Browser

from tests.services.chromium import NoChromium, chromium


@pytest.fixture
async def browser() -> AsyncIterator[Browser]:
    """Started in half a second. In CI its absence is a failure."""
    try:
        async with chromium() as started:
            yield started
    except NoChromium as error:
        if os.environ.get("CI"):
            pytest.fail(str(error), pytrace=False)
        pytest.skip(str(error))
