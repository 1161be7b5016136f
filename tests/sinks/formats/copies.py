# SPDX-License-Identifier: MIT
"""Files in memory of a test: written and read without a command line."""

import io
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from bus.chunk import Chunk
from bus.formats import Batch, Extras, Format, Rules
from sinks.formats import comma, jsonl, openmetrics, otto, parquet

ALL = {found.name: found for found in (otto.FORMAT, jsonl.FORMAT, comma.FORMAT, parquet.FORMAT, openmetrics.FORMAT)}

NOTHING = Extras()


def written(form: Format, chunks: Iterable[Chunk], extras: Extras = NOTHING, *, stop_every: int = 0) -> bytes:
    """The file of these points; `stop_every`: after so many chunks the writer is given up for one that goes on."""
    part = io.BytesIO()
    writer = form.writer()
    part.write(writer.begin())
    by_name = {chunk.metric: chunk for chunk in chunks}
    for number, chunk in enumerate([by_name[name] for name in form.order(by_name)], 1):
        part.write(writer.points(chunk, extras.metadata.get(chunk.metric, {})))
        if stop_every and number % stop_every == 0:
            part.write(writer.flush())
            writer = form.writer(writer.state)
    part.write(writer.flush())
    for piece in writer.end(extras):
        part.write(piece)
    if not form.assembles:
        return part.getvalue()
    out = io.BytesIO()
    form.assemble(part, out)
    return out.getvalue()


async def read_all(form: Format, path: Path, *, start: Any = None, zone: Any = None) -> list[Batch]:
    """All batches of a file, which keep the rules."""
    rules = Rules(path)
    batches = []
    async for batch in form.read(path, start=start, zone=zone):
        rules.check(batch)
        batches.append(batch)
    return batches


def points_of(batches: Iterable[Batch]) -> dict[str, list[tuple[int, str]]]:
    """The points, values bit for bit but for the kind of a NaN."""
    found: dict[str, list[tuple[int, str]]] = {}
    for batch in batches:
        for chunk in batch.chunks:
            found.setdefault(chunk.metric, []).extend(exactly(chunk))
    return found


def exactly(chunk: Chunk) -> list[tuple[int, str]]:
    """(time, value) with values that compare bit for bit."""
    return [(time, value.hex()) for time, value in zip(chunk.times, chunk.values, strict=True)]


def extras_of(batches: Iterable[Batch]) -> Extras:
    """The extras of all batches together."""
    metadata: dict[str, Any] = {}
    for batch in batches:
        metadata.update(batch.extras.metadata)
    return Extras(
        metadata=metadata,
        events=[event for batch in batches for event in batch.extras.events],
        missing=[missing for batch in batches for missing in batch.extras.missing],
    )
