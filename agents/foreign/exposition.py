# SPDX-License-Identifier: MIT
"""What Prometheus' exporters write, as samples: the text format (0.0.4) and OpenMetrics.

The library prometheus-client parses, which costs 20 to 30 µs a sample; `ExpositionReader` asks it only when more
than values has changed. `series` says what a series is called on the bus. Taken as ordinary samples: info
(always 1), each state of a stateset, the buckets, sum and count of histograms and summaries, and ``_created``.
Left out: exemplars, and native histograms, which are no single number.
"""

import io
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

from agents.foreign.samples import Sample
from agents.foreign.series import LONGEST_NAME, hashed, series_name, unit_of
from bus.timestamp import NS_PER_S, Timestamp

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric as Family
    from prometheus_client.samples import Sample as Line
    from prometheus_client.samples import Timestamp as LineTime

MAX_SAMPLES = 50_000
MAX_LINE = 8192
"""Characters of a line: the time that the parser takes grows with its square."""

MAX_HELP = 500
MAX_LABEL = 200
"""Characters of a description, and of a label's value, that get into the metadata."""

LATEST_S = 2**63 / NS_PER_S
GARBAGE = (ValueError, LookupError, ArithmeticError, TypeError, AttributeError)
"""What the library raises for lines that make no sense."""

_BARE_COUNTER = re.compile(r"^[ \t]*#[ \t]+TYPE[ \t]+(\S+)(?<!_total)[ \t]+counter[ \t]*$", re.MULTILINE)


def parse_exposition(
    text: str, *, openmetrics: bool = False, max_samples: int = MAX_SAMPLES, longest: int = LONGEST_NAME
) -> list[Sample]:
    """The samples of an exposition, named like ``node_cpu_seconds_total.cpu_0.mode_idle``.

    ``details`` of a sample are its Prometheus ``name``, its ``labels`` and the ``type`` of its family.

    Args:
        text: what an exporter answered, or what a ``.prom`` file holds
        openmetrics: it is OpenMetrics, where times are seconds and ``# EOF`` is the end
        max_samples: more are an error
        longest: characters of a name; what would be longer is cut, and ends in a hash

    Raises ValueError that names the line that makes no sense, or what there is too much of.
    """
    if not text.isascii():
        text = text.encode("utf-8", "replace").decode()  # metadata are JSON, which has no lone surrogates
    samples: list[Sample] = []
    lines = _Lines(text)
    bare = frozenset(() if openmetrics else (name.strip('"') for name in _BARE_COUNTER.findall(text)))
    try:
        for family in _families(lines, openmetrics=openmetrics):
            for line in family.samples:
                if line.value is None:  # a native histogram
                    continue
                samples.append(_sample(family, line, bare, longest))
            if len(samples) > max_samples:
                raise _Refused(f"more than {max_samples} samples")
    except _Refused:
        raise
    except GARBAGE as error:
        raise ValueError(f"{lines.current}: {_printable(str(error))[:200] or 'it makes no sense'}") from None
    return _distinct(samples, longest)


class ExpositionReader:
    """Parses what one exporter says time and again. Measured: 0.6 to 1.5 µs a sample as long as only values change.

    Then lines are what they were but for their last word, and what the parser made of them is used again (the
    rules of OpenMetrics about values are not checked again). Lines with times or exemplars are always parsed.

    Args:
        wanted: which Prometheus names are taken; default: all
        max_samples, longest: see `parse_exposition`
    """

    def __init__(
        self,
        *,
        wanted: Callable[[str], bool] = lambda _: True,
        max_samples: int = MAX_SAMPLES,
        longest: int = LONGEST_NAME,
    ) -> None:
        self._wanted = wanted
        self._max_samples = max_samples
        self._longest = longest
        self._known: tuple[list[str], bool, list[tuple[int, Sample]]] | None = None

    def read(self, text: str, *, openmetrics: bool = False) -> list[Sample]:
        """The wanted samples of an exposition. Raises ValueError as `parse_exposition` does."""
        shape, values = _outline(text)
        known = self._known
        if known is not None and known[:2] == (shape, openmetrics) and "_" not in "".join(values):
            try:
                return [_with_value(sample, float(values[position])) for position, sample in known[2]]
            except ValueError:
                pass  # the parser says what is wrong
        samples = parse_exposition(text, openmetrics=openmetrics, max_samples=self._max_samples, longest=self._longest)
        names = {sample.details["name"] for sample in samples}
        wanted = {name for name in names if self._wanted(str(name))}
        kept = [(position, sample) for position, sample in enumerate(samples) if sample.details["name"] in wanted]
        self._known = (shape, openmetrics, kept) if _are_plain(samples, shape, values) else None
        return [sample for _, sample in kept]


