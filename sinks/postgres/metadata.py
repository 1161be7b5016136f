# SPDX-License-Identifier: MIT
"""What is known of the metrics in the database."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from bus.aggregates import DEFAULT_HOLD_NS
from sinks.postgres import changes
from sinks.postgres.tables import FINEST, RAW

if TYPE_CHECKING:
    from sinks.postgres.database import Connection

_SET = (
    "UPDATE hostbus.metric SET metadata = told.metadata, hold = told.hold "
    "FROM (SELECT * FROM unnest($1::text[], $2::text[], $3::bigint[]) AS all_told (name, metadata, hold) "
    "ORDER BY name) AS told WHERE metric.name = told.name "
    "AND (metric.metadata, metric.hold) IS DISTINCT FROM (told.metadata, told.hold)"
)
# Those of which nothing was known before, and to which something else applies than was taken for granted.
_FIRST_TOLD = (
    "SELECT metric.id, (SELECT min(time) FROM hostbus.point WHERE point.metric = metric.id), "
    "(SELECT max(time) FROM hostbus.point WHERE point.metric = metric.id) "
    "FROM hostbus.metric JOIN unnest($1::text[], $2::bigint[]) AS told (name, hold) USING (name) "
    "WHERE metric.hold IS NULL AND told.hold <> $3"
)


async def set_all(connection: Connection, told: Sequence[tuple[str, str, int]]) -> None:
    """Store (name, metadata, hold) of metrics that the archive knows.

    When the hold of a metric is first known, the aggregates of what it has are formed anew; after a change they
    stay, since it holds for what comes.
    """
    names, holds = [name for name, _, _ in told], [hold for _, _, hold in told]
    async with connection.transaction():
        first = await connection.fetch(_FIRST_TOLD, names, holds, DEFAULT_HOLD_NS)
        await connection.execute(_SET, names, [text for _, text, _ in told], holds)
        changed = [(id_, changes.around(oldest, newest, FINEST)) for id_, oldest, newest in first if oldest is not None]
        await changes.note(connection, RAW, changes.by_span(changed))
