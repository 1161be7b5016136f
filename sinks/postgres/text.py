# SPDX-License-Identifier: MIT
"""Text from anywhere as text that PostgreSQL takes: it has no null character, and nothing that UTF-8 has not."""


def storable(text: str) -> str:
    """The text, with the replacement character for each that cannot be stored."""
    return text.replace("\0", "\ufffd").encode("utf-8", "replace").decode("utf-8")
