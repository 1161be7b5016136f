# SPDX-License-Identifier: MIT
"""A stock IntervalSource: TOKEN URL METRIC. Sends on the order ``send COUNT``, one point per period; ends then."""

import asyncio
import sys
from typing import Any

import metricq
from stock_talk import START_NS, order, say


class StockIntervalSource(metricq.IntervalSource):
    def __init__(self, token: str, url: str, metric: str) -> None:
        super().__init__(token, url, period=metricq.Timedelta.from_ms(10))
        self.metric = metric
        self.sent = 0
        self.wanted = 0

    @metricq.rpc_handler("config")
    async def on_config(self, **config: Any) -> None:
        await self.declare_metrics({self.metric: {"unit": "W", "rate": 100.0, "description": "from outside"}})
        say(declared=self.metric)
        self.listening = asyncio.create_task(self.listen())

    async def listen(self) -> None:
        self.wanted = int((await order())[1])

    async def update(self) -> None:
        if self.sent < self.wanted:
            time = metricq.Timestamp(START_NS + self.sent * 10**9)
            await self.send(self.metric, time=time, value=float(self.sent))
            self.sent += 1
            if self.sent == self.wanted:
                say(sent=self.sent)
                self.stopping = asyncio.create_task(self.stop())


if __name__ == "__main__":
    StockIntervalSource(*sys.argv[1:]).run()
