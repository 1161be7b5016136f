# SPDX-License-Identifier: MIT
"""Counters of the kernel → what happened since the last look.

Counters only grow, but they wrap at 2**32 or 2**64, fall to zero when a driver is loaded anew, and vanish with
their device. What cannot be told is left out: a rate is right or absent.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

_WIDTHS = (32, 64)


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """What the counters of each device gained in `elapsed_s` seconds."""

    elapsed_s: float
    gains: Mapping[str, Sequence[int]]

    def per_second(self) -> dict[str, list[float]]:
        """The gains as rates."""
        return {device: [gain / self.elapsed_s for gain in gains] for device, gains in self.gains.items()}


class Counters:
    """The counters of a family's devices as they were at the last look.

    A device that is new, that was away at the last look, or one of whose counters fell, starts anew: it is
    not in the step. slack: how far a counter may fall and still count as unchanged, because Linux lets
    the idle and iowait times of a core fall by some ticks (man 5 proc).
    """

    def __init__(self, *, slack: int = 0) -> None:
        self._slack = slack
        self._seen_s = float("-inf")
        self._last: Mapping[str, Sequence[int]] = {}

    def update(self, now_s: float, counters: Mapping[str, Sequence[int]]) -> Step:
        """Take the counters of all devices that are there, by a monotonic clock.

        A look that is not later than the last one (it was delayed on its way) changes nothing.
        """
        elapsed_s = now_s - self._seen_s
        if elapsed_s <= 0:
            return Step(elapsed_s=0.0, gains={})
        gains: dict[str, list[int]] = {}
        for device, new in counters.items():
            old = self._last.get(device)
            if old is not None:
                gained = self._gains(old, new)
                if gained is not None:
                    gains[device] = gained
        self._seen_s, self._last = now_s, counters
        return Step(elapsed_s=elapsed_s, gains=gains)

    def _gains(self, old: Sequence[int], new: Sequence[int]) -> list[int] | None:
        if len(old) != len(new):
            return None
        gains = [after - before for before, after in zip(old, new, strict=True)]
        if min(gains, default=0) >= 0:
            return gains
        mended = [self._gain(before, after) for before, after in zip(old, new, strict=True)]
        known = [gain for gain in mended if gain is not None]
        return known if len(known) == len(mended) else None

    def _gain(self, old: int, new: int) -> int | None:
        if new >= old:
            return new - old
        if old - new <= self._slack:
            return 0
        return wrapped_gain(old, new)


def wrapped_gain(old: int, new: int) -> int | None:
    """The gain of a counter that fell, if it wrapped; None if it was reset.

    It wrapped if it stood in the last quarter of its range and the gain is less than a quarter of the range.
    """
    for bits in _WIDTHS:
        end = 1 << bits
        if old < end:
            gain = new + end - old
            return gain if old >= end - end // 4 and gain < end // 4 else None
    return None


def percent(part: float, whole: float) -> float:
    """0 to 100; 0 of nothing."""
    return 100 * part / whole if whole else 0.0
