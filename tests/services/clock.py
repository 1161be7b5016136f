# SPDX-License-Identifier: MIT
"""The wall clock of the machine that runs the tests, which may be set while they run."""

import time

STEP_S = 0.04
"""Below what makes a source realign its ticks."""


class ClockWatch:
    """Whether the wall clock was set since this was made: virtual machines do that, and ticks follow it."""

    def __init__(self) -> None:
        self._offset_s = time.time() - time.monotonic()

    @property
    def was_set(self) -> bool:
        """True if ticks may rightly have a hole, or stand closer than a period."""
        return abs(time.time() - time.monotonic() - self._offset_s) > STEP_S
