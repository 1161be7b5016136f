# SPDX-License-Identifier: MIT
"""One host's life, with sessions made of promises."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager

import pytest

from agents.base.parts import Parts
from agents.remote import polling
from agents.remote.commands import HostCommands
from agents.remote.polling import Poller
from agents.remote.script import Answer, SessionLost, TooLong
from agents.remote.target import MonitorTarget
from bus.errors import HostbusError
from bus.timestamp import Timestamp
from tests.agents.remote.conftest import Echo, until

DEADLINE_S = 0.05


class FakeSession:
    """Answers each command with its own text, until the test says otherwise."""

    def __init__(self) -> None:
        self.begun = True
        self.has_shell = True
        self.asked: list[list[str]] = []
        self.given_up = asyncio.Event()
        self.closed = False
        self.behave: Callable[[list[str], list[Answer]], object] | None = None

    async def ask(self, commands: list[str], answers: list[Answer]) -> None:
        self.asked.append(commands)
        for command in commands:
            if command == "hang":
                await asyncio.Event().wait()
            if command == "spam":
                raise TooLong
            if command == "die":
                raise SessionLost("the connection was lost")
            answers.append(Answer(command, 0, 0.0))

    async def ended(self) -> None:
        await self.given_up.wait()

    def give_up(self) -> None:
        self.given_up.set()


class Host:
    """A poller whose host can be reached, or not."""

    def __init__(self, *commands: str) -> None:
        self.now_s = 100.0
        self.taken: list[tuple[int, Mapping[str, float]]] = []
        self.sessions: list[FakeSession] = []
        self.attempts = 0
        self.error: BaseException | None = None
        self.reachable = asyncio.Event()
        self.reachable.set()
        parsers = {f"p{number}": Echo(command, f"n{number}") for number, command in enumerate(commands)}
        self.poller = Poller(
            "db1",
            MonitorTarget("db1"),
            HostCommands("db1", parsers, 1, parts=Parts("x"), due=lambda *_: True, clock=self.clock),
            open_session=self.open,
            take=lambda tick, values: self.taken.append((tick.posix_ns, values)),
            clock=self.clock,
        )
        self._tick = 0

    def clock(self) -> float:
        self.now_s += 0.25
        return self.now_s

    @asynccontextmanager
    async def open(self, _: MonitorTarget) -> AsyncIterator[FakeSession]:
        self.attempts += 1
        await self.reachable.wait()
        if self.error is not None:
            raise self.error
        session = FakeSession()
        self.sessions.append(session)
        yield session
        session.closed = True

    async def tick(self) -> dict[str, float]:
        """One tick, and what was taken of it."""
        self._tick += 1
        task = self.poller.begin(Timestamp(self._tick), DEADLINE_S)
        if task is not None:
            await asyncio.wait({task})
            await asyncio.sleep(0)
        tick, values = self.taken[-1]
        assert tick == self._tick
        return {name.removeprefix("db1."): value for name, value in values.items()}

    async def up(self) -> None:
        await until(lambda: self.poller.is_up)


@pytest.fixture
async def make(monkeypatch) -> AsyncIterator[Callable[..., Host]]:
    monkeypatch.setattr(polling, "LOWEST_BACKOFF_S", 0.01)
    hosts = []

    def made(*commands: str) -> Host:
        hosts.append(Host(*commands))
        return hosts[-1]

    yield made
    for host in hosts:
        host.reachable.set()
        await host.poller.aclose()
    assert all(not host.poller.is_up for host in hosts)


async def test_a_host_is_asked_for_all_at_once(make) -> None:
    host = make("1", "2")
    await host.up()
    assert await host.tick() == {
        "toy.n0": 1.0,
        "toy.n1": 2.0,
        "remote.up": 1.0,
        "remote.skipped": 0.0,
        "remote.connects": 1.0,
        "remote.duration": pytest.approx(0.25, abs=1.0),
    }
    assert host.sessions[0].asked == [["1", "2"]]


async def test_while_there_is_no_session_ticks_are_skipped_at_once_and_counted(make) -> None:
    host = make("1")
    host.reachable.clear()
    for skipped in (1.0, 2.0):
        assert await host.tick() == {"remote.up": 0.0, "remote.skipped": skipped, "remote.connects": 0.0}
    host.reachable.set()
    await host.up()
    assert (await host.tick())["remote.skipped"] == 2.0


async def test_what_was_answered_in_time_is_used_and_what_hung_is_named_and_set_aside(make, caplog) -> None:
    host = make("1", "hang", "3")
    await host.up()
    first = host.sessions[0]
    assert await host.tick() == {
        "toy.n0": 1.0,
        "remote.up": 0.0,
        "remote.skipped": 1.0,
        "remote.connects": 1.0,
    }
    assert "db1: skipped until it answers: no end within 0.05 s; left out for 60 s: p1 (hang)" in caplog.text
    await until(lambda: len(host.sessions) == 2)
    assert first.closed
    await host.up()
    again = await host.tick()
    assert (again["toy.n0"], again["toy.n2"], again["remote.up"], again["remote.connects"]) == (1.0, 3.0, 1.0, 2.0)
    host.now_s += 60
    assert (await host.tick())["remote.up"] == 0.0
    assert "left out for 120 s: p1 (hang)" in caplog.text


async def test_a_host_that_hangs_is_given_a_new_session_and_no_command_is_blamed(make, caplog) -> None:
    host = make("hang")
    await host.up()
    host.sessions[0].begun = False
    assert (await host.tick())["remote.up"] == 0.0
    assert "no answer within 0.05 s" in caplog.text
    assert host.poller.commands.aside == []


async def test_a_command_that_prints_too_much_is_set_aside(make, caplog) -> None:
    host = make("1", "spam", "3")
    await host.up()
    assert (await host.tick())["toy.n0"] == 1.0
    assert "more than 1 MiB of output in one round; left out for 60 s: p1 (spam)" in caplog.text
    assert host.poller.commands.aside == ["p1"]


async def test_a_session_that_is_lost_in_the_middle_keeps_what_was_answered(make, caplog) -> None:
    host = make("1", "die", "3")
    await host.up()
    reading = await host.tick()
    assert (reading["toy.n0"], reading["remote.up"]) == (1.0, 0.0)
    assert "db1: skipped until it answers: the connection was lost" in caplog.text
    assert host.poller.commands.aside == []


async def test_a_session_that_ends_between_ticks_is_replaced(make) -> None:
    host = make("1")
    await host.up()
    host.sessions[0].give_up()
    await until(lambda: len(host.sessions) == 2)
    await host.up()
    assert (await host.tick())["remote.connects"] == 2.0


async def test_a_host_that_is_still_answering_the_tick_before_is_skipped(make) -> None:
    host = make("hang")
    await host.up()
    task = host.poller.begin(Timestamp(1), 10.0)
    assert host.poller.begin(Timestamp(2), 10.0) is None
    assert (host.poller.skipped, host.taken) == (1, [])
    assert task is not None
    task.cancel()


async def test_a_cause_is_said_once_and_so_is_its_end(make, caplog) -> None:
    caplog.set_level(logging.INFO)
    host = make("1")
    await host.up()
    host.error = HostbusError("no way there")
    host.sessions[0].give_up()
    await until(lambda: host.attempts >= 5)
    assert host.poller.problem == "no way there"
    assert caplog.text.count("no way there") == 1
    host.error = None
    await host.up()
    assert host.poller.problem == ""
    assert caplog.text.count("db1: connected again") == 1


@pytest.mark.parametrize("error", [RuntimeError("a bug"), asyncio.CancelledError()])
async def test_what_nobody_foresaw_does_not_end_the_hosts_monitoring(make, error: BaseException) -> None:
    host = make("1")
    await host.up()
    host.error = error
    host.sessions[0].give_up()
    await until(lambda: host.attempts >= 3)
    host.error = None
    await host.up()
    assert (await host.tick())["remote.up"] == 1.0


async def test_waits_between_attempts_grow_and_differ(make, monkeypatch) -> None:
    monkeypatch.setattr(polling, "LOWEST_BACKOFF_S", 1.0)
    host = make("1")
    await host.up()
    poller = host.poller
    pauses = []
    for failures in range(1, 9):
        poller._failures = failures
        pauses.append([poller._pause_s() for _ in range(50)])
    for expected, got in zip([1, 2, 4, 8, 16, 30, 30, 30], pauses, strict=True):
        assert 0.75 * expected <= min(got) < max(got) <= 1.25 * expected
    poller._failures = 10**6
    assert poller._pause_s() < 40


async def test_only_an_answer_shortens_the_wait_again(make) -> None:
    host = make("hang")
    await host.up()
    for number in range(1, 4):
        await host.tick()
        assert host.poller._failures == number
        await host.up()
        host.poller.commands._aside.clear()
    assert host.poller._failures == 3
    host.poller.commands._aside["p0"] = (1e9, 60.0)
    await host.tick()
    assert host.poller._failures == 0


async def test_pending_ends_after_two_rounds(make) -> None:
    host = make("1")
    assert host.poller.pending
    await host.up()
    await host.tick()
    assert host.poller.pending
    await host.tick()
    assert not host.poller.pending


async def test_pending_ends_when_the_host_cannot_be_reached(make) -> None:
    host = make("1")
    host.error = HostbusError("no way there")
    await until(lambda: not host.poller.pending)


async def test_closing_does_not_wait_for_the_host(make) -> None:
    host = make("hang")
    await host.up()
    task = host.poller.begin(Timestamp(1), 1000.0)
    await asyncio.sleep(0)
    await asyncio.wait_for(host.poller.aclose(), 5)
    assert task is not None
    assert task.cancelled()
    await asyncio.wait_for(host.poller.aclose(), 5)
