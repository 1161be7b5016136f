# SPDX-License-Identifier: MIT
"""Metrics of other programs: what they are called, what they mean and of when they are is only known at run time."""

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from agents.host import HostSource, Metric
from bus.timestamp import NS_PER_S, Timestamp

logger = logging.getLogger(__name__)

FUTURE_S = 3600.0
"""A point that is later than the tick by more than this is refused: it would shut out all that follow."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One value of another program. name: words joined by dots. time: None if it holds now."""

    name: str
    value: float
    time: Timestamp | None = None
    unit: str = ""
    description: str = ""
    details: Mapping[str, object] = field(default_factory=dict)


class Foreign:
    """Takes samples for a source, under a word that says where they come from.

    Samples that bring their own time count once: a file that was not written again says nothing new.

    Args:
        source: whose metrics they become
    """

    def __init__(self, source: HostSource) -> None:
        self._source = source
        self._metrics: dict[str, Metric] = {}
        self._last_ns: dict[str, int] = {}
        self.refused = 0
        """Samples from the future, so far."""

    def take(self, word: str, samples: Iterable[Sample]) -> int:
        """Hand samples to the source, as ``WORD.NAME``; of two with one name and time the first counts.

        Returns how many were new.
        """
        tick_ns = self._source.tick.posix_ns
        by_time: dict[int, dict[str, float]] = {}
        for sample in samples:
            name = f"{word}.{sample.name}"
            time_ns = tick_ns if sample.time is None else sample.time.posix_ns
            if time_ns > tick_ns + FUTURE_S * NS_PER_S:
                self._refuse(name, sample.time)
            elif self._describe(name, sample):
                by_time.setdefault(time_ns, {}).setdefault(name, sample.value)
        taken = 0
        for time_ns in sorted(by_time):
            new = {name: value for name, value in by_time[time_ns].items() if self._last_ns.get(name, -1) < time_ns}
            self._last_ns.update(dict.fromkeys(new, time_ns))
            self._source.take(Timestamp(time_ns), new)
            taken += len(new)
        return taken

    def describe(self, name: str) -> Metric | None:
        """What was last said about ``WORD.NAME``; None if it is not known."""
        return self._metrics.get(name)

    def _describe(self, name: str, sample: Sample) -> bool:
        """Keep what a sample says about its metric. False if there are too many: names may be new for ever."""
        metric = Metric(name, sample.unit, sample.description, details=sample.details)
        known = self._metrics.get(name)
        if known is None and len(self._metrics) > self._source.config.max_metrics:
            return False
        if known is None or known != metric or known.details != metric.details:
            self._metrics[name] = metric
            if known is not None:
                self._source.redescribe([name])
        return True

    def _refuse(self, name: str, time: Timestamp | None) -> None:
        if not self.refused:
            logger.warning("%s: %s is of %s, more than an hour from now: refused", self._source.token, name, time)
        self.refused += 1
