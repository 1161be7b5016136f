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
    Measured: 0.5 µs a sample that is the same object as the last time, 2 µs another one, and what it takes
    to sample them.

    Args:
        source: whose metrics they become
    """

    def __init__(self, source: HostSource) -> None:
        self._source = source
        self._metrics: dict[str, Metric] = {}
        self._samples: dict[str, Sample] = {}
        self._last_ns: dict[str, int] = {}
        self.refused = 0
        """Samples from the future, so far."""

    def take(self, word: str, samples: Iterable[Sample], *, time: Timestamp | None = None) -> int:
        """Hand samples to the source, as ``WORD.NAME``; of two with one name and time the first counts.

        time: of samples that have none; default: the tick. Returns how many were new.
        """
        default_ns = (time or self._source.tick).posix_ns
        latest_ns = self._source.tick.posix_ns + FUTURE_S * NS_PER_S
        by_time: dict[int, dict[str, float]] = {}
        for sample in samples:
            name = f"{word}.{sample.name}"
            time_ns = default_ns if sample.time is None else sample.time.posix_ns
            if time_ns > latest_ns:
                self._refuse(name, sample.time)
                continue
            if self._samples.get(name) is not sample:
                self._remember(name, sample)
            by_time.setdefault(time_ns, {}).setdefault(name, sample.value)
        return sum(self._hand_over(time_ns, by_time[time_ns]) for time_ns in sorted(by_time))

    def describe(self, name: str) -> Metric | None:
        """What was last said about ``WORD.NAME``; None if it is not known."""
        return self._metrics.get(name)

    def _hand_over(self, time_ns: int, values: dict[str, float]) -> int:
        last = self._last_ns
        new = {name: value for name, value in values.items() if last.get(name, -1) < time_ns}
        known = dict.fromkeys(new.keys() & self._metrics.keys(), time_ns)
        last.update(known)
        self._source.take(Timestamp(time_ns), new)
        return len(known)

    def _remember(self, name: str, sample: Sample) -> None:
        """Keep what a sample says about its metric.

        Names may be new for ever: of those that are too many nothing is kept, and the source refuses and counts them.
        """
        known = self._metrics.get(name)
        if known is None and len(self._metrics) >= self._source.config.max_metrics:
            return
        self._samples[name] = sample
        metric = Metric(name, sample.unit, sample.description, details=sample.details)
        if known is None:
            self._metrics[name] = metric
        elif known != metric or known.details != metric.details:
            self._metrics[name] = metric
            self._source.redescribe([name])

    def _refuse(self, name: str, time: Timestamp | None) -> None:
        if not self.refused:
            logger.warning("%s: %s is of %s, more than an hour from now: refused", self._source.token, name, time)
        self.refused += 1
