# SPDX-License-Identifier: MIT
"""Points into the archive's tables: rows and what they add to the aggregates, within one transaction.

Points that are later than all of their metric's are new for sure: their rows and aggregates come straight from
the columns in which they arrived. All others (late, or delivered again) take the longer way of `late`.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import astuple
from itertools import groupby
from operator import lt

from bus.aggregates import DEFAULT_HOLD_NS, Buckets, gaps_before
from bus.archive import MIN_NS, MissingFrames
from bus.frame import Group
from sinks.sqlite import late, rollups
from sinks.sqlite.reading import newest_times
from sinks.sqlite.rows import (
    ROWS_PER_STATEMENT,
    Family,
    families,
    family,
    flatten,
    left_rows,
    storable,
    whole_statements,
)
from sinks.sqlite.tiers import FINEST

NAMES_PER_QUERY = 500
CASCADE_EVERY_NS = 60 * 10**9

_INSERT = "INSERT OR IGNORE INTO point (metric, time, value) VALUES "
_INSERT_ONE = _INSERT + "(?,?,?)"
_INSERT_MANY = _INSERT + ",".join(["(?,?,?)"] * ROWS_PER_STATEMENT)


class Writer:
    """What the one who writes an archive remembers of it, so that it need not be read for each batch.

    All methods run in the archive's thread, within a transaction of the caller's, who calls `forget` if that
    fails: what was remembered of it belongs to nobody.
    """

    def __init__(self) -> None:
        self.ids: dict[str, int] = {}
        self._holds: dict[int, int] = {}
        self._newest: dict[int, int] = {}
        self._expired: dict[int, int] = {}  # until when, of metrics that have no later points
        self._rolled: dict[int, int] = {}
        self._cascade_at = 0
        self._is_loaded = False

    def forget(self) -> None:
        """Read all anew at the next use."""
        self._is_loaded = False

    def load(self, connection: sqlite3.Connection) -> None:
        """Make sure that all is remembered."""
        if self._is_loaded:
            return
        known = connection.execute("SELECT id, name, hold, raw_from FROM metric").fetchall()
        self.ids = {name: metric for metric, name, _, _ in known}
        self._holds = {metric: hold for metric, _, hold, _ in known if hold is not None}
        self._newest = newest_times(connection)
        self._expired = {
            metric: raw_from
            for metric, _, _, raw_from in known
            if raw_from is not None and self._newest.get(metric, MIN_NS) < raw_from
        }
        self._rolled = rollups.rolled_to(connection)
        self._cascade_at = 0
        self._is_loaded = True

    def insert(
        self, connection: sqlite3.Connection, groups: Iterable[Group], missing: Sequence[MissingFrames], now_ns: int
    ) -> int:
        """Store points and what is missing; the number of new points."""
        self.load(connection)
        by_metrics = families(storable(groups))
        self._make_ids(connection, sorted({name for names in by_metrics for name in names if name not in self.ids}))
        prompt: list[Family] = []
        others: list[Family] = []
        ends: dict[int, int] = {}  # a metric may be in several families
        for names, its_groups in by_metrics.items():
            one = family(names, its_groups, self.ids)
            if self._is_later(one, ends):
                prompt.append(one)
                ends.update((metric, one.times[-1]) for metric, _ in one.columns)
            else:
                others.append(one)
        stored = self._append(connection, prompt)
        for one in others:
            for metric, values in one.columns:
                hold_ns = self._holds.get(metric, DEFAULT_HOLD_NS)
                stored += late.insert(connection, metric, one.times, values, hold_ns, self._rolled)
                self._newest[metric] = max(self._newest.get(metric, MIN_NS), *one.times)
        if now_ns >= self._cascade_at:  # not before, or what a long batch brings would be late already
            rollups.cascade(connection, now_ns)
            self._rolled = rollups.rolled_to(connection)
            self._cascade_at = now_ns // CASCADE_EVERY_NS * CASCADE_EVERY_NS + CASCADE_EVERY_NS
        if missing:
            connection.executemany(
                "INSERT OR IGNORE INTO gap (source, key, epoch, first, last, noticed) VALUES (?,?,?,?,?,?)",
                map(astuple, missing),
            )
        return stored

    def _make_ids(self, connection: sqlite3.Connection, names: Sequence[str]) -> None:
        """Ids for names that are not known."""
        connection.executemany("INSERT OR IGNORE INTO metric (name) VALUES (?)", ((name,) for name in names))
        for start in range(0, len(names), NAMES_PER_QUERY):
            some = names[start : start + NAMES_PER_QUERY]
            marks = ",".join("?" * len(some))
            self.ids.update(connection.execute(f"SELECT name, id FROM metric WHERE name IN ({marks})", some))

    def _is_later(self, one: Family, ends: Mapping[int, int]) -> bool:
        """Whether the times increase, and begin after all points of these metrics, stored or in `ends`."""
        times, newest = one.times, self._newest
        if any(ends.get(metric, newest.get(metric, MIN_NS)) >= times[0] for metric, _ in one.columns):
            return False
        if self._expired and any(self._expired.get(metric, MIN_NS) > times[0] for metric, _ in one.columns):
            return False  # its aggregates may have counted them before they expired
        return len(times) == 1 or all(map(lt, times, times[1:]))

    def _append(self, connection: sqlite3.Connection, prompt: Sequence[Family]) -> int:
        flat = flatten(prompt)
        stored = connection.executemany(_INSERT_MANY, whole_statements(flat)).rowcount
        stored += connection.executemany(_INSERT_ONE, left_rows(flat)).rowcount
        connection.executemany(rollups.APPEND, self._rollup_rows(prompt))
        return stored

    def _rollup_rows(self, prompt: Sequence[Family]) -> list[rollups.Row]:
        found: list[rollups.Row] = []
        for one in prompt:
            # The metrics of a source mostly have the same past, so that their buckets are cut once.
            for (previous_ns, hold_ns), columns in groupby(one.columns, lambda column: self._past(column[0])):
                buckets = Buckets(one.times, gaps_before(one.times, previous_ns, hold_ns), FINEST.span_ns)
                for metric, values in columns:
                    found += rollups.rows(metric, list(buckets.aggregate(values)), self._rolled)
            self._newest.update((metric, one.times[-1]) for metric, _ in one.columns)
        return found

    def _past(self, metric: int) -> tuple[int | None, int]:
        return self._newest.get(metric), self._holds.get(metric, DEFAULT_HOLD_NS)
