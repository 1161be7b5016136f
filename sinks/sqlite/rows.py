# SPDX-License-Identifier: MIT
"""Points as rows for SQLite: columns in, long flat parameter lists out, sorted by metric and then time.

Sorted rows, `ROWS_PER_STATEMENT` to an INSERT, cost a half to a fifth of single rows in the order of arrival,
because a table ordered by (metric, time) is then written run by run and not all over. Making the rows costs
50 to 150 ns a point and SQLite 600 to 2500 (batches of 100,000 to 1000 points): it pays to make no Python
object per point but the numbers themselves.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import repeat

from bus.archive import MIN_NS
from bus.chunk import MAX_NS
from bus.frame import Group
from sinks.sqlite.tiers import ROLLUPS

ROWS_PER_STATEMENT = 100
"""More bring nothing; SQLite takes at most 999 parameters in a statement before version 3.32."""

FIRST_NS = -(-MIN_NS // ROLLUPS[-1].span_ns) * ROLLUPS[-1].span_ns
"""The first time whose buckets all begin at a time that can be stored."""


@dataclass(frozen=True, slots=True)
class Family:
    """The points of metrics that came at the same times, in the order of arrival: the ticks of one source.

    columns: (id of the metric, as many values as there are times), sorted by id
    """

    times: list[int]
    columns: list[tuple[int, array[float]]]


def storable(groups: Iterable[Group]) -> Iterator[Group]:
    """The groups without times that no range can name, or whose buckets begin before all times.

    Nobody measured them; they are ignored because a frame that cannot be stored would come again for ever.
    """
    for group in groups:
        times = group.times
        if min(times[0], times[-1]) >= FIRST_NS and max(times[0], times[-1]) < MAX_NS:
            yield group
        elif places := [place for place, time_ns in enumerate(times) if FIRST_NS <= time_ns < MAX_NS]:
            values = array(
                "d",
                [group.values[begin + place] for begin in range(0, len(group.values), len(times)) for place in places],
            )
            yield Group(group.metrics, array("q", [times[place] for place in places]), values)


def families(groups: Iterable[Group]) -> dict[tuple[str, ...], list[Group]]:
    """The groups by the metrics in them, both in the order of their arrival."""
    found: dict[tuple[str, ...], list[Group]] = {}
    for group in groups:
        found.setdefault(group.metrics, []).append(group)
    return found


def family(metrics: tuple[str, ...], groups: Sequence[Group], ids: Mapping[str, int]) -> Family:
    """The points of groups that have the same metrics."""
    times = [time for group in groups for time in group.times] if len(groups) > 1 else groups[0].times.tolist()
    columns = zip(map(ids.__getitem__, metrics), _columns(groups, len(metrics), len(times)), strict=True)
    return Family(times, sorted(columns, key=_first))


def flatten(all_families: Iterable[Family]) -> list[float | int]:
    """``[id, time, value, id, time, value, ...]`` of all points."""
    row_ids: list[int] = []
    times: list[int] = []
    values = array("d")
    for one in all_families:
        for metric, column in one.columns:
            row_ids += repeat(metric, len(one.times))
            times += one.times
            values += column
    flat: list[float | int] = [0] * (3 * len(times))
    flat[0::3] = row_ids
    flat[1::3] = times
    flat[2::3] = values.tolist()
    return flat


def whole_statements(flat: Sequence[float | int]) -> Iterator[Sequence[float | int]]:
    """The parameters of `ROWS_PER_STATEMENT` rows at a time; what does not fill a statement is left out."""
    width = 3 * ROWS_PER_STATEMENT
    for start in range(0, len(flat) // width * width, width):
        yield flat[start : start + width]


def left_rows(flat: Sequence[float | int]) -> list[tuple[float | int, ...]]:
    """The rows that `whole_statements` leaves out."""
    width = 3 * ROWS_PER_STATEMENT
    left = iter(flat[len(flat) // width * width :])
    return list(zip(left, left, left, strict=True))


def _columns(groups: Sequence[Group], metrics: int, points: int) -> Iterator[array[float]]:
    """Each metric's values over all groups of a family, `points` of them, metric by metric."""
    if len(groups) == points:  # one time per group, as with chunk size 1: the metrics are interleaved
        interleaved = array("d")
        for group in groups:
            interleaved += group.values
        for index in range(metrics):
            yield interleaved[index::metrics]
        return
    for index in range(metrics):
        column = array("d")
        for group in groups:
            length = len(group.times)
            column += group.values[index * length : (index + 1) * length]
        yield column


def _first(pair: tuple[int, array[float]]) -> int:
    return pair[0]
