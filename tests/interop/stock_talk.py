# SPDX-License-Identifier: MIT
"""How the stock clients of these tests talk to the test: JSON lines out, orders in, one a line.

Runs with MetricQ's own interpreter: nothing of hostbus is imported here.
"""

import asyncio
import json
import sys
from typing import Any

START_NS = 1_790_000_000 * 10**9
"""The time of a source's first point; the others follow, one a second, with the values 0, 1, 2, ..."""


def say(**facts: Any) -> None:
    """Tell the test something."""
    print(json.dumps(facts), flush=True)


async def order() -> list[str]:
    """The words of the test's next order; none when there will be no more."""
    return (await asyncio.to_thread(sys.stdin.readline)).split()
