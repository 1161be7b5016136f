# SPDX-License-Identifier: MIT
"""Metrics of other programs: what they are called, what they mean and of when they are is only known at run time."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from agents.host import HostSource, Metric
from bus.names import MAX_NAME_BYTES
from bus.timestamp import NS_PER_S, Timestamp

FUTURE_S = 60
"""A point that is later than the tick by more than this is refused: until then it would shut out all that are of now.
Clocks of two machines may differ by less."""

PORTION = 250
"""Samples that are taken at once: 1 ms, or 3 ms the first time. Then the other agents of the process have a turn."""


_REFUSED = {
    "times": f"some are more than {FUTURE_S} s from now, so they are refused: are the clocks right?",
    "long names": f"some have more than the {MAX_NAME_BYTES} bytes of a name on the bus, so they are refused;",
}


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
    Measured: 0.6 µs a sample whose metric is known, and what it takes to sample them.

    Args:
        source: whose metrics they become
    """

    def __init__(self, source: HostSource) -> None:
        self.parts = source.parts
        self._source = source
        self._metrics: dict[str, Metric] = {}
        self._last_ns: dict[str, int] = {}

    async def take(self, word: str, samples: Sequence[Sample], *, time: Timestamp | None = None) -> None:
        """Hand samples to the source, as ``WORD.NAME``; of two with one name and time the first counts.

        time: of samples that have none; default: the tick. Others have their turn between portions.
        """
        now_ns = self._source.tick.posix_ns
        default_ns = now_ns if time is None else time.posix_ns
        if len(samples) > PORTION and any(sample.time is not None for sample in samples):
            # A metric's points have to come in the order of their times, whatever portion they are in.
            samples = sorted(samples, key=lambda one: default_ns if one.time is None else one.time.posix_ns)
        refused: dict[str, str] = {}
        for start in range(0, len(samples), PORTION):
            if start:
                await asyncio.sleep(0)
            self._take_portion(word, samples[start : start + PORTION], default_ns, now_ns, refused)
        for what, reason in _REFUSED.items():
            part = f"{word}, {what},"
            if what in refused:
                self.parts.failed(part, ValueError(f"{reason} the first: {refused[what]}"), kind=reason)
            else:
                self.parts.well(part)

    def describe(self, name: str) -> Metric | None:
        """What was last said about ``WORD.NAME``; None if it is not known."""
        return self._metrics.get(name)

    def _take_portion(
        self, word: str, samples: Sequence[Sample], default_ns: int, now_ns: int, refused: dict[str, str]
    ) -> None:
        latest_ns = now_ns + FUTURE_S * NS_PER_S
        metrics = self._metrics
        by_time: dict[int, dict[str, float]] = {}
        for sample in samples:
            name = f"{word}.{sample.name}"
            time_ns = default_ns if sample.time is None else sample.time.posix_ns
            if time_ns > latest_ns:
                refused.setdefault("times", f"{sample.name} of {sample.time}")
                continue
            known = metrics.get(name)
            if known is None:
                if len(self._source.prefix) + 1 + len(name) > MAX_NAME_BYTES:
                    refused.setdefault("long names", sample.name)
                    continue
                self._remember(name, sample)
            elif (
                known.details != sample.details or known.unit != sample.unit or known.description != sample.description
            ):
                self._remember(name, sample)
                self._source.redescribe([name])
            by_time.setdefault(time_ns, {}).setdefault(name, sample.value)
        for time_ns in sorted(by_time):
            self._hand_over(time_ns, by_time[time_ns])

    def _hand_over(self, time_ns: int, values: dict[str, float]) -> None:
        last = self._last_ns
        new = {name: value for name, value in values.items() if last.get(name, -1) < time_ns}
        last.update(dict.fromkeys(new.keys() & self._metrics.keys(), time_ns))
        self._source.take(Timestamp(time_ns), new)

    def _remember(self, name: str, sample: Sample) -> None:
        """Keep what a sample says about its metric.

        Names may be new for ever: of those that are too many nothing is kept, and the source refuses and counts them.
        """
        if name in self._metrics or len(self._metrics) < self._source.config.max_metrics:
            self._metrics[name] = Metric(name, sample.unit, sample.description, details=sample.details)
