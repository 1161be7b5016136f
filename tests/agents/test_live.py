# SPDX-License-Identifier: MIT
"""The families on the machine that runs the tests, compared with what df, free, psutil and the kernel say.

Two looks are never made at one instant: what may change between them is compared within a sampling error, and a
comparison that fails is tried again with fresh looks.
"""

import os
import socket
import subprocess
import time
import uuid
from collections.abc import Callable
from typing import TypeVar

import psutil
import pytest

from agents.base.mounts import mount_word
from agents.cpu import CpuSource
from agents.disk import DiskSource
from agents.host import HostSource
from agents.load import LoadSource
from agents.memory import MemorySource
from agents.network import NetworkSource

S = TypeVar("S", bound=HostSource)

TRIES = 5


def live(cls: type[S]) -> S:
    return cls(f"source-{cls.family}", f"memory://{uuid.uuid4().hex}")


def soon(agree: Callable[[], None]) -> None:
    """Compare until it agrees, at most `TRIES` times."""
    for remaining in reversed(range(TRIES)):
        try:
            agree()
        except AssertionError:
            if not remaining:
                raise
        else:
            return


def output_of(*command: str) -> list[list[str]]:
    environment = {**os.environ, "LC_ALL": "C"}
    text = subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout
    return [line.split() for line in text.splitlines()]


def test_memory_agrees_with_free() -> None:
    source = live(MemorySource)

    def agree() -> None:
        reading = source.read()
        heading, memory, swap = output_of("free", "--bytes")[:3]
        free = dict(zip(heading, map(int, memory[1:]), strict=True))
        error = 0.01 * free["total"]
        assert reading["total"] == free["total"]
        assert reading["free"] == pytest.approx(free["free"], abs=error)
        assert reading["available"] == pytest.approx(free["available"], abs=error)
        assert reading["shared"] == pytest.approx(free["shared"], abs=error)
        assert reading["cached"] + reading["buffers"] == pytest.approx(free["buff/cache"], abs=error)
        assert [reading["swap.total"], reading["swap.used"], reading["swap.free"]] == pytest.approx(
            [int(word) for word in swap[1:]], abs=error
        )

    soon(agree)


def test_memory_agrees_with_psutil() -> None:
    source = live(MemorySource)

    def agree() -> None:
        reading = source.read()
        theirs = psutil.virtual_memory()._asdict()
        swap = psutil.swap_memory()
        for name, value in theirs.items():
            error = 1.0 if name == "percent" else 0.01 * theirs["total"]
            assert reading[name] == pytest.approx(value, abs=error), name
        assert (reading["swap.total"], reading["swap.percent"]) == (swap.total, pytest.approx(swap.percent, abs=1.0))

    soon(agree)


def test_disk_agrees_with_df() -> None:
    source = live(DiskSource)

    def agree() -> None:
        reading = source.read()
        columns = ("total", "used", "free", "inodes.total", "inodes.used", "inodes.free")
        fields = "--output=size,used,avail,itotal,iused,iavail,target"
        compared = 0
        for *amounts, point in (line for line in output_of("df", "--block-size=1", fields)[1:] if len(line) == 7):
            word = mount_word(point)
            if f"{word}.total" not in reading:
                continue
            compared += 1
            for name, amount in zip(columns, amounts, strict=True):
                if amount != "-" and f"{word}.{name}" in reading:
                    whole = reading[f"{word}.{'inodes.total' if name.startswith('inodes') else 'total'}"]
                    assert reading[f"{word}.{name}"] == pytest.approx(int(amount), abs=0.01 * whole), (point, name)
        assert compared >= 1
        assert 0 <= reading["root.percent"] <= 100
        assert reading["root.responds"] == 1.0

    soon(agree)


def test_devices_agree_with_the_kernel() -> None:
    source = live(DiskSource)
    source.read()
    busy = {name.split(".")[0] for name in source.read() if name.endswith(".utilization")}
    known = {name for name in psutil.disk_io_counters(perdisk=True) if not name.startswith(("loop", "ram", "fd", "sr"))}
    partitions = {name for name in known if os.path.exists(f"/sys/class/block/{name}/partition")}
    assert busy == known - partitions


def test_cpu_agrees_with_psutil() -> None:
    source = live(CpuSource)

    def agree() -> None:
        source.read()
        before = psutil.cpu_times()
        end_s = time.process_time() + 0.3
        while time.process_time() < end_s:  # so that there is something to see
            pass
        reading = source.read()
        after = psutil.cpu_times()
        gains = {name: getattr(after, name) - getattr(before, name) for name in before._fields}
        whole = sum(gain for name, gain in gains.items() if not name.startswith("guest"))
        for name in ("user", "nice", "system", "idle", "iowait", "irq", "softirq", "steal"):
            assert reading[name] == pytest.approx(100 * gains[name] / whole, abs=10), name
        assert reading["user"] + reading["system"] > 100 * 0.2 / whole
        assert len([name for name in reading if name.startswith("core") and name.endswith(".usage")]) >= 1
        assert reading["context_switches"] > 0
        assert reading["interrupts"] > 0

    soon(agree)


def test_network_sees_what_this_test_sends() -> None:
    source = live(NetworkSource)
    size = 1_000_000
    with socket.create_server(("127.0.0.1", 0)) as server:
        began_s = time.monotonic()
        source.read()
        with socket.create_connection(server.getsockname()) as client, server.accept()[0] as peer:
            received = 0
            for sent in range(10_000, size + 1, 10_000):
                client.sendall(bytes(10_000))
                while received < sent:
                    received += len(peer.recv(10_000))
            reading = source.read()
            elapsed_s = time.monotonic() - began_s
    assert reading["lo.up"] == 1.0
    assert reading["lo.tx_bytes"] * elapsed_s >= 0.9 * size
    assert reading["lo.rx_bytes"] == pytest.approx(reading["lo.tx_bytes"], rel=0.1)
    assert reading["tcp.established"] >= 2
    assert reading["tcp.listen"] >= 1


def test_interfaces_agree_with_psutil() -> None:
    reading = live(NetworkSource).read()
    theirs = psutil.net_if_stats()
    for name in (name for name in reading if name.endswith(".up")):
        assert name.removesuffix(".up") in theirs
    for interface, stats in theirs.items():
        if stats.speed and f"{interface}.speed" in reading:
            assert reading[f"{interface}.speed"] == 1e6 * stats.speed


def test_load_agrees_with_the_kernel() -> None:
    source = live(LoadSource)

    def agree() -> None:
        source._slots.clear()
        reading = source.read()
        assert [reading[name] for name in ("1m", "5m", "15m")] == pytest.approx(os.getloadavg(), abs=0.011)
        assert reading["1m_per_core"] == pytest.approx(reading["1m"] / psutil.cpu_count(), rel=0.01)
        assert reading["uptime"] == pytest.approx(time.clock_gettime(time.CLOCK_BOOTTIME), abs=1)
        assert reading["processes.total"] == pytest.approx(len(psutil.pids()), abs=10)
        assert reading["processes.running"] >= 1  # this one
        assert reading["users"] == len(psutil.users())
        assert reading["tasks.total"] >= reading["processes.total"] - 10

    soon(agree)
