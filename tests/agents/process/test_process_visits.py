# SPDX-License-Identifier: MIT
import threading
import time
from collections.abc import Callable

from agents.base.isolate import Isolator
from agents.process.visits import MOST_HUNG, isolator

PATIENCE_S = 1.0


def until(condition: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline_s
        time.sleep(0.001)


def test_each_key_has_its_outcome() -> None:
    def visit(key: int) -> int:
        return 10 // key

    visits: Isolator[int, int] = isolator("test")
    outcomes = visits.call_each(visit, [1, 0, 5], 20)
    assert isinstance(outcomes.pop(0), ZeroDivisionError)
    assert outcomes == {1: 10, 5: 2}


def test_without_keys_there_is_no_thread(monkeypatch) -> None:
    monkeypatch.setattr(threading, "Thread", None)
    visits: Isolator[int, int] = isolator("test")
    assert visits.call_each(int, [], 20) == {}


def test_the_cpu_time_of_the_thread_is_known() -> None:
    visits: Isolator[int, int] = isolator("test")

    def work(_: int) -> int:
        return sum(range(200_000))

    visits.call_each(work, [1, 2], 20)
    first = visits.spent_s
    assert first > 0
    visits.call_each(work, [1, 2], 20)
    assert visits.spent_s > first


def test_one_that_hangs_is_left_alone_and_those_behind_it_are_visited(gate) -> None:
    visits: Isolator[int, int] = isolator("test")
    calls: list[int] = []

    def visit(key: int) -> int:
        calls.append(key)
        if key == 2:
            gate.wait()
        return key

    assert visits.call_each(visit, [1, 2, 3, 4], PATIENCE_S) == {1: 1, 3: 3, 4: 4}
    assert visits.hung() == {2}
    assert visits.call_each(visit, [1, 2, 3], PATIENCE_S) == {1: 1, 3: 3}
    assert (calls.count(1), calls.count(2)) == (2, 1)
    gate.set()
    until(lambda: not visits.hung())
    assert visits.call_each(visit, [2], 20) == {2: 2}


def test_of_many_that_hang_two_are_found_a_time_and_not_too_many_threads_hang(gate) -> None:
    visits: Isolator[int, int] = isolator("test")

    def visit(key: int) -> int:
        gate.wait()
        return key

    keys = list(range(50))
    assert visits.call_each(visit, keys, 0.02) == {}
    assert len(visits.hung()) == 2
    for _ in range(2 * MOST_HUNG):
        visits.call_each(visit, keys, 0.02)
    assert len(visits.hung()) == MOST_HUNG
    gate.set()
    until(lambda: not visits.hung())
    assert len(visits.call_each(visit, keys, 20)) == 50


def test_one_that_comes_late_is_not_an_outcome_of_another_round(gate) -> None:
    visits: Isolator[int, str] = isolator("test")
    assert visits.call_each(lambda _: str(gate.wait()), [1], PATIENCE_S) == {}
    gate.set()
    until(lambda: not visits.hung())
    assert visits.call_each(lambda _: "new", [2], 20) == {2: "new"}


def test_a_bug_in_a_visit_ends_its_round_and_leaves_nothing_stuck(monkeypatch) -> None:
    bugs: list[threading.ExceptHookArgs] = []
    monkeypatch.setattr(threading, "excepthook", bugs.append)
    visits: Isolator[int, int] = isolator("test")

    def visit(key: int) -> int:
        raise RuntimeError("a bug")

    assert visits.call_each(visit, [1, 2], 20) == {}
    assert visits.hung() == frozenset()
    until(lambda: len(bugs) == 2)
