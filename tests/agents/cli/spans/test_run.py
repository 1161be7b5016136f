# SPDX-License-Identifier: MIT
"""`agent run`, with real commands."""

import fcntl
import json
import os
import pty
import signal
import subprocess
import sys
import termios
import time

import pytest

from agents.cli.spans.recording import wanted_families
from agents.cli.spans.run import spread
from tests.agents.cli.archived import archive_file
from tests.agents.cli.conftest import AGENT

FAST = ("-m", "#.load.1m", "--period", "0.1")


@pytest.fixture
def started(tmp_path):
    """Starts `agent run` as a process; what still runs at the end of the test is killed."""
    running = []

    def start(*arguments, options=FAST, **streams):
        process = subprocess.Popen(
            [AGENT, "run", *options, *arguments],
            **{"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **streams},
            text=True,
            start_new_session=True,
        )
        running.append(process)
        return process

    yield start
    for process in running:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)  # the command, too
        process.communicate(timeout=10)


@pytest.fixture
def run(tmp_path):
    """Runs `agent run` to its end: ``run("--", "make", given="...")``."""

    def start(*arguments, given="", options=FAST):
        return subprocess.run(
            [AGENT, "run", *options, *arguments], input=given, capture_output=True, text=True, timeout=60, cwd=tmp_path
        )

    return start


def spans(agent):
    return [json.loads(line) for line in agent("diff", "--format", "json").out.splitlines()]


def test_the_command_has_stdin_and_stdout_for_itself_and_its_exit_code_is_ours(run, agent):
    done = run("--label", "first", "--", "sh", "-c", "cat; sleep 0.5; exit 3", given="one\ntwo\n")
    assert (done.returncode, done.stdout) == (3, "one\ntwo\n")
    lines = done.stderr.splitlines()
    assert lines[0].startswith("agent: sampling load every 0.1 s meanwhile, into ")
    assert lines[1].startswith("first: ")
    assert lines[1].endswith(", exit code 3")
    assert lines[2].split() == ["metric", "unit", "count", "min", "mean", "max", "integral", "cover"]
    name, unit, count, *_, of, cover, _ = lines[3].split()
    assert name.endswith(".load.1m")
    assert (unit, of, cover) == ("1", "s", "100")
    assert 4 <= int(count) <= 60  # a busy machine is slower
    assert all(len(line) <= 80 for line in lines[1:])
    (span,) = spans(agent)
    assert span["label"] == "first"
    assert span["argv"] == ["sh", "-c", "cat; sleep 0.5; exit 3"]
    assert (span["exit_code"], span["metrics"]) == (3, ["#.load.1m"])
    assert span["duration"] == pytest.approx((span["end"] - span["start"]) / 1e9)


def test_the_report_for_programs_goes_to_a_file(run, tmp_path):
    done = run("--format", "json", "-o", "run.json", "--label", "x", "--", "sleep", "0.4")
    assert done.returncode == 0
    told = json.loads((tmp_path / "run.json").read_text())
    assert (told["label"], told["exit_code"]) == ("x", 0)
    (load,) = told["metrics"]
    assert load["integral"] == pytest.approx(load["mean"] * told["duration"] * load["coverage"], rel=1e-6)
    assert load["integral_unit"] == "s"
    assert "x:" not in done.stderr
    lost = run("-o", "no/such/folder", "--label", "x", "--", "true")
    assert lost.returncode == 0
    assert "cannot be written: No such file or directory" in lost.stderr
    assert "x: " in lost.stderr


@pytest.mark.parametrize(
    ("command", "code", "said"),
    [
        (["no-such-command"], 127, "no-such-command: command not found"),
        (["./no/such/file"], 127, "./no/such/file: no such file"),
        (["./plain"], 126, "./plain: Permission denied"),
        (["./lost"], 127, "./lost: the program that its first line (#!) names is not there"),
        (["./folder"], 126, "./folder: Permission denied"),
    ],
)
def test_a_command_that_cannot_be_started_is_said_as_a_shell_says_it(run, agent, tmp_path, command, code, said):
    (tmp_path / "folder").mkdir()
    (tmp_path / "plain").write_text("#!/bin/sh\n")
    (tmp_path / "lost").write_text("#!/no/such/interpreter\n")
    (tmp_path / "lost").chmod(0o755)
    done = run("--", *command)
    assert done.returncode == code
    assert done.stderr.splitlines()[-1] == f"agent: {said}"
    assert spans(agent) == []


