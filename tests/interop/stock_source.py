# SPDX-License-Identifier: MIT
"""A stock Source: TOKEN URL METRIC. Orders: ``send COUNT``, ``declare METRIC``; ends with its input."""

import asyncio
import sys
from typing import Any

import metricq
from stock_talk import START_NS, order, say


class StockSource(metricq.Source):
    def __init__(self, token: str, url: str, metric: str) -> None:
        super().__init__(token, url)
        self.metric = metric
        self.sent = 0

    @metricq.rpc_handler("config")
    async def on_config(self, from_token: str = "", **config: Any) -> None:
        if config.get("power") == "too much":
            raise ValueError("no more than 5 kW")
        say(config=config)

    async def task(self) -> None:
        await self.declare(self.metric)
        while words := await order():
            if words[0] == "declare":
                await self.declare(words[1])
            else:
                await self.send_points(int(words[1]))
        self.stopping = asyncio.create_task(self.stop())

    async def declare(self, metric: str) -> None:
        try:
            await self.declare_metrics({metric: {"unit": "W", "rate": 1.0, "description": "from outside"}})
        except metricq.exceptions.RPCError as error:
            say(refused=str(error))
        else:
            say(declared=metric)

    async def send_points(self, count: int) -> None:
        for _ in range(count):
            time = metricq.Timestamp(START_NS + self.sent * 10**9)
            await self.send(self.metric, time=time, value=float(self.sent))
            self.sent += 1
        await self.flush()
        say(sent=self.sent)


if __name__ == "__main__":
    StockSource(*sys.argv[1:]).run()
