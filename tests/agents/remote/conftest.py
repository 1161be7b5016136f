# SPDX-License-Identifier: MIT
"""A user's home with a key, real SSH servers that let it in, and a source that polls them."""

import asyncio
import os
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from agents.base.worker import Worker
from agents.remote.parser import Context, MetricParser
from agents.remote.session import Sessions
from agents.remote.source import RemoteSource
from agents.remote.target import MonitorTarget
from bus.manager import Manager
from bus.sink import Sink
from bus.timestamp import Timestamp
from tests.services.sshd import NoSshd, SshHome, program

PATIENCE_S = 20.0


@contextmanager
def sessions() -> Iterator[Sessions]:
    """What opens sessions, on a clock that stands still."""
    with closing(Worker("test: files")) as worker:
        yield Sessions(lambda: 0.0, worker)


class Echo(MetricParser):
    """A toy: a command that prints one number."""

    family = "toy"
    description = "a number"

    def __init__(self, command: str, name: str = "number", every_s: float = 0.0) -> None:
        self.command = command  # type: ignore[misc]  # one class for many commands
        self.every_s = every_s  # type: ignore[misc]
        self._name = name

    def parse(self, output: str, context: Context) -> dict[str, float]:
        return {self._name: float(output)}


@pytest.fixture
def ssh_home(monkeypatch: pytest.MonkeyPatch) -> Iterator[SshHome]:
    """A home of the test's own, which is HOME; in CI it is a failure if there is no sshd."""
    try:
        for name in ("sshd", "ssh-keygen", "ssh-agent", "ssh-add"):
            program(name)
    except NoSshd as error:
        if os.environ.get("CI"):
            pytest.fail(str(error), pytrace=False)
        pytest.skip(str(error))
    # Not pytest's folder: the path of a socket must be short.
    with tempfile.TemporaryDirectory(prefix="ssh-") as folder:
        home = SshHome(Path(folder))
        monkeypatch.setenv("HOME", str(home.ssh.parent))
        monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
        yield home
        home.close()


class Points(Sink):
    """Keeps the newest point of each metric, and the frames' keys."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.all: dict[str, dict[int, float]] = {}

    async def on_data(self, metric: str, time: Timestamp, value: float) -> None:
        self.all.setdefault(metric, {})[time.posix_ns] = value

    def last(self, metric: str) -> float | None:
        points = self.all.get(metric)
        return points[max(points)] if points else None


async def until(condition: Callable[[], object], patience_s: float = PATIENCE_S) -> None:
    """Poll until it is so."""
    deadline = time.monotonic() + patience_s
    while not condition():
        assert time.monotonic() < deadline, "it was not so in time"
        await asyncio.sleep(0.01)


@asynccontextmanager
async def polled(
    url: str, targets: list[MonitorTarget] | None, **config: Any
) -> AsyncIterator[tuple[RemoteSource, Points]]:
    """A source that polls the targets every 0.2 s, and a sink for its points."""
    settings = RemoteSource.Config.load({"period": 0.2, **config})
    async with Manager("manager", url), Points("sink-test", url) as points:
        await points.subscribe(["#"])
        async with RemoteSource("source-remote", url, targets=targets, config=settings) as source:
            yield source, points
