# SPDX-License-Identifier: MIT
"""One call per device, where each may hang without holding up the others."""

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
        self.outcomes: dict[K, V | OSError] = {}
        self.finished = threading.Event()
        self.current: K | None = None
        self.given_up = False


class Isolator(Generic[K, V]):
    """Calls a function for each of some keys; a key whose call hangs is left alone until that call returns.

    As a rule one thread calls for all keys, one after the other (90 µs of CPU for the thread, the calls apart). If
    it is late, the key it stands at has hung, and each of the keys behind that gets a thread of its own, so that
    all that answer do so in the same round. A round takes at most twice the patience.
    """

    def __init__(self, function: Callable[[K], V], *, name: str) -> None:
        self._function = function
        self._name = name
        self._lock = threading.Lock()
        self._hung: set[K] = set()

    def hung(self) -> frozenset[K]:
        """The keys whose call has not returned yet."""
        with self._lock:
            return frozenset(self._hung)

    def call_each(self, keys: Iterable[K], patience_s: float) -> dict[K, V | OSError]:
        """What the function returned for each key that answered, or the OSError that it raised."""
        hung = self.hung()
        waiting = [key for key in keys if key not in hung]
        if not waiting:
            return {}
        outcomes = self._collect([self._launch(waiting)], patience_s)
        hung = self.hung()
        rest = [key for key in waiting if key not in outcomes and key not in hung]
        if rest:
            outcomes |= self._collect([self._launch([key]) for key in rest], patience_s)
        return outcomes

    def _launch(self, keys: Sequence[K]) -> _Batch[K, V]:
        batch: _Batch[K, V] = _Batch(keys)
        threading.Thread(target=self._run, args=(batch,), name=self._name, daemon=True).start()
        return batch

    def _run(self, batch: _Batch[K, V]) -> None:
        for key in batch.keys:
            with self._lock:
                if batch.given_up:
                    return
                batch.current = key
            outcome: V | OSError
            try:
                outcome = self._function(key)
            except OSError as error:
                outcome = error
            with self._lock:
                if batch.given_up:
                    self._hung.discard(key)
                    return
                batch.current = None
                batch.outcomes[key] = outcome
        batch.finished.set()

    def _collect(self, batches: Sequence[_Batch[K, V]], patience_s: float) -> dict[K, V | OSError]:
        deadline_s = time.monotonic() + patience_s
        outcomes: dict[K, V | OSError] = {}
        for batch in batches:
            if not batch.finished.wait(max(0.0, deadline_s - time.monotonic())):
                with self._lock:
                    batch.given_up = True
                    if batch.current is not None:
                        self._hung.add(batch.current)
            outcomes |= batch.outcomes
        return outcomes
