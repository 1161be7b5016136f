# SPDX-License-Identifier: MIT
"""The archive in a PostgreSQL database, and the sink that fills it."""

from sinks.postgres.archive import PostgresArchive, open_archive
from sinks.postgres.config import PostgresConfig
from sinks.postgres.sink import PostgresSink

__all__ = ["PostgresArchive", "PostgresConfig", "PostgresSink", "open_archive"]
