# SPDX-License-Identifier: MIT
"""What a metric's metadata says to people. Anyone on the bus may have written it."""

from collections.abc import Mapping
from typing import Any

WRITTEN = {"Cel": "°C", "1": ""}
"""Units as people write them, where that is not what UCUM calls them."""


def unit_of(metadata: Mapping[str, Any]) -> str:
    """The unit that metadata declares, as people write it; "" if there is none."""
    unit = plain_text(metadata, "unit")
    return WRITTEN.get(unit, unit)


def plain_text(metadata: Mapping[str, Any], key: str) -> str:
    """A text in one line that can do nothing to a terminal; "" if there is none."""
    value = metadata.get(key)
    return "".join(character for character in value if character.isprintable()) if isinstance(value, str) else ""
