# SPDX-License-Identifier: MIT
import math
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from agents.exec import program
from agents.exec.program import MAX_COMPLAINT, Ended, Program, run
from tests.agents.exec.children import children, is_alive
from tests.services.descriptors import open_descriptors

IGNORES_TERM = 'trap "" TERM; echo x > started; while true; do sleep 0.01; done'


@pytest.fixture
def left_over() -> Callable[[], set[int]]:
    """The processes that the test has started and that are still there; servers of other tests run on."""
    before = set(children())
    return lambda: set(children()) - before


@pytest.fixture
def stopper() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, theirs


@pytest.fixture
def run_it(request, stopper, tmp_path) -> Callable[..., Ended]:
    def run_it(*argv: str, timeout_s: float = 20.0, **options) -> Ended:
        options = {"env": dict(os.environ), "max_output": 10_000, "cwd": str(tmp_path), **options}
        pair = stopper
        if stopper[1].fileno() < 0:  # each run closes its end
            pair = socket.socketpair()
            request.addfinalizer(pair[0].close)
        return run(Program(argv=argv, timeout_s=timeout_s, **options), pair[1])

    return run_it


def wait_for(condition: Callable[[], object]) -> None:
    deadline_s = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline_s
        time.sleep(0.005)


@pytest.mark.parametrize("has_pidfd", [True, False])
def test_the_output_and_how_long_it_took(run_it, monkeypatch, has_pidfd: bool) -> None:
    if not has_pidfd:
        monkeypatch.setattr(program.os, "pidfd_open", _no_pidfd)
    ended = run_it("sh", "-c", "echo a 1; echo to stderr >&2")
    assert (ended.output, ended.failure, ended.exit_code, ended.stopped) == (b"a 1\n", None, 0, False)
    assert ended.complaint == "to stderr\n"
    assert 0 < ended.duration_s < 20


def _no_pidfd(pid: int) -> int:
    raise OSError(38, "Function not implemented")


def test_a_program_that_fails_has_no_output(run_it) -> None:
    ended = run_it("sh", "-c", "echo a 1; echo no disk >&2; exit 3")
    assert (ended.output, ended.exit_code, ended.complaint) == (b"", 3, "no disk\n")
    assert str(ended.failure) == "it ended with status 3"


@pytest.mark.parametrize(("number", "name"), [("KILL", "SIGKILL"), ("35", "signal 35")])
def test_a_program_that_a_signal_ended(run_it, number: str, name: str) -> None:
    ended = run_it("sh", "-c", f"kill -s {number} $$ 2>/dev/null || kill -{number} $$; sleep 20")
    assert str(ended.failure) == f"it was ended by {name}"
    assert ended.exit_code == 128 + (9 if number == "KILL" else 35)


@pytest.mark.parametrize(
    ("argv", "options", "cause"),
    [
        (("hostbus-no-such",), {}, "there is no program 'hostbus-no-such' in the directories of PATH"),
        (("ls",), {"env": {"PATH": "/nowhere"}}, "there is no program 'ls' in the directories of PATH"),
        (("/no/such",), {}, "cannot start '/no/such': No such file or directory"),
        (("/etc/passwd",), {}, "cannot start '/etc/passwd': Permission denied"),
        (("ls",), {"cwd": "/no/such"}, "cannot start '/no/such': No such file or directory"),
    ],
)
def test_a_program_that_cannot_be_started(run_it, argv, options, cause: str) -> None:
    ended = run_it(*argv, **options)
    assert str(ended.failure) == cause
    assert math.isnan(ended.exit_code)
    assert ended.output == b""


def test_a_file_that_is_no_program_cannot_be_started(run_it, tmp_path) -> None:
    script = tmp_path / "script"
    script.write_bytes(b"\x00\x01")
    script.chmod(0o755)
    assert "Exec format error" in str(run_it(str(script)).failure)


def test_what_does_not_end_in_time_is_ended_with_all_that_it_started(run_it, tmp_path) -> None:
    ended = run_it("sh", "-c", "sleep 1000 & echo $! > pid; echo a 1; wait", timeout_s=0.3)
    assert str(ended.failure) == "it did not end within 0.3 s, so it was killed"
    assert (ended.exit_code, ended.output) == (128 + signal.SIGTERM, b"")
    wait_for(lambda: not is_alive(int((tmp_path / "pid").read_text())))


def test_what_ignores_sigterm_is_killed(run_it) -> None:
    ended = run_it("sh", "-c", IGNORES_TERM, timeout_s=0.2)
    assert ended.exit_code == 128 + signal.SIGKILL
    assert "within 0.2 s" in str(ended.failure)
    assert ended.duration_s >= 0.2 + program.TERM_S


def test_what_ends_with_0_when_it_is_told_to_was_late_all_the_same(run_it) -> None:
    ended = run_it("sh", "-c", 'trap "exit 0" TERM; while true; do sleep 0.01; done', timeout_s=0.2)
    assert (ended.exit_code, type(ended.failure)) == (0, TimeoutError)


