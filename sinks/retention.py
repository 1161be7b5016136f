# SPDX-License-Identifier: MIT
"""How long an archive keeps what: per tier, and for some metrics otherwise.

    keep = { raw = "7d", 10s = "30d" }              # the rest for ever
    keep_for = { "web1.cpu.#" = { raw = "1d" } }

A coarser tier is what stays of a finer one, so it is kept at least as long. A tier that nobody mentions gives
way to those that are mentioned: with raw = "90d" aggregates of 10 s are kept for 90 days, too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from bus.aggregates import TIERS_NS
from bus.chunk import MAX_NS
from bus.config import nearest
from bus.names import check_pattern, matches
from bus.timestamp import Timedelta

TIERS = ("raw", *TIERS_NS)
"""What can be kept, from fine to coarse."""

FOREVER = MAX_NS
DEFAULT_KEEP: Mapping[str, str] = {"raw": "7d", "10s": "30d"}

Keep = Mapping[str, str]
"""Tier → how long, like ``{"raw": "7d", "1d": "forever"}``."""

Spans = tuple[int, ...]
"""How long each of `TIERS` is kept, in ns; never falls."""


@dataclass(frozen=True, slots=True)
class Retention:
    """How long each tier of each metric is kept."""

    default: Spans
    exceptions: tuple[tuple[str, Spans], ...] = ()

    @classmethod
    def load(
        cls, keep: Keep = DEFAULT_KEEP, keep_for: Mapping[str, Keep] | None = None, *, usual: Keep = DEFAULT_KEEP
    ) -> Retention:
        """From a configuration; `usual` is for tiers that it does not mention, as far as they need not give way.

        Raises ValueError that names what is wrong and says what is right.
        """
        default = _filled(_spans(keep, "keep"), _filled(_spans(usual, "usual"), (FOREVER,) * len(TIERS)))
        exceptions = []
        for pattern, other in (keep_for or {}).items():
            try:
                check_pattern(pattern)
            except ValueError as error:
                raise ValueError(f"keep_for: {error}") from None
            exceptions.append((pattern, _filled(_spans(other, f"keep_for[{pattern!r}]"), default)))
        return cls(default, tuple(exceptions))

    def of(self, metric: str) -> Spans:
        """For one metric. Where several patterns select it, whatever keeps a tier longest decides."""
        found = [spans for pattern, spans in self.exceptions if matches(pattern, metric)]
        return tuple(map(max, zip(*found, strict=True))) if found else self.default


def _spans(keep: Keep, where: str) -> dict[int, int]:
    """The tiers that are mentioned, by number, in ns."""
    found = {}
    for tier, text in keep.items():
        if tier not in TIERS:
            raise ValueError(f"{where}: {tier!r} is no tier; {nearest(tier, TIERS)}")
        found[TIERS.index(tier)] = span(text, f"{where}: {tier}")
    longest, by = 0, ""
    for number, length in sorted(found.items()):
        if length < longest:
            raise ValueError(
                f"{where}: {TIERS[number]} is kept for {keep[TIERS[number]]}, less than the finer {by} "
                f"({keep[by]}): keep it at least as long"
            )
        longest, by = length, TIERS[number]
    return found


def span(text: str, where: str, *, least_ns: int = 1) -> int:
    """The ns that a text like ``7d`` means, or `FOREVER`. Raises ValueError, with `where` in front."""
    if text == "forever":
        return FOREVER
    try:
        length = Timedelta.from_string(text).ns
    except ValueError as error:
        raise ValueError(f"{where}: {error}, or 'forever'") from None
    if text.strip()[-1].isdigit():
        raise ValueError(f"{where}: {text!r} has no unit: '{text.strip()}d' for days, or s, min, h")
    if length < least_ns:
        raise ValueError(f"{where}: {text!r} is {'not more' if least_ns else 'less'} than 0 s")
    return min(length, FOREVER)


def _filled(mentioned: Mapping[int, int], others: Spans) -> Spans:
    """`mentioned`, and between them the others, as far as a finer tier is not kept longer than a coarser one."""
    spans = list(others)
    for number, length in mentioned.items():
        spans[number] = length
        for other in range(len(spans)):
            if other not in mentioned:
                spans[other] = (max if other > number else min)(spans[other], length)
    return tuple(spans)
