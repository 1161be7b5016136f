# SPDX-License-Identifier: MIT
"""Parquet: columns ``metric`` (text), ``time`` (timestamp[ns, UTC]) and ``value`` (double), 2 to 4 bytes a point.

Metadata, events and missing frames lie in the file's own metadata, as JSON under the key ``hostbus``. Needs pyarrow:
``pip install 'hostbus[parquet]'``.

A Parquet file ends with an index and cannot be added to. So the writer's bytes are small Parquet files in a row,
each behind its kind and length, which can be cut off anywhere between two; `assemble` makes one file of them.
"""

from __future__ import annotations

import io
import struct
from array import array
from collections.abc import AsyncIterator, Iterator, Mapping
from datetime import tzinfo
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import msgspec

from bus.archive import MissingFrames
from bus.chunk import Chunk
from bus.errors import StorageError
from bus.formats import Batch, Extras
from sinks.formats.base import TextFormat
from sinks.formats.files import bad, in_thread
from sinks.formats.jsonl import EventLine
from sinks.formats.texts import Clock

if TYPE_CHECKING:
    import pyarrow

ROW_GROUP_POINTS = 1_000_000
BATCH_POINTS = 100_000
_KEY = b"hostbus"
_COLUMNS = ("metric", "time", "value")
_HEAD = struct.Struct("<cQ")
_POINTS, _EXTRAS = b"P", b"X"


class _Kept(msgspec.Struct, kw_only=True):
    """What stands under our key."""

    metadata: dict[str, dict[str, Any]] = {}
    events: list[EventLine] = []
    missing: list[MissingFrames] = []


def libraries() -> tuple[Any, Any]:
    """Pyarrow and its part for Parquet. Raises StorageError that says how to get them."""
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise StorageError(f"Parquet needs pyarrow ({error}): pip install 'hostbus[parquet]'") from None
    return pyarrow, parquet


class ParquetWriter:
    """Gathers points to row groups: small ones would cost more than the points in them."""

    state: Any = None

    def __init__(self) -> None:
        self._pyarrow, self._parquet = libraries()
        self._held: list[Chunk] = []
        self._points = 0

    def begin(self) -> bytes:
        """Nothing."""
        return b""

    def points(self, chunk: Chunk, metadata: Mapping[str, Any]) -> bytes:
        """Nothing, mostly; now and then a row group."""
        self._held.append(chunk)
        self._points += len(chunk)
        return self.flush() if self._points >= ROW_GROUP_POINTS else b""

    def flush(self) -> bytes:
        """What is held as a row group."""
        if not self._held:
            return b""
        out = io.BytesIO()
        table = self._table(self._held)
        with open_writer(self._parquet, out, table.schema) as writer:
            writer.write_table(table, row_group_size=ROW_GROUP_POINTS)
        self._held, self._points = [], 0
        return _blob(_POINTS, out.getvalue())

    def end(self, extras: Extras) -> Iterator[bytes]:
        """All extras."""
        yield self.flush()
        kept = _Kept(
            metadata={metric: dict(about) for metric, about in extras.metadata.items() if about},
            events=[EventLine.of(event) for event in extras.events],
            missing=list(extras.missing),
        )
        yield _blob(_EXTRAS, msgspec.json.encode(kept))

    def _table(self, chunks: list[Chunk]) -> pyarrow.Table:
        arrow = self._pyarrow
        names = list(dict.fromkeys(chunk.metric for chunk in chunks))
        number = {name: index for index, name in enumerate(names)}
        codes, times, values = array("i"), array("q"), array("d")
        for chunk in chunks:
            codes += array("i", [number[chunk.metric]]) * len(chunk)
            times += chunk.times
            values += chunk.values
        count = len(times)
        return arrow.table(
            [
                arrow.DictionaryArray.from_arrays(
                    arrow.Array.from_buffers(arrow.int32(), count, [None, arrow.py_buffer(codes)]), arrow.array(names)
                ),
                arrow.Array.from_buffers(arrow.timestamp("ns", "UTC"), count, [None, arrow.py_buffer(times)]),
                arrow.Array.from_buffers(arrow.float64(), count, [None, arrow.py_buffer(values)]),
            ],
            names=list(_COLUMNS),
        )


