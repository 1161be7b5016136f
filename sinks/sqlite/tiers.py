# SPDX-License-Identifier: MIT
"""The tiers of an archive: points as they came, and aggregates of ever longer spans."""

from dataclasses import dataclass

from bus.aggregates import TIERS_NS

RAW = 0
"""The tier of the points themselves."""


@dataclass(frozen=True, slots=True)
class Tier:
    """A tier of aggregates: 1 is the finest. `name` is what people call it, ``10s``."""

    id: int
    name: str
    span_ns: int

    def start(self, time_ns: int) -> int:
        """Where the bucket begins in which a time lies."""
        return time_ns // self.span_ns * self.span_ns


ROLLUPS: tuple[Tier, ...] = tuple(Tier(number, name, span) for number, (name, span) in enumerate(TIERS_NS.items(), 1))
FINEST = ROLLUPS[0]
COARSER = ROLLUPS[1:]
