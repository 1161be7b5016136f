# SPDX-License-Identifier: MIT
"""How often all processes may be looked at: thousands of them every second would be dearer than what they tell."""

SHARE = 0.005
"""How much of one core the looks may cost."""

PACES_S = (1.0, 2.0, 5.0, 10.0, 30.0)

_WEIGHT = 0.3
_SLACK = 0.8
"""A quicker pace must be well within the share, so that it does not go to and fro."""


class Pace:
    """Chooses the seconds between looks by what they cost, not below the period and at most 30.

    Args:
        period_s: between ticks
        fixed_s: between looks as somebody wants them; 0: by their cost
    """

    def __init__(self, period_s: float, fixed_s: float = 0.0) -> None:
        self._paces_s = [period_s, *(pace for pace in PACES_S if pace > period_s)]
        self._fixed = fixed_s > 0
        self._cost_s: float | None = None
        self.every_s = max(period_s, fixed_s)
        """Seconds between looks; the period means every tick."""

    def took(self, cost_s: float) -> bool:
        """Take the CPU time of a look. True if the pace is another now."""
        if self._fixed:
            return False
        self._cost_s = cost_s if self._cost_s is None else self._cost_s + _WEIGHT * (cost_s - self._cost_s)
        every_s = self._fitting()
        changed = every_s != self.every_s
        self.every_s = every_s
        return changed

    @property
    def cost_s(self) -> float:
        """What a look costs at present, seconds of CPU time."""
        return self._cost_s or 0.0

    def _fitting(self) -> float:
        for pace_s in self._paces_s:
            allowed_s = SHARE * pace_s * (_SLACK if pace_s < self.every_s else 1.0)
            if self.cost_s <= allowed_s:
                return pace_s
        return self._paces_s[-1]
