# SPDX-License-Identifier: MIT
"""A host made of files: a copy of fixtures/host that a test may change, with a clock of its own."""

import shutil
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest

from agents.host import HostSource, Roots
from bus.manager import Manager
from bus.timestamp import Timestamp

S = TypeVar("S", bound=HostSource)

FIXTURES = Path(__file__).parent / "fixtures"


class FixtureHost:
    """The kernel's files of a made-up host, and the time that passes on it."""

    def __init__(self, root: Path) -> None:
        shutil.copytree(FIXTURES / "host", root)
        self.proc = root / "proc"
        self.sys = root / "sys"
        self.roots = Roots(proc=self.proc, sys=self.sys)
        self.now_s = 1000.0

    def clock(self) -> float:
        return self.now_s

    def source(self, cls: type[S], config: dict[str, Any] | None = None, **options: Any) -> S:
        """A family on this host, called web1, on a bus of its own."""
        settings = cls.Config.load({"prefix": "web1", **(config or {})})
        url = options.pop("url", f"memory://{self.proc.parent.parent.name}")
        return cls(f"source-{cls.family}", url, roots=self.roots, clock=self.clock, config=settings, **options)

    def read(self, source: HostSource, after_s: float = 1.0) -> dict[str, float]:
        """One reading, some seconds after the last."""
        self.now_s += after_s
        source.tick = Timestamp(round(self.now_s * 1e9))
        return dict(source._read_alone())

    def replace(self, path: str, old: str, new: str) -> None:
        """Change a file under /proc, like ``replace("stat", "cpu0 1", "cpu0 2")``."""
        file = self.proc / path
        text = file.read_text()
        assert old in text
        file.write_text(text.replace(old, new))


@pytest.fixture
def host(tmp_path: Path) -> FixtureHost:
    return FixtureHost(tmp_path / "host")


@pytest.fixture
def gate() -> Iterator[threading.Event]:
    """What hangs until the test opens it, or ends."""
    made = threading.Event()
    yield made
    made.set()


@pytest.fixture
async def network(memory_url: str) -> AsyncIterator[str]:
    """The URL of a bus with a manager."""
    async with Manager("manager", memory_url):
        yield memory_url
