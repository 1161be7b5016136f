# SPDX-License-Identifier: MIT
"""Bringing an archive of an older version up to date: as a sink does when it opens one, but with a copy of the old."""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from bus.errors import StorageBusy, StorageError
from sinks.sqlite import schema
from sinks.sqlite.errors import explained

PAGES_PER_STEP = 4096
GROWTH = 1.0
"""What the aggregates of all points, and the log of making them, add to the size of a file, at most."""


def version_of(path: Path) -> int:
    """The schema of a file. Raises StorageError if it is no archive, or of a newer hostbus."""
    with explained(path, opening=True), closing(_read_only(path)) as connection:
        version = schema.check(connection, path)
    if version == 0:
        raise StorageError(f"{path} is empty: there is nothing to migrate")
    return version


def check_space(path: Path, *, backup: bool) -> None:
    """Raises StorageBusy unless there is room for a migration, and for a copy of the file."""
    size = path.stat().st_size
    needed = round(size * GROWTH) + (size if backup else 0)
    free = shutil.disk_usage(path.parent).free
    if free < needed:
        what = "to migrate it, and to keep a copy (--no-backup does without)" if backup else "to migrate it"
        raise StorageBusy(
            f"{path} needs about {_mb(needed)} more {what}; {path.parent} has {_mb(free)} free: make some room"
        )


def back_up(path: Path, version: int, progress: Callable[[float, int], None]) -> Path:
    """Copy an archive to a file beside it, whole or not at all; its path. `progress` gets the share and the pages."""
    copy = path.with_name(f"{path.name}.schema-{version}.backup")
    if copy.exists():
        raise StorageError(f"{copy} is there already: move it away, or migrate with --no-backup")
    unfinished = copy.with_name(copy.name + ".unfinished")
    unfinished.unlink(missing_ok=True)

    def told(_status: int, left: int, total: int) -> None:
        progress((total - left) / max(total, 1), total - left)

    try:
        with explained(path), closing(_read_only(path)) as source, closing(sqlite3.connect(unfinished)) as target:
            source.backup(target, pages=PAGES_PER_STEP, progress=told)
        with unfinished.open("rb") as file:
            os.fsync(file.fileno())
        unfinished.rename(copy)
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise
    return copy


def _read_only(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)


def _mb(size: int) -> str:
    return f"{size / 1e6:,.0f} MB"
