# SPDX-License-Identifier: MIT
"""What a family's metrics are called and what they mean: a table that stands beside the code that reads them."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

QUANTITIES = {
    "%": "ratio",
    "B": "data amount",
    "B/s": "data rate",
    "bit/s": "data rate",
    "Hz": "frequency",
    "s": "time",
    "1": "count",
    "1/s": "rate",
}
"""The physical quantity that goes with a unit, where the metric does not say otherwise."""

_PLACEHOLDER = re.compile(r"\\\{\w+\\\}")


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric of a family, or with ``{device}`` in its name one of every device.

    name: what follows ``PREFIX.FAMILY.``, like ``user`` or ``{device}.read_bytes``. unit: UCUM. quantity:
    default by unit. scope: ``point`` if a value holds at its time, ``last`` if it is about the time since
    the value before. every_s: seconds between values where they come less often than the family's period.
    """

    name: str
    unit: str
    description: str
    quantity: str = ""
    scope: Literal["point", "last"] = "point"
    every_s: float = 0.0

    def metadata(self, period_s: float) -> dict[str, str | float]:
        """What is declared on the bus. interval is in seconds."""
        return {
            "unit": self.unit,
            "description": self.description,
            "interval": max(period_s, self.every_s),
            "quantity": self.quantity or QUANTITIES.get(self.unit, ""),
            "scope": self.scope,
        }


class MetricTable:
    """Finds the `Metric` of a name: ``sda.read_bytes`` is described by ``{device}.read_bytes``."""

    def __init__(self, metrics: Iterable[Metric]) -> None:
        self._plain: dict[str, Metric] = {}
        self._templates: list[tuple[re.Pattern[str], Metric]] = []
        for metric in metrics:
            if "{" in metric.name:
                pattern = _PLACEHOLDER.sub("[^.]+", re.escape(metric.name))
                self._templates.append((re.compile(pattern), metric))
            else:
                self._plain[metric.name] = metric

    def find(self, name: str) -> Metric | None:
        """The entry for a name, plain names first; None if the table has none."""
        metric = self._plain.get(name)
        if metric is not None:
            return metric
        return next((metric for pattern, metric in self._templates if pattern.fullmatch(name)), None)
