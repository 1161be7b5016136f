# SPDX-License-Identifier: MIT
"""One call per device or process, where each may hang without holding up the others."""

import threading
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Generic, TypeVar

K = TypeVar("K")
V = TypeVar("V")


class _Batch(Generic[K, V]):
    """Some keys for one thread, and how far it got."""

    def __init__(self, keys: Sequence[K]) -> None:
        self.keys = keys
        self.outcomes: dict[K, V | Exception] = {}
        self.finished = threading.Event()
        self.current: K | None = None
        self.given_up = False
        self.spent_s = 0.0


class Isolator(Generic[K, V]):
    """Calls a function for each of some keys; a key whose call hangs is left alone until that call returns.

    As a rule one thread calls for all keys, one after the other (90 µs of CPU for the thread, the calls apart). If
    it is late, the key it stands at has hung, and each of the keys behind that gets a thread of its own, so that
    all that answer do so in the same round. A round takes at most twice the patience.

    Where there may be thousands of keys, and it may be just the machine that is slow, `most_hung` bounds the
    threads: the keys behind one that hangs share a second one, and while so many hang there is no call at all. Who
    was not reached is simply asked for again.

    Args:
        name: of the threads
        failures: what the function may raise; anything else is a bug, and ends its round
        most_hung: how many calls may hang; None: as many as there are keys
    """

    def __init__(
        self, *, name: str, failures: tuple[type[Exception], ...] = (OSError,), most_hung: int | None = None
    ) -> None:
        self._name = name
        self._failures = failures
        self._most_hung = most_hung
        self._lock = threading.Lock()
        self._hung: set[K] = set()
        self.spent_s = 0.0
        """CPU time of all threads that ended in time."""

    def hung(self) -> frozenset[K]:
        """The keys whose call has not returned yet."""
        with self._lock:
            return frozenset(self._hung)

    def call_each(self, function: Callable[[K], V], keys: Iterable[K], patience_s: float) -> dict[K, V | Exception]:
        """What the function returned for each key that answered, or what it failed with."""
        hung = self.hung()
        waiting = [key for key in keys if key not in hung]
        if not waiting or self._is_full(hung):
            return {}
        outcomes = self._collect([self._launch(function, waiting)], patience_s)
        hung = self.hung()
        rest = [key for key in waiting if key not in outcomes and key not in hung]
        if rest and not self._is_full(hung):
            shares = [[key] for key in rest] if self._most_hung is None else [rest]
            outcomes |= self._collect([self._launch(function, share) for share in shares], patience_s)
        return outcomes

    def _is_full(self, hung: frozenset[K]) -> bool:
        return self._most_hung is not None and len(hung) >= self._most_hung

    def _launch(self, function: Callable[[K], V], keys: Sequence[K]) -> _Batch[K, V]:
        batch: _Batch[K, V] = _Batch(keys)
        threading.Thread(target=self._run, args=(function, batch), name=self._name, daemon=True).start()
        return batch

    def _run(self, function: Callable[[K], V], batch: _Batch[K, V]) -> None:
        try:
            for key in batch.keys:
                with self._lock:
                    if batch.given_up:
                        return
                    batch.current = key
                outcome: V | Exception
                try:
                    outcome = function(key)
                except self._failures as error:
                    outcome = error
                with self._lock:
                    if batch.given_up:
                        return
                    batch.current = None
                    batch.outcomes[key] = outcome
        finally:
            with self._lock:
                if batch.given_up and batch.current is not None:
                    self._hung.discard(batch.current)
            batch.spent_s = time.thread_time()
            batch.finished.set()

    def _collect(self, batches: Sequence[_Batch[K, V]], patience_s: float) -> dict[K, V | Exception]:
        deadline_s = time.monotonic() + patience_s
        outcomes: dict[K, V | Exception] = {}
        for batch in batches:
            if not batch.finished.wait(max(0.0, deadline_s - time.monotonic())):
                with self._lock:
                    batch.given_up = True
                    if batch.current is not None:
                        self._hung.add(batch.current)
            self.spent_s += batch.spent_s
            outcomes |= batch.outcomes
        return outcomes
