# SPDX-License-Identifier: MIT
"""One host that is monitored: its session is kept, it is asked once per tick, and it never delays another."""

import asyncio
import logging
import random
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from agents.remote.commands import Command, HostCommands
from agents.remote.script import Answer, SessionLost, TooLong
from agents.remote.target import MonitorTarget
from bus.errors import HostbusError
from bus.timestamp import Timestamp

logger = logging.getLogger(__name__)

LOWEST_BACKOFF_S = 1.0
HIGHEST_BACKOFF_S = 30.0


class Session(Protocol):
    """A held session with a host; see `agents.remote.session.Session`."""

    begun: bool

    @property
    def has_shell(self) -> bool:
        """False if every command has a channel of its own."""

    async def ask(self, commands: list[str], answers: list[Answer]) -> None:
        """Run commands, and add each one's answer as it comes. Raises SessionLost."""

    async def ended(self) -> None:
        """Wait until the session cannot be used any more."""

    def give_up(self) -> None:
        """End the session without waiting."""


OpenSession = Callable[[MonitorTarget], AbstractAsyncContextManager[Session]]


class Poller:
    """Keeps a session with one host, and asks it once per tick.

    Args:
        word: the host's word in metric names
        target: the host
        commands: what to ask
        open_session: makes sessions
        take: is given the values of a tick, by ``HOST.FAMILY.NAME``
        clock: monotonic seconds
    """

    def __init__(
        self,
        word: str,
        target: MonitorTarget,
        commands: HostCommands,
        *,
        open_session: OpenSession,
        take: Callable[[Timestamp, Mapping[str, float]], None],
        clock: Callable[[], float],
    ) -> None:
        self.word = word
        self.target = target
        self.commands = commands
        self._open_session = open_session
        self._take = take
        self._clock = clock
        self._session: Session | None = None
        self._failures = 0
        self._round: asyncio.Task[None] | None = None
        self.problem = "not connected yet"
        """Why the host is not asked; empty while it is."""
        self.rounds = 0
        self.connects = 0
        self.skipped = 0
        self._keeper = asyncio.create_task(self._keep_connected(), name=f"{word}: connection")

    @property
    def is_up(self) -> bool:
        """True while there is a session."""
        return self._session is not None

    @property
    def pending(self) -> bool:
        """True until it is known whether the host can be reached, and if so, until it was asked twice."""
        return self.rounds < 2 and not self._failures

    def begin(self, tick: Timestamp, deadline_s: float) -> asyncio.Task[None] | None:
        """Ask for the values of a tick. Returns at once; None if the host is skipped."""
        if self._round is not None:
            self.skipped += 1
            return None
        if self._session is None:
            self.skipped += 1
            self._take(tick, self._health(0.0))
            return None
        self._round = asyncio.create_task(self._poll(self._session, tick, deadline_s), name=f"{self.word}: poll")
        self._round.add_done_callback(self._on_round)
        return self._round

    async def aclose(self) -> None:
        """Close the session without waiting for the host."""
        tasks = {self._keeper} | ({self._round} if self._round else set())
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)

    # -- one round -------------------------------------------------------------------------------------

    async def _poll(self, session: Session, tick: Timestamp, deadline_s: float) -> None:
        plan = self.commands.plan()
        answers: list[Answer] = []
        began_s = self._clock()
        problem = ""
        try:
            async with asyncio.timeout(deadline_s):
                await session.ask([command.line for command in plan], answers)
        except TimeoutError:
            problem = self._late(session, plan, len(answers), deadline_s)
        except TooLong as error:
            problem = f"{error}; {self._set_aside(plan[len(answers)])}"
        except SessionLost as error:
            problem = str(error)
        values = self.commands.read(plan, answers, tick)
        self.rounds += 1
        if problem:
            self.skipped += 1
            self._lose(session, problem)
            self._take(tick, values | self._health(0.0))
        else:
            self._failures = 0
            duration_s = self._clock() - began_s
            self._take(tick, values | self._health(1.0) | {f"{self.word}.remote.duration": duration_s})

    def _late(self, session: Session, plan: list[Command], answered: int, deadline_s: float) -> str:
        """What to say of a round that did not end in time."""
        if not session.begun or answered >= len(plan):
            return f"no answer within {deadline_s:g} s"
        return f"no end within {deadline_s:g} s; {self._set_aside(plan[answered])}"

    def _set_aside(self, command: Command) -> str:
        return f"left out for {self.commands.hung(command):g} s: {command}"

    def _health(self, up: float) -> dict[str, float]:
        return {
            f"{self.word}.remote.up": up,
            f"{self.word}.remote.skipped": float(self.skipped),
            f"{self.word}.remote.connects": float(self.connects),
        }

    def _on_round(self, task: asyncio.Task[None]) -> None:
        self._round = None
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.error("%s: a round failed: %s", self.word, error, exc_info=error)

    # -- the session -----------------------------------------------------------------------------------

    async def _keep_connected(self) -> None:
        while True:
            try:
                async with self._open_session(self.target) as session:
                    self._connected(session)
                    await session.ended()
                    self._lose(session, "the session ended")
            except HostbusError as error:
                self._failed(str(error))
            except asyncio.CancelledError:
                if (task := asyncio.current_task()) is None or task.cancelling():
                    raise
                self._failed("the attempt was cancelled from within")
            except Exception as error:
                # What a library did not foresee must not end the host's monitoring for ever.
                logger.exception("%s: cannot connect", self.word)
                self._failed(f"{type(error).__name__}: {error}")
            finally:
                self._session = None
            await asyncio.sleep(self._pause_s())

    def _connected(self, session: Session) -> None:
        self._session = session
        self.connects += 1
        self.commands.on_session()
        how = "" if session.has_shell else "; it allows no shell of ours: a channel for each command"
        logger.info("%s: connected%s%s", self.word, " again" if self.connects > 1 else "", how)
        self.problem = ""

    def _lose(self, session: Session, why: str) -> None:
        """Give a session up; the keeper makes another."""
        session.give_up()
        if self._session is session:
            self._session = None
            self._failed(why)

    def _failed(self, why: str) -> None:
        self._failures += 1
        if why != self.problem:
            logger.warning("%s: skipped until it answers: %s", self.word, why)
            self.problem = why

    def _pause_s(self) -> float:
        """Ever longer, and never the same for many hosts."""
        doublings = min(max(0, self._failures - 1), 10)
        return min(LOWEST_BACKOFF_S * 2.0**doublings, HIGHEST_BACKOFF_S) * random.uniform(0.75, 1.25)
