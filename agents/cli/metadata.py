# SPDX-License-Identifier: MIT
"""What metadata and labels say to people. Anyone on the bus may have written them."""

from collections.abc import Mapping
from typing import Any

WRITTEN = {"Cel": "°C", "1": ""}
"""Units as people write them, where that is not what UCUM calls them."""


def unit_of(metadata: Mapping[str, Any]) -> str:
    """The unit that metadata declares, as people write it; "" if there is none."""
    unit = plain_text(metadata, "unit")
    return WRITTEN.get(unit, unit)


def plain_text(metadata: Mapping[str, Any], key: str) -> str:
    """A text of metadata, as `plain` has it; "" if there is none."""
    value = metadata.get(key)
    return plain(value) if isinstance(value, str) else ""


def plain(text: str) -> str:
    """A text in one line that can do nothing to a terminal."""
    return "".join(character for character in text if character.isprintable())
