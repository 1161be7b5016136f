# SPDX-License-Identifier: MIT
"""The processes of a made-up host, for tests that say to the tick what they did."""

import shutil
from typing import Any

from agents.process.procfs import PAGE_BYTES, TICKS_PER_S
from agents.process.source import ProcessSource
from tests.agents.conftest import FixtureHost


class ProcessTree:
    """Files of processes under the /proc of a `FixtureHost`. 1000 s after boot its clock shows 1000 s, too."""

    def __init__(self, host: FixtureHost) -> None:
        self.host = host
        self.proc = host.proc
        for entry in host.proc.iterdir():
            if entry.name.isdecimal():
                shutil.rmtree(entry)
        self.stats: dict[int, dict[str, Any]] = {}

    def source(self, config: dict[str, Any] | None = None, **options: Any) -> ProcessSource:
        return self.host.source(ProcessSource, config, uptime=self.host.clock, **options)

    def start(self, pid: int, name: str = "work", *, at_s: float = 10.0, **files: Any) -> None:
        """A process begins, or another one under its pid."""
        stat = {"name": name, "state": "S", "parent": 1, "threads": 1, "flags": 0x400000, "ticks": 0}
        stat |= {"minor": 0, "major": 0, "vms": 1 << 20, "rss": PAGE_BYTES, "start": round(at_s * TICKS_PER_S)}
        self.stats[pid] = stat
        directory = self.proc / str(pid)
        shutil.rmtree(directory, ignore_errors=True)
        (directory / "fd").mkdir(parents=True)
        arguments = files.pop("arguments", [f"/usr/bin/{name}", "-x"])
        (directory / "cmdline").write_bytes(b"".join(word.encode() + b"\0" for word in arguments))
        (directory / "cgroup").write_text(files.pop("cgroup", "0::/system.slice/work.service\n"))
        (directory / "exe").symlink_to(files.pop("program", f"/usr/bin/{name}"))
        self.files(pid, read=files.pop("read", 0), written=files.pop("written", 0), pss_kb=files.pop("pss_kb", 100))
        self.opened(pid, files.pop("fds", 3))
        self.set(pid, **files)

    def set(self, pid: int, **changes: Any) -> None:
        """Change what its line says; rss in bytes, ticks of CPU time altogether."""
        unknown = changes.keys() - self.stats[pid].keys()
        assert not unknown
        stat = self.stats[pid] = self.stats[pid] | changes
        user = stat["ticks"] // 3
        words = [pid, f"({stat['name']})", stat["state"], stat["parent"], pid, pid, 0, -1, stat["flags"]]
        words += [stat["minor"], 7, stat["major"], 8, user, stat["ticks"] - user, 900, 900, 20, 0, stat["threads"], 0]
        words += [stat["start"], stat["vms"], stat["rss"] // PAGE_BYTES, 2**64 - 1, *[0] * 27]
        (self.proc / str(pid) / "stat").write_text(" ".join(map(str, words)) + "\n")

    def files(self, pid: int, *, read: int | None = None, written: int = 0, pss_kb: int | None = None) -> None:
        """Change what its other files say."""
        if read is not None:
            text = f"rchar: 9\nwchar: 9\nsyscr: 9\nsyscw: 9\nread_bytes: {read}\nwrite_bytes: {written}\n"
            (self.proc / str(pid) / "io").write_text(text + "cancelled_write_bytes: 9\n")
        if pss_kb is not None:
            text = f"0-f ---p 0 00:00 0 [rollup]\nRss: 9 kB\nPss:   {pss_kb} kB\nPss_Dirty: 9 kB\n"
            (self.proc / str(pid) / "smaps_rollup").write_text(text)

    def opened(self, pid: int, number: int) -> None:
        """Give it files."""
        for fd in range(number):
            (self.proc / str(pid) / "fd" / str(fd)).touch()

    def end(self, pid: int) -> None:
        """It is gone."""
        shutil.rmtree(self.proc / str(pid))
        del self.stats[pid]
