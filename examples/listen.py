# SPDX-License-Identifier: MIT
"""Live points in a program: ``python examples/listen.py 'web1.cpu.*'`` prints ten of them."""

import asyncio
import sys

from bus.subscription import Subscriber


async def listen(patterns: list[str]) -> None:
    left = 10
    async with Subscriber(patterns) as points:
        async for metric, time, value in points:
            print(time, metric, value)
            left -= 1
            if left == 0:
                return


asyncio.run(listen(sys.argv[1:] or ["#"]))
