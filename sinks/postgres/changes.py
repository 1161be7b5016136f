# SPDX-License-Identifier: MIT
"""What has changed in a tier, of which the next coarser one has not learned: the table `unformed`.

Whoever inserts points notes in the same transaction for which metrics and minutes, so that aggregates can be
formed later, by anybody, and never miss what came late. A reader takes these spans from the finer tier.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bus.archive import MIN_NS
from bus.chunk import MAX_NS
from sinks.postgres.copying import Families, times_of
from sinks.postgres.tables import FINEST, Tier

if TYPE_CHECKING:
    from asyncpg import Record

    from sinks.postgres.database import Connection

Span = tuple[int, int]
"""From, to (exclusive), in ns."""

NEAR = 10
"""Spans with so few buckets between them are noted as one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """Something changed for these metrics somewhere in a span."""

    id: int
    metrics: Sequence[int]
    span: Span


def around(first_ns: int, last_ns: int, tier: Tier) -> Span:
    """The buckets of a tier from that of one time to that of another."""
    return max(first_ns // tier.span * tier.span, MIN_NS), min((last_ns // tier.span + 1) * tier.span, MAX_NS)


def spans_of(times: Iterable[int], tier: Tier) -> list[Span]:
    """The buckets of a tier in which some times lie, as few spans."""
    span = tier.span
    return merged((around(start, start, tier) for start in {time_ns // span * span for time_ns in times}), NEAR * span)


def merged(spans: Iterable[Span], near_ns: int = 0) -> list[Span]:
    """Spans in order, as one where they touch, overlap or are not more than `near_ns` apart."""
    found: list[Span] = []
    for start, end in sorted(spans):
        if found and start <= found[-1][1] + near_ns:
            found[-1] = (found[-1][0], max(end, found[-1][1]))
        else:
            found.append((start, end))
    return found


def by_span(changed: Iterable[tuple[int, Span]]) -> dict[Span, list[int]]:
    """(metric, span) pairs as the metrics of each span."""
    found: dict[Span, list[int]] = {}
    for metric, span in changed:
        found.setdefault(span, []).append(metric)
    return found


def changed_minutes(families: Families, ids: Mapping[str, int]) -> dict[Span, list[int]]:
    """What the points of a batch change."""
    return by_span(
        (ids[name], span)
        for names, groups in families.items()
        for span in spans_of(times_of(groups), FINEST)
        for name in names
    )


async def note(connection: Connection, tier: Tier, changed: Mapping[Span, Sequence[int]]) -> None:
    """Remember what has changed in a tier."""
    await connection.executemany(
        "INSERT INTO hostbus.unformed (tier, metrics, first, last) VALUES ($1, $2, $3, $4)",
        [(tier.id, sorted(set(metrics)), start, end) for (start, end), metrics in changed.items()],
    )


async def noted(connection: Connection, tier: Tier, older_than_s: float, limit: int) -> list[Change]:
    """The oldest changes of a tier."""
    rows = await connection.fetch(
        "SELECT id, metrics, first, last FROM hostbus.unformed WHERE tier = $1 "
        "AND noticed <= clock_timestamp() - $2 * interval '1 second' ORDER BY id LIMIT $3",
        tier.id,
        older_than_s,
        limit,
    )
    return _changes(rows)


async def noted_later(connection: Connection, tier: Tier, last_id: int) -> list[Change]:
    """The changes of a tier after one of them."""
    rows = await connection.fetch(
        "SELECT id, metrics, first, last FROM hostbus.unformed WHERE tier = $1 AND id > $2", tier.id, last_id
    )
    return _changes(rows)


async def forget(connection: Connection, changes: Sequence[Change]) -> None:
    """The next tier has learned of these."""
    await connection.execute("DELETE FROM hostbus.unformed WHERE id = ANY($1)", [change.id for change in changes])


async def spans_for(connection: Connection, metric: int) -> list[tuple[int, Span]]:
    """(tier, span) of all that has changed for a metric."""
    rows = await connection.fetch("SELECT tier, first, last FROM hostbus.unformed WHERE $1 = ANY(metrics)", metric)
    return [(tier, (first, last)) for tier, first, last in rows]


def _changes(rows: Iterable[Record]) -> list[Change]:
    return [Change(id=id_, metrics=metrics, span=(first, last)) for id_, metrics, first, last in rows]
