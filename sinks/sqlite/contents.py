# SPDX-License-Identifier: MIT
"""What is in an archive, tier by tier, and what it costs."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sinks.path_lock import holder_of
from sinks.retention import TIERS
from sinks.sqlite.schema import pragma
from sinks.sqlite.tiers import RAW


def describe(connection: sqlite3.Connection, path: Path) -> dict[str, Any]:
    """All that can be said of an archive, as JSON values. Reads all of the file, once."""
    tables = _table_bytes(connection)
    tiers = [_tier(connection, number, tables) for number in range(len(TIERS))]
    points = tiers[RAW]["rows"] + tiers[RAW]["packed"]
    free_bytes = pragma(connection, "freelist_count") * pragma(connection, "page_size")
    size = path.stat().st_size
    wal = path.with_name(path.name + "-wal")
    return {
        "path": str(path),
        "schema": pragma(connection, "user_version"),
        "writer": holder_of(path),
        "bytes": size,
        "walBytes": wal.stat().st_size if wal.exists() else 0,
        "freeBytes": free_bytes,
        "metrics": _count(connection, "metric"),
        "points": points,
        "bytesPerPoint": round((size - free_bytes) / points, 3) if points else None,
        "events": _count(connection, "event"),
        "gaps": _count(connection, "gap"),
        "tiers": tiers,
    }


def _count(connection: sqlite3.Connection, table: str) -> int:
    (found,) = connection.execute(f"SELECT count(*) FROM {table}").fetchone()
    return int(found)


def _tier(connection: sqlite3.Connection, number: int, tables: Mapping[str, int]) -> dict[str, Any]:
    """Rows, what is packed, the range of time, and the bytes of a tier; bytes are None if SQLite cannot tell."""
    table = "point" if number == RAW else "rollup"
    where = "" if number == RAW else f"WHERE tier = {number}"
    rows, first, last = connection.execute(f"SELECT count(*), min(time), max(time) FROM {table} {where}").fetchone()
    series, packed, begin, end, packed_bytes = connection.execute(
        "SELECT count(*), coalesce(sum(block.count), 0), min(series.start), max(series.end) - 1, "
        "coalesce(sum(length(columns)), 0) FROM series JOIN block ON block.id = series.block WHERE series.tier = ?",
        (number,),
    ).fetchone()
    (times_bytes,) = connection.execute(
        "SELECT coalesce(sum(length(times)), 0) FROM block WHERE tier = ?", (number,)
    ).fetchone()
    begins, ends = [t for t in (first, begin) if t is not None], [t for t in (last, end) if t is not None]
    return {
        "tier": TIERS[number],
        "rows": rows,
        "packed": packed,
        "series": series,
        "first": min(begins, default=None),
        "last": max(ends, default=None),
        "rowBytes": _share(connection, rows, table, tables),
        "packedBytes": packed_bytes + times_bytes,
    }


def _share(connection: sqlite3.Connection, rows: int, table: str, tables: Mapping[str, int]) -> int | None:
    """What a number of rows take of a table: all its rows are of about the same size."""
    if table not in tables:
        return None
    return round(tables[table] * rows / max(_count(connection, table), 1))


def _table_bytes(connection: sqlite3.Connection) -> dict[str, int]:
    """The bytes of the pages of each table; empty if this SQLite cannot tell."""
    try:
        return dict(connection.execute("SELECT name, pgsize FROM dbstat WHERE aggregate = TRUE"))
    except sqlite3.OperationalError:  # made without it
        return {}
