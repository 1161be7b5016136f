# SPDX-License-Identifier: MIT
"""SQLite databases, to be read: archives of ours, and what others wrote as tables (or views) of rows.

    metrics(timestamp, host, label, value)                                    host may be missing
    events(timestamp, label, source, color, dash, end_timestamp)              may be missing but for the first two

A time stamp is ISO 8601 text, whole nanoseconds since 1970, or seconds with a fraction (a REAL). How host and
label become a name is in sinks/formats/names.py. An archive of ours gives everything it has.
"""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import closing
from datetime import tzinfo
from math import isfinite
from pathlib import Path
from typing import Any
from urllib.parse import quote

from bus.archive import MIN_NS, Event
from bus.chunk import MAX_NS
from bus.errors import StorageError
from bus.formats import Batch, Extras, Writer
from bus.timestamp import NS_PER_S
from sinks.formats import names
from sinks.formats.base import TextFormat
from sinks.formats.files import bad, in_thread
from sinks.formats.rows import chunks_of, nth_row
from sinks.formats.texts import Clock, to_value

BATCH_ROWS = 50_000
_HEADER = b"SQLite format 3\0"
_EVENT_COLUMNS = ("source", "color", "dash", "end_timestamp", "host")


class SqliteTables(TextFormat):
    """The format ``sqlite``."""

    name = "sqlite"
    suffixes: tuple[str, ...] = (".db", ".sqlite", ".sqlite3")
    carries = frozenset({"metadata", "events", "missing"})
    writable = False

    def writer(self, state: Any = None) -> Writer:
        """There is none. Raises StorageError."""
        raise StorageError("format sqlite is only read: an archive is copied by `agent export` and `agent import`")

    def read(self, path: Path, *, start: Any = None, zone: tzinfo | None = None) -> AsyncIterator[Batch]:
        """The tables in portions. A position is [table, row number], or of an archive [metric, time]."""
        if "point" in _tables(path):
            return _archive_batches(path, start)
        return in_thread(_Tables(path, zone).batches(start))


FORMAT = SqliteTables()


def _connect(path: Path) -> sqlite3.Connection:
    """A connection that writes nothing, and makes no file beside this one unless there is a log to be read.

    What is in the database is not trusted: its views and triggers call no function that could do more than compute.
    """
    try:
        with path.open("rb") as file:
            if file.read(len(_HEADER)) != _HEADER:
                raise bad(path, "", "is not an SQLite database")
    except OSError as error:
        raise bad(path, "", f"cannot be read: {error.strerror}") from error
    has_log = any(path.with_name(path.name + end).exists() for end in ("-wal", "-journal"))
    where = f"file:{quote(str(path))}?mode=ro{'' if has_log else '&immutable=1'}"
    # Batches are read one after the other, but each in another thread perhaps.
    connection = sqlite3.connect(where, uri=True, check_same_thread=False)
    connection.execute("PRAGMA trusted_schema = OFF")
    return connection


def _tables(path: Path) -> set[str]:
    with closing(_connect(path)) as connection:
        try:
            return {name for (name,) in connection.execute("SELECT name FROM sqlite_schema")}
        except sqlite3.Error as error:
            raise bad(path, "", f"cannot be read: {error}") from error


async def _archive_batches(path: Path, start: Sequence[Any] | None) -> AsyncIterator[Batch]:
    from sinks.sqlite import SqliteArchive

    begin_metric, begin_ns = start or ("", MIN_NS)
    size = path.stat().st_size
    async with await SqliteArchive.open(path, "read") as archive:
        metadata = await archive.metrics()
        for number, metric in enumerate(metadata):
            if metric < begin_metric:
                continue
            async for page in archive.points(metric, begin_ns if metric == begin_metric else MIN_NS):
                yield Batch(
                    chunks=[page],
                    position=[metric, page.times[-1] + 1],
                    read_bytes=size * number // len(metadata),
                    locate=lambda metric, n: f"point {n} of a page of {metric}",
                )
        extras = Extras(metadata=metadata, events=await archive.events(), missing=await archive.missing())
        # No metric's name comes after "~".
        yield Batch(extras=extras, position=["~", MIN_NS], read_bytes=size, locate=lambda metric, n: "metadata")


