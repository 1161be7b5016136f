# SPDX-License-Identifier: MIT
"""The archive in one SQLite file, and the sink that fills it."""

from sinks.sqlite.archive import SqliteArchive, open_archive
from sinks.sqlite.sink import SqliteConfig, SqliteSink

__all__ = ["SqliteArchive", "SqliteConfig", "SqliteSink", "open_archive"]
