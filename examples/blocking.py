# SPDX-License-Identifier: MIT
"""A source in a plain script: no asyncio, no class."""

import time

from bus.synchronous import SynchronousSource
from bus.timestamp import Timestamp

with SynchronousSource("source-script") as source:
    source.declare_metrics({"lab.loops": {"unit": "1", "description": "loops of a script"}})
    for count in range(5):
        source.send("lab.loops", Timestamp.now(), count)
        time.sleep(0.2)
print("sent 5 points")
