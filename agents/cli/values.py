# SPDX-License-Identifier: MIT
"""``key=value`` on a command line, for configurations."""

from collections.abc import Collection, Iterable
from typing import Any

import msgspec

from bus.errors import ConfigError


def assignments(texts: Iterable[str], text_keys: Collection[str] = ()) -> dict[str, Any]:
    """``["period=0.2", 'devices=["sd*"]']`` as JSON values; what is not JSON is text, and so is all of `text_keys`.

    Raises ConfigError for an argument without ``=``.
    """
    found: dict[str, Any] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        key = key.strip()
        if not equals or not key:
            raise ConfigError(f"{text!r} is not key=value, like period=0.2")
        found[key] = value if key in text_keys else json_or_text(value)
    return found


def json_or_text(text: str) -> Any:
    """The JSON value that `text` is, or the text itself."""
    try:
        return msgspec.json.decode(text)
    except msgspec.DecodeError:
        return text