class Parquet(TextFormat):
    """The format ``parquet``."""

    name = "parquet"
    suffixes: tuple[str, ...] = (".parquet",)
    carries = frozenset({"metadata", "events", "missing"})
    assembles = True

    def writer(self, state: Any = None) -> ParquetWriter:
        """A writer."""
        return ParquetWriter()

    def assemble(self, part: BinaryIO, out: BinaryIO) -> None:
        """One file of the small ones, one row group of theirs at a time in memory."""
        arrow, parquet = libraries()
        part.seek(0)
        writer = None
        extras = b""
        held: list[Any] = []
        rows = 0
        while head := part.read(_HEAD.size):
            kind, length = _HEAD.unpack(head)
            blob = part.read(length)
            if kind == _EXTRAS:
                extras = blob
                continue
            table = parquet.read_table(arrow.BufferReader(blob))
            writer = writer or open_writer(parquet, out, table.schema)
            held.append(table)
            rows += table.num_rows
            if rows >= ROW_GROUP_POINTS:
                writer.write_table(_joined(arrow, held), row_group_size=2 * ROW_GROUP_POINTS)
                held, rows = [], 0
        if writer is None:
            writer = open_writer(parquet, out, schema(arrow))
        if held:
            writer.write_table(_joined(arrow, held), row_group_size=2 * ROW_GROUP_POINTS)
        writer.add_key_value_metadata({_KEY: extras})
        writer.close()

    def read(self, path: Path, *, start: Any = None, zone: tzinfo | None = None) -> AsyncIterator[Batch]:
        """The row groups in portions; a position is a number of rows; one more than all: behind the extras."""
        return in_thread(_batches(path, start or 0))


FORMAT = Parquet()


def schema(arrow: Any) -> pyarrow.Schema:
    """The columns."""
    return arrow.schema(
        [
            ("metric", arrow.dictionary(arrow.int32(), arrow.string())),
            ("time", arrow.timestamp("ns", "UTC")),
            ("value", arrow.float64()),
        ]
    )


def open_writer(parquet: Any, out: BinaryIO, columns: pyarrow.Schema) -> Any:
    """Encodings as measured: 2 to 4 bytes a point, where Parquet's defaults take 4 and more."""
    return parquet.ParquetWriter(
        out,
        columns,
        compression="zstd",
        version="2.6",
        use_dictionary=["metric"],
        column_encoding={"time": "DELTA_BINARY_PACKED", "value": "BYTE_STREAM_SPLIT"},
    )


def _joined(arrow: Any, tables: list[Any]) -> pyarrow.Table:
    return arrow.concat_tables(tables).unify_dictionaries().combine_chunks()


def _blob(kind: bytes, content: bytes) -> bytes:
    return _HEAD.pack(kind, len(content)) + content


def _batches(path: Path, start: int) -> Iterator[Batch]:
    arrow, parquet = libraries()
    try:
        with parquet.ParquetFile(path) as file:
            yield from _file_batches(path, arrow, file, start)
    except OSError as error:
        raise bad(path, "", f"cannot be read: {error.strerror or error}") from error
    except arrow.ArrowException as error:
        raise bad(path, "", f"is not a Parquet file that can be read: {error}") from error


