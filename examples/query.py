# SPDX-License-Identifier: MIT
"""What is in an archive: ``python examples/query.py ~/.local/state/hostbus/archive.db``."""

import sqlite3
import sys

LAST_MINUTE = """
    SELECT metric, count(*), avg(value), max(value)
    FROM points
    WHERE time > (SELECT max(time) FROM points WHERE metric = ?1) - 60 * 1000000000 AND metric = ?1
"""

connection = sqlite3.connect(f"file:{sys.argv[1]}?mode=ro", uri=True)
for (name,) in connection.execute("SELECT name FROM metric WHERE name LIKE '%.cpu.%' ORDER BY name").fetchall():
    metric, count, mean, highest = connection.execute(LAST_MINUTE, (name,)).fetchone()
    if count:
        print(f"{metric:<40} {count:>4} points, mean {mean or 0:>10.4g}, highest {highest or 0:>10.4g}")
