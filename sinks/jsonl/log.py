# SPDX-License-Identifier: MIT
"""A file of lines that is only added to, batch by batch, each wholly there or not at all; and its rotation.

    {"frames":{"full":true,...}}        what had been written when the file was begun, and every 16 MB
    {"metric":...}                      a batch: lines of points ...
    {"frames":{"full":false,...}}       ... and behind them what has thereby been written

What stands behind the last line of ``frames`` belongs to a batch that was never acknowledged, and is cut off when
the file is opened: the broker delivers it again. So is a last batch that does not match the checksum in its line of
``frames``: when the power fails, the end of a batch may be on the disk without its middle. Nothing here may run on
the event loop.
"""

from __future__ import annotations

import contextlib
import gzip
import os
import re
import shutil
import stat
import time
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec

from bus.errors import StorageBusy, StorageError
from bus.timestamp import NS_PER_S, Timestamp
from sinks.jsonl.seen import Knowledge

FULL_EVERY_BYTES = 16 * 1024 * 1024
_READ_BYTES = 1024 * 1024
_MARK = b'{"frames":'
_FULL_MARK = b'{"frames":{"full":true,'


@dataclass(frozen=True, slots=True, kw_only=True)
class Rotation:
    """When a file is full, and what becomes of it: 0 is never, and all are kept."""

    size_bytes: int = 0
    age_s: float = 0
    keep: int = 0
    compress: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class _Mark:
    """What a line of ``frames`` says: what was written, when, and the batch before it."""

    known: Knowledge
    at: int
    size: int
    checksum: int


