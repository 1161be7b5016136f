# SPDX-License-Identifier: MIT
"""Metadata of metrics, and what follows of them: for how long a point speaks.

A metric's metadata come after its first points, whose aggregates are then formed anew. Later, when they change,
what was aggregated stays: it was right by what was known.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping
from typing import Any

from bus.aggregates import DEFAULT_HOLD_NS, hold_ns
from sinks.sqlite import rollups

MOST_POINTS = 50_000
"""That are aggregated anew at a time, because inserts wait for it: 0.4 s if each has a bucket of its own."""


def tell(connection: sqlite3.Connection, metadata: Mapping[str, Mapping[str, Any]]) -> bool:
    """Remember the metadata of those metrics that have points; whether there was anything new."""
    budget = MOST_POINTS
    changed = False
    for name, fields in metadata.items():
        text, hold = json.dumps(fields), hold_ns(fields)
        known = connection.execute("SELECT metadata, hold, id FROM metric WHERE name = ?", (name,)).fetchone()
        if known is None or known[:2] == (text, hold):
            continue
        connection.execute("UPDATE metric SET metadata = ?, hold = ? WHERE id = ?", (text, hold, known[2]))
        changed = True
        if known[0] is None and hold != DEFAULT_HOLD_NS:
            budget -= rollups.form_anew(connection, known[2], hold, budget)
    return changed
