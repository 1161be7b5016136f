# SPDX-License-Identifier: MIT
"""A file that is written bit by bit, under another name until it is whole, and goes on where it was left.

    FILE.part           what is there so far
    FILE.part.state     what was asked for and how much of the part is durable (a `Journal`)
    FILE.part.whole     only with formats that are assembled at the end: the file, while it is being made

All three are gone once FILE is there.
"""

import os
from pathlib import Path
from typing import Any

from agents.cli.exchange.journal import Journal
from bus.errors import StorageError
from bus.formats import Format


class PartFile:
    """The part of `path`. What was asked and how far it came is in `journal`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.part = path.with_name(path.name + ".part")
        self.journal = Journal(self.part.with_name(self.part.name + ".state"))
        self._descriptor = -1
        self.size = 0

    def open(self, size: int) -> None:
        """Go on behind so many bytes, which are durable. Raises StorageError if they are not there."""
        try:
            self._descriptor = os.open(self.part, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
            found = os.fstat(self._descriptor).st_size
            if found >= size:
                os.ftruncate(self._descriptor, size)
                os.lseek(self._descriptor, size, os.SEEK_SET)
        except OSError as error:
            raise self._failed(error) from error
        if found < size:
            raise StorageError(
                f"{self.part} has {found} bytes where the export before had written {size}: --restart begins anew"
            )
        self.size = size

    def write(self, data: bytes) -> None:
        """Add bytes. Raises StorageError; what is durable stays so."""
        self.size += len(data)
        view = memoryview(data)
        try:
            while view:
                view = view[os.write(self._descriptor, view) :]
        except OSError as error:
            raise self._failed(error) from error

    def checkpoint(self, state: dict[str, Any]) -> None:
        """From here the next try goes on."""
        try:
            os.fsync(self._descriptor)
        except OSError as error:
            raise self._failed(error) from error
        self.journal.note({**state, "bytes": self.size})

    def finish(self, form: Format) -> None:
        """Make the file of its part: it appears at once, whole and durable, or not at all."""
        try:
            whole = self._assembled(form) if form.assembles else self.part
            os.fsync(self._descriptor)
            os.replace(whole, self.path)
            self.part.unlink(missing_ok=True)
            folder = os.open(self.path.parent, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
        except OSError as error:
            raise self._failed(error) from error
        self.journal.remove()

    def close(self) -> None:
        """Let go of the files; they stay. May be called twice."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
        self.journal.close()

    def _assembled(self, form: Format) -> Path:
        whole = self.part.with_name(self.part.name + ".whole")
        whole.unlink(missing_ok=True)
        with self.part.open("rb") as part, whole.open("xb") as out:
            form.assemble(part, out)
            out.flush()
            os.fsync(out.fileno())
        return whole

    def _failed(self, error: OSError) -> StorageError:
        return StorageError(
            f"{error.filename or self.part}: {error.strerror or error}; what is there so far stays: "
            "the same command goes on from it"
        )
