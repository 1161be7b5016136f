# SPDX-License-Identifier: MIT
"""The advisory locks of an archive: numbers that hold for one database, and only among those who ask for them."""

SCHEMA_LOCK = 0x4842755300
"""For who brings the schema up to date."""
ROLLUP_LOCK = SCHEMA_LOCK + 1
"""For who forms aggregates, or removes what has expired: one at a time, so that nobody writes what is stale."""
PARTITION_LOCK = SCHEMA_LOCK + 2
"""For who makes partitions."""
