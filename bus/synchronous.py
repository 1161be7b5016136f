# SPDX-License-Identifier: MIT
"""`SynchronousSource`: a source for blocking programs.

It runs an asynchronous source on an event loop of its own, in a thread of its own, so that it works from a
script, from a thread, and inside a program that runs another event loop.
"""

import asyncio
import atexit
import concurrent.futures.thread  # loaded now, because it refuses to be once the main thread has ended
import logging
import threading
import weakref
from collections.abc import Callable, Coroutine, Iterable, Mapping
from types import TracebackType
from typing import Any, Self, TypeVar, Unpack

from bus.agent import event_loop_factory
from bus.errors import ConnectTimeout, PublishFailed
from bus.rpc import Json
from bus.source import Source, SourceOptions
from bus.timestamp import Timestamp

logger = logging.getLogger(__name__)

T = TypeVar("T")

EXIT_FLUSH_S = 2.0
"""How long the end of the interpreter waits for the last points of sources that were not stopped."""

LAST_TASKS_S = 0.5
"""How long tasks that are cancelled at the end of the event loop have."""


class _IdleSource(Source):
    """Produces nothing by itself: it is called from outside."""

    async def task(self) -> None:
        await self.task_stop_future


class SynchronousSource:
    """A source that blocking code can use.

    ::

        with SynchronousSource("source-lab", "amqp://localhost/") as source:
            source.declare_metrics({"lab.voltage": {"unit": "V"}})
            source.send("lab.voltage", Timestamp.now(), 5.01)

    Args:
        token: the source's unique name on the bus
        url: where the broker is
        timeout: seconds to wait until the broker and the manager are there
        options: see `SourceOptions`

    Raises:
        ConnectTimeout: the broker or the manager was not there in time
    """

    def __init__(self, token: str, url: str = "", *, timeout: float = 60, **options: Unpack[SourceOptions]) -> None:
        self._token = token
        self._stopped = False
        self._lock = threading.Lock()
        self._loop = event_loop_factory()()
        # A daemon: an interpreter that ends must never wait for a network.
        self._thread = threading.Thread(target=self._run_loop, name=f"{token}: event loop", daemon=True)
        self._thread.start()
        try:
            self._source = self._call(_make(token, url, options), None)
            self._connect(timeout)
        except BaseException:
            self._shut_down()
            raise
        # Noticed at once, and not only by `stop`, if the source fails by itself.
        self._ended = self._submit(self._source.stopped())
        self._ended.add_done_callback(lambda done: _log_failure(f"go on with {token}", done))
        _alive.add(self)

    def _connect(self, timeout: float) -> None:
        try:
            self._call(self._source.connect(), timeout)
        except TimeoutError:
            reason = self._source.transport.last_error or "the manager does not answer"
            raise ConnectTimeout(f"{self._token}: not connected within {timeout:g} s: {reason}") from None

    def _run_loop(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()
        left = asyncio.all_tasks(self._loop)
        for task in left:
            task.cancel()
        if left:
            self._loop.run_until_complete(asyncio.wait(left, timeout=LAST_TASKS_S))
        self._loop.close()

    def _submit(self, work: Coroutine[Any, Any, T]) -> "concurrent.futures.Future[T]":
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    def _call(self, work: Coroutine[Any, Any, T], timeout: float | None) -> T:
        """Run on the loop and wait. Raises what it raises, and TimeoutError, which cancels it."""
        future = self._submit(work)
        try:
            return future.result(timeout)
        except concurrent.futures.TimeoutError:
            future.cancel()
            raise TimeoutError(f"not done within {timeout} s") from None

    def _do(self, what: str, work: Callable[[], Coroutine[Any, Any, None]], block: bool, timeout: float) -> None:
        """Run on the loop; all that goes wrong is logged, except for a time-out of a blocking call."""
        with self._lock:  # what is begun before `stop` is done before it, in order
            if self._stopped or self._ended.done():
                logger.error("could not %s: %s has ended", what, self._token)
                return
            future = self._submit(work())
        future.add_done_callback(lambda done: _log_failure(what, done))
        if block:
            concurrent.futures.wait([future], timeout)
            if not future.done():
                future.cancel()
                raise TimeoutError(f"could not {what} within {timeout:g} s")

    def declare_metrics(
        self, metrics: Mapping[str, Json] | Iterable[str], block: bool = True, timeout: float = 60
    ) -> None:
        """Declare metrics; see `Source.declare_metrics`. Errors other than a time-out are logged, not raised.

        Args:
            metrics: metadata by name
            block: wait until the manager has answered
            timeout: seconds to wait for that

        Raises:
            TimeoutError: the manager did not answer in time
        """
        self._do("declare metrics", lambda: self._source.declare_metrics(metrics), block, timeout)

    def send(self, metric: str, time: Timestamp, value: float, block: bool = True, timeout: float = 60) -> None:
        """Send one point; see `Source.send`. Errors other than a time-out are logged, not raised.

        Args:
            metric: its name
            time: when it was measured, later than the metric's last point
            value: the value
            block: wait until the point is accepted; the network is never waited for
            timeout: seconds to wait for that

        Raises:
            TimeoutError: it was not accepted in time
        """
        self._do(f"send {metric}", lambda: self._source.send(metric, time, value), block, timeout)

    def stop(self, timeout: float = 60) -> bool:
        """Send all that is buffered, end the source, wait for its thread. May be called twice.

        Args:
            timeout: seconds for all of it

        Returns False if something went wrong, which is logged: points that the broker has not confirmed.

        Raises:
            TimeoutError: it did not end in time
        """
        finishing = self.stop_nowait()
        if finishing is None:
            return True
        try:
            finishing.result(timeout)
        except concurrent.futures.TimeoutError:
            raise TimeoutError(f"{self._token} did not stop within {timeout:g} s") from None
        except Exception:
            logger.exception("%s did not stop cleanly", self._token)
            return False
        finally:
            self._shut_down()
        return True

    def stop_nowait(self) -> "concurrent.futures.Future[None] | None":
        """Begin to stop, and return at once: the result is done when the points are sent, or the error is known.

        None if that was begun before.
        """
        with self._lock:
            if self._stopped:
                return None
            self._stopped = True
            finishing = self._submit(self._finish())
        _alive.discard(self)
        return finishing

    async def _finish(self) -> None:
        await self._source.stop()
        unconfirmed = self._source.vital_signs()["pointsBuffered"]
        await self._source.stopped()
        if unconfirmed:
            raise PublishFailed(f"{self._token}: {unconfirmed} points were not confirmed and are lost")

    def _shut_down(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(2 * LAST_TASKS_S)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


async def _make(token: str, url: str, options: SourceOptions) -> _IdleSource:
    return _IdleSource(token, url, **options)


def _log_failure(what: str, done: "concurrent.futures.Future[None]") -> None:
    error = None if done.cancelled() else done.exception()
    if error is not None:
        logger.error("could not %s: %s", what, error)


_alive: "weakref.WeakSet[SynchronousSource]" = weakref.WeakSet()


def _flush_at_exit() -> None:
    """The interpreter ends and `stop` was not called: send what there is, for `EXIT_FLUSH_S` in all.

    Threads are not waited for: they end with the interpreter.
    """
    stopping = [stop for source in list(_alive) if (stop := source.stop_nowait()) is not None]
    done, late = concurrent.futures.wait(stopping, EXIT_FLUSH_S)
    for failed in late | {stop for stop in done if stop.exception() is not None}:
        reason = failed.exception() if failed.done() else f"not within {EXIT_FLUSH_S:g} s"
        logger.error("the program ended without stop(), and its last points were not confirmed: %s", reason)


# Runs after the program's other threads have ended, and while daemon threads still run.
atexit.register(_flush_at_exit)
