# SPDX-License-Identifier: MIT
"""Aggregates, formed in the background: whole buckets, computed anew from the finer tier whenever that has changed.

So it does not matter how late a point comes, how often or in which order, or how many sinks insert; one at a time
forms (`ROLLUP_LOCK`). Computed here, not in SQL, where a sum that overflows is an error.
"""

from __future__ import annotations

import asyncio
from array import array
from collections.abc import Mapping, Sequence
from itertools import groupby
from operator import itemgetter
from typing import TYPE_CHECKING, Any

from bus.aggregates import DEFAULT_HOLD_NS, Aggregate, Buckets, combine, gaps_before
from bus.archive import MIN_NS
from bus.chunk import MAX_NS
from sinks.postgres import changes, reading
from sinks.postgres.changes import Change, Span
from sinks.postgres.locks import ROLLUP_LOCK
from sinks.postgres.tables import FINEST, RAW, ROLLUPS, Tier

if TYPE_CHECKING:
    from sinks.postgres.database import Connection, Database

SETTLED_S = 60.0
"""A minute is formed when its points have had so long to come: then it is mostly formed once."""
LONGEST_S = 3600.0
"""No tier waits longer than this for the finer one to settle."""
CHANGES_AT_ONCE = 50
METRICS_AT_ONCE = 100
POINTS_AT_ONCE = 10_000
"""Of a metric: at most 16 MB are on their way."""

Changed = list[tuple[int, Span]]
"""(metric, span) pairs."""

_NAMES = ("count", "sum", "min", "max", "first", "last", "integral", "covered")
_COLUMNS = ", ".join(_NAMES)
_WRITE = (
    f"INSERT INTO hostbus.rollup AS old (tier, metric, time, {_COLUMNS}) SELECT $1, * FROM unnest($2::int[], "
    f"$3::bigint[], $4::bigint[], {', '.join(f'${number}::float8[]' for number in range(5, 12))}) "
    f"ON CONFLICT (tier, metric, time) DO UPDATE SET {', '.join(f'{name} = excluded.{name}' for name in _NAMES)} "
    "WHERE (old.time >= $12 OR old.count <= excluded.count) "
    f"AND ({', '.join(f'old.{name}' for name in _NAMES)}) IS DISTINCT FROM "
    f"({', '.join(f'excluded.{name}' for name in _NAMES)})"
)
READ = (
    f"SELECT metric, time, {_COLUMNS} FROM hostbus.rollup WHERE tier = $1 AND metric = ANY($2) "
    "AND time >= $3 AND time < $4 ORDER BY metric, time"
)


async def form(database: Database, settled_s: float = SETTLED_S) -> int:
    """Form all aggregates whose finer tier has changed and is settled; how many changes were worked off.

    If another sink is at it, this is left to that one.
    """
    formed = 0
    for source, target in zip((RAW, *ROLLUPS), ROLLUPS, strict=False):
        older_than_s = min(LONGEST_S, settled_s * target.span / FINEST.span)
        while some := await _form_some(database, source, target, older_than_s):
            formed += some
    return formed


async def _form_some(database: Database, source: Tier, target: Tier, older_than_s: float) -> int:
    """One transaction: what it formed is there when the changes are forgotten, and not before."""
    async with database.connection() as connection, connection.transaction():
        if not await connection.fetchval("SELECT pg_try_advisory_xact_lock($1)", ROLLUP_LOCK):
            return 0
        found = await changes.noted(connection, source, older_than_s, CHANGES_AT_ONCE)
        if found:
            changed = (
                await _from_points(connection, found)
                if source is RAW
                else await _from_aggregates(connection, source, target, found)
            )
            await changes.forget(connection, found)
            if target is not ROLLUPS[-1]:
                await changes.note(connection, target, changes.by_span(changed))
        return len(found)


# -- the finest tier, from points ----------------------------------------------------------------------------------


async def _from_points(connection: Connection, found: Sequence[Change]) -> Changed:
    """Form the minutes of changed points, and of the points that come next: they speak for less time now."""
    dirty = _by_metric(found)
    changed = [(metric, span) for metric, spans in dirty.items() for span in spans]
    holds = await _holds(connection, list(dirty))
    after = await _form_minutes(connection, changed, holds)
    later = _by_metric(await changes.noted_later(connection, RAW, found[-1].id))
    after = [(m, span) for m, span in after if not _within(span, dirty[m]) and not _within(span, later.get(m, ()))]
    await _form_minutes(connection, after, holds)
    return changed + after


