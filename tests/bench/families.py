# SPDX-License-Identifier: MIT
"""What the families cost: each one's CPU time per tick, and the whole of `agent up`.

    python tests/bench/families.py [--seconds 60] [--only families|whole]

A family's ticks are a second apart by their time stamps and follow each other without a pause, on a bus in memory:
what is only read every 10 s or every minute so counts with its right share. CPU is that of all threads, the
sampling and publishing included. The whole is `agent up` with its archive, seen from outside.
"""

import argparse
import asyncio
import logging
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from agents.cli.catalog import known_agents  # noqa: E402
from agents.host import HostSource  # noqa: E402
from bus.agent import event_loop_factory  # noqa: E402
from bus.manager import Manager, ManagerConfig  # noqa: E402
from bus.timestamp import NS_PER_S, Timestamp  # noqa: E402
from bus.transport import connect  # noqa: E402
from tests.services.node_exporter import NoNodeExporter, node_exporter  # noqa: E402
from tests.services.sshd import NoSshd, SshHome  # noqa: E402

LOADS = {
    "exec": ", for one command; its own time is not in it",
    "prometheus": ", for a node_exporter",
    "remote": ", for one host with all parsers; the host's own time is not in it",
    "textfile": ", for a file of 100 lines",
}
"""What those families measure that have to be told."""

WARM_UP_TICKS = 3
START_S = 5.0
"""When `agent up` has started and does the same every second."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """Of one family: CPU time of a tick in µs, and how many metrics it has."""

    tick_us: float
    metrics: int
    absent: str = ""


def families() -> Iterator[tuple[str, type[HostSource]]]:
    """Every family, by its name."""
    for name, known in sorted(known_agents().items()):
        agent = known.load()
        if issubclass(agent, HostSource):
            yield name.removesuffix("-source"), agent


def settings(family: str, resources: ExitStack) -> dict[str, Any]:
    """What a family needs to be told before it can measure anything here."""
    if family == "exec":
        return {"commands": ["/bin/echo value 1"]}
    if family == "textfile":
        folder = Path(resources.enter_context(tempfile.TemporaryDirectory()))
        (folder / "bench.txt").write_text("".join(f"value{number} {number}\n" for number in range(100)))
        return {"files": [str(folder / "bench.txt")]}
    if family == "prometheus":
        with suppress(NoNodeExporter):
            return {"endpoints": [resources.enter_context(node_exporter())]}
    if family == "remote":
        with suppress(NoSshd):
            home = SshHome(Path(resources.enter_context(tempfile.TemporaryDirectory(prefix="ssh-"))))
            resources.callback(home.close)
            return {
                "hosts": [home.server().address],
                "keys": [str(home.key)],
                "known_hosts": [str(home.known_hosts)],
            }
    return {}


async def measure(family: type[HostSource], config: dict[str, Any], ticks: int) -> Cost:
    """Run `ticks` ticks of a family."""
    transport = connect("memory://bench")
    await transport.open()
    async with Manager("manager", transport, config=ManagerConfig(store=":memory:")):
        source = family("source-bench", transport, config=family.Config.load({**config, "period": 86400.0}))
        async with source:
            now_ns = time.time_ns() // NS_PER_S * NS_PER_S
            began_s = 0.0
            while source.pending:
                source.tick = Timestamp(now_ns := now_ns + NS_PER_S)
                await source.update()
                await asyncio.sleep(0.05)
            for tick in range(WARM_UP_TICKS + ticks):
                if tick == WARM_UP_TICKS:
                    began_s = time.process_time()
                source.tick = Timestamp(now_ns := now_ns + NS_PER_S)
                await source.update()
                await asyncio.sleep(0)
            await source.drain()
            spent_s = time.process_time() - began_s
            metrics = len(source._declared)
            absent = source.absence.reason
    await transport.aclose()
    return Cost(tick_us=spent_s / ticks * 1e6, metrics=metrics, absent=absent)


def of_families(ticks: int) -> None:
    """A line for each family."""
    print(f"{'family':<12} {'metrics':>8} {'CPU µs/tick':>12}  at one tick a second")
    with ExitStack() as resources:
        for name, family in families():
            config = settings(name, resources)
            if lack := family.Config.load(config).missing:
                print(f"{name:<12} {'-':>8} {'-':>12}  {lack}")
                continue
            with asyncio.Runner(loop_factory=event_loop_factory()) as runner:
                cost = runner.run(measure(family, config, ticks))
            remark = f"nothing here: {cost.absent}" if cost.absent else f"{cost.tick_us / 1e4:.3f} % of a core"
            print(f"{name:<12} {cost.metrics:>8} {cost.tick_us:>12.0f}  {remark}{LOADS.get(name, '')}", flush=True)


def of_the_whole(seconds: float) -> None:
    """`agent up` with its archive, at a period of 1 s."""
    agent = Path(sys.executable).with_name("agent")
    with tempfile.TemporaryDirectory() as folder:
        command = [str(agent), "up", "--period", "1", "--archive", f"{folder}/bench.db"]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, env={**os.environ, "XDG_STATE_HOME": folder})
        try:
            time.sleep(START_S)
            started_s = cpu_s(process.pid)
            time.sleep(seconds)
            spent_s = cpu_s(process.pid) - started_s
            rss, peak = (memory_bytes(process.pid, field) for field in ("VmRSS", "VmHWM"))
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(15)
        size = sum(file.stat().st_size for file in Path(folder).iterdir() if file.is_file())
    print(f"agent up, archive included, {seconds:g} s at a period of 1 s:")
    print(f"  {spent_s:.2f} s of CPU: {100 * spent_s / seconds:.2f} % of a core (limit 1.5)")
    print(f"  {started_s:.2f} s of CPU for the first {START_S:g} s")
    print(f"  {rss / 1e6:.1f} MB resident, {peak / 1e6:.1f} MB at most (limit 90); archive {size / 1e6:.2f} MB")


def cpu_s(pid: int) -> float:
    """CPU time of a process so far, its children's that have ended included."""
    words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, words[11:15])) / os.sysconf("SC_CLK_TCK")


def memory_bytes(pid: int, field: str) -> int:
    """A line of /proc/PID/status."""
    match = re.search(rf"^{field}:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    return 1024 * int(match[1]) if match else 0


def main() -> None:
    """Measure what the arguments ask for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=60.0, help="how long the whole is watched")
    parser.add_argument("--ticks", type=int, default=120, help="ticks of each family")
    parser.add_argument("--only", choices=("families", "whole"))
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.WARNING)
    if arguments.only != "whole":
        of_families(arguments.ticks)
    if arguments.only != "families":
        of_the_whole(arguments.seconds)


if __name__ == "__main__":
    main()
