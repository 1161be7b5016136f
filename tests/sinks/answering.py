# SPDX-License-Identifier: MIT
"""An archive on the bus, as small as can be: a client that has a `HistoryService`.

As a program (``python -m tests.sinks.answering TOKEN URL``) it has an archive that kills its own process with
SIGKILL when it is asked for the points of `DEADLY`; it says "ready" when the manager knows its metrics.
"""

import asyncio
import os
import signal
import sys
from array import array
from collections.abc import AsyncIterator, Iterable

from bus.archive import MIN_NS, History
from bus.chunk import MAX_NS, Chunk
from bus.client import Client
from bus.frame import Group
from bus.rpc import Json
from sinks.history import HistoryService
from tests.sinks.memory_archive import MemoryArchive

S = 10**9
START_NS = 1_790_000_000 * S
DEADLY = "web1.deadly"


class Answering(Client):
    """Answers for an archive."""

    def __init__(self, token: str, url: str, archive: History | None = None) -> None:
        super().__init__(token, url)
        self.archive = archive or MemoryArchive()
        self.opened = 0
        self.service = HistoryService(self, self.open)

    async def open(self) -> History:
        self.opened += 1
        return self.archive

    async def start(self) -> None:
        await super().start()
        self.service.begin()

    async def teardown(self) -> None:
        await self.service.aclose()
        await super().teardown()

    def vital_signs(self) -> Json:
        return {**super().vital_signs(), **self.service.vital_signs()}


async def filled(metrics: Iterable[str], points: int = 3, page_points: int = 100_000) -> MemoryArchive:
    """An archive with a point a second of some metrics, whose values are 0, 1, 2, ..."""
    archive = MemoryArchive(page_points)
    times = array("q", [START_NS + second * S for second in range(points)])
    await archive.insert([Group((metric,), times, array("d", range(points))) for metric in metrics])
    return archive


class Deadly(MemoryArchive):
    """Kills its process when it is asked for points."""

    async def points(self, metric: str, start_ns: int = MIN_NS, end_ns: int = MAX_NS) -> AsyncIterator[Chunk]:
        if metric == DEADLY:
            os.kill(os.getpid(), signal.SIGKILL)
        async for page in super().points(metric, start_ns, end_ns):
            yield page


async def main(token: str, url: str) -> None:
    archive = Deadly()
    await archive.insert([Group(("web1.a", DEADLY), array("q", [START_NS]), array("d", [1.0, 2.0]))])
    async with Answering(token, url, archive) as agent:
        while len(await agent.get_metrics(historic=True)) < 2:
            await asyncio.sleep(0.05)
        print("ready", flush=True)
        await agent.stopped()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
