# SPDX-License-Identifier: MIT
"""A stock history client: TOKEN URL. Orders are ``METHOD METRIC START END INTERVAL``, in ns; 0 leaves one out."""

import asyncio
import sys
from typing import Any

import metricq
from stock_talk import order, say


def aggregate(one: metricq.TimeAggregate) -> dict[str, Any]:
    return {
        "time": one.timestamp.posix_ns,
        "minimum": one.minimum,
        "maximum": one.maximum,
        "sum": one.sum,
        "count": one.count,
        "integral_s": one.integral_s,
        "active_ns": one.active_time.ns,
        "mean": one.mean,
    }


async def answer(client: metricq.HistoryClient, method: str, metric: str, numbers: list[int]) -> dict[str, Any]:
    start, end = (metricq.Timestamp(number) if number else None for number in numbers[:2])
    interval = metricq.Timedelta(numbers[2])
    match method:
        case "metrics":
            return {"metrics": await client.get_metrics(metric)}
        case "aggregate":
            return {"aggregate": aggregate(await client.history_aggregate(metric, start, end, timeout=10))}
        case "timeline":
            rows = await client.history_aggregate_timeline(
                metric, interval_max=interval, start_time=start, end_time=end, timeout=10
            )
            return {"timeline": [aggregate(row) for row in rows]}
        case "raw":
            points = await client.history_raw_timeline(metric, start, end, timeout=10)
            return {"raw": [(point.timestamp.posix_ns, point.value) for point in points]}
        case "flex":
            flex = metricq.history_client.HistoryRequestType.FLEX_TIMELINE
            response = await client.history_data_request(metric, start, end, interval, flex, timeout=10)
            return {"flex": response.mode.name, "length": len(response)}
        case _:
            last = await client.history_last_value(metric, timeout=10)
            return {"last": last and (last.timestamp.posix_ns, last.value)}


async def main(token: str, url: str) -> None:
    async with metricq.HistoryClient(token, url, add_uuid=True) as client:
        while words := await order():
            try:
                say(**await answer(client, words[0], words[1], [int(word) for word in words[2:]] + [0] * 3))
            except metricq.exceptions.HistoryError as error:
                say(error=str(error))


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
