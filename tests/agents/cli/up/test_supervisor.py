# SPDX-License-Identifier: MIT
"""Agents that fail are started again, later each time, until they have been calm for a while."""

import asyncio

import pytest

from agents.cli.up import supervisor
from agents.cli.up.supervisor import Supervised
from bus.agent import Agent
from bus.errors import StorageError


class Failing(Agent):
    """Cannot start."""

    async def start(self) -> None:
        raise StorageError("the disk is gone")


class Working(Agent):
    """Starts, and waits for its end."""


@pytest.fixture
def delays(monkeypatch):
    """The pauses between restarts, which take no time here."""
    taken: list[float] = []

    async def pause(self, delay_s):
        taken.append(delay_s)
        await asyncio.sleep(0)
        if len(taken) == 8:
            self._stopping.set()

    monkeypatch.setattr(Supervised, "_pause", pause)
    return taken


async def test_the_pause_doubles_from_1_s_to_30_s(delays, memory_url):
    runner = Supervised("x", lambda: Failing("source-x", memory_url))
    await runner.start()
    await runner._task
    assert delays == [1, 2, 4, 8, 16, 30, 30, 30]
    assert runner.restarts == 8


async def test_after_a_calm_time_it_begins_with_the_shortest_pause(delays, memory_url, monkeypatch):
    monkeypatch.setattr(supervisor, "CALM_S", -1.0)
    runner = Supervised("x", lambda: Failing("source-x", memory_url))
    await runner.start()
    await runner._task
    assert set(delays) == {1}


async def test_one_that_is_needed_raises_why_it_cannot_start_and_is_not_tried_again(delays, memory_url):
    runner = Supervised("x", lambda: Failing("source-x", memory_url))
    with pytest.raises(StorageError, match="the disk is gone"):
        await runner.start(needed=True)
    await runner.stop()
    assert delays == []


async def test_what_cannot_even_be_made_is_tried_again_too(delays, memory_url):
    def make() -> Agent:
        raise StorageError("no")

    runner = Supervised("x", make)
    await runner.start()
    await runner._task
    assert len(delays) == 8


async def test_stop_ends_it_and_may_be_called_twice_and_before_start(memory_url):
    runner = Supervised("x", lambda: Working("source-x", memory_url))
    await runner.stop()
    runner = Supervised("x", lambda: Working("source-x", memory_url))
    await runner.start()
    assert runner.state == "working"
    await runner.stop()
    await runner.stop()
    assert runner.state == "stopped"
    assert runner.restarts == 0


async def test_one_that_is_started_twice_lives_once(memory_url):
    made = []
    runner = Supervised("x", lambda: made.append(Working("source-x", memory_url)) or made[-1])
    await asyncio.gather(runner.start(), runner.start())
    await runner.start()
    assert (len(made), runner.state) == (1, "working")
    await runner.stop()
