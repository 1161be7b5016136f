# SPDX-License-Identifier: MIT
"""Aggregates out of the archive, from the coarsest tiers that will do."""

from __future__ import annotations

import sqlite3

from bus.aggregates import DEFAULT_HOLD_NS, Aggregate, aggregate_points
from sinks.sqlite.reading import stored_points, time_before


def aggregates(
    connection: sqlite3.Connection, metric: int, start_ns: int, end_ns: int, every_ns: int | None
) -> list[Aggregate]:
    """The aggregates of a metric over buckets of `every_ns`, or over everything."""
    (hold_ns,) = connection.execute(
        "SELECT coalesce(hold, ?) FROM metric WHERE id = ?", (DEFAULT_HOLD_NS, metric)
    ).fetchone()
    times, values = stored_points(connection, metric, start_ns, end_ns)
    previous_ns = time_before(connection, metric, start_ns)
    return aggregate_points(times, values, every_ns, previous_ns=previous_ns, hold_ns=hold_ns)