def _outline(text: str) -> tuple[list[str], list[str]]:
    """All lines, those of samples without their last word; and these words."""
    shape, values = [], []
    for line in text.split("\n"):
        if line and line[0] != "#":
            head, _, value = line.rpartition(" ")
            shape.append(head)
            values.append(value)
        else:
            shape.append(line)
    return shape, values


def _are_plain(samples: list[Sample], shape: list[str], values: list[str]) -> bool:
    """True if sample by sample the last word of a line is the value, and all that can change."""
    if any(" # " in line for line in shape if line[:1] != "#"):  # an exemplar, whose last word is no value
        return False
    try:
        return all(
            sample.time is None and repr(sample.value) == repr(float(value))
            for sample, value in zip(samples, values, strict=True)
        )
    except ValueError:  # no number, or more of the ones than of the others
        return False


def _with_value(sample: Sample, value: float) -> Sample:
    if value == sample.value:  # the same object is cheaper for those that take it, and many values never change
        return sample
    return Sample(
        name=sample.name, value=value, unit=sample.unit, description=sample.description, details=sample.details
    )


class _Refused(ValueError):
    """A message that says all there is to say."""


class _Lines:
    """The lines of a text, one by one, so that an error can say where the parser stood."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._number = 0
        self._line = ""

    def __iter__(self) -> Iterator[str]:
        for line in io.StringIO(self._text):
            self._number += 1
            self._line = line
            if len(line) > MAX_LINE:
                raise _Refused(f"line {self._number} has {len(line)} characters, more than {MAX_LINE}")
            yield line

    @property
    def current(self) -> str:
        """Where the parser stands; where a family ends it is one line further."""
        return f"line {self._number}, {self._line.rstrip()[:80]!r}"


def _families(lines: _Lines, *, openmetrics: bool) -> Iterator["Family"]:
    if openmetrics:
        from prometheus_client.openmetrics.parser import text_fd_to_metric_families as parse_openmetrics

        return iter(parse_openmetrics(lines))  # type: ignore[no-untyped-call]
    from prometheus_client.parser import text_fd_to_metric_families as parse_text

    return iter(parse_text(lines))  # type: ignore[arg-type]  # it takes any iterable of lines


def _sample(family: "Family", line: "Line", bare: frozenset[str], longest: int) -> Sample:
    # The library calls every counter ..._total; in the text format some are not.
    name = family.name if family.type == "counter" and family.name in bare else line.name
    labels = {label: value for label, value in sorted((line.labels or {}).items()) if value}
    try:
        value = float(line.value)
        time = None if line.timestamp is None else _time(line.timestamp)
    except GARBAGE as error:
        raise _Refused(f"{_printable(name)[:100]}{labels or ''}"[:200] + f": {error}") from None
    return Sample(
        name=series_name(name, labels, longest),
        value=value,
        time=time,
        unit=unit_of(name, family.type, family.unit),
        description=_cut(family.documentation, MAX_HELP),
        details={
            "name": name,
            "labels": {label: _cut(value, MAX_LABEL) for label, value in labels.items()},
            "type": family.type,
        },
    )


def _time(time: "float | LineTime") -> Timestamp:
    """The parsers give seconds as a float, or seconds and nanoseconds. Raises ValueError out of all reason."""
    seconds = float(time)
    if not abs(seconds) < LATEST_S:
        raise ValueError(f"a time of {seconds:g} s since 1970 is out of all reason")
    if isinstance(time, float | int):
        return Timestamp(round(seconds * 1000) * (NS_PER_S // 1000))
    return Timestamp(time.sec * NS_PER_S + time.nsec)


def _printable(text: str) -> str:
    """What others wrote, without what a terminal would obey."""
    return text if text.isprintable() else repr(text)


def _cut(text: str, longest: int) -> str:
    return text if len(text) <= longest else text[: longest - 1] + "…"


def _distinct(samples: list[Sample], longest: int) -> list[Sample]:
    """Where the names of two series meet all the same (``a="b_c"`` and ``a_b="c"``), both get a hash."""
    first: dict[str, Sample] = {}
    met = {sample.name for sample in samples if _series(first.setdefault(sample.name, sample)) != _series(sample)}
    if not met:
        return samples
    return [
        replace(sample, name=hashed(sample.name, repr(_series(sample)), longest)) if sample.name in met else sample
        for sample in samples
    ]


def _series(sample: Sample) -> tuple[object, object]:
    return sample.details["name"], sample.details["labels"]
