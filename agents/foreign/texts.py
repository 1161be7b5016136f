# SPDX-License-Identifier: MIT
"""What commands print and files hold: in which format it is, and how it becomes metrics of a source.

A text is Prometheus' if a line begins with ``# TYPE`` or ``# HELP``, or with a name and ``{``; if not, it is lines
``name value [time]``. It is OpenMetrics if it ends with the line ``# EOF``.
"""

import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Annotated, Literal

from msgspec import Meta, field

from agents.foreign.exposition import parse_exposition
from agents.foreign.lines import Parsed, parse_lines
from agents.foreign.samples import Foreign, Sample
from agents.host import HostSource
from bus.config import AgentConfig
from bus.names import is_metric
from bus.timestamp import Timestamp

_EXPOSITION = re.compile(r"^[ \t]*(?:#[ \t]*(?:TYPE|HELP)[ \t]|[A-Za-z_:][A-Za-z0-9_:]*[ \t]*\{)", re.MULTILINE)


class TextConfig(AgentConfig, frozen=True, kw_only=True):
    """How a text is read, and what its metrics mean where it does not say so itself."""

    format: Annotated[
        Literal["auto", "lines", "prometheus"],
        Meta(
            description="lines are NAME VALUE [TIME], the time in seconds since 1970 or ISO 8601, not more than 60 s "
            "from now; auto: prometheus if there is a line with # TYPE, # HELP or a name and {, else lines"
        ),
    ] = "auto"
    unit: Annotated[str, Meta(max_length=40, description="unit (UCUM) of values whose text names none")] = ""
    units: Annotated[dict[str, str], Meta(description="units by name, where they differ")] = field(default_factory=dict)
    description: Annotated[
        str, Meta(max_length=500, description="what the values are, where their text does not say it")
    ] = ""

    def __post_init__(self) -> None:
        """Raises ValueError for units of what cannot be a name."""
        for name in self.units:
            if not is_metric(name):
                raise ValueError(f"units: {name!r} is not the name of a metric, like 'queue.length'")


def is_exposition(text: str) -> bool:
    """True if it is written for Prometheus."""
    return _EXPOSITION.search(text) is not None


def parse_text(text: str, config: TextConfig, *, may_be_cut: bool = False) -> Parsed:
    """The samples of a text, with their units. Raises ValueError if it makes no sense as a whole.

    may_be_cut: it comes from a file, which somebody may be writing just now; a last line that lacks its newline is
    not taken.
    """
    text = text.removeprefix("\ufeff")
    if config.format == "prometheus" or (config.format == "auto" and is_exposition(text)):
        if may_be_cut and text and not text.endswith("\n"):
            raise ValueError("its last line ends without a newline, as if it were half written")
        found = parse_exposition(text, openmetrics=text.rstrip().rpartition("\n")[2] == "# EOF")
        return Parsed(samples=tuple(_explained(found, config)))
    parsed = parse_lines(text, may_be_cut=may_be_cut)
    if config.unit or config.units or config.description:
        return replace(parsed, samples=tuple(_explained(parsed.samples, config)))
    return parsed


def _explained(samples: Iterable[Sample], config: TextConfig) -> Iterator[Sample]:
    for sample in samples:
        unit = config.units.get(sample.name) or sample.unit or config.unit
        description = sample.description or config.description
        if unit != sample.unit or description != sample.description:
            yield replace(sample, unit=unit, description=description)
        else:
            yield sample


def decoded(data: bytes) -> str:
    """Text, whatever the bytes are: what is not UTF-8 becomes U+FFFD, and a bad line or a ``_``."""
    return data.decode("utf-8", "replace")


class Texts(Foreign):
    """Hands what texts say to a source, and says once what is wrong with them.

    Args:
        source: whose metrics they become
        own: names that the source itself uses below each word; a text's own are left out
    """

    def __init__(self, source: HostSource, own: Collection[str]) -> None:
        super().__init__(source)
        self._own = frozenset(own)

    async def take_text(self, word: str, part: str, parsed: Parsed, time: Timestamp | None = None) -> None:
        """Sample one text. part: what it is called in logs."""
        own = self._own
        samples: Sequence[Sample] = parsed.samples
        clashes = own.intersection([sample.name for sample in samples])
        if clashes:
            samples = [sample for sample in samples if sample.name not in own]
            taken = ValueError(f"{', '.join(sorted(clashes))}: the source has metrics of its own that are called so")
            self.parts.failed(f"{part}, names,", taken)
        else:
            self.parts.well(f"{part}, names,")
        if parsed.bad:
            reason = "not all make sense"
            self.parts.failed(f"{part}, lines,", ValueError(f"{reason}; the first: {parsed.cause}"), kind=reason)
        else:
            self.parts.well(f"{part}, lines,")
        await self.take(word, samples, time=time)
