# SPDX-License-Identifier: MIT
"""Events in the archive: marks and spans of time."""

import json
import sqlite3

from bus.archive import Event

_COLUMNS = "time, end, label, source, host, color, dash, metadata"


def add(connection: sqlite3.Connection, event: Event) -> int:
    """Store an event, unless it is there already; its id."""
    metadata = json.dumps(dict(event.metadata), sort_keys=True)
    row = (event.time, event.end, event.label, event.source, event.host, event.color, event.dash, metadata)
    same = " AND ".join(f"{name} IS ?" for name in _COLUMNS.split(", "))
    found = connection.execute(f"SELECT id FROM event WHERE {same}", row).fetchone()
    if found is None:
        found = connection.execute(
            f"INSERT INTO event ({_COLUMNS}) VALUES (?,?,?,?,?,?,?,?) RETURNING id", row
        ).fetchone()
    return int(found[0])


def between(connection: sqlite3.Connection, start_ns: int, end_ns: int, source: str | None) -> list[Event]:
    """The events that begin before `end_ns` and do not end before `start_ns`, oldest first."""
    rows = connection.execute(
        f"SELECT id, {_COLUMNS} FROM event WHERE time < ? AND coalesce(end, time) >= ? "
        "AND source = coalesce(?, source) ORDER BY time, id",
        (end_ns, start_ns, source),
    )
    return [
        Event(
            id=id_,
            time=time,
            end=end,
            label=label,
            source=source,
            host=host,
            color=color,
            dash=dash,
            metadata=json.loads(metadata),
        )
        for id_, time, end, label, source, host, color, dash, metadata in rows
    ]
