# SPDX-License-Identifier: MIT
"""A stock client that asks get_metrics: TOKEN URL. Each order is the arguments of one question, as JSON."""

import asyncio
import json
import sys

import metricq
from stock_talk import order, say


async def main(token: str, url: str) -> None:
    async with metricq.Client(token, url, add_uuid=True) as client:
        while words := await order():
            try:
                say(metrics=await client.get_metrics(**json.loads(" ".join(words))))
            except metricq.exceptions.RPCError as error:
                say(refused=str(error))


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
