# SPDX-License-Identifier: MIT
"""CSV as RFC 4180 has it, with the header ``metric,time,value``; points only.

Times are written as ISO 8601 in UTC with nine digits, so that spreadsheets do not round them; when read, whole
nanoseconds since 1970 will do as well. Values that are no numbers are NaN, Infinity and -Infinity; an empty
field is read as NaN.
"""

from __future__ import annotations

import csv
import io
from collections.abc import AsyncIterator, Iterator, Mapping
from datetime import tzinfo
from pathlib import Path
from typing import Any

from bus.chunk import Chunk
from bus.errors import StorageError
from bus.formats import Batch
from sinks.formats.base import PlainWriter, TextFormat
from sinks.formats.files import Block, bad, blocks, in_thread
from sinks.formats.rows import chunks_of, nth_row
from sinks.formats.texts import Clock, SameTimes, to_float, value_texts

HEADER = ["metric", "time", "value"]
_OTHER_UNITS = {10: "seconds", 13: "milliseconds", 16: "microseconds"}


class CsvWriter(PlainWriter):
    """Lines end with CR LF, as the RFC demands. No field needs quotes."""

    def __init__(self) -> None:
        self._iso = SameTimes()

    def begin(self) -> bytes:
        """The header."""
        return b"metric,time,value\r\n"

    def points(self, chunk: Chunk, metadata: Mapping[str, Any]) -> bytes:
        """A line for each point. 0.3 to 0.7 µs."""
        metric, texts = chunk.metric, value_texts(chunk.values)
        lines = [f"{metric},{time},{value}\r\n" for time, value in zip(self._iso(chunk.times), texts, strict=True)]
        return "".join(lines).encode()


class Csv(TextFormat):
    """The format ``csv``."""

    name = "csv"
    suffixes: tuple[str, ...] = (".csv",)
    carries: frozenset[str] = frozenset()

    def writer(self, state: Any = None) -> CsvWriter:
        """A writer."""
        return CsvWriter()

    def read(self, path: Path, *, start: Any = None, zone: tzinfo | None = None) -> AsyncIterator[Batch]:
        """The lines in blocks; a position is an offset and a line."""
        return in_thread(_batches(path, start, Clock(zone)))


FORMAT = Csv()


def _batches(path: Path, start: list[int] | None, clock: Clock) -> Iterator[Batch]:
    has_header = start is not None
    for block in blocks(path, start):
        rows = _rows(path, block)
        if not has_header:
            found = rows.pop(0) if rows else []
            if found != HEADER:
                raise bad(path, "line 1", f"the header must be metric,time,value, not {','.join(found)[:100]!r}")
            has_header = True
        try:
            yield _batch(path, block, rows, clock)
        except (ValueError, OverflowError):
            raise _line_error(path, block, clock) from None
    if not has_header:
        raise bad(path, "", "is empty: not even the header metric,time,value is there")


def _rows(path: Path, block: Block) -> list[list[str]]:
    reader = _reader(block)
    try:
        return [row for row in reader if row]
    except csv.Error as error:
        raise bad(path, f"line {block.first_line + reader.line_num - 1}", f"is not CSV: {error}") from None


def _reader(block: Block) -> Any:
    return csv.reader(io.StringIO(block.data.decode(), newline=""), strict=True)


def _batch(path: Path, block: Block, rows: list[list[str]], clock: Clock) -> Batch:
    if rows and set(map(len, rows)) != {len(HEADER)}:
        raise ValueError("wrong number of fields")
    metrics, times, values = zip(*rows, strict=True) if rows else ((), (), ())
    return Batch(
        chunks=chunks_of(
            metrics, [clock.ns(text) if text[-1:] == "Z" else _time(text, clock) for text in times], _values(values)
        ),
        position=block.position,
        read_bytes=block.read_bytes,
        locate=lambda metric, number: f"line {_line_of(path, block, metric, number)}",
    )


def _time(text: str, clock: Clock) -> int:
    if not text.removeprefix("-").isdigit() or not text.isascii():
        return clock.ns(text)
    if other := _OTHER_UNITS.get(len(text)):
        raise ValueError(f"the time {text} looks like {other}: right is ISO 8601, or nanoseconds since 1970")
    return int(text)


def _values(texts: tuple[str, ...]) -> list[float]:
    together = "".join(texts)
    if together.isascii() and "_" not in together and "" not in texts:
        return list(map(float, texts))
    return [to_float(text or "NaN") for text in texts]


def _line_of(path: Path, block: Block, metric: str, number: int) -> int:
    reader = _reader(block)
    points: list[tuple[int, str]] = [(reader.line_num, row[0]) for row in reader if row and row != HEADER]
    line, _ = points[nth_row([name for _, name in points], metric, number)]
    return block.first_line + line - 1


def _line_error(path: Path, block: Block, clock: Clock) -> StorageError:
    """The error for the first line that is wrong."""
    reader = _reader(block)
    for row in reader:
        line = f"line {block.first_line + reader.line_num - 1}"
        if not row or (row == HEADER and line == "line 1"):
            continue
        if len(row) != len(HEADER):
            return bad(path, line, f"{len(row)} fields, where there must be 3: metric,time,value")
        try:
            _batch(path, block, [row], clock)
        except OverflowError:
            return bad(path, line, f"the time {row[1]} is not between 1677-09-21 and 2262-04-11, in ns since 1970")
        except ValueError as error:
            what = f"the value {row[2][:100]!r} is not a number" if "convert" in str(error) else str(error)
            return bad(path, line, what)
    return bad(path, f"line {block.first_line} ff.", "cannot be read")