def _file_batches(path: Path, arrow: Any, file: Any, start: int) -> Iterator[Batch]:
    kinds = {field.name: field.type for field in file.schema_arrow}
    _check_columns(path, arrow, kinds)
    size = path.stat().st_size
    total = file.metadata.num_rows
    first = 0
    groups: list[int] = []
    for group in range(file.num_row_groups):
        rows = file.metadata.row_group(group).num_rows
        if groups or first + rows > start:
            groups.append(group)
        else:
            first += rows
    for record_batch in file.iter_batches(BATCH_POINTS, row_groups=groups, columns=list(_COLUMNS)) if groups else ():
        end = first + record_batch.num_rows
        if end > start:
            portion = record_batch.slice(max(0, start - first))
            yield _batch(path, arrow, portion, max(first, start), size * end // (total or 1))
        first = end
    extras = (file.metadata.metadata or {}).get(_KEY)
    if extras and start <= total:
        try:
            kept = msgspec.json.decode(extras, type=_Kept)
            events = [line.event(Clock(None)) for line in kept.events]
        except (ValueError, RecursionError) as error:
            raise bad(path, "", f"what it keeps under the key hostbus is wrong: {error}") from None
        yield Batch(
            extras=Extras(metadata=kept.metadata, events=events, missing=kept.missing),
            position=total + 1,  # behind the extras
            read_bytes=size,
            locate=lambda metric, number: "metadata",
        )


def _check_columns(path: Path, arrow: Any, kinds: dict[str, Any]) -> None:
    if missing := [name for name in _COLUMNS if name not in kinds]:
        raise bad(path, "", f"has no column {missing[0]}: metric, time and value are needed, not {', '.join(kinds)}")
    types = arrow.types
    metric, time, value = (kinds[name] for name in _COLUMNS)
    plain = metric.value_type if types.is_dictionary(metric) else metric
    if not (types.is_string(plain) or types.is_large_string(plain)):
        raise bad(path, "column metric", f"must be text, not {metric}")
    if not (types.is_int64(time) or (types.is_timestamp(time) and time.tz is not None)):
        raise bad(path, "column time", f"must be a timestamp with a time zone, or int64 ns since 1970, not {time}")
    if not (types.is_floating(value) or types.is_integer(value)):
        raise bad(path, "column value", f"must be a number, not {value}")


def _batch(path: Path, arrow: Any, rows: Any, first: int, read_bytes: int) -> Batch:
    from pyarrow import compute

    metric, time, value = (rows.column(name) for name in _COLUMNS)
    for name, column in (("metric", metric), ("time", time)):
        if column.null_count:
            number = compute.index(compute.is_null(column), True).as_py()
            raise bad(path, f"row {first + number + 1}", f"has no {name}")
    coded = metric if arrow.types.is_dictionary(metric.type) else metric.dictionary_encode()
    if arrow.types.is_timestamp(time.type):
        time = time.cast(arrow.timestamp("ns", time.type.tz))
    value = value.cast(arrow.float64(), safe=False)
    # In the order of their metrics, and those of one metric as they stand in the file.
    order = compute.array_sort_indices(coded.indices)
    codes = coded.indices.take(order)
    times, values = (_column(arrow, column.take(order)) for column in (time, value.fill_null(float("nan"))))
    names = coded.dictionary.to_pylist()
    chunks: dict[str, Chunk] = {}
    begin = 0
    runs = compute.run_end_encode(codes)
    for code, end in zip(runs.values.to_pylist(), runs.run_ends.to_pylist(), strict=True):
        chunks[names[code]] = Chunk(names[code], times[begin:end], values[begin:end])
        begin = end

    def locate(name: str, number: int) -> str:
        found = [row for row, code in enumerate(coded.to_pylist()) if code == name]
        return f"row {first + found[number] + 1}"

    return Batch(chunks=list(chunks.values()), position=first + len(rows), read_bytes=read_bytes, locate=locate)


def _column(arrow: Any, column: Any) -> Any:
    """The numbers of a column, which has no nulls."""
    column = arrow.concat_arrays([column])  # which begins at the beginning of its buffer
    if arrow.types.is_floating(column.type):
        found: Any = array("d")
    else:
        found = array("q")
    found.frombytes(memoryview(column.buffers()[1])[column.offset * 8 : (column.offset + len(column)) * 8])
    return found
