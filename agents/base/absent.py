# SPDX-License-Identifier: MIT
"""What a family does while there is nothing to measure: no sensors, no GPU. That is no failure."""

import logging

from bus.errors import HostbusError
from bus.timestamp import NS_PER_S, Timestamp

logger = logging.getLogger(__name__)

LOOK_AGAIN_S = 60.0


class NothingFound(HostbusError):
    """There is nothing to measure on this host; the message says why, in a few words."""


class Absence:
    """Remembers that nothing was found and why, says so once, and when to look again.

    Args:
        family: for logs
    """

    def __init__(self, family: str) -> None:
        self._family = family
        self._look_at_ns = 0
        self.reason = ""
        """Why there is nothing to measure; empty while there is something."""

    def is_over(self, now: Timestamp) -> bool:
        """True if there is something to measure, or it is time to look again."""
        return not self.reason or not 0 < self._look_at_ns - now.posix_ns <= LOOK_AGAIN_S * NS_PER_S

    def begin(self, now: Timestamp, reason: str) -> None:
        """Nothing was found."""
        self._look_at_ns = now.posix_ns + int(LOOK_AGAIN_S * NS_PER_S)
        if reason != self.reason:
            logger.info("%s: nothing to measure: %s; looking again every %g s", self._family, reason, LOOK_AGAIN_S)
            self.reason = reason

    def look_now(self) -> None:
        """Do not wait with looking again: what is looked for may be another thing by now."""
        self._look_at_ns = 0

    def end(self) -> None:
        """Something was found."""
        if self.reason:
            logger.info("%s: there is something to measure now", self._family)
            self.reason = ""
