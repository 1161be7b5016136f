# SPDX-License-Identifier: MIT
"""Every format."""

import pytest

from bus.formats import Format
from tests.sinks.formats.copies import ALL


@pytest.fixture(params=ALL)
def form(request) -> Format:
    """Each format that can be written."""
    return ALL[request.param]
