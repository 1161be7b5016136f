# SPDX-License-Identifier: MIT
"""Real processes in the real /proc: what the family says of them must be what they did."""

import os
import resource
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from agents.process.source import ProcessSource
from bus.timestamp import Timestamp
from tests.services.descriptors import open_descriptors

pytestmark = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="takes the /proc of Linux")

SAYS_READY = "import sys, os, time\nprint('ready', flush=True)\n"
BUSY = (
    SAYS_READY + "sys.stdin.readline()\nwhile sum(os.times()[:2]) < 0.6: pass\nprint(sum(os.times()[:2]), flush=True)\n"
)
WAIT = "sys.stdin.readline()\n"


class Real:
    """A source on this machine, and children that only its groups find: a mark in their command lines tells."""

    def __init__(self) -> None:
        self.mark = f"mark-{uuid.uuid4().hex}"
        self.children: list[subprocess.Popen[str]] = []

    def source(self, **criteria: object) -> ProcessSource:
        group = {"name": "mine", "cmdline": self.mark, **criteria}
        config = ProcessSource.Config.load({"prefix": "test", "groups": [group], "top": 3})
        return ProcessSource("source-process", "memory://process", config=config)

    def start(self, code: str) -> subprocess.Popen[str]:
        """A child in Python that has said that it is ready."""
        command = [sys.executable, "-S", "-c", SAYS_READY + code, self.mark]
        child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.children.append(child)
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
        return child

    def close(self) -> None:
        for child in self.children:
            child.kill()
            child.communicate()


def read(source: ProcessSource) -> dict[str, float]:
    source.tick = Timestamp.now()
    return dict(source.read())


def mine(source: ProcessSource) -> dict[str, float]:
    return {name[5:]: value for name, value in read(source).items() if name.startswith("mine.")}


def until(condition: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline_s
        time.sleep(0.005)


def state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0]


@pytest.fixture
def real() -> Iterator[Real]:
    made = Real()
    yield made
    made.close()


def test_the_time_of_a_busy_process_is_what_it_says_itself(real) -> None:
    source = real.source()
    idle = real.start(WAIT)
    busy = real.start(BUSY.removeprefix(SAYS_READY) + WAIT)
    began_s = time.monotonic()
    first = read(source)
    assert (first["mine.count"], first["mine.threads"]) == (2, 2)
    before_s = cpu_of(busy.pid) + cpu_of(idle.pid)
    busy.stdin.write("\n")
    busy.stdin.flush()
    own_s = float(busy.stdout.readline())
    reading = read(source)
    elapsed_s = time.monotonic() - began_s
    # The source's elapsed time is a little less than ours, so its rate times ours is a little more.
    assert own_s - before_s - 0.05 <= reading["mine.cpu"] / 100 * elapsed_s <= 1.5 * (own_s - before_s) + 0.1
    assert reading["top.cpu.1"] >= reading["top.cpu.2"] >= reading["top.cpu.3"]


