# SPDX-License-Identifier: MIT
"""What a long command leaves behind for the next try: what it was asked, and how far it came.

A file of JSON lines: first the request, then one line per checkpoint, of which the last counts. It is only ever
added to, and every line is on the disk before `note` returns, so that SIGKILL or a full disk cost at most the
last line. The file is locked while a command has it.
"""

import fcntl
import os
from pathlib import Path
from typing import Any

import msgspec

from bus.errors import StorageError
from bus.transport.by_url import without_secrets


def writable(where: str) -> str:
    """A URL as it may be written into a journal: without user, password and options. A path stays as it is."""
    return without_secrets(where) if "://" in where else where


class Journal:
    """The journal at `path`, held until `close` or `remove`.

    `request` and `last` are what was found in it: the first and the newest entry; None if there is none.
    Raises StorageError if another process has it, or it cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor = self._open()
        try:
            entries = self._read()
        except BaseException:
            self.close()
            raise
        self.request: dict[str, Any] | None = entries[0] if entries else None
        self.last: dict[str, Any] | None = entries[-1] if len(entries) > 1 else None

    def begin(self, request: dict[str, Any]) -> None:
        """Forget what was there: this is another request."""
        os.ftruncate(self._descriptor, 0)
        self.request, self.last = request, None
        self._append(request)

    def note(self, checkpoint: dict[str, Any]) -> None:
        """From here the next try goes on."""
        self._append(checkpoint)
        self.last = checkpoint

    def remove(self) -> None:
        """All is done."""
        self.path.unlink(missing_ok=True)
        self.close()

    def close(self) -> None:
        """Let go of the file. May be called twice."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _open(self) -> int:
        while True:
            flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
            try:
                descriptor = os.open(self.path, flags, 0o600)
            except OSError as error:
                raise StorageError(f"{self.path} cannot be written: {error.strerror}") from error
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                os.close(descriptor)
                reason = "another process has it" if isinstance(error, BlockingIOError) else error.strerror
                raise StorageError(f"{self.path} cannot be locked: {reason}") from error
            if os.fstat(descriptor).st_nlink:
                return descriptor
            os.close(descriptor)  # who had it has just removed it

    def _read(self) -> list[dict[str, Any]]:
        """The first and the last entry; a line that was cut off in the middle does not count."""
        content = os.pread(self._descriptor, os.fstat(self._descriptor).st_size, 0)
        whole = content[: content.rfind(b"\n") + 1]
        lines = whole.splitlines()
        try:
            entries = [msgspec.json.decode(line, type=dict[str, Any]) for line in (*lines[:1], *lines[1:][-1:])]
        except msgspec.MsgspecError as error:
            raise StorageError(f"{self.path} is damaged ({error}): remove it to begin anew") from error
        os.ftruncate(self._descriptor, len(whole))
        return entries

    def _append(self, entry: dict[str, Any]) -> None:
        line = msgspec.json.encode(entry) + b"\n"
        try:
            while line:
                line = line[os.write(self._descriptor, line) :]
            os.fsync(self._descriptor)
        except OSError as error:
            raise StorageError(f"{self.path} cannot be written: {error.strerror}") from error