def test_output_up_to_the_limit_counts_and_more_is_refused(run_it) -> None:
    assert run_it("head", "-c", "10000", "/dev/zero").output == bytes(10_000)
    too_much = run_it("head", "-c", "10001", "/dev/zero")
    assert (too_much.output, str(too_much.failure)) == (b"", "its output is more than 10000 bytes (max_output)")
    assert run_it("yes").exit_code == 128 + signal.SIGTERM


def test_of_a_flood_no_more_than_the_limit_is_kept(run_it, monkeypatch) -> None:
    monkeypatch.setattr(program._Run, "outcome", lambda self, duration_s: len(self._output))
    assert run_it("sh", "-c", 'trap "" TERM; exec yes') <= 10_000 + program._BLOCK


def test_the_group_is_killed_before_its_leader_is_reaped_so_that_its_number_is_still_its_own(
    run_it, monkeypatch
) -> None:
    really, existed = os.killpg, []

    def killpg(pid: int, number: int) -> None:
        existed.append(os.path.exists(f"/proc/{pid}"))
        really(pid, number)

    monkeypatch.setattr(program.os, "killpg", killpg)
    run_it("true")
    assert existed == [True]


def test_only_the_end_of_the_complaints_is_kept(run_it) -> None:
    ended = run_it("sh", "-c", "yes | head -c 1000000 >&2; echo the end >&2")
    assert ended.failure is None
    assert len(ended.complaint) == MAX_COMPLAINT
    assert ended.complaint.endswith("the end\n")


def test_what_it_left_behind_cannot_hold_the_output_open_and_is_killed(run_it, tmp_path) -> None:
    ended = run_it("sh", "-c", "sleep 1000 & echo $! > pid; echo a 1")
    assert (ended.output, ended.failure) == (b"a 1\n", None)
    wait_for(lambda: not is_alive(int((tmp_path / "pid").read_text())))


def test_what_it_left_behind_may_finish_its_output(run_it) -> None:
    assert run_it("sh", "-c", "(sleep 0.05; echo b 2) & echo a 1").output == b"a 1\nb 2\n"


def test_a_program_that_closed_its_output_is_waited_for(run_it) -> None:
    assert run_it("sh", "-c", "echo a 1; exec >&- 2>&-; sleep 0.1; exit 7").exit_code == 7


@pytest.mark.parametrize("script", ["echo x > started; exec sleep 1000", IGNORES_TERM])
@pytest.mark.parametrize("has_pidfd", [True, False])
def test_it_ends_early_when_the_other_end_is_closed(
    run_it, stopper, left_over, tmp_path, monkeypatch, script: str, has_pidfd: bool
) -> None:
    if not has_pidfd:
        monkeypatch.setattr(program.os, "pidfd_open", _no_pidfd)
    outcomes: list[Ended] = []
    thread = threading.Thread(target=lambda: outcomes.append(run_it("sh", "-c", script)))
    thread.start()
    wait_for((tmp_path / "started").exists)
    stopper[0].close()
    thread.join(20)
    assert (outcomes[0].stopped, outcomes[0].failure, outcomes[0].output) == (True, None, b"")
    assert left_over() == set()


def test_a_run_that_cannot_be_watched_leaves_no_process(left_over) -> None:
    ours, theirs = socket.socketpair()
    ours.close()
    theirs.close()
    with pytest.raises(ValueError, match="file descriptor"):
        run(Program(argv=("sleep", "1000"), timeout_s=20, max_output=1, env=dict(os.environ)), theirs)
    assert left_over() == set()


def test_nothing_is_left_open_and_nobody_unreaped(run_it, stopper, left_over) -> None:
    descriptors = open_descriptors()
    run_it("true")
    run_it("hostbus-no-such")
    run_it("sh", "-c", "exit 1")
    assert open_descriptors() == descriptors - 1 + 2  # our ends of the other runs' stoppers
    assert left_over() == set()


def test_it_has_no_input_no_descriptors_and_a_session_of_its_own(run_it) -> None:
    with open("/dev/null", "rb") as inheritable:
        os.set_inheritable(inheritable.fileno(), True)
        ended = run_it("sh", "-c", "cat; ls /proc/self/fd | tr '\\n' ' '; cut -d ' ' -f 6 /proc/$$/stat; echo $$")
    descriptors, pid = ended.output.decode().splitlines()
    assert descriptors == f"0 1 2 3 {pid}"  # 3 is the directory that ls lists


def test_it_does_not_read_what_the_agent_could_read(run_it) -> None:
    ours, theirs = os.pipe()
    before = os.dup(0)
    try:
        os.dup2(ours, 0)
        os.write(theirs, b"a 1\n")
        assert run_it("head", "-n", "1").output == b""
    finally:
        os.dup2(before, 0)
        for descriptor in (before, ours, theirs):
            os.close(descriptor)


def test_when_the_kernel_does_not_tell_how_it_ended_it_has_failed(run_it) -> None:
    before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    try:
        ended = run_it("sh", "-c", "exit 3")
    finally:
        signal.signal(signal.SIGCHLD, before)
    assert "SIGCHLD is ignored" in str(ended.failure)
    assert math.isnan(ended.exit_code)


def test_the_environment_is_not_shown() -> None:
    assert "sekrit" not in repr(Program(argv=("a",), timeout_s=1, max_output=1, env={"TOKEN": "sekrit"}))
