# SPDX-License-Identifier: MIT
"""The work of `agent import`: one file, read twice: first to check all of it, then to store it.

How far it came lies in ``imports/`` in this user's folder for state, never beside the file. A file that was
checked is not checked again unless it has changed.
"""

import asyncio
import hashlib
from array import array
from collections.abc import AsyncGenerator, AsyncIterator
from datetime import tzinfo
from operator import lt
from pathlib import Path
from time import monotonic
from typing import Any, cast

from agents.cli.exchange.journal import Journal, writable
from agents.cli.progress import Report
from bus.archive import Archive
from bus.chunk import Chunk
from bus.errors import StorageError
from bus.formats import Batch, Format, Rules
from bus.frame import Group
from bus.state import make_state_folder, state_folder

CHECKPOINT_S = 1.0


class ImportJob:
    """One file on its way into an archive: `check`, then `store`.

    Args:
        path: the file
        form: its format
        archive: where it goes, as on the command line
        tz: of times without a zone; None: they are refused
        zone: the same in the words of the command line
        any_order: whether the times of a metric may come in any order
    """

    def __init__(
        self, path: Path, form: Format, archive: str, tz: tzinfo | None, *, zone: str, any_order: bool
    ) -> None:
        self.path = path
        self._form = form
        self._zone = tz
        self._any_order = any_order
        self._request: dict[str, Any] = {
            "file": str(path.absolute()),
            "format": form.name,
            "archive": writable(archive) if "://" in archive or not archive else str(Path(archive).absolute()),
            "zone": zone,
            "any_order": any_order,
        }
        self._name = hashlib.sha256(repr(sorted(self._request.items())).encode()).hexdigest()[:24]
        self._journal: Journal | None = None
        self._metadata: dict[str, Any] = {}
        self._counts = {"points": 0, "new": 0, "events": 0}
        self.resumed = False

    async def check(self, report: Report) -> None:
        """Read it to its end. Raises StorageError for the first thing that is wrong, and stores nothing."""
        self._request["as_it_was"] = self._stamp()
        self._journal = journal = await asyncio.to_thread(self._open_journal)
        if journal.request is not None and journal.request.get("as_it_was") == self._request["as_it_was"]:
            self._metadata = journal.request["metadata"]
            return
        rules = Rules(self.path, any_order=self._any_order)
        points = 0
        size = max(self.path.stat().st_size, 1)
        async for batch in self._batches(None):
            rules.check(batch)
            points += batch.points
            self._metadata.update(batch.extras.metadata)
            report(batch.read_bytes / size, points)
        self._check_unchanged()
        journal.begin({**self._request, "metadata": self._metadata})

    async def store(self, archive: Archive, report: Report) -> None:
        """Store it, from where an import before this was interrupted. Only after `check`."""
        journal = cast("Journal", self._journal)
        last = journal.last or {}
        if last and not await self._holds(archive, last["point"]):
            last = {}  # it is another archive now
        self.resumed = bool(last)
        self._counts.update(last.get("counts", {}))
        size = max(self.path.stat().st_size, 1)
        noted_at, point = monotonic(), last.get("point")
        async for batch in self._batches(last.get("position")):
            await self._insert(archive, batch)
            if batch.chunks:
                point = [batch.chunks[-1].metric, batch.chunks[-1].times[-1]]
            report(batch.read_bytes / size, self._counts["points"])
            if point and monotonic() >= noted_at + CHECKPOINT_S:
                state = {"position": batch.position, "counts": self._counts, "point": point}
                await asyncio.to_thread(journal.note, state)
                noted_at = monotonic()
        # The metadata of a metric count only when it has points: those that came before them are told again.
        await archive.set_metadata(self._metadata)
        self._check_unchanged()
        journal.remove()

    def summary(self) -> str:
        """What was done, in a line."""
        counts = self._counts
        count = counts["events"]
        events = f"; {count:,} event{'s' if count > 1 else ''}" if count else ""
        gone_on = " (went on where it was interrupted)" if self.resumed else ""
        return f"{self.path}: {counts['points']:,} points, {counts['new']:,} of them new{events}{gone_on}"

    def close(self) -> None:
        """Let go of what was opened; nothing stays of a file that was not found right. May be called twice."""
        if self._journal is not None and self._journal.request is None:
            self._journal.remove()
        elif self._journal is not None:
            self._journal.close()

    async def _insert(self, archive: Archive, batch: Batch) -> None:
        chunks = [self._increasing(chunk) for chunk in batch.chunks]
        groups = [Group((chunk.metric,), chunk.times, chunk.values) for chunk in chunks]
        if groups or batch.extras.missing:
            self._counts["new"] += await archive.insert(groups, batch.extras.missing)
        if batch.extras.metadata:
            await archive.set_metadata(batch.extras.metadata)
        for event in batch.extras.events:
            await archive.add_event(event)
        self._counts["points"] += batch.points
        self._counts["events"] += len(batch.extras.events)

    async def _holds(self, archive: Archive, point: list[Any]) -> bool:
        """Whether a point that was stored is there."""
        metric, time = point
        async for _ in archive.points(metric, time, time + 1):
            return True
        return False

    def _increasing(self, chunk: Chunk) -> Chunk:
        """The points in the order of time, one for each: what all but --any-order takes for granted."""
        if not self._any_order or all(map(lt, chunk.times, memoryview(chunk.times)[1:])):
            return chunk
        points = dict(
            sorted(zip(reversed(chunk.times), reversed(chunk.values), strict=True), key=lambda point: point[0])
        )
        return Chunk(chunk.metric, array("q", points), array("d", points.values()))

    async def _batches(self, start: Any) -> AsyncIterator[Batch]:
        """The file's batches, one read while the one before is worked on."""
        batches = self._form.read(self.path, start=start, zone=self._zone)
        coming = asyncio.ensure_future(anext(batches, None))
        try:
            while (batch := await coming) is not None:
                coming = asyncio.ensure_future(anext(batches, None))
                yield batch
        finally:
            coming.cancel()
            await asyncio.wait({coming})
            await cast("AsyncGenerator[Batch, None]", batches).aclose()

    def _open_journal(self) -> Journal:
        folder = state_folder() / "imports"
        make_state_folder("XDG_STATE_HOME")
        folder.mkdir(exist_ok=True)
        return Journal(folder / f"{self._name}.jsonl")

    def _stamp(self) -> list[int]:
        """What changes when the file does."""
        try:
            found = self.path.stat()
        except OSError as error:
            raise StorageError(f"{self.path}: cannot be read: {error.strerror}") from error
        if not self.path.is_file():
            raise StorageError(f"{self.path}: is not a file: it must be read twice, which a pipe cannot be")
        return [found.st_ino, found.st_size, found.st_mtime_ns]

    def _check_unchanged(self) -> None:
        if self._stamp() != self._request["as_it_was"]:
            raise StorageError(f"{self.path}: was changed while it was read: import it again when it is complete")
