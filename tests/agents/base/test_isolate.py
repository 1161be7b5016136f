# SPDX-License-Identifier: MIT
import threading
import time

import pytest

from agents.base.isolate import Isolator


class Mounts:
    """A function of a mount point that hangs for those in `dead`, for real."""

    def __init__(self, *dead: str) -> None:
        self.gates = {point: threading.Event() for point in dead}
        self.calls: list[str] = []

    def __call__(self, point: str) -> str:
        self.calls.append(point)
        if point in self.gates:
            self.gates[point].wait()
        if point == "/forbidden":
            raise PermissionError("no")
        return f"{point} is fine"

    def heal(self) -> None:
        for gate in self.gates.values():
            gate.set()


def wait_until_none_hangs(isolator: "Isolator[str, str]") -> None:
    deadline = time.monotonic() + 10
    while isolator.hung():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def test_each_key_gets_its_outcome_errors_included() -> None:
    outcomes = Isolator[str, str](name="test").call_each(Mounts(), ["/", "/forbidden", "/home"], 10)
    assert outcomes["/"] == "/ is fine"
    assert isinstance(outcomes["/forbidden"], PermissionError)
    assert outcomes["/home"] == "/home is fine"


def test_no_keys_need_no_thread() -> None:
    assert Isolator[str, str](name="test").call_each(Mounts(), [], 10) == {}


@pytest.mark.parametrize("dead", [["/a"], ["/b"], ["/c"], ["/a", "/b"], ["/b", "/c"], ["/a", "/c"]])
def test_keys_that_hang_do_not_keep_the_others_from_the_same_round(dead: list[str]) -> None:
    mounts = Mounts(*dead)
    isolator: Isolator[str, str] = Isolator(name="test")
    alive = {"/a", "/b", "/c"} - set(dead)
    try:
        assert isolator.call_each(mounts, ["/a", "/b", "/c"], 0.2).keys() == alive
        assert isolator.hung() == set(dead)
        assert isolator.call_each(mounts, ["/a", "/b", "/c"], 10).keys() == alive  # at once: the dead are left alone
        assert all(mounts.calls.count(point) == 1 for point in dead)
    finally:
        mounts.heal()


def test_a_key_whose_call_has_returned_is_asked_again() -> None:
    mounts = Mounts("/nfs")
    isolator: Isolator[str, str] = Isolator(name="test")
    assert isolator.call_each(mounts, ["/nfs"], 0.05) == {}
    mounts.heal()
    wait_until_none_hangs(isolator)
    assert isolator.call_each(mounts, ["/nfs"], 10) == {"/nfs": "/nfs is fine"}


def test_threads_end_when_a_round_is_over_and_when_a_hang_is() -> None:
    mounts = Mounts("/nfs")
    isolator: Isolator[str, str] = Isolator(name="isolated")
    for _ in range(5):
        isolator.call_each(mounts, ["/", "/nfs", "/home"], 0.1)
    hanging = wait_for_threads(1)
    assert hanging[0].daemon
    mounts.heal()
    wait_for_threads(0)


def wait_for_threads(number: int) -> list[threading.Thread]:
    deadline = time.monotonic() + 10
    while True:
        threads = [thread for thread in threading.enumerate() if thread.name == "isolated"]
        if len(threads) == number:
            return threads
        assert time.monotonic() < deadline
        time.sleep(0.001)
