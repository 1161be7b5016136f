# SPDX-License-Identifier: MIT
"""How often points of a metric should come: as its metadata declares, else as they did."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from statistics import quantiles
from typing import Any

from bus.aggregates import NS_PER_S, declared_interval_s
from bus.archive import History, read_points

FEWEST = 10
"""Points from which an interval is learned."""
LOOK_BACK_S = (600, 86400)
"""How far before the newest point they are looked for: if there are too few, farther."""
REGULAR = 2.0
"""Nine of ten distances are at most so many times the median, or the metric comes as it likes."""


def learned_interval_ns(times: Sequence[int]) -> int | None:
    """The usual distance of the times; None if they are too few, or not regular."""
    if len(times) < FEWEST:
        return None
    deciles = quantiles((later - earlier for earlier, later in pairwise(times)), n=10)
    median = deciles[4]
    return round(median) if deciles[8] <= REGULAR * median else None


async def interval_ns(history: History, metric: str, about: Mapping[str, Any], newest_ns: int) -> int | None:
    """How many ns should be between its points; None if it neither says nor shows that."""
    declared = declared_interval_s(about)
    if declared is not None:
        return round(declared * NS_PER_S)
    for seconds in LOOK_BACK_S:
        near = await read_points(history, metric, newest_ns - seconds * NS_PER_S, newest_ns + 1)
        if len(near) >= FEWEST:
            return learned_interval_ns(near.times)
    return None