def test_a_command_with_spaces_in_its_path_gets_its_arguments_as_they_are(run, tmp_path):
    script = tmp_path / "my script"
    script.write_text('#!/bin/sh\nprintf "%s|" "$@"\n')
    script.chmod(0o755)
    done = run("--", str(script), "a b", "--label", "*", "")
    assert (done.returncode, done.stdout) == (0, "a b|--label|*||")
    assert done.stderr.splitlines()[1].startswith("my script-20")


def test_a_command_that_a_signal_ended_is_128_and_its_number(run):
    done = run("--label", "x", "--", "sh", "-c", "kill -9 $$")
    assert done.returncode == 137
    assert "exit code 137" in done.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_to_us_reaches_the_command_and_the_report_is_told_all_the_same(started, number):
    name = number.name.removeprefix("SIG")
    process = started(
        "--label", "x", "--", "sh", "-c", f"trap 'echo got; exit 7' {name}; echo up; while :; do sleep 0.1; done"
    )
    assert process.stdout.readline() == "up\n"
    process.send_signal(number)
    out, err = process.communicate(timeout=30)
    assert (process.returncode, out) == (7, "got\n")
    assert "x: " in err
    assert ".load.1m" in err


COUNTS_INTERRUPTS = """
import signal, sys, time
got = []
signal.signal(signal.SIGINT, lambda *_: got.append(print("got", flush=True)))
print("up", flush=True)
while not got:
    time.sleep(0.05)
time.sleep(0.5)  # a second one would come about now
sys.exit(5)
"""


def test_ctrl_c_in_a_terminal_reaches_the_command_once(started):
    leader, inner = pty.openpty()

    def own_terminal():
        fcntl.ioctl(inner, termios.TIOCSCTTY, 0)

    process = started(
        "--label", "x", "--", sys.executable, "-c", COUNTS_INTERRUPTS, stdin=inner, preexec_fn=own_terminal
    )
    os.close(inner)
    assert process.stdout.readline() == "up\n"
    os.write(leader, b"\x03")
    out, err = process.communicate(timeout=30)
    os.close(leader)
    assert (process.returncode, out) == (5, "got\n")
    assert "x: " in err


def test_a_signal_before_the_command_begins_ends_it_all(started):
    process = started("--", "echo", "ran", options=("-m", "#.load.1m", "--period", "5"))
    assert "sampling load every 5 s" in process.stderr.readline()
    process.send_signal(signal.SIGTERM)
    out, _ = process.communicate(timeout=30)
    assert (process.returncode, out) == (143, "")


def test_the_command_begins_with_no_signal_blocked_and_only_those_ignored_that_we_found_ignored(started):
    status = ["sh", "-c", "exec grep -E 'Sig(Blk|Ign)' /proc/self/status"]
    found = []
    for ignored in ((), (signal.SIGHUP,)):
        process = started(
            "--", *status, preexec_fn=lambda ignored=ignored: [signal.signal(n, signal.SIG_IGN) for n in ignored]
        )
        out, _ = process.communicate(timeout=30)
        found.append(
            [int(line.split()[1], 16) & 0x7FFFFFFF for line in out.splitlines()]
        )  # 32 and 33 are the C library's
    assert found == [[0, 0], [0, 1 << (signal.SIGHUP - 1)]]


def test_points_that_another_process_archives_are_waited_for(run, start_agent, agent, tmp_path):
    path = tmp_path / "a.db"
    config = tmp_path / "hostbus.toml"
    config.write_text("[sqlite-sink]\nbatch_age = 0.3\n")
    up = start_agent("up", "--only", "load", "--period", "0.2", "--archive", str(path), "--config", str(config))
    assert up.stdout.readline()
    deadline = time.monotonic() + 20
    while not (path.exists() and agent("check", "--archive", str(path)).code == 0) and time.monotonic() < deadline:
        time.sleep(0.1)
    done = run("--archive", str(path), "--label", "x", "--", "sleep", "1")
    assert done.returncode == 0
    assert "sampling" not in done.stderr
    assert done.stderr.splitlines()[-1].endswith(" 100 %")
    assert up.poll() is None
    (span,) = [json.loads(line) for line in agent("diff", "--archive", str(path), "--format", "json").out.splitlines()]
    assert span["label"] == "x"


