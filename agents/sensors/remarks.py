# SPDX-License-Identifier: MIT
"""What a family says of its values once, because it would be true at each reading."""

import logging
from collections.abc import Mapping

logger = logging.getLogger(__name__)

NAMED_AT_ONCE = 5
"""Values that are named in one line of the log."""


class Remarks:
    """Lines of the log, each written once.

    Args:
        token: the agent's, which the lines begin with
    """

    def __init__(self, token: str) -> None:
        self._token = token
        self._said: set[tuple[str, str]] = set()

    def once(self, level: int, what: str, fact: str) -> None:
        """Say a fact about something."""
        if self._is_new(what, fact):
            logger.log(level, "%s: %s: %s", self._token, what, fact)

    def left_out(self, failures: Mapping[str, Exception]) -> None:
        """Say which values are left out, once for each value and cause: sensors that fail at times are ordinary."""
        news: dict[tuple[int, str], list[str]] = {}
        for name, error in failures.items():
            level, cause, kind = cause_of(error)
            if self._is_new(name, kind):
                news.setdefault((level, cause), []).append(name)
        for (level, cause), names in news.items():
            more = f" and {len(names) - NAMED_AT_ONCE} more" if len(names) > NAMED_AT_ONCE else ""
            logger.log(
                level,
                "%s: %s%s left out whenever that happens: %s",
                self._token,
                ", ".join(names[:NAMED_AT_ONCE]),
                more,
                cause,
            )

    def _is_new(self, what: str, fact: str) -> bool:
        is_new = (what, fact) not in self._said
        self._said.add((what, fact))
        return is_new


def cause_of(error: Exception) -> tuple[int, str, str]:
    """How to log a failure: the level, the cause in words, and what makes it the same as another."""
    if isinstance(error, OSError):
        cause = error.strerror or str(error)
        return logging.INFO, cause, cause
    return logging.WARNING, f"{type(error).__name__}: {error}"[:200], type(error).__name__
