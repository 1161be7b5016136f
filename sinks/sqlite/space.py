# SPDX-License-Identifier: MIT
"""Giving back the space of what was moved or removed: to the file's other users first, then to the disk."""

from __future__ import annotations

import sqlite3

from sinks.sqlite.schema import pragma

PAGES_PER_STEP = 500
SPARE_SHARE = 1 / 8
"""Of the file: what compaction frees every 6 h is used again by the rows of the next 6 h."""
SPARE_PAGES = 256


def vacuum_step(connection: sqlite3.Connection, spare_share: float = SPARE_SHARE) -> int:
    """Take free pages out of the file, unless few are: how many. Within a transaction.

    The file shrinks when the write-ahead log has moved into it.
    """
    free = pragma(connection, "freelist_count")
    spare = max(int(pragma(connection, "page_count") * spare_share), SPARE_PAGES if spare_share else 0)
    if free <= spare or pragma(connection, "auto_vacuum") != 2:
        return 0
    for _ in range(min(free - spare, PAGES_PER_STEP)):
        # However many are asked for, Python's sqlite3 stops at the first: it makes a row without columns for each.
        connection.execute("PRAGMA incremental_vacuum(1)")
    return free - pragma(connection, "freelist_count")


def checkpoint(connection: sqlite3.Connection) -> None:
    """Move the write-ahead log into the file, as far as nobody reads an older state, and empty it.

    Waits for nobody. Not within a transaction.
    """
    busy, frames, moved = connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
    if busy or frames != moved:
        return
    waits = pragma(connection, "busy_timeout")
    connection.execute("PRAGMA busy_timeout = 0")
    try:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    finally:
        connection.execute(f"PRAGMA busy_timeout = {waits}")
