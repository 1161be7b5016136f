# SPDX-License-Identifier: MIT
"""From Python: an archive as a JSON file or text, and files of JSON and SQLite into an archive, of any size.

async with await SqliteArchive.open("archive.db", "read") as archive:
await export_json(archive, "all.json")
"""

import asyncio
import contextlib
import os
import secrets
from collections.abc import AsyncIterator, Iterable
from datetime import tzinfo
from pathlib import Path
from typing import Any

from bus.archive import MIN_NS, Archive
from bus.chunk import MAX_NS
from bus.errors import StorageError
from bus.formats import Extras, Format, Rules
from bus.frame import Group
from sinks.formats import otto, sqlite


async def export_json(
    archive: Archive, path: str | Path, *, metrics: Iterable[str] = ("#",), start_ns: int = MIN_NS, end_ns: int = MAX_NS
) -> int:
    """Write points, events and metadata to a JSON file, which appears when it is whole; the number of points.

    Raises StorageError if it cannot be written; a file that was there before then stays as it was.
    """
    target = Path(path)
    part = target.with_name(f"{target.name}.{secrets.token_hex(4)}.part")  # nobody else's
    points = 0
    try:
        with part.open("xb") as file:
            async for piece, count in _json(archive, metrics, start_ns, end_ns):
                await asyncio.to_thread(file.write, piece)
                points += count
            file.flush()
            await asyncio.to_thread(os.fsync, file.fileno())
        part.replace(target)
    except OSError as error:
        raise StorageError(f"{target} cannot be written: {error.strerror or error}") from error
    finally:
        with contextlib.suppress(OSError):
            part.unlink()
    return points


async def to_json(
    archive: Archive, *, metrics: Iterable[str] = ("#",), start_ns: int = MIN_NS, end_ns: int = MAX_NS
) -> str:
    """The same as one text, for ranges that are known to fit into memory."""
    return b"".join([piece async for piece, _ in _json(archive, metrics, start_ns, end_ns)]).decode()


async def from_json(path: str | Path, archive: Archive, *, zone: tzinfo | None = None) -> int:
    """Store what a JSON file holds; the number of points that are new.

    The whole file is checked first: nothing is stored of one that is wrong anywhere. `zone` is that of times
    without one; None: they are refused. Raises StorageError, which names the file and the place in it.
    """
    return await copy_file(otto.FORMAT, Path(path), archive, zone)


async def from_sqlite(path: str | Path, archive: Archive, *, zone: tzinfo | None = None) -> int:
    """The same for an archive of ours in SQLite, or a database with tables as in sinks/formats/sqlite.py."""
    return await copy_file(sqlite.FORMAT, Path(path), archive, zone)


async def copy_file(form: Format, path: Path, archive: Archive, zone: tzinfo | None = None) -> int:
    """Store what a file of any format holds, as `from_json` does."""
    rules = Rules(path)
    async for batch in form.read(path, zone=zone):
        rules.check(batch)
    new = 0
    metadata: dict[str, Any] = {}
    async for batch in form.read(path, zone=zone):
        groups = [Group((chunk.metric,), chunk.times, chunk.values) for chunk in batch.chunks]
        new += await archive.insert(groups, batch.extras.missing)
        metadata.update(batch.extras.metadata)
        for event in batch.extras.events:
            await archive.add_event(event)
    await archive.set_metadata(metadata)
    return new


async def _json(
    archive: Archive, metrics: Iterable[str], start_ns: int, end_ns: int
) -> AsyncIterator[tuple[bytes, int]]:
    """The pieces of the text, each with how many points are in it."""
    metadata: dict[str, dict[str, Any]] = {}
    for pattern in metrics:
        metadata.update(await archive.metrics(pattern))
    writer = otto.FORMAT.writer()
    yield writer.begin(), 0
    for metric in otto.FORMAT.order(metadata):
        async for page in archive.points(metric, start_ns, end_ns):
            yield await asyncio.to_thread(writer.points, page, metadata[metric]), len(page)
    for piece in writer.end(Extras(metadata=metadata, events=await archive.events(start_ns, end_ns))):
        yield piece, 0
