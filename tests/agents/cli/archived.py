# SPDX-License-Identifier: MIT
"""An archive file with points and spans, for commands that read one."""

import asyncio
from array import array
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from agents.cli.opening import Access, opened
from bus.archive import Event, MissingFrames
from bus.frame import Group

NS = 1_000_000_000


def archive_file(
    path: Path,
    points: Mapping[str, Iterable[tuple[float, float]]],
    *,
    metadata: Mapping[str, Mapping[str, Any]] | None = None,
    spans: Sequence[Event] = (),
    missing: Sequence[MissingFrames] = (),
) -> str:
    """Make an archive, or add to it: metrics with their (seconds since 1970, value), and events."""

    async def fill() -> None:
        async with opened(str(path), Access.write) as archive:
            groups = []
            for metric, series in points.items():
                rows = list(series)
                times = array("q", [round(second * NS) for second, _ in rows])
                groups.append(Group((metric,), times, array("d", [value for _, value in rows])))
            await archive.insert(groups, missing)
            await archive.set_metadata(metadata or {})
            for span in spans:
                await archive.add_event(span)

    asyncio.run(fill())
    return str(path)
