# SPDX-License-Identifier: MIT
"""Aggregates out of the database: from the coarsest tier that will do, finer where it has not been formed yet.

A coarse bucket that lies in the range wholly is read as it is; what is left of the range at both ends, and what
has changed since it was formed, is taken from the finer tier, down to the points.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from operator import attrgetter
from typing import TYPE_CHECKING

from bus.aggregates import DEFAULT_HOLD_NS, Aggregate, aggregate_points, combine
from bus.archive import MIN_NS
from bus.chunk import MAX_NS
from sinks.postgres import changes, reading
from sinks.postgres.changes import Span
from sinks.postgres.rollups import READ
from sinks.postgres.tables import FINEST, RAW, ROLLUPS

if TYPE_CHECKING:
    from sinks.postgres.database import Connection

PAGE_POINTS = 100_000


async def aggregates(
    connection: Connection, metric: int, start_ns: int, end_ns: int, every_ns: int | None
) -> list[Aggregate]:
    """The aggregates of a metric over buckets of `every_ns`, or over everything. Wants a snapshot."""
    gone_to = {tier: time for tier, time in await connection.fetch("SELECT id, gone_to FROM hostbus.tier")}  # noqa: C416
    timeline = Timeline(
        connection,
        metric,
        every_ns,
        hold_ns=await connection.fetchval(
            "SELECT coalesce(hold, $2) FROM hostbus.metric WHERE id = $1", metric, DEFAULT_HOLD_NS
        ),
        changed=await changes.spans_for(connection, metric),
        gone_to=gone_to,
    )
    fitting = [level for level, tier in enumerate(ROLLUPS, 1) if every_ns is None or every_ns % tier.span == 0]
    await timeline.read(max(fitting, default=0), start_ns, end_ns)
    rows = combine(timeline.parts, every_ns)
    if every_ns is None and rows and rows[0].time >= gone_to[RAW.id]:
        # It may have begun with a whole bucket, and has the time of its first point.
        (first_ns,) = (await reading.times_after(connection, [metric], start_ns, [end_ns])).values()
        rows = [Aggregate(rows[0].time if first_ns is None else first_ns, *rows[0][1:])]
    if rows and rows[0].time < MIN_NS:  # a bucket that begins before all times
        rows[0] = Aggregate(MIN_NS, *rows[0][1:])
    return rows


class Timeline:
    """One question: the parts that answer it gather in `parts`, oldest first. Level 0 are points, 1 minutes, ..."""

    def __init__(
        self,
        connection: Connection,
        metric: int,
        every_ns: int | None,
        *,
        hold_ns: int,
        changed: list[tuple[int, Span]],
        gone_to: Mapping[int, int],
    ) -> None:
        self.parts: list[Aggregate] = []
        self._connection = connection
        self._metric = metric
        self._every_ns = every_ns
        self._hold_ns = hold_ns
        self._changed = changed
        self._gone_to = gone_to

    async def read(self, level: int, start_ns: int, end_ns: int) -> None:
        """Everything in a range, from that level or, where it must be, from finer ones."""
        if start_ns >= end_ns:
            return
        if level == 0:
            await self._read_points(start_ns, end_ns)
            return
        span = ROLLUPS[level - 1].span
        first, last = -(-start_ns // span) * span, end_ns // span * span
        if first >= last:
            await self.read(level - 1, start_ns, end_ns)
            return
        await self.read(level - 1, start_ns, first)
        at = first
        for dirty_start, dirty_end in self._dirty(level, first, last):
            await self._read_rollup(level, at, dirty_start)
            await self.read(level - 1, dirty_start, dirty_end)
            at = dirty_end
        await self._read_rollup(level, at, last)
        await self.read(level - 1, last, end_ns)

    def _dirty(self, level: int, first: int, last: int) -> Iterator[Span]:
        """Where in a range the tier is not to be trusted: whole buckets."""
        tier = ROLLUPS[level - 1]
        spans = []
        for source, (start, end) in self._changed:
            if source == RAW.id:
                end += self._hold_ns  # the next point, too, speaks for another time now
            else:
                start = max(start, self._gone_to[source])  # what was formed before knows more
            if source < tier.id and start < end:
                spans.append((start // tier.span * tier.span, -(-end // tier.span) * tier.span))
        for start, end in changes.merged(spans):
            if max(start, first) < min(end, last):
                yield max(start, first), min(end, last)

    async def _read_rollup(self, level: int, start_ns: int, end_ns: int) -> None:
        """Buckets of a tier that begin in a range; where they have gone, those of a coarser one."""
        gone_to = self._gone_to[ROLLUPS[level - 1].id]
        if start_ns < min(gone_to, end_ns) and level < len(ROLLUPS):
            await self._read_rollup(level + 1, start_ns, min(end_ns, gone_to))
            start_ns = gone_to
        if start_ns < end_ns:
            self.parts += await self._stored(level, start_ns, end_ns)

    async def _stored(self, level: int, start_ns: int, end_ns: int) -> list[Aggregate]:
        tier = ROLLUPS[level - 1]
        rows = await self._connection.fetch(READ, tier.id, [self._metric], max(start_ns, MIN_NS), min(end_ns, MAX_NS))
        return [Aggregate(*row[1:]) for row in rows]

    async def _read_points(self, start_ns: int, end_ns: int) -> None:
        """From points; where they have gone, from what is left."""
        gone_to = self._gone_to[RAW.id]
        if start_ns < gone_to:
            await self._read_left(start_ns, min(end_ns, gone_to))
            start_ns = gone_to
        if start_ns < end_ns:
            self.parts += await self._aggregated(start_ns, end_ns, self._every_ns)

    async def _read_left(self, start_ns: int, end_ns: int) -> None:
        """Where points have gone: a minute that was formed knows more than the points that came later."""
        gone_to = self._gone_to[FINEST.id]
        if start_ns < gone_to:
            await self._read_rollup(1, start_ns, min(end_ns, gone_to))
            start_ns = gone_to
        if start_ns >= end_ns:
            return
        formed = await self._stored(1, start_ns // FINEST.span * FINEST.span, end_ns)
        known = {row.time for row in formed}
        late = combine(await self._aggregated(start_ns, end_ns, FINEST.span), FINEST.span)
        parts = [row for row in formed if row.time >= start_ns] + [row for row in late if row.time not in known]
        self.parts += sorted(parts, key=attrgetter("time"))

    async def _aggregated(self, start_ns: int, end_ns: int, every_ns: int | None) -> list[Aggregate]:
        before = await reading.times_before(self._connection, [self._metric], start_ns, [self._hold_ns])
        previous_ns = before[self._metric]
        parts: list[Aggregate] = []
        while True:
            times, values = await reading.page(self._connection, self._metric, start_ns, end_ns, PAGE_POINTS)
            parts += await asyncio.to_thread(
                aggregate_points, times, values, every_ns, previous_ns=previous_ns, hold_ns=self._hold_ns
            )
            if len(times) < PAGE_POINTS:
                return parts
            previous_ns, start_ns = times[-1], times[-1] + 1
