# SPDX-License-Identifier: MIT
"""What several archives that keep the same metric answer, as one answer.

One may have begun later, have been away, or keep points for a shorter time: each point that any of them has is in
the joined answer, and of each bucket the aggregate that counts most.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import replace

from bus.aggregates import Aggregate, combine
from bus.history_wire import HistoryRequest, HistoryResponse, RequestType


def joined(answers: Sequence[HistoryResponse], request: HistoryRequest) -> HistoryResponse:
    """The answer to a request from those of several archives, of which there is at least one.

    It speaks of the times for which all have answered; `next_time` says from when to ask on.
    """
    first = answers[0]
    different = [first, *(answer for answer in answers[1:] if not _are_equal(first, answer))]
    if len(different) == 1:
        return first
    if request.type is RequestType.AGGREGATE:
        return max(different, key=lambda answer: sum(row.count for row in answer.aggregates))
    with_aggregates = [answer for answer in different if answer.aggregates]
    if with_aggregates:
        return _joined_aggregates(with_aggregates, request)
    return _joined_points(different)


def _are_equal(one: HistoryResponse, other: HistoryResponse) -> bool:
    """Whether they say the same; for what is sampled, the times tell."""
    return (one.times, one.aggregates, one.next_time) == (other.times, other.aggregates, other.next_time)


def _end(answers: Sequence[HistoryResponse]) -> int | None:
    """Up to when all have answered; None: up to the end."""
    return min((answer.next_time for answer in answers if answer.next_time is not None), default=None)


def _joined_points(answers: Sequence[HistoryResponse]) -> HistoryResponse:
    end = _end(answers)
    points: dict[int, float] = {}
    for answer in reversed(answers):
        points.update(zip(answer.times, answer.values, strict=True))
    times = array("q", sorted(time for time in points if end is None or time < end))
    return replace(answers[0], times=times, values=array("d", map(points.__getitem__, times)), next_time=end)


def _joined_aggregates(answers: Sequence[HistoryResponse], request: HistoryRequest) -> HistoryResponse:
    every_ns = request.interval_max or 1
    reached = _end(answers)
    end = None if reached is None else reached // every_ns * every_ns  # what is told in part is asked for again
    if end is not None and end <= request.start_time:
        return next(answer for answer in answers if answer.next_time == reached)
    best: dict[int, Aggregate] = {}
    for answer in answers:
        for row in combine((row for row in answer.aggregates if row.count or row.covered), every_ns):
            known = best.setdefault(row.time, row)
            if (row.count, row.covered) > (known.count, known.covered):
                best[row.time] = row
    rows = [best[time] for time in sorted(best) if end is None or time < end]
    return replace(answers[0], aggregates=rows, next_time=end)
