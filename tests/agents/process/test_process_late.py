# SPDX-License-Identifier: MIT
"""Readings of processes that come too late: they change nothing that others remember."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from agents.base.worker import CallHung
from tests.agents.process.process_tree import ProcessTree

PATIENCE_S = 20.0


class Gate:
    """A call that waits, once, until it is let through."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, owner: object, method: str) -> None:
        self.reached, self.open = threading.Event(), threading.Event()
        call = getattr(owner, method)

        def wait_once(*args: object, **options: object) -> object:
            if not self.reached.is_set():
                self.reached.set()
                assert self.open.wait(PATIENCE_S)
            return call(*args, **options)

        monkeypatch.setattr(owner, method, wait_once)


@pytest.fixture
def tree(host) -> ProcessTree:
    return ProcessTree(host)


@pytest.fixture
def thread() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1) as made:
        yield made


@pytest.mark.parametrize("method", ["_processes", "_groups", "_top"])
def test_a_reading_that_was_given_up_does_not_mix_what_it_found_with_that_of_later_ones(
    host, tree, thread, monkeypatch, method: str
) -> None:
    source = tree.source({"groups": ["nginx"], "period": 0.1})
    gate = Gate(monkeypatch, source, method)

    def runs_until(second: int) -> None:
        tree.set(10, ticks=100 * second)
        tree.files(10, read=1000 * second)

    tree.start(10, "nginx")
    gate.reached.set()
    host.read(source)
    gate.reached.clear()
    runs_until(1)
    late = thread.submit(host.read, source)
    assert gate.reached.wait(PATIENCE_S)
    runs_until(2)
    try:
        with pytest.raises(CallHung, match="has not returned"):
            host.read(source)
    finally:
        gate.open.set()
        late.result(PATIENCE_S)
    runs_until(3)
    assert not {"nginx.cpu", "nginx.read_bytes"} & host.read(source).keys()
    runs_until(4)
    reading = host.read(source)
    assert (reading["nginx.cpu"], reading["nginx.read_bytes"]) == (100.0, 1000.0)
