# SPDX-License-Identifier: MIT
"""Aggregates out of the archive, from the coarsest tiers that will do.

A range is cut into stretches: its middle comes from the coarsest tier whose buckets fit into those that are asked
for, what is left at its ends from ever finer ones, the last seconds from points. So the first and the last bucket
hold just what lies in the range, and few rows are read. A tier serves where it is formed already; before that, the
next finer one. Where the finer ones have expired, the finest that is still there takes their place, and its buckets
count where they begin: then they may reach out of the range, and out of the buckets that are asked for.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from bus.aggregates import DEFAULT_HOLD_NS, Aggregate, aggregate_points, combine
from bus.archive import MIN_NS
from bus.chunk import MAX_NS
from sinks.sqlite.buckets import stored_buckets
from sinks.sqlite.reading import stored_points, time_before
from sinks.sqlite.tiers import FINEST, RAW, ROLLUPS

_NEVER = MAX_NS + 1

_METRIC = "SELECT coalesce(hold, ?), coalesce(raw_from, ?) FROM metric WHERE id = ?"
_FIRST = (
    "SELECT rolled_to, (SELECT min(time) FROM rollup WHERE tier = tier.id AND metric = :metric), "
    "(SELECT min(start) FROM series WHERE metric = :metric AND tier = tier.id) FROM tier ORDER BY id"
)


@dataclass(frozen=True, slots=True)
class Kept:
    """A tier of a metric: nothing of it has expired since `since`, all is formed before `until`, in ns."""

    tier: int
    span: int
    since: int
    until: int


Stretch = tuple[int, int, int]
"""(tier, start, end)"""


def aggregates(
    connection: sqlite3.Connection, metric: int, start_ns: int, end_ns: int, every_ns: int | None
) -> list[Aggregate]:
    """The aggregates of a metric over buckets of `every_ns`, or over everything."""
    hold_ns, raw_from = connection.execute(_METRIC, (DEFAULT_HOLD_NS, MIN_NS, metric)).fetchone()
    found: list[Aggregate] = []
    for tier, start, end in stretches(_kept(connection, metric, raw_from), start_ns, end_ns, every_ns):
        if tier == RAW:
            parts = _of_points(connection, metric, start, end, every_ns, hold_ns)
        else:
            parts = stored_buckets(connection, tier, metric, start, end)
            if every_ns != ROLLUPS[tier - FINEST.id].span_ns:
                parts = combine(parts, every_ns)
        if found and parts and (every_ns is None or found[-1].time == parts[0].time):
            found[-1:] = combine((found[-1], parts.pop(0)), every_ns)
        found += parts
    if every_ns is None and found and start_ns >= raw_from:  # a bucket begins before its first point
        times, _ = stored_points(connection, metric, start_ns, end_ns, 1)
        found = [found[0]._replace(time=times[0])]
    return found


def stretches(kept: Sequence[Kept], start_ns: int, end_ns: int, every_ns: int | None) -> Iterator[Stretch]:
    """What to read for a range, oldest first; `kept` are all tiers from fine to coarse."""
    fitting = [one.tier for one in kept if one.tier != RAW and (every_ns is None or every_ns % one.span == 0)]
    yield from _cover(kept, start_ns, end_ns, max(fitting, default=RAW))


def _cover(kept: Sequence[Kept], start: int, end: int, tier: int) -> Iterator[Stretch]:
    """A range from a tier where it can serve, and around that from finer ones."""
    if start >= end:
        return
    its = kept[tier]
    first, last = _ceil(max(start, its.since), its.span), min(end, its.until) // its.span * its.span
    if tier == RAW:
        yield from _cover_expired(kept, start, min(first, end), FINEST.id)
        if first < end:
            yield RAW, first, end
    elif first >= last:
        yield from _cover(kept, start, end, tier - 1)
    else:
        yield from _cover(kept, start, first, tier - 1)
        yield tier, first, last
        yield from _cover(kept, last, end, tier - 1)


def _cover_expired(kept: Sequence[Kept], start: int, end: int, tier: int) -> Iterator[Stretch]:
    """A range whose points have expired, from the finest tiers that have it: from all buckets that reach into it."""
    if start >= end or tier == len(kept):
        return
    its = kept[tier]
    since = min(max(start, its.since), end)
    yield from _cover_expired(kept, start, since, tier + 1)
    if since < end:
        yield tier, max(since // its.span * its.span, MIN_NS), end


def _kept(connection: sqlite3.Connection, metric: int, raw_from: int) -> list[Kept]:
    """The tiers of a metric, from fine to coarse.

    They expire by whole buckets of the next coarser tier: what of it was before the first bucket that is there, in
    the same coarser one, was never there.
    """
    kept = [Kept(RAW, 1, raw_from if raw_from == MIN_NS else _ceil(raw_from, FINEST.span_ns), _NEVER)]
    for tier, (rolled_to, *firsts) in zip(ROLLUPS, connection.execute(_FIRST, {"metric": metric}), strict=True):
        coarser = ROLLUPS[min(tier.id, len(ROLLUPS) - 1)].span_ns
        since = min((first // coarser * coarser for first in firsts if first is not None), default=_NEVER)
        kept.append(Kept(tier.id, tier.span_ns, since, _NEVER if tier is FINEST else rolled_to))
    return kept


def _of_points(
    connection: sqlite3.Connection, metric: int, start: int, end: int, every_ns: int | None, hold_ns: int
) -> list[Aggregate]:
    times, values = stored_points(connection, metric, start, end)
    previous = time_before(connection, metric, times[0]) if times else None
    return aggregate_points(times, values, every_ns, previous_ns=previous, hold_ns=hold_ns)


def _ceil(time_ns: int, span: int) -> int:
    return -(-time_ns // span) * span