class PointLog:
    """The file at `path`, open to be added to; who makes it has locked the path.

    `known` is what was written to it and to those before it. Raises StorageError if there is another kind of
    file, StorageBusy if it cannot be made or read for now.
    """

    def __init__(self, path: Path, known: Knowledge | None = None) -> None:
        self.path = path
        self.known = known or Knowledge()
        self._new = path.with_name(path.name + ".new")
        self._descriptor = -1
        self.size = 0
        self.begun_ns = 0
        self._empty_size = 0
        self._full_at = 0
        with self._busy():
            self._settle_rotation()
            if not path.exists() or path.stat().st_size == 0:
                self._make_new()
                os.rename(self._new, path)
                _sync_folder(path)
            self._descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
            try:
                self._recover()
            except BaseException:
                self.close()
                raise

    def append(self, lines: bytes, news: Knowledge) -> None:
        """Add a batch; when this returns it is on the disk. Raises StorageBusy, and then nothing was added."""
        is_full = self.size + len(lines) >= self._full_at + FULL_EVERY_BYTES
        after = news
        if is_full:
            after = Knowledge(dict(self.known.frames), dict(self.known.times))
            after.learn(news)
        data = lines + _mark(after, is_full=is_full, lines=lines)
        with self._busy():
            try:
                self._write(data)
                os.fdatasync(self._descriptor)
            except OSError:
                with contextlib.suppress(OSError):
                    os.ftruncate(self._descriptor, self.size)
                raise
        self.known.learn(news)
        self.size += len(data)
        if is_full:
            self._full_at = self.size

    @property
    def is_in_place(self) -> bool:
        """False if another program has moved, removed or cut the file."""
        with self._busy():
            try:
                found = os.stat(self.path)
            except FileNotFoundError:
                return False
            mine = os.fstat(self._descriptor)
        return (found.st_dev, found.st_ino) == (mine.st_dev, mine.st_ino) and mine.st_size >= self.size

    def is_due(self, rotation: Rotation) -> bool:
        """Whether the file is to be put aside: it is large or old enough, and not empty."""
        if self.size <= self._empty_size:
            return False
        is_old = rotation.age_s > 0 and time.time_ns() >= self.begun_ns + rotation.age_s * NS_PER_S
        return is_old or 0 < rotation.size_bytes <= self.size

    def rotate(self) -> None:
        """Put the file aside under a name with the time at which it was begun; a new one, which knows the same."""
        with self._busy():
            self._make_new()
            os.rename(self.path, self._aside())
            os.rename(self._new, self.path)
            _sync_folder(self.path)

    def close(self) -> None:
        """Let go of the file. May be called twice."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    # -- opening ---------------------------------------------------------------------------------------

    def _settle_rotation(self) -> None:
        """End what a crash in the middle of a rotation, or of making the first file, has left."""
        if self._new.exists():
            if self.path.exists() or _read_mark(self._new.read_bytes()) is None:
                self._new.unlink()
            else:
                os.rename(self._new, self.path)

    def _make_new(self) -> None:
        descriptor = os.open(self._new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
        try:
            if self.path.exists():  # whoever may not read that one may not read this one
                os.fchmod(descriptor, stat.S_IMODE(self.path.stat().st_mode))
            first = _mark(self.known, is_full=True)
            while first:
                first = first[os.write(descriptor, first) :]
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def _recover(self) -> None:
        """Find what was written, and cut off what is not whole."""
        first = os.pread(self._descriptor, _READ_BYTES, 0)
        if not first.startswith(_FULL_MARK):
            raise StorageError(
                f"{self.path} is not a file of json-sink, which would cut off what it does not know: "
                "move it away, or choose another file"
            )
        begun = _read_mark(self._line_at(0))
        if begun is None:
            raise StorageError(f"{self.path}: its first line is damaged: move it away, and a new one is begun")
        self.begun_ns, self._empty_size = begun.at, len(self._line_at(0))
        found, last, last_at, end = Knowledge(), begun, 0, 0
        self._full_at = self._last_full_mark()
        for line, line_end in self._lines(self._full_at):
            if line.startswith(_MARK) and (mark := _read_mark(line)) is not None:
                found.learn(mark.known)
                last, last_at, end = mark, line_end - len(line), line_end
        if not self._is_whole(last, last_at):
            # Those before it were on the disk before it was begun.
            os.ftruncate(self._descriptor, last_at - last.size)
            self._recover()
            return
        os.ftruncate(self._descriptor, end)
        os.lseek(self._descriptor, end, os.SEEK_SET)
        self.size = end
        found.learn(self.known)  # what this process knows is newer
        self.known = found

    def _is_whole(self, mark: _Mark, mark_at: int) -> bool:
        """Whether the batch before a mark is what was written."""
        if not 0 <= mark.size <= mark_at:
            raise StorageError(f"{self.path}: its last line is damaged: move it away, and a new one is begun")
        return zlib.crc32(self._read(mark_at - mark.size, mark.size)) == mark.checksum

    def _read(self, offset: int, size: int) -> bytes:
        pieces = []
        while size and (piece := os.pread(self._descriptor, size, offset)):
            pieces.append(piece)
            offset, size = offset + len(piece), size - len(piece)
        return b"".join(pieces)

    def _last_full_mark(self) -> int:
        """Where the last whole line begins that tells all."""
        before = os.fstat(self._descriptor).st_size
        later = b""
        while before > 0:
            start = max(0, before - _READ_BYTES)
            data = os.pread(self._descriptor, before - start, start) + later
            at = len(data)
            while (at := data.rfind(b"\n" + _FULL_MARK, 0, at)) >= 0:
                if _read_mark(self._line_at(start + at + 1)) is not None:
                    return start + at + 1
            before, later = start, data[: len(_FULL_MARK)]
        return 0

    def _line_at(self, offset: int) -> bytes:
        """The line that begins there; without a line feed if the file ends in it."""
        line = b""
        while (end := line.find(b"\n")) < 0:
            more = os.pread(self._descriptor, _READ_BYTES, offset + len(line))
            if not more:
                return line
            line += more
        return line[: end + 1]

    def _lines(self, offset: int) -> Iterator[tuple[bytes, int]]:
        """The whole lines from there on, each with where it ends."""
        rest = b""
        at = offset
        while more := os.pread(self._descriptor, _READ_BYTES, at + len(rest)):
            lines = (rest + more).split(b"\n")
            rest = lines.pop()
            for line in lines:
                at += len(line) + 1
                yield line + b"\n", at

    # -- writing ---------------------------------------------------------------------------------------

    def _write(self, data: bytes) -> None:
        # Nothing of a batch that failed may stand behind this one.
        os.ftruncate(self._descriptor, self.size)
        view = memoryview(data)
        offset = self.size
        while view:
            written = os.pwrite(self._descriptor, view, offset)
            view = view[written:]
            offset += written

    def _aside(self) -> Path:
        """A name that comes after those of all files that were put aside before, however many of them are left."""
        when = f"{Timestamp(self.begun_ns).datetime:%Y%m%dT%H%M%SZ}"
        same = [number for _, begun, number in _names_aside(self.path) if begun == when]
        extra = f"-{max(same) + 1}" if same else ""
        return self.path.with_name(f"{self.path.stem}-{when}{extra}{self.path.suffix}")

    @contextlib.contextmanager
    def _busy(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise StorageBusy(f"{self.path} cannot be written: {error.strerror or error}") from error


def tidy(path: Path, rotation: Rotation) -> None:
    """Compress files that were put aside, and remove those that are too many. A crash may come at any point."""
    if rotation.compress:
        for plain in put_aside(path):
            if plain.suffix != ".gz":
                _compress(plain)
    if rotation.keep:
        for old in put_aside(path)[: -rotation.keep]:
            old.unlink()


def put_aside(path: Path) -> list[Path]:
    """The files that were put aside in favour of `path`, oldest first."""
    return [file for file, _, _ in sorted(_names_aside(path), key=lambda one: one[1:])]


def _names_aside(path: Path) -> Iterator[tuple[Path, str, int]]:
    """(file, time at which it was begun, number within that second)."""
    name = re.compile(rf"{re.escape(path.stem)}-(\d{{8}}T\d{{6}}Z)(?:-(\d+))?{re.escape(path.suffix)}(?:\.gz)?")
    for file in path.parent.iterdir():
        if match := name.fullmatch(file.name):
            yield file, match[1], int(match[2] or 0)


def _compress(plain: Path) -> None:
    packed = plain.with_name(plain.name + ".gz")
    if not packed.exists():
        part = plain.with_name(plain.name + ".gz.part")
        part.unlink(missing_ok=True)
        try:
            with plain.open("rb") as source, part.open("xb") as target:
                shutil.copymode(plain, part)
                with gzip.GzipFile(fileobj=target, mode="wb", compresslevel=6) as packing:
                    shutil.copyfileobj(source, packing, _READ_BYTES)
                target.flush()
                os.fsync(target.fileno())
            os.rename(part, packed)
        except OSError:
            part.unlink(missing_ok=True)  # a full disk needs the space
            raise
        _sync_folder(packed)
    plain.unlink()


def _mark(known: Knowledge, *, is_full: bool, lines: bytes = b"") -> bytes:
    about = {"full": is_full, "at": time.time_ns(), "bytes": len(lines), "crc32": zlib.crc32(lines)}
    return msgspec.json.encode({"frames": {**about, **known.to_json()}}) + b"\n"


def _read_mark(line: bytes) -> _Mark | None:
    """What such a line says; None if it is damaged or not whole."""
    if not line.endswith(b"\n"):
        return None
    try:
        mark = msgspec.json.decode(line)["frames"]
        size, checksum = int(mark["bytes"]), int(mark["crc32"])
        return _Mark(known=Knowledge.from_json(mark), at=int(mark["at"]), size=size, checksum=checksum)
    except (KeyError, TypeError, ValueError):
        return None


def _sync_folder(path: Path) -> None:
    descriptor = os.open(path.parent, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
