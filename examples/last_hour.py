# SPDX-License-Identifier: MIT
"""The last hour, minute by minute, from the archives on the bus: ``python examples/last_hour.py 'web1.cpu.*'``."""

import asyncio
import sys

from bus.history import HistoryClient
from bus.timestamp import Timedelta, Timestamp


async def look_back(pattern: str) -> None:
    an_hour_ago = Timestamp.ago(Timedelta.from_string("1h"))
    async with HistoryClient("last-hour") as history:
        for metric, about in (await history.metrics(pattern)).items():
            timeline = await history.history_aggregate_timeline(metric, Timedelta.from_string("1m"), an_hour_ago)
            for minute in timeline.rows():
                values = f"{minute.minimum:10.4g} {minute.mean:10.4g} {minute.maximum:10.4g}"
                print(Timestamp(minute.time).isoformat(), metric, values, about.get("unit", ""))


asyncio.run(look_back(sys.argv[1] if sys.argv[1:] else "#"))
