# SPDX-License-Identifier: MIT
import pytest

from agents.process.details import PSS_EVERY_S, PSS_SHARE, DetailReader, Shares, inherited, io_gain
from agents.process.groups import Identity, Known
from agents.process.procfs import Stat
from tests.agents.process.process_tree import ProcessTree


@pytest.fixture
def tree(host) -> ProcessTree:
    return ProcessTree(host)


def stat(parent: int, start: int = 5) -> Stat:
    return Stat("x", parent, False, False, 1, 0, 0, start, 0, 0)


def known(io: tuple[int, int] | None, start: int = 5) -> Known:
    return Known(start, Identity(names=["x"]), (), 0.0, io=io)


# -- input and output ----------------------------------------------------------------------------------


def test_details_of_processes(tree) -> None:
    tree.start(10, read=4096, written=8192, fds=5)
    details = DetailReader(str(tree.proc), "test").read([10, 11], 20)
    assert details[10] == ((4096, 8192), 5, False, False)
    assert details[11] == (None, None, False, False)


def test_what_one_may_not_read_is_said_to_be_denied(tree, monkeypatch) -> None:
    tree.start(10)

    def deny(*_: object, **__: object) -> bytes:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("agents.process.details.read_bytes", deny)
    reader = DetailReader(str(tree.proc), "test")
    assert reader.read([10], 20) == {10: (None, 3, True, False)}
    monkeypatch.setattr("agents.process.details.count_fds", deny)
    assert reader.read([10], 20) == {10: (None, None, True, True)}


def test_a_garbled_file_costs_only_what_it_tells(tree) -> None:
    tree.start(10)
    (tree.proc / "10/io").write_text("nonsense")
    assert DetailReader(str(tree.proc), "test").read([10], 20) == {10: (None, 3, False, False)}


@pytest.mark.parametrize(
    ("old", "new", "from_ended", "gain"),
    [
        ((10, 20), (15, 40), (0, 0), (5, 20)),
        (None, (15, 40), (0, 0), None),
        ((10, 20), (9, 40), (0, 0), None),
        ((10, 20), (15, 19), (0, 0), None),
        ((10, 20), (115, 240), (100, 200), (5, 20)),
        ((10, 20), (15, 40), (100, 200), (5, 20)),
        ((10, 20), (115, 40), (100, 200), (105, 20)),
        ((10, 20), (15, 240), (100, 200), (5, 220)),
        ((10, 20), (15, 40), None, None),
    ],
)
def test_bytes_since_the_last_look(old, new, from_ended, gain) -> None:
    assert io_gain(old, new, from_ended) == gain


def test_a_parent_gets_what_its_children_had() -> None:
    last = {1: stat(0), 2: stat(1), 3: stat(1), 4: stat(1)}
    now = {1: stat(0), 4: stat(1)}
    assert inherited(last, now, {2: known((1, 2)), 3: known((10, 20)), 4: known((5, 5))}) == {1: (11, 22)}


def test_what_children_of_children_had_goes_to_who_is_left() -> None:
    last = {1: stat(0), 2: stat(1), 3: stat(2)}
    assert inherited(last, {1: stat(0)}, {2: known((1, 2)), 3: known((10, 20))}) == {1: (11, 22)}


def test_it_is_not_known_what_a_parent_got_from_a_child_that_was_not_read() -> None:
    last = {1: stat(0), 2: stat(1), 3: stat(1)}
    assert inherited(last, {1: stat(0)}, {2: known(None), 3: known((1, 1))}) == {1: None}
    assert inherited(last, {1: stat(0)}, {3: known((1, 1))}) == {1: None}
    assert inherited({1: stat(0), 2: stat(1)}, {1: stat(0)}, {2: known((1, 1), start=9)}) == {1: None}


def test_a_pid_that_was_used_again_is_a_child_that_ended() -> None:
    last = {1: stat(0), 2: stat(1)}
    assert inherited(last, {1: stat(0), 2: stat(1, start=9)}, {2: known((1, 2))}) == {1: (1, 2)}
    assert inherited(last, {1: stat(0), 2: stat(7)}, {2: known((1, 2))}) == {}


def test_parents_in_a_circle_are_not_followed_for_ever() -> None:
    assert len(inherited({2: stat(3), 3: stat(2)}, {}, {})) <= 2


# -- shares of memory ----------------------------------------------------------------------------------


def test_shares_are_read_into_what_is_known(tree) -> None:
    tree.start(10, pss_kb=7)
    processes = {10: known(None), 11: known(None)}
    Shares(str(tree.proc), "test").refresh(processes, [10, 11], 1000.0, 20)
    assert (processes[10].pss, processes[10].pss_denied, processes[10].pss_read_s) == (7168, False, 1000.0)
    assert (processes[11].pss, processes[11].pss_denied, processes[11].pss_read_s) == (None, False, 1000.0)


def test_shares_that_may_not_be_read_are_denied(tree, monkeypatch) -> None:
    def deny(*_: object) -> bytes:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr("agents.process.details.read_bytes", deny)
    processes = {10: known(None)}
    Shares(str(tree.proc), "test").refresh(processes, [10], 1000.0, 20)
    assert processes[10].pss_denied


class CpuClock:
    """CPU time of which each reading costs `cost_s`."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.cost_s = 0.0
        self._calls = 0

    def thread_time(self) -> float:
        self._calls += 1
        if self._calls % 2 == 0:
            self.now_s += self.cost_s
        return self.now_s


def test_dear_shares_are_read_as_often_as_their_allowance_goes_the_oldest_first(tree, monkeypatch) -> None:
    clock = CpuClock()
    monkeypatch.setattr("agents.process.details.time", clock)
    processes = {pid: known(None) for pid in (10, 11, 12)}
    for pid in processes:
        tree.start(pid)
    shares = Shares(str(tree.proc), "test")
    clock.cost_s = 1.005 * PSS_SHARE * PSS_EVERY_S
    read = []
    for now_s in (0.0, 10.0, 20.0, 30.0, 35.0, 40.0):
        shares.refresh(processes, processes, now_s, 20)
        read.append([pid for pid, process in processes.items() if process.pss_read_s == now_s])
    assert read[:4] == [[10], [11], [12], [10]]
    assert read[4] == [11]  # half the credit is there; what is beyond it becomes a debt
    assert read[5] == []


def test_cheap_shares_are_all_read_and_credit_does_not_pile_up(tree, monkeypatch) -> None:
    clock = CpuClock()
    monkeypatch.setattr("agents.process.details.time", clock)
    processes = {pid: known(None) for pid in range(10, 30)}
    for pid in processes:
        tree.start(pid)
    shares = Shares(str(tree.proc), "test")
    clock.cost_s = 0.0001
    shares.refresh(processes, processes, 0.0, 20)
    assert all(process.pss_read_s == 0.0 for process in processes.values())
    clock.cost_s = 0.9 * PSS_SHARE * PSS_EVERY_S
    shares.refresh(processes, processes, 100_000.0, 20)
    assert len([process for process in processes.values() if process.pss_read_s == 100_000.0]) == 2
