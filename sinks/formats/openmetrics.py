# SPDX-License-Identifier: MIT
"""Prometheus: OpenMetrics text with times, for ``promtool tsdb create-blocks-from openmetrics``; points only.

    # TYPE cpu_usage gauge
    # HELP cpu_usage share of time that was not idle (%)
    cpu_usage{host="web1",metric="web1.cpu.usage"} 12.5 1763719200.000000001
    # EOF

The family is the metric's name without its first word, the host; what may not stand in a name there becomes
``_``. The label ``metric`` is the whole name, so that no two metrics become one, and nothing is lost when it is
read. Times are seconds with nine digits: exact here, though Prometheus itself keeps milliseconds. What others
wrote has no such label, and is refused.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from datetime import tzinfo
from pathlib import Path
from typing import Any

from bus.chunk import MAX_NS, Chunk
from bus.formats import Batch, Extras
from bus.timestamp import NS_PER_S
from sinks.formats.base import PlainWriter, TextFormat
from sinks.formats.files import Block, bad, blocks, in_thread
from sinks.formats.rows import chunks_of, nth_row
from sinks.formats.texts import to_float, value_texts

_END = b"# EOF"
_LABEL = r'[A-Za-z_]\w*+="(?:[^"\\]++|\\.)*+"'
# Possessive: a line costs time in proportion to its length, whatever stands in it.
_SAMPLE = re.compile(
    rf'[A-Za-z_:][A-Za-z0-9_:]*+\{{(?:(?!metric=){_LABEL},)*+metric="([^"\\]++)"(?:,{_LABEL})*+,?\}} '
    r"(\S++) (-?)(\d{1,18})(?:\.(\d{1,9})0*+)?",
    re.ASCII,
)


def family(metric: str) -> str:
    """The family of a metric, like ``cpu_usage``."""
    words = metric.split(".", 1)
    name = re.sub(r"[^A-Za-z0-9_]", "_", words[-1])
    return f"_{name}" if name[0].isdigit() else name


class OpenMetricsWriter(PlainWriter):
    """Remembers the family that it is in: each has one heading."""

    def __init__(self, state: Any) -> None:
        self.state: str = state or ""

    def points(self, chunk: Chunk, metadata: Mapping[str, Any]) -> bytes:
        """A line for each point, under the heading of the family. 0.7 µs."""
        name = family(chunk.metric)
        heading = ""
        if name != self.state:
            self.state = name
            heading = f"# TYPE {name} gauge\n{_help(name, metadata)}"
        host = f'host="{chunk.metric.partition(".")[0]}",' if "." in chunk.metric else ""
        beginning = f'{name}{{{host}metric="{chunk.metric}"}} '
        texts = value_texts(chunk.values, ("NaN", "+Inf", "-Inf"))
        lines = [f"{beginning}{value} {_seconds(time)}\n" for time, value in zip(chunk.times, texts, strict=True)]
        return (heading + "".join(lines)).encode()

    def end(self, extras: Extras) -> Iterator[bytes]:
        """The mark without which a file counts as cut off."""
        yield _END + b"\n"


class OpenMetrics(TextFormat):
    """The format ``prometheus``."""

    name = "prometheus"
    suffixes: tuple[str, ...] = (".prom", ".om")
    carries: frozenset[str] = frozenset()

    def order(self, metrics: Iterable[str]) -> list[str]:
        """By family: the format wants its samples together."""
        return sorted(metrics, key=lambda metric: (family(metric), metric))

    def writer(self, state: Any = None) -> OpenMetricsWriter:
        """A writer."""
        return OpenMetricsWriter(state)

    def read(self, path: Path, *, start: Any = None, zone: tzinfo | None = None) -> AsyncIterator[Batch]:
        """The lines in blocks; a position is an offset and a line."""
        return in_thread(_batches(path, start))


FORMAT = OpenMetrics()


def _help(name: str, metadata: Mapping[str, Any]) -> str:
    description, unit = str(metadata.get("description") or ""), str(metadata.get("unit") or "")
    text = f"{description} ({unit})" if description and unit else description or unit
    escaped = text.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')
    return f"# HELP {name} {escaped}\n" if text else ""


def _seconds(time: int) -> str:
    seconds, fraction = divmod(abs(time), NS_PER_S)
    return f"{'-' if time < 0 else ''}{seconds}.{fraction:09d}"


def _batches(path: Path, start: list[int] | None) -> Iterator[Batch]:
    ended = start is not None  # and what is behind that position says otherwise
    for block in blocks(path, start):
        if ended and not (start is not None and block.first_line == start[1]):
            raise bad(path, f"line {block.first_line}", "stands behind '# EOF'")
        batch, ended = _batch(path, block)
        yield batch
    if not ended:
        raise bad(path, "", "is cut off: its last line is not '# EOF'")


def _batch(path: Path, block: Block) -> tuple[Batch, bool]:
    metrics: list[str] = []
    lines: list[int] = []
    times: list[int] = []
    values: list[float] = []
    ended = False
    for number, line in enumerate(block.data.decode().split("\n"), block.first_line):
        if not line:
            continue
        if ended:
            raise bad(path, f"line {number}", "stands behind '# EOF'")
        if line[0] == "#":
            ended = line.rstrip() == _END.decode()
            continue
        sample = _SAMPLE.fullmatch(line.rstrip("\r"))
        if sample is None:
            raise bad(path, f"line {number}", _reason(line))
        metric, value, sign, seconds, fraction = sample.groups()
        ns = int(seconds) * NS_PER_S + (int(fraction.ljust(9, "0")) if fraction else 0)
        if ns > MAX_NS + bool(sign):
            raise bad(path, f"line {number}", f"the time {sign}{seconds} s is not between 1677-09-21 and 2262-04-11")
        try:
            values.append(to_float(value))
        except ValueError as error:
            raise bad(path, f"line {number}", str(error)) from None
        metrics.append(metric)
        lines.append(number)
        times.append(-ns if sign else ns)
    batch = Batch(
        chunks=chunks_of(metrics, times, values),
        position=block.position,
        read_bytes=block.read_bytes,
        locate=lambda metric, number: f"line {lines[nth_row(metrics, metric, number)]}",
    )
    return batch, ended


def _reason(line: str) -> str:
    if 'metric="' not in line:
        return 'has no label metric="...", as the files of `agent export` have: it cannot be told which metric is meant'
    return 'is not NAME{...,metric="..."} VALUE SECONDS, with at most nine digits of a second'
