# SPDX-License-Identifier: MIT
"""Reading text files of any size in blocks of whole lines, plain or gzip, from any position."""

from __future__ import annotations

import asyncio
import gzip
import zlib
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, TypeVar, cast

from bus.errors import StorageError

T = TypeVar("T")

BLOCK_BYTES = 2 * 1024 * 1024
"""About 30,000 points: enough for the cost of a batch, little enough for memory."""
MAX_LINE_BYTES = 16 * 1024 * 1024
_GZIP = b"\x1f\x8b"
_BOM = b"\xef\xbb\xbf"


def bad(path: Path, place: str, what: str) -> StorageError:
    """What is wrong with a file, and where."""
    return StorageError(f"{path}: {place}: {what}" if place else f"{path}: {what}")


@dataclass(frozen=True, slots=True)
class Block:
    """Whole lines of a file: its last one ends with a line feed, or the file ends there.

    `first_line` counts from 1; `end` is the offset behind the block in the text; `read_bytes` in the file.
    """

    data: bytes
    first_line: int
    end: int
    read_bytes: int

    @property
    def lines(self) -> int:
        """The number of line feeds."""
        return self.data.count(b"\n")

    @property
    def position(self) -> list[int]:
        """Where the next block begins: offset and line."""
        return [self.end, self.first_line + self.lines]


@contextmanager
def opened(path: Path) -> Iterator[tuple[BinaryIO, BinaryIO]]:
    """The text of a file, and the file itself: not the same if it is compressed. All errors are StorageError."""
    try:
        with path.open("rb") as file:
            packed = file.read(2) == _GZIP
            file.seek(0)
            if packed:
                with gzip.GzipFile(fileobj=file) as unpacked:
                    yield cast("BinaryIO", unpacked), file
            else:
                yield file, file
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise bad(path, "", f"the gzip file is damaged or cut off ({error})") from error
    except OSError as error:
        raise bad(path, "", f"cannot be read: {error.strerror or error}") from error


def blocks(path: Path, start: list[int] | None = None) -> Iterator[Block]:
    """The blocks of a text file from a `Block.position` on; UTF-8, without its mark, and without NUL."""
    offset, line = start or (0, 1)
    with opened(path) as (text, file):
        text.seek(offset)
        rest = b""
        while True:
            read = text.read(BLOCK_BYTES)
            data = rest + read
            if offset == 0 and data.startswith(_BOM):
                data, offset = data[len(_BOM) :], len(_BOM)
            cut = data.rfind(b"\n") + 1 if read else len(data)
            data, rest = data[:cut], data[cut:]
            if data:
                offset += len(data)
                block = Block(data, line, offset, file.tell())
                _check_text(path, block)
                yield block
                line += block.lines
            if not read:
                return
            if len(rest) > MAX_LINE_BYTES:
                raise bad(path, f"line {line}", f"is longer than {MAX_LINE_BYTES >> 20} MiB: this is not such a file")


def _check_text(path: Path, block: Block) -> None:
    nul = block.data.find(b"\0")
    if nul >= 0:
        line = block.first_line + block.data.count(b"\n", 0, nul)
        raise bad(path, f"line {line}", "holds a NUL byte: the file is damaged, or not UTF-8 text")
    if not block.data.isascii():
        try:
            block.data.decode()
        except UnicodeDecodeError as error:
            line = block.first_line + block.data.count(b"\n", 0, error.start)
            raise bad(path, f"line {line}", f"is not UTF-8 text (byte {block.data[error.start]:#04x})") from None


async def in_thread(items: Iterator[T]) -> AsyncIterator[T]:
    """What an iterator that blocks gives, got in a thread. It is never closed while it runs."""
    end = object()
    try:
        while True:
            step = asyncio.ensure_future(asyncio.to_thread(next, items, end))
            try:
                item = await asyncio.shield(step)
            except asyncio.CancelledError:
                await asyncio.wait({step})
                step.exception()
                raise
            if item is end:
                return
            yield cast("T", item)
    finally:
        close = getattr(items, "close", None)
        if close is not None:
            await asyncio.to_thread(close)
