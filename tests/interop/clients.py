# SPDX-License-Identifier: MIT
"""Stock MetricQ clients, as seen from the tests: one process each, running a script beside this file."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent
ANSWER_TIMEOUT_S = 60.0


class Stock:
    """A stock client in its process: what it says is heard in order, and it takes orders."""

    def __init__(self, name: str, process: asyncio.subprocess.Process, log: Path) -> None:
        self.name = name
        self._process = process
        self._log = log

    async def hear(self) -> dict[str, Any]:
        """The next thing it says."""
        assert self._process.stdout is not None
        async with asyncio.timeout(ANSWER_TIMEOUT_S):
            line = await self._process.stdout.readline()
        if not line:
            pytest.fail(f"{self.name} has ended:\n{self._log.read_text()[-5000:]}", pytrace=False)
        said: dict[str, Any] = json.loads(line)
        return said

    async def hear_points(self, count: int) -> list[tuple[str, int, float]]:
        """The next `count` points that it says: metric, ns, value."""
        heard = [await self.hear() for _ in range(count)]
        return [(point["metric"], point["time"], point["value"]) for point in heard]

    def order(self, words: str) -> None:
        """Have it do something."""
        assert self._process.stdin is not None
        self._process.stdin.write(words.encode() + b"\n")

    async def end(self) -> None:
        """Have it end, and see that it does so without complaint."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        async with asyncio.timeout(ANSWER_TIMEOUT_S):
            code = await self._process.wait()
        assert code == 0, self._log.read_text()[-5000:]

    async def kill(self) -> None:
        """End it, whatever it does."""
        if self._process.returncode is None:
            self._process.kill()
        await self._process.wait()


class StockClients:
    """Starts stock clients."""

    def __init__(self, python: Path, logs: Path) -> None:
        self._python = python
        self._logs = logs
        self.running: list[Stock] = []

    async def start(self, script: str, *arguments: str) -> Stock:
        """Run one of the scripts beside this file."""
        log = self._logs / f"{script}-{len(self.running)}.log"
        with log.open("w") as errors:
            process = await asyncio.create_subprocess_exec(
                self._python,
                HERE / f"{script}.py",
                *arguments,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=errors,
            )
        stock = Stock(script, process, log)
        self.running.append(stock)
        return stock
