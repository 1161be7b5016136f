# SPDX-License-Identifier: MIT
"""Events in the database: marks and spans of time."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING

from bus.archive import Event
from sinks.postgres.text import storable

if TYPE_CHECKING:
    from sinks.postgres.database import Connection

_COLUMNS = 'time, "end", label, source, host, color, dash, metadata'

# An update that changes nothing, because only what is written is returned.
_ADD = (
    f"INSERT INTO hostbus.event AS old ({_COLUMNS}, digest) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) "
    "ON CONFLICT (digest) DO UPDATE SET digest = old.digest RETURNING id"
)
_BETWEEN = (
    f'SELECT id, {_COLUMNS} FROM hostbus.event WHERE time < $2 AND coalesce("end", time) >= $1 '
    "AND source = coalesce($3, source) ORDER BY time, id"
)


async def add(connection: Connection, event: Event) -> int:
    """Store an event, unless it is there already; its id."""
    texts = [storable(text) for text in (event.label, event.source, event.host, event.color, event.dash)]
    row = (event.time, event.end, *texts, json.dumps(dict(event.metadata), sort_keys=True))
    id_: int = await connection.fetchval(_ADD, *row, hashlib.sha256(json.dumps(row).encode()).digest())
    return id_


async def between(connection: Connection, start_ns: int, end_ns: int, source: str | None) -> list[Event]:
    """The events that begin before `end_ns` and do not end before `start_ns`, oldest first."""
    rows = await connection.fetch(_BETWEEN, start_ns, end_ns, source)
    return [Event(**{**row, "metadata": json.loads(row["metadata"])}) for row in rows]
