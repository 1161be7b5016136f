# SPDX-License-Identifier: MIT
"""A source of one's own: a die, thrown once a second."""

import random

from bus.interval import IntervalSource


class Die(IntervalSource):
    """Throws a die."""

    async def task(self) -> None:
        await self.declare_metrics({"lab.die": {"unit": "1", "description": "pips of a die"}})
        await super().task()

    async def update(self) -> None:
        self.sample(self.tick, {"lab.die": random.randint(1, 6)})


if __name__ == "__main__":
    Die("source-die", period=1.0).run()
