# SPDX-License-Identifier: MIT
"""What /proc says about processes: one look at all of them, and the files of a single one.

Names and paths come from strangers: a process may call itself anything, end at any moment, or be nobody's business.
"""

import errno
import os
import time
from collections.abc import Iterable
from typing import NamedTuple

PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
TICKS_PER_S = os.sysconf("SC_CLK_TCK")

STAT_BYTES = 4096
LINE_BYTES = 4096
"""What is read of a command line at most."""
FILE_BYTES = 65536

GONE = (errno.ENOENT, errno.ESRCH)
DENIED = (errno.EACCES, errno.EPERM)

_READ = os.O_RDONLY | os.O_CLOEXEC
_ENDED = (b"Z", b"X", b"x")
_KERNEL_THREAD = 0x00200000
_UNITS = (".service", ".scope")


class Stat(NamedTuple):
    """A process at one moment. ticks, start: in ticks of the clock (since it started; since boot). vms, rss: bytes."""

    name: str
    parent: int
    ended: bool
    kernel: bool
    threads: int
    faults: int
    ticks: int
    start: int
    vms: int
    rss: int


class Look(NamedTuple):
    """All processes at one moment: by pid, how many may not be read, and a line that made no sense."""

    processes: dict[int, Stat]
    denied: int
    garbled: str


class Looker:
    """Looks at all processes, again and again. 9 to 12 µs a process, most of it the kernel's.

    Args:
        proc: where /proc is
    """

    def __init__(self, proc: str) -> None:
        self._proc = proc
        self._seen: dict[int, tuple[bytes, Stat]] = {}

    def look(self) -> Look:
        """Every process that may be read; the same `Stat` for one that did nothing since the last look.

        Raises OSError if there is no such directory, or no file can be opened.
        """
        proc, last = self._proc, self._seen
        seen: dict[int, tuple[bytes, Stat]] = {}
        denied, garbled = 0, ""
        for entry in os.listdir(proc):
            if not entry.isdecimal():
                continue
            try:
                data = read_bytes(f"{proc}/{entry}/stat", STAT_BYTES)
            except OSError as error:
                if error.errno in DENIED:
                    denied += 1
                elif error.errno not in GONE:  # too many open files, too little memory: of no process anything is known
                    raise
                continue
            pid = int(entry)
            old = last.get(pid)
            if old is not None and old[0] == data:
                seen[pid] = old
                continue
            try:
                seen[pid] = data, parse_stat(data)
            except (ValueError, IndexError):
                if data:  # else it ended just now
                    garbled = garbled or f"cannot read the line {data[:80]!r}"
        self._seen = seen
        return Look({pid: stat for pid, (_, stat) in seen.items()}, denied, garbled)


def read_bytes(path: str, limit: int = FILE_BYTES) -> bytes:
    """The first bytes of a file. Raises OSError."""
    fd = os.open(path, _READ)
    try:
        return os.read(fd, limit)
    finally:
        os.close(fd)


def parse_stat(data: bytes) -> Stat:
    """A /proc/PID/stat. Raises ValueError or IndexError.

    The name may hold blanks, parentheses and newlines: it ends with the last ``)``. A process whose first thread
    has ended while others run looks like a zombie but for their number.
    """
    close = data.rindex(b")")
    words = data[close + 2 :].split(None, 22)
    threads = int(words[17])
    return Stat(
        data[data.index(b"(") + 1 : close].decode("utf-8", "replace"),
        int(words[1]),
        words[0] in _ENDED and threads <= 1,
        bool(int(words[6]) & _KERNEL_THREAD),
        threads,
        int(words[7]) + int(words[9]),
        int(words[11]) + int(words[12]),
        int(words[19]),
        int(words[20]),
        int(words[21]) * PAGE_BYTES,
    )


def read_arguments(directory: str) -> list[str]:
    """The arguments of a process, from the first 4 KiB; none if it has none or they are not shown. Raises OSError.

    Whoever writes his own title (``nginx: worker process``) leaves it as the only argument, and zeros behind it.
    """
    text = _shown(f"{directory}/cmdline", LINE_BYTES).rstrip(b"\0").decode("utf-8", "replace")
    return text.split("\0") if text else []


def read_cgroups(directory: str) -> list[str]:
    """The control groups of a process, systemd's own first. Raises OSError."""
    return parse_cgroups(_shown(f"{directory}/cgroup", FILE_BYTES).decode("utf-8", "replace"))


def read_program(directory: str) -> str:
    """The path of the file that a process runs; empty if it has none or it is not shown. Raises OSError."""
    try:
        return os.readlink(f"{directory}/exe").removesuffix(" (deleted)")
    except OSError as error:
        if error.errno in (*DENIED, errno.ENOENT):  # ENOENT: a thread of the kernel
            return ""
        raise


def _shown(path: str, limit: int) -> bytes:
    try:
        return read_bytes(path, limit)
    except OSError as error:
        if error.errno in DENIED:
            return b""
        raise


def parse_cgroups(text: str) -> list[str]:
    """The different paths of a /proc/PID/cgroup: that of systemd's hierarchy first, then version 2, then others."""
    found: dict[str, int] = {}
    for line in text.splitlines():
        words = line.split(":", 2)
        if len(words) == 3:
            order = {"name=systemd": 0, "": 1}.get(words[1], 2)
            path = words[2].removesuffix(" (deleted)")
            found[path] = min(order, found.get(path, order))
    return sorted(found, key=found.__getitem__)


def unit_of(cgroups: Iterable[str]) -> str:
    """The systemd unit that control groups belong to, the innermost one; empty if none.

    systemd puts a ``_`` before names that the kernel could take for its own files.
    """
    for path in cgroups:
        for word in reversed(path.split("/")):
            if word.endswith(_UNITS):
                return word.removeprefix("_")
    return ""


def parse_io(data: bytes) -> tuple[int, int]:
    """Bytes read from and written to devices, of a /proc/PID/io. Raises ValueError."""
    return _field(data, b"\nread_bytes:"), _field(data, b"\nwrite_bytes:")


def parse_pss(data: bytes) -> int:
    """The proportional set size of a /proc/PID/smaps_rollup, in bytes. Raises ValueError."""
    return 1024 * _field(data, b"\nPss:", b" kB")


def _field(data: bytes, name: bytes, unit: bytes = b"") -> int:
    start = data.find(name)
    if start < 0:
        raise ValueError(f"there is no {name.decode().strip()!r}")
    start += len(name)
    return int(data[start : data.find(b"\n", start)].removesuffix(unit))


def knows_fd_counts(proc: str) -> bool:
    """True if the size of /proc/PID/fd is the number of open files (Linux 6.2)."""
    try:
        size = os.stat(f"{proc}/self/fd").st_size
        return size > 0 and abs(len(os.listdir(f"{proc}/self/fd")) - size) <= 3  # other threads open and close files
    except OSError:
        return False


def count_fds(directory: str, *, by_size: bool) -> int:
    """The open files of a process: 2 µs by the size of the directory, which needs no permission. Raises OSError."""
    if by_size:
        return os.stat(f"{directory}/fd").st_size
    return len(os.listdir(f"{directory}/fd"))


def since_boot() -> float:
    """Seconds since the machine was started, by the clock that stamps the start of processes."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)
