# SPDX-License-Identifier: MIT
"""Reading what may hang, of many at a time, without being held up by one of them."""

import threading
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Generic, TypeVar

from agents.base.parts import FAILURES

K = TypeVar("K")
V = TypeVar("V")

MOST_STUCK = 8
"""Threads that may hang at once; past it nothing is visited until one of them returns."""

ROUNDS = 2


class _Round(Generic[K, V]):
    """Some keys for one thread, and how far it got."""

    def __init__(self, keys: Sequence[K]) -> None:
        self.keys = keys
        self.outcomes: dict[K, V | Exception] = {}
        self.finished = threading.Event()
        self.current: K | None = None
        self.given_up = False
        self.spent_s = 0.0


class Visits(Generic[K, V]):
    """Calls a function for each of many keys, in a thread. 90 µs of CPU a round, the calls apart.

    The command line of a process cannot be read while another of its threads maps memory, which may last for ever
    if its disk is dead. So a key whose call is late is left alone until it returns, and those behind it go to
    a second thread. Never more than that, unlike `agents.base.isolate`: there may be thousands of processes, and it may
    be just the machine that is slow. Who was not reached is simply asked for again.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._lock = threading.Lock()
        self._stuck: set[K] = set()
        self.spent_s = 0.0
        """CPU time of all rounds that ended in time."""

    @property
    def stuck(self) -> frozenset[K]:
        """The keys whose call has not returned yet."""
        with self._lock:
            return frozenset(self._stuck)

    def each(self, keys: Iterable[K], visit: Callable[[K], V], patience_s: float) -> dict[K, V | Exception]:
        """What `visit` returned for each key that was reached, or what it failed with (`FAILURES`)."""
        outcomes: dict[K, V | Exception] = {}
        stuck = self.stuck
        waiting = [key for key in keys if key not in stuck]
        for _ in range(ROUNDS):
            if not waiting or len(stuck) >= MOST_STUCK:
                break
            outcomes |= self._round(waiting, visit, patience_s / ROUNDS)
            stuck = self.stuck
            waiting = [key for key in waiting if key not in outcomes and key not in stuck]
        return outcomes

    def _round(self, keys: Sequence[K], visit: Callable[[K], V], patience_s: float) -> dict[K, V | Exception]:
        this: _Round[K, V] = _Round(keys)
        threading.Thread(target=self._run, args=(this, visit), name=self._name, daemon=True).start()
        if not this.finished.wait(patience_s):
            with self._lock:
                this.given_up = True
                if this.current is not None:
                    self._stuck.add(this.current)
        self.spent_s += this.spent_s
        return dict(this.outcomes)

    def _run(self, this: _Round[K, V], visit: Callable[[K], V]) -> None:
        try:
            for key in this.keys:
                with self._lock:
                    if this.given_up:
                        return
                    this.current = key
                outcome: V | Exception
                try:
                    outcome = visit(key)
                except FAILURES as error:
                    outcome = error
                with self._lock:
                    if this.given_up:
                        return
                    this.current = None
                    this.outcomes[key] = outcome
        finally:
            with self._lock:
                if this.given_up and this.current is not None:
                    self._stuck.discard(this.current)
            this.spent_s = time.thread_time()
            this.finished.set()
