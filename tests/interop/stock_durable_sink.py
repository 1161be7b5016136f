# SPDX-License-Identifier: MIT
"""A stock DurableSink: TOKEN URL. Subscribes to what the manager's configuration says; ends with its input."""

import asyncio
import sys
from typing import Any

import metricq
from stock_talk import order, say


class StockDurableSink(metricq.DurableSink):
    @metricq.rpc_handler("config")
    async def on_config(self, metrics: list[str], **config: Any) -> None:
        response = await self.subscribe(metrics)
        say(queue=response["dataQueue"])
        self.listening = asyncio.create_task(self.listen())

    async def listen(self) -> None:
        await order()
        await self.stop()

    async def on_data(self, metric: str, timestamp: metricq.Timestamp, value: float) -> None:
        say(metric=metric, time=timestamp.posix_ns, value=value)


if __name__ == "__main__":
    StockDurableSink(*sys.argv[1:]).run()
