# SPDX-License-Identifier: MIT
"""A stock SynchronousSource in a plain script: TOKEN URL METRIC. Sends on the order ``send COUNT``; ends then."""

import asyncio
import sys

import metricq
from stock_talk import START_NS, order, say


def main(token: str, url: str, metric: str) -> None:
    source = metricq.SynchronousSource(token, url)
    # All that is not stock here: 5.4.0 asks for the event loop of the calling thread, where a plain script has
    # none, and so raises RuntimeError from every method.
    type(source._source)._event_loop = property(lambda stock: stock._loop or asyncio.get_running_loop())
    source.declare_metrics({metric: {"unit": "W", "rate": 1.0, "description": "from outside"}})
    say(declared=metric)
    count = int(asyncio.run(order())[1])
    for index in range(count):
        source.send(metric, metricq.Timestamp(START_NS + index * 10**9), float(index))
    say(sent=count)
    source.stop()


if __name__ == "__main__":
    main(*sys.argv[1:])
