# SPDX-License-Identifier: MIT
"""SQLite's errors as ours: which pass by themselves, and what would be right."""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bus.errors import StorageBusy, StorageError

_PASSING = {
    sqlite3.SQLITE_BUSY: "is locked by another program, and is tried again",
    sqlite3.SQLITE_LOCKED: "is locked, and is tried again",
    sqlite3.SQLITE_PROTOCOL: "is locked by another program, and is tried again",
    sqlite3.SQLITE_FULL: "cannot grow, the disk is full: free some space",
    sqlite3.SQLITE_IOERR: "cannot be read or written: see to its disk, which may be full or broken",
    sqlite3.SQLITE_NOMEM: "needs more memory than there is",
}

# Once the archive has been open these pass, too: a file system that was remounted, a limit of open files. At the
# opening they are mistakes that a person has to put right.
_PASSING_WHEN_OPEN = {
    sqlite3.SQLITE_READONLY: "cannot be written any more: see to its file system",
    sqlite3.SQLITE_CANTOPEN: "cannot be opened any more: see to its file system and the number of open files",
}

_LASTING = {
    sqlite3.SQLITE_NOTADB: "is not an SQLite file: choose another file",
    sqlite3.SQLITE_CORRUPT: "is damaged: keep a copy of it, and choose another file",
    sqlite3.SQLITE_READONLY: "cannot be written: let this user write it and its directory, or choose another file",
    sqlite3.SQLITE_CANTOPEN: "cannot be opened: let this user read and write it and its directory",
    sqlite3.SQLITE_PERM: "may not be opened by this user: change its mode, or choose another file",
}


@contextmanager
def explained(path: Path, *, opening: bool = False) -> Iterator[None]:
    """Turn an error of SQLite about `path` into StorageBusy, if it may pass, or StorageError."""
    try:
        yield
    except sqlite3.Error as error:
        # Extended codes (SQLITE_IOERR_WRITE, ...) have the primary one in their lowest byte.
        code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
        passing = _PASSING if opening else _PASSING | _PASSING_WHEN_OPEN
        if code in passing:
            raise StorageBusy(f"{path} {passing[code]} ({error})") from error
        raise StorageError(f"{path} {_LASTING.get(code, 'cannot be used')} ({error})") from error
