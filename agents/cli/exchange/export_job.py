# SPDX-License-Identifier: MIT
"""The work of `agent export`: from an archive to a file or to stdout, page by page."""

import asyncio
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from time import monotonic
from typing import Any, BinaryIO, Protocol, cast

from agents.cli.exchange.journal import writable
from agents.cli.exchange.part_file import PartFile
from agents.cli.progress import Report
from bus.archive import MIN_NS, Archive, History
from bus.chunk import Chunk
from bus.errors import StorageError
from bus.formats import Extras, Format, Writer

CHECKPOINT_S = 2.0
CHECKPOINT_BYTES = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What is asked for: in the words of the command line, and what they meant when it was first given."""

    format: str
    metrics: list[str]
    begin: str
    end: str
    archive: str
    server: str
    start_ns: int
    end_ns: int

    def to_json(self) -> dict[str, Any]:
        """As it is written down."""
        return {**asdict(self), "archive": writable(self.archive), "server": writable(self.server)}

    def same_words(self, other: dict[str, Any]) -> bool:
        """True if what was written down had the same words; -1h then means what it meant for that."""
        mine = self.to_json()
        return all(mine[word] == other.get(word) for word in mine if word not in ("start_ns", "end_ns"))


class Target(Protocol):
    """Where the bytes go: a `PartFile`, or `Stdout`."""

    def write(self, data: bytes) -> None:
        """Add bytes."""

    def checkpoint(self, state: dict[str, Any]) -> None:
        """What was written is to be durable, and the state with it."""

    def finish(self, form: Format) -> None:
        """All is written."""


class Stdout:
    """The output of this process; nothing of it can be gone on with."""

    def __init__(self, form: Format) -> None:
        self._whole = sys.stdout.buffer
        self._part = cast("BinaryIO", tempfile.TemporaryFile()) if form.assembles else self._whole  # noqa: SIM115

    def write(self, data: bytes) -> None:
        """Add bytes. Raises StorageError; BrokenPipeError if who reads it has enough."""
        with _explained():
            self._part.write(data)

    def checkpoint(self, state: dict[str, Any]) -> None:
        """Let who reads it see it."""
        with _explained():
            self._part.flush()

    def finish(self, form: Format) -> None:
        """Make the whole of what is assembled at the end."""
        with _explained():
            if form.assembles:
                form.assemble(self._part, self._whole)
                self._part.close()
            self._whole.flush()


class ExportJob:
    """One export. Afterwards it can tell how many `points` and `metrics` it had, and what was `left_out`.

    Args:
        form: the format
        request: what is asked for
        report: gets the progress
    """

    def __init__(self, form: Format, request: Request, report: Report) -> None:
        self._form = form
        self._request = request
        self._report = report
        self._names: list[str] = []
        self._metadata: dict[str, dict[str, Any]] = {}
        self.points = 0
        self.resumed = False
        self.left_out: dict[str, int] = {}

    @property
    def metrics(self) -> int:
        """How many metrics."""
        return len(self._names)

    async def run(self, history: History, archive: Archive | None, path: Path | None, *, restart: bool) -> None:
        """Do it. `archive`: where events and the like are, if they can be had; `path`: None for stdout."""
        for pattern in self._request.metrics:
            self._metadata.update(await history.metrics(pattern))
        if not self._metadata:
            raise StorageError(f"no metric of the archive matches {' '.join(self._request.metrics)}")
        self._names = self._form.order(self._metadata)
        if path is None:
            await self._write(Stdout(self._form), history, archive, {})
            return
        file = await asyncio.to_thread(PartFile, path)
        try:
            if restart or not self._resume(file):
                file.journal.begin({**self._request.to_json(), "names": self._names})
            last = file.journal.last or {}
            await asyncio.to_thread(file.open, last.get("bytes", 0))
            await self._write(file, history, archive, last)
        finally:
            file.close()

    def _resume(self, file: PartFile) -> bool:
        """Take over the request of the export that was interrupted, if there is one and it was the same."""
        found = file.journal.request
        if found is None:
            return False
        if not self._request.same_words(found):
            raise StorageError(
                f"{file.part} is what another export left (--format {found.get('format')}, --metrics "
                f"{' '.join(found.get('metrics', []))}, --from {found.get('begin') or 'the beginning'}, "
                f"--to {found.get('end')}): the same command goes on with it, --restart begins anew"
            )
        self.resumed = file.journal.last is not None
        self._request = replace(self._request, start_ns=found["start_ns"], end_ns=found["end_ns"])
        self._names = cast("list[str]", found["names"])
        return True

    async def _write(self, target: Target, history: History, archive: Archive | None, last: dict[str, Any]) -> None:
        """Everything from a checkpoint on; {} is the beginning."""
        writer = self._form.writer(last.get("writer"))
        if not last:
            target.write(writer.begin())
        await self._write_points(target, writer, history, last)
        extras = await self._extras(archive)
        await asyncio.to_thread(_write_all, target, writer.end(extras))
        await asyncio.to_thread(target.finish, self._form)

    async def _write_points(self, target: Target, writer: Writer, history: History, last: dict[str, Any]) -> None:
        """A checkpoint is the number of a metric, and the time from which on its points are still to come."""
        self.points = last.get("points", 0)
        first, next_ns = last.get("metric", 0), last.get("next_ns", self._request.start_ns)
        written, checked_at = 0, monotonic()
        for number in range(first, len(self._names)):
            metric = self._names[number]
            about = self._metadata.get(metric, {})
            start_ns = next_ns if number == first else self._request.start_ns
            async for page in history.points(metric, start_ns, self._request.end_ns):
                written += await asyncio.to_thread(_write_page, target, writer, page, about)
                self.points += len(page)
                self._report((number + self._share(page.times[-1])) / len(self._names), self.points)
                if written >= CHECKPOINT_BYTES or monotonic() >= checked_at + CHECKPOINT_S:
                    await self._checkpoint(target, writer, number, page.times[-1] + 1)
                    written, checked_at = 0, monotonic()
        await self._checkpoint(target, writer, len(self._names), self._request.start_ns)

    async def _checkpoint(self, target: Target, writer: Writer, number: int, next_ns: int) -> None:
        await asyncio.to_thread(_write_held, target, writer)
        state = {"metric": number, "next_ns": next_ns, "points": self.points, "writer": writer.state}
        await asyncio.to_thread(target.checkpoint, state)

    def _share(self, time_ns: int) -> float:
        """How much of the range lies before a time; 0 if the range has no beginning."""
        start, end = self._request.start_ns, self._request.end_ns
        return 0.0 if start == MIN_NS else (time_ns - start) / (end - start)

    async def _extras(self, archive: Archive | None) -> Extras:
        """What the format can hold of the rest; the rest of that is counted."""
        metadata = {name: self._metadata.get(name, {}) for name in self._names}
        if archive is None:
            return Extras(metadata=metadata)
        events = await archive.events(self._request.start_ns, self._request.end_ns)
        since = await archive.missing(self._request.start_ns)
        missing = [frames for frames in since if frames.noticed < self._request.end_ns]
        for kind, found in (("events", events), ("missing", missing)):
            if found and kind not in self._form.carries:
                self.left_out["events" if kind == "events" else "ranges of missing frames"] = len(found)
        return Extras(metadata=metadata, events=events, missing=missing)


@contextmanager
def _explained() -> Iterator[None]:
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        raise StorageError(f"stdout cannot be written: {error.strerror or error}") from error


def _write_page(target: Target, writer: Writer, page: Chunk, metadata: dict[str, Any]) -> int:
    data = writer.points(page, metadata)
    target.write(data)
    return len(data)


def _write_held(target: Target, writer: Writer) -> None:
    target.write(writer.flush())


def _write_all(target: Target, pieces: Iterator[bytes]) -> None:
    for piece in pieces:
        target.write(piece)
