# SPDX-License-Identifier: MIT
"""What a family's metrics are called and what they mean: a table that stands beside the code that reads them."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

QUANTITIES = {
    "%": "ratio",
    "B": "data amount",
    "B/s": "data rate",
    "bit/s": "data rate",
    "Hz": "frequency",
    "s": "time",
    "1": "count",
    "1/s": "rate",
    "1/min": "rate",
    "Cel": "temperature",
    "W": "power",
    "J": "energy",
    "V": "voltage",
    "A": "current",
}
"""The physical quantity that goes with a unit, where the metric does not say otherwise."""

_PLACEHOLDER = re.compile(r"\\\{\w+(\\\.\\\.\\\.)?\\\}")
_WORD = r"[^.]+"
_WORDS = r"[^.]+(?:\.[^.]+)*"


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric of a family, or with ``{device}`` in its name one of every device.

    name: what follows ``PREFIX.FAMILY.``, like ``user`` or ``{device}.read_bytes``; ``{labels...}`` stands for one
    or more words. unit: UCUM. quantity: default by unit. scope: ``point`` if a value holds at its time, ``last``
    if it is about the time since the value before. every_s: seconds between values where they come less often
    than the family's period. platform: what it takes, where that is more than the family's. details: more
    metadata, for what is known at run time only (JSON).
    """

    name: str
    unit: str
    description: str
    quantity: str = ""
    scope: Literal["point", "last"] = "point"
    every_s: float = 0.0
    platform: str = ""
    details: Mapping[str, Any] = field(default_factory=dict, compare=False)

    def metadata(self, period_s: float) -> dict[str, Any]:
        """What is declared on the bus. interval is in seconds."""
        return {
            **self.details,
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
                pattern = _PLACEHOLDER.sub(lambda match: _WORDS if match[1] else _WORD, re.escape(metric.name))
                self._templates.append((re.compile(pattern), metric))
            else:
                self._plain[metric.name] = metric

    def find(self, name: str) -> Metric | None:
        """The entry for a name, plain names first; None if the table has none."""
        metric = self._plain.get(name)
        if metric is not None:
            return metric
        return next((metric for pattern, metric in self._templates if pattern.fullmatch(name)), None)
