# SPDX-License-Identifier: MIT
"""Retention: what is older than it is kept for goes, from fine to coarse, in small steps.

A tier goes by whole windows of 6 h, so that what was compacted goes as it is, and by whole buckets of the next
coarser tier (1 h by days), so that readers know where it begins. Nothing goes before that one is formed of it.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Mapping

from sinks.retention import FOREVER, Retention
from sinks.sqlite.compaction import WINDOW_NS
from sinks.sqlite.rollups import rolled_to
from sinks.sqlite.series import delete_orphans
from sinks.sqlite.tiers import COARSER, FINEST, RAW, ROLLUPS

ROWS_PER_DELETE = 10_000
"""More than any tier has in the span by which it goes."""
SERIES_PER_DELETE = 100
BUDGET_S = 0.05
"""A step begins nothing else after that, because inserts wait for its end."""

METRICS_PER_QUERY = 500


class Expiry:
    """One way through all metrics: made anew for the next, and after an error."""

    def __init__(self, now_ns: int, retention: Retention) -> None:
        self._now_ns = now_ns
        self._retention = retention
        self._metric = 0

    def step(self, connection: sqlite3.Connection) -> int | None:
        """Remove something: how many rows and series; None if nothing is left. Within a transaction."""
        stop_at = time.monotonic() + BUDGET_S
        removed = 0
        formed = rolled_to(connection)
        while metrics := connection.execute(
            "SELECT id, name FROM metric WHERE id >= ? ORDER BY id LIMIT ?", (self._metric, METRICS_PER_QUERY)
        ).fetchall():
            for self._metric, name in metrics:
                part = None
                while part != 0:
                    if time.monotonic() >= stop_at:
                        return removed
                    part = self._expire(connection, self._metric, name, formed)
                    removed += part
            self._metric += 1
        return removed or None

    def _expire(self, connection: sqlite3.Connection, metric: int, name: str, formed: Mapping[int, int]) -> int:
        """Remove some of a metric: how many rows and series; 0 if nothing of it is too old any more."""
        for tier, span_ns in enumerate(self._retention.of(name)):
            if span_ns >= FOREVER:
                continue
            end = _end(tier, self._now_ns - span_ns, formed)
            removed = _remove_series(connection, metric, tier, end) + _remove_rows(connection, metric, tier, end)
            if removed:
                if tier == RAW:
                    connection.execute(
                        "UPDATE metric SET raw_from = max(coalesce(raw_from, ?1), ?1) WHERE id = ?2", (end, metric)
                    )
                return removed
        return 0


def expire_step(connection: sqlite3.Connection, now_ns: int, retention: Retention) -> int:
    """Remove something that is too old: how many rows and series; 0 if nothing is left. Within a transaction."""
    expiry = Expiry(now_ns, retention)
    removed: int | None = 0
    while removed == 0:
        removed = expiry.step(connection)
    return removed or 0


def _unit(tier: int) -> int:
    """The span by which a tier goes."""
    return max(WINDOW_NS, ROLLUPS[min(tier + 1, len(ROLLUPS)) - FINEST.id].span_ns)


def _end(tier: int, end: int, formed: Mapping[int, int]) -> int:
    """Up to when a tier goes, where nothing before `end` has to be kept."""
    if FINEST.id <= tier < COARSER[-1].id:
        end = min(end, formed[tier + 1])
    return end // _unit(tier) * _unit(tier)


def _remove_rows(connection: sqlite3.Connection, metric: int, tier: int, end: int) -> int:
    """Remove rows from before `end`, the oldest first."""
    table, of = ("point", "metric = ?") if tier == RAW else ("rollup", f"tier = {tier} AND metric = ?")
    further = connection.execute(
        f"SELECT time FROM {table} WHERE {of} AND time < ? ORDER BY time LIMIT 1 OFFSET ?",
        (metric, end, ROWS_PER_DELETE),
    ).fetchone()
    if further is not None:
        end = further[0] if tier == RAW else further[0] // _unit(tier) * _unit(tier)
    return connection.execute(f"DELETE FROM {table} WHERE {of} AND time < ?", (metric, end)).rowcount


def _remove_series(connection: sqlite3.Connection, metric: int, tier: int, end: int) -> int:
    """Remove series that end before `end`, the oldest first."""
    if tier > FINEST.id:
        return 0
    found = connection.execute(
        "SELECT id, block FROM series WHERE metric = ?1 AND tier = ?2 AND start < ?3 AND end <= ?3 "
        "ORDER BY start LIMIT ?4",
        (metric, tier, end, SERIES_PER_DELETE),
    ).fetchall()
    connection.executemany("DELETE FROM series WHERE id = ?", [(id_,) for id_, _ in found])
    delete_orphans(connection, {block for _, block in found})
    return len(found)
