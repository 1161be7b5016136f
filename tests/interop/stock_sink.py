# SPDX-License-Identifier: MIT
"""A stock Sink: TOKEN URL METRIC... Says every point that it gets.

Order: ``unsubscribe METRIC...``; ends with its input.
"""

import asyncio
import sys

import metricq
from stock_talk import order, say


class StockSink(metricq.Sink):
    def __init__(self, token: str, url: str, *metrics: str) -> None:
        super().__init__(token, url)
        self.metrics = metrics

    async def connect(self) -> None:
        await super().connect()
        response = await self.subscribe(self.metrics, expires=60)
        say(subscribed=response["metrics"])
        self.listening = asyncio.create_task(self.listen())

    async def listen(self) -> None:
        while words := await order():
            await self.unsubscribe(words[1:])
            say(unsubscribed=words[1:])
        await self.stop()

    async def on_data(self, metric: str, timestamp: metricq.Timestamp, value: float) -> None:
        say(metric=metric, time=timestamp.posix_ns, value=value)


if __name__ == "__main__":
    StockSink(*sys.argv[1:]).run()