class _Tables:
    """One reading of a database of others."""

    def __init__(self, path: Path, zone: tzinfo | None) -> None:
        self._path = path
        self._clock = Clock(zone)
        self._names = names.Names()

    def batches(self, start: Sequence[Any] | None) -> Iterator[Batch]:
        table, skip = start or ("metrics", 0)
        with closing(_connect(self._path)) as connection:
            try:
                if table == "metrics":
                    yield from self._metrics(connection, skip)
                    skip = 0
                yield from self._events(connection, skip)
            except sqlite3.Error as error:
                raise bad(self._path, "", f"cannot be read: {error}") from error

    def _columns(self, connection: sqlite3.Connection, table: str, needed: set[str]) -> set[str]:
        found = {row[1] for row in connection.execute(f"PRAGMA table_info({table})")}
        if found and not needed <= found:
            lacking = ", ".join(sorted(needed - found))
            raise bad(self._path, f"table {table}", f"has no column {lacking}; it has {', '.join(sorted(found))}")
        return found

    def _metrics(self, connection: sqlite3.Connection, skip: int) -> Iterator[Batch]:
        found = self._columns(connection, "metrics", {"timestamp", "label", "value"})
        if not found:
            raise bad(self._path, "", "is no archive, and has no table metrics(timestamp, host, label, value)")
        host = "host" if "host" in found else "NULL"
        total = connection.execute("SELECT count(*) FROM metrics").fetchone()[0]
        cursor = connection.execute(
            f"SELECT timestamp, {host}, label, value FROM metrics LIMIT -1 OFFSET ?",  # noqa: S608  # one of two words
            (skip,),
        )
        while rows := cursor.fetchmany(BATCH_ROWS):
            yield self._batch(rows, skip, total)
            skip += len(rows)

    def _batch(self, rows: list[tuple[Any, ...]], first: int, total: int) -> Batch:
        metrics: list[str] = []
        times: list[int] = []
        values: list[float] = []
        memory: dict[str, Mapping[str, Any]] = {}
        try:
            for timestamp, host, label, value in rows:
                if not isinstance(label, str) or not isinstance(host, str | None):
                    raise TypeError(f"host {host!r} and label {label!r} must be text")
                metrics.append(self._names.metric(host or "", label, memory))
                times.append(self._ns(timestamp))
                values.append(float(value) if isinstance(value, int) else to_value(value))
        except (ValueError, TypeError) as error:
            raise bad(self._path, f"table metrics, row {first + len(values) + 1}", str(error)) from None
        return Batch(
            chunks=chunks_of(metrics, times, values),
            extras=Extras(metadata=memory),
            position=["metrics", first + len(rows)],
            read_bytes=self._path.stat().st_size * (first + len(rows)) // max(total, 1),
            locate=lambda metric, n: f"table metrics, row {first + nth_row(metrics, metric, n) + 1}",
        )

    def _events(self, connection: sqlite3.Connection, skip: int) -> Iterator[Batch]:
        found = self._columns(connection, "events", {"timestamp", "label"})
        if not found:
            return
        columns = ["timestamp", "label", *(name for name in _EVENT_COLUMNS if name in found)]
        cursor = connection.execute(
            f"SELECT {', '.join(columns)} FROM events LIMIT -1 OFFSET ?",  # noqa: S608  # names of ours
            (skip,),
        )
        while rows := cursor.fetchmany(BATCH_ROWS):
            events = [self._event(dict(zip(columns, row, strict=True)), skip + n) for n, row in enumerate(rows, 1)]
            skip += len(rows)
            yield Batch(
                extras=Extras(events=events),
                position=["events", skip],
                read_bytes=self._path.stat().st_size,
                locate=lambda metric, n: "table events",
            )

    def _event(self, row: dict[str, Any], number: int) -> Event:
        given = {name: value for name, value in row.items() if value is not None}
        try:
            time = self._ns(given.pop("timestamp", None))
            end = self._ns(given.pop("end_timestamp")) if "end_timestamp" in given else None
            if not all(isinstance(value, str) for value in given.values()) or "label" not in given:
                raise ValueError("label, source, color, dash and host must be text")
        except ValueError as error:
            raise bad(self._path, f"table events, row {number}", str(error)) from None
        return Event(time=time, end=end, **given)

    def _ns(self, timestamp: object) -> int:
        if isinstance(timestamp, str):
            return self._clock.ns(timestamp)
        ns = timestamp
        if isinstance(timestamp, float) and isfinite(timestamp):
            ns = round(timestamp * NS_PER_S)
        if not isinstance(ns, int) or not MIN_NS <= ns <= MAX_NS:
            raise ValueError(
                f"the timestamp {timestamp!r} is neither ISO 8601, nor ns since 1970, nor seconds with a fraction"
            )
        return ns