def test_several_patterns_may_follow_one_m_if_two_dashes_say_where_they_end():
    assert spread(["-m", "A", "B", "--label", "x", "--", "-m", "C", "D"]) == [
        *("-m", "A", "-m", "B", "--label", "x"), "--", "-m", "C", "D"
    ]  # fmt: skip
    assert spread(["-m", "A", "make", "-j4"]) == ["-m", "A", "make", "-j4"]
    assert spread(["--label", "x", "-m", "A", "--metrics", "B", "C", "--", "D"]) == [
        *("--label", "x", "-m", "A", "--metrics", "B", "-m", "C"), "--", "D"
    ]  # fmt: skip


def test_only_the_families_are_sampled_that_the_patterns_need():
    assert wanted_families(["#.cpu.usage"], None) == ["cpu"]
    assert wanted_families(["*.disk.sda.read_bytes", "#.load.1m"], None) == ["disk", "load"]
    assert wanted_families(["another-host.cpu.usage"], None) == []
    assert {"cpu", "memory", "disk"} <= set(wanted_families(["#"], None))
    assert "cpu" not in wanted_families(["#.1m"], None)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("-m", "a b", "--", "true"), "'a b' is not a metric name or pattern"),
        (("--", "true"), "Missing option"),
        (("-m", "#"), "Missing argument"),
    ],
)
def test_what_is_wrong_with_the_command_line_is_one_line(agent, arguments, said):
    outcome = agent("run", *arguments)
    assert outcome.code == 2
    assert said in outcome.err
    assert outcome.err.count("\n") == 1


def test_points_of_an_archive_on_the_bus_and_the_span_goes_there(
    run, start_agent, agent, amqp_url, tmp_path, monkeypatch
):
    monkeypatch.setenv("HOSTBUS_SERVER", amqp_url)
    manager = start_agent("start", "manager")
    assert any("manager works" in line for line in manager.stderr)
    path = str(tmp_path / "a.db")
    agents = (("load-source", "--period", "0.2"), ("sqlite-sink", "--path", path, "--batch-age", "0.3"))
    for process in [start_agent("start", *arguments) for arguments in agents]:
        assert any(" works" in line for line in process.stderr)
    deadline = time.monotonic() + 30
    while agent("check", "#.load.1m").code and time.monotonic() < deadline:
        time.sleep(0.5)
    done = run("--label", "x", "--", "sh", "-c", "sleep 1; exit 4", options=("-m", "#.load.1m"))
    assert done.returncode == 4
    lines = done.stderr.splitlines()
    assert lines[0].startswith("x: ")
    assert lines[-1].split()[0].endswith(".load.1m")
    assert lines[-1].endswith(" 100 %")
    (span,) = [json.loads(line) for line in agent("diff", "--archive", path, "--format", "json").out.splitlines()]
    assert (span["label"], span["exit_code"], span["metrics"]) == ("x", 4, ["#.load.1m"])


@pytest.mark.parametrize("pattern", ["#.load.1m", "#.nobody.measures.it"])
def test_an_archive_that_cannot_be_used_is_told_before_the_command_begins(run, tmp_path, pattern):
    (tmp_path / "text.db").write_text("no archive" * 1000)
    damaged = bytearray((tmp_path / archive_file(tmp_path / "bad.db", {"web1.a": [(1, 1.0)]})).read_bytes())
    damaged[4096:] = b"\xaa" * (len(damaged) - 4096)
    (tmp_path / "bad.db").write_bytes(damaged)
    for where in ("postgresql://localhost:1/x", "text.db", "bad.db", "no/folder/a.db"):
        done = run("--archive", where, "--", "touch", "begun", options=("-m", pattern))
        assert done.returncode == 1
        assert done.stderr.startswith("agent: error: ")
        assert done.stderr.count("\n") == 1
    assert not (tmp_path / "begun").exists()
