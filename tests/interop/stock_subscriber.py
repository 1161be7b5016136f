# SPDX-License-Identifier: MIT
"""A stock Subscriber: TOKEN URL METRIC... Subscribes and leaves; drains its queue on the order ``drain``."""

import asyncio
import sys

import metricq
from stock_talk import order, say


async def main(token: str, url: str, *metrics: str) -> None:
    async with metricq.Subscriber(token, url, metrics=metrics, expires=60) as subscriber:
        say(queue=subscriber.queue, metadata=subscriber.metadata)
        await order()
        async with subscriber.drain() as data:
            async for metric, time, value in data:
                say(metric=metric, time=time.posix_ns, value=value)
    say(drained=True)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
