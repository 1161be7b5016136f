# SPDX-License-Identifier: MIT
"""What formats have in common whose file is written from its beginning to its end."""

import shutil
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, BinaryIO

from bus.chunk import Chunk
from bus.formats import Extras


class TextFormat:
    """Points of a metric after those of another, sorted by name; what the writer gives is the file."""

    writable = True
    assembles = False

    def order(self, metrics: Iterable[str]) -> list[str]:
        """By name."""
        return sorted(metrics)

    def assemble(self, part: BinaryIO, out: BinaryIO) -> None:
        """Copy."""
        part.seek(0)
        shutil.copyfileobj(part, out)


class PlainWriter:
    """Without a memory, and with nothing at either end of the file: a subclass says how points look."""

    state: Any = None

    def begin(self) -> bytes:
        """Nothing."""
        return b""

    def points(self, chunk: Chunk, metadata: Mapping[str, Any]) -> bytes:
        """The points of a metric."""
        raise NotImplementedError

    def flush(self) -> bytes:
        """Nothing is held back."""
        return b""

    def end(self, extras: Extras) -> Iterator[bytes]:
        """Nothing."""
        return iter(())