def cpu_of(pid: int) -> float:
    words = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    return (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")


def test_a_process_that_began_since_the_last_look_counts_with_all_its_time(real) -> None:
    source = real.source()
    began_s = time.monotonic()
    read(source)
    child = real.start("while sum(os.times()[:2]) < 0.2: pass\nprint('done', flush=True)\n" + WAIT)
    assert child.stdout.readline() == "done\n"
    reading = mine(source)
    assert reading["cpu"] / 100 * (time.monotonic() - began_s) >= 0.18


def test_memory_files_and_threads_of_a_process(real) -> None:
    child = real.start(
        "import threading\ngo = threading.Event()\n[threading.Thread(target=go.wait, daemon=True).start() "
        "for _ in range(3)]\ndata = b'x' * (32 << 20)\n"
        "opened = [os.open('/dev/null', 0) for _ in range(20)]\nprint('set', flush=True)\n" + WAIT
    )
    assert child.stdout.readline() == "set\n"
    reading = mine(real.source())
    assert (reading["count"], reading["threads"], reading["fds"]) == (1, 4, 23)
    assert 32 << 20 < reading["rss"] < reading["vms"]
    assert 32 << 20 < reading["pss"] <= 1.1 * reading["rss"]


def test_children_of_members_are_members_and_the_killed_ones_are_gone(real) -> None:
    source = real.source()
    code = (
        "child = os.fork()\nif child == 0: time.sleep(100)\nprint(child, flush=True)\n"
        + WAIT
        + "os.waitpid(child, 0)\n"
    )
    parent = real.start(code + "print('reaped', flush=True)\n" + WAIT)
    child = int(parent.stdout.readline())
    assert mine(source)["count"] == 2
    os.kill(child, signal.SIGKILL)
    until(lambda: state(child) == "Z")
    assert mine(source)["count"] == 1
    parent.stdin.write("\n")
    parent.stdin.flush()
    assert parent.stdout.readline() == "reaped\n"
    reading = mine(source)
    assert reading["count"] == 1
    assert reading["cpu"] >= 0.0
    parent.kill()
    parent.wait()
    assert mine(source)["count"] == 0


def test_what_a_child_wrote_counts_once_and_not_again_when_it_is_waited_for(real, tmp_path) -> None:
    file = tmp_path / "written"
    write = f"file = os.open({str(file)!r}, os.O_CREAT | os.O_WRONLY)\nos.write(file, bytes(8 << 20))\nos.fsync(file)\n"
    child_does = "".join(f"    {line}\n" for line in write.splitlines()) + "    print('wrote', flush=True)\n"
    code = f"child = os.fork()\nif child == 0:\n{child_does}    sys.stdin.readline()\n    os._exit(0)\n"
    parent = real.start(code + "os.waitpid(child, 0)\nprint('reaped', flush=True)\n" + WAIT)
    assert parent.stdout.readline() == "wrote\n"
    source = real.source()
    first = mine(source)
    if not source._members.known[parent.pid].io:
        pytest.skip("this kernel does not count bytes")
    assert first["count"] == 2
    parent.stdin.write("\n")
    parent.stdin.flush()
    assert parent.stdout.readline() == "reaped\n"
    io = Path(f"/proc/{parent.pid}/io").read_text()
    reading = mine(source)
    assert reading["written_bytes"] < 1 << 20
    written = int(io.partition("\nwrite_bytes: ")[2].split()[0])
    if written < 8 << 20:
        pytest.skip("files here are on no device that counts")


def test_a_process_that_changes_its_program_is_found_by_its_new_name(real, tmp_path) -> None:
    name = f"x{os.getpid()}"
    (tmp_path / name).symlink_to(os.path.realpath(sys.executable))
    source = real.source(cmdline="", names=[name], user=str(os.geteuid()))
    command = [str(tmp_path / name), "-S", "-c", "import time; time.sleep(100)"]
    child = real.start(f"sys.stdin.readline()\nos.execv({command[0]!r}, {command!r})\n")
    assert mine(source)["count"] == 0
    child.stdin.write("\n")
    child.stdin.flush()
    until(lambda: Path(f"/proc/{child.pid}/comm").read_text() == f"{name}\n")
    assert mine(source)["count"] == 1


@pytest.mark.parametrize("name", [b"a) R 1 (b", b"new\nline", b"\xff\xfe", b" "])
def test_a_process_may_call_itself_anything(real, name: bytes) -> None:
    child = real.start(
        f"with open('/proc/self/comm', 'wb') as comm: comm.write({name!r})\nprint('is', flush=True)\n" + WAIT
    )
    assert child.stdout.readline() == "is\n"
    assert mine(real.source())["count"] == 1


def test_many_that_come_and_go_while_they_are_looked_at_break_nothing(real) -> None:
    forking = real.start(
        "os.set_blocking(0, False)\nwhile not sys.stdin.read(1):\n"
        "    pids = [os.fork() or os._exit(0) for _ in range(20)]\n    [os.waitpid(pid, 0) for pid in pids]\n"
    )
    source = real.source()
    for _ in range(30):
        reading = mine(source)
        assert reading["count"] >= 1
        assert reading.get("cpu", 0.0) >= 0
    forking.stdin.write("\n")
    forking.stdin.flush()
    assert source.parts.causes == {}


def test_other_users_processes_are_ordinary() -> None:
    if os.geteuid() != 0:
        pytest.skip("takes root to become nobody")
    code = (
        "import os\nfrom agents.process.source import ProcessSource\nfrom bus.timestamp import Timestamp\n"
        "os.setgroups([])\nos.setresgid(65534, 65534, 65534)\nos.setresuid(65534, 65534, 65534)\n"
        "config = ProcessSource.Config.load({'prefix': 'test', 'groups': [{'name': 'init', 'user': '0'}]})\n"
        "source = ProcessSource('p', 'memory://x', config=config)\n"
        "source.tick = Timestamp.now()\nsource.read()\nsource.tick = Timestamp.now()\n"
        "print(*(name for name in source.read() if name.startswith('init.')))\n"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    found = {name.removeprefix("init.") for name in out.stdout.split()}
    assert {"count", "cpu", "rss", "vms", "threads", "faults"} <= found
    assert not {"read_bytes", "written_bytes", "pss"} & found


def test_no_file_stays_open_after_a_look(real) -> None:
    source = real.source()
    read(source)
    before = open_descriptors()
    for _ in range(5):
        read(source)
    assert open_descriptors() == before
    assert before < resource.getrlimit(resource.RLIMIT_NOFILE)[0]
