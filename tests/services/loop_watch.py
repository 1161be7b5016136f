# SPDX-License-Identifier: MIT
"""Fails a test that keeps its event loop busy, and says where it was at that moment.

asyncio's debug mode would slow every test; this is a timer on the loop and one sleeping thread.
"""

import asyncio
import sys
import threading
import time
import traceback

LIMIT_S = 2.0
TICK_S = 0.2


class LoopWatch:
    """Watches one event loop, from the thread that runs it, between `start` and `stop`."""

    def __init__(self, limit_s: float = LIMIT_S) -> None:
        self._limit_s = limit_s
        self._loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()
        self._last = time.monotonic()
        self._longest_s = 0.0
        self._where = ""
        self._ended = threading.Event()
        self._timer = self._loop.call_later(TICK_S, self._tick)
        self._watcher = threading.Thread(target=self._watch, name="loop watch", daemon=True)
        self._watcher.start()

    def stop(self) -> str:
        """What is to be said against the test; empty if its loop was never blocked for long."""
        self._note()
        self._timer.cancel()
        self._ended.set()
        self._watcher.join()
        if self._longest_s <= self._limit_s:
            return ""
        return f"the event loop was blocked for {self._longest_s:.1f} s (limit {self._limit_s:g} s)\n{self._where}"

    def _note(self) -> None:
        now = time.monotonic()
        self._longest_s = max(self._longest_s, now - self._last)
        self._last = now

    def _tick(self) -> None:
        self._note()
        self._timer = self._loop.call_later(TICK_S, self._tick)

    def _watch(self) -> None:
        while not self._ended.wait(self._limit_s / 4):
            frame = sys._current_frames().get(self._thread)
            if time.monotonic() - self._last > self._limit_s and frame is not None and not self._where:
                self._where = "".join(traceback.format_stack(frame)[-6:])