async def _form_minutes(connection: Connection, wanted: Changed, holds: Mapping[int, int]) -> Changed:
    """Form the minutes of metrics in spans; returns the minutes of the first points after these."""
    gone_to = await gone(connection, RAW)
    after: Changed = []
    for (start, end), metrics in changes.by_span(wanted).items():
        for first in range(0, len(metrics), METRICS_AT_ONCE):
            some = metrics[first : first + METRICS_AT_ONCE]
            rows = await _minutes(connection, some, (start, end), holds)
            await _write(connection, FINEST, rows, gone_to)
            latest = [min(MAX_NS, end + holds[metric]) for metric in some]
            for metric, time_ns in (await reading.times_after(connection, some, end, latest)).items():
                if time_ns is not None:
                    after += [(metric, span) for span in changes.spans_of([time_ns], FINEST)]
    return after


async def _minutes(
    connection: Connection, metrics: Sequence[int], span: Span, holds: Mapping[int, int]
) -> list[tuple[Any, ...]]:
    """(metric, aggregate's columns) of every minute in a span."""
    start, end = span
    before = await reading.times_before(connection, metrics, start, [holds[metric] for metric in metrics])
    starts = dict.fromkeys(metrics, start)
    parts: dict[int, list[Aggregate]] = {metric: [] for metric in metrics}
    while starts:
        pages = await reading.pages(connection, list(starts), list(starts.values()), end, POINTS_AT_ONCE)
        for metric, some in (await asyncio.to_thread(_aggregated, pages, before, holds)).items():
            parts[metric] += some
        before = {metric: times[-1] for metric, (times, _) in pages.items() if times}
        starts = {metric: times[-1] + 1 for metric, (times, _) in pages.items() if len(times) == POINTS_AT_ONCE}
    return [(metric, *row) for metric, some in parts.items() for row in combine(some, FINEST.span)]


def _aggregated(
    pages: Mapping[int, reading.Columns], before: Mapping[int, int | None], holds: Mapping[int, int]
) -> dict[int, list[Aggregate]]:
    """The aggregates of a page of each metric. Metrics that are sampled together have the same times."""
    aggregated = {}
    known: tuple[array[int], int | None, int] | None = None
    for metric, (times, values) in pages.items():
        if times:
            key = (times, before[metric], holds[metric])
            if key != known:
                known = key
                buckets = Buckets(times, gaps_before(*key), FINEST.span)
            aggregated[metric] = list(buckets.aggregate(values))
    return aggregated


# -- coarser tiers -------------------------------------------------------------------------------------------------


async def _from_aggregates(connection: Connection, source: Tier, target: Tier, found: Sequence[Change]) -> Changed:
    """Form the buckets of a tier from those of the finer one that have changed."""
    gone_to = await gone(connection, source)
    changed = [
        (metric, changes.around(start, end - 1, target))
        for metric, spans in _by_metric(found).items()
        for start, end in spans
    ]
    for (start, end), metrics in changes.by_span(changed).items():
        for first in range(0, len(metrics), METRICS_AT_ONCE):
            some = metrics[first : first + METRICS_AT_ONCE]
            finer = await connection.fetch(READ, source.id, some, start, end)
            rows = [
                (metric, *row)
                for metric, own in groupby(finer, itemgetter(0))
                for row in combine([Aggregate(*one[1:]) for one in own], target.span)
            ]
            await _write(connection, target, rows, gone_to)
    return changed


async def _write(connection: Connection, tier: Tier, rows: Sequence[tuple[Any, ...]], gone_to: int) -> None:
    """Store buckets, or replace them; where the finer tier has gone, only by what is made of no less."""
    rows = [row for row in rows if row[1] >= MIN_NS]  # the first bucket of all times may begin before them
    if rows:
        await connection.execute(_WRITE, tier.id, *map(list, zip(*rows, strict=True)), gone_to)


async def gone(connection: Connection, tier: Tier) -> int:
    """What of a tier came before this time may have been removed."""
    found: int = await connection.fetchval("SELECT gone_to FROM hostbus.tier WHERE id = $1", tier.id)
    return found


async def _holds(connection: Connection, metrics: Sequence[int]) -> dict[int, int]:
    rows = await connection.fetch("SELECT id, hold FROM hostbus.metric WHERE id = ANY($1)", metrics)
    known = {id_: hold for id_, hold in rows if hold is not None}
    return {metric: known.get(metric, DEFAULT_HOLD_NS) for metric in metrics}


def _by_metric(found: Sequence[Change]) -> dict[int, list[Span]]:
    spans: dict[int, list[Span]] = {}
    for change in found:
        for metric in change.metrics:
            spans.setdefault(metric, []).append(change.span)
    return {metric: changes.merged(own) for metric, own in spans.items()}


def _within(span: Span, others: Sequence[Span]) -> bool:
    return any(start <= span[0] and span[1] <= end for start, end in others)
