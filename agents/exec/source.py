# SPDX-License-Identifier: MIT
"""Metrics that commands print."""

import asyncio
import logging
import os
import socket
from collections.abc import Iterable
from dataclasses import replace
from functools import partial
from typing import Annotated, ClassVar, Unpack

from msgspec import Meta, field

from agents.base.worker import CallHung, Worker
from agents.exec.commands import Command, commands_of
from agents.exec.program import LINGER_S, TERM_S, Ended, Program, run
from agents.foreign.lines import Parsed
from agents.foreign.texts import Texts, decoded, parse_text
from agents.host import HostConfig, HostOptions, HostSource, Metric
from bus.config import AgentConfig
from bus.rpc import Json
from bus.timestamp import Timestamp
from bus.transport.base import Transport

logger = logging.getLogger(__name__)

OWN = ("up", "duration", "exit_code")

AT_ONCE = 8
"""Commands that run at the same time; others wait for their turn."""

GRACE_S = 1.0
"""How long after SIGKILL a command may be there; then it counts as one that cannot be killed."""

STOP_S = TERM_S + 0.4
WAIT_PERIODS = 0.95
SAID_LINES = 3
SAID_CHARACTERS = 300
OURS = "HOSTBUS_"


class ExecConfig(HostConfig, frozen=True):
    """What the family can be told."""

    local_only: ClassVar[frozenset[str]] = frozenset({"commands"})

    commands: Annotated[
        list[str | Command],
        Meta(
            max_length=100,
            description="commands whose output is metrics, as lines 'NAME VALUE [TIME]' or as Prometheus reads it: "
            'a line that is split into words ("nproc --all"; there is no shell), or a table',
        ),
    ] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Raises ValueError for commands that cannot be run, or are called alike."""
        super().__post_init__()
        commands_of(self.commands)

    @property
    def missing(self) -> str:
        """Commands."""
        return "" if self.commands else 'no commands; name them: [exec-source] commands = ["nproc --all", ...]'


class ExecSource(HostSource):
    """What commands print: lines ``name value [time]``, or what Prometheus reads.

    Commands run side by side, each with a deadline, at which its process group is killed: all that it started, but for
    what gave itself a session of its own (setsid, daemons), which nobody can find again. The output counts if the
    command ends with 0 in time; it is sampled when the command ends, with the time of the tick at which it began. A
    command that is still running when it is due again is not started a second time.
    Measured: 0.4 ms of CPU a command and tick that prints a line, of which the event loop's thread takes 0.1 ms (1 ms
    if uvloop itself started the program), and what the command itself takes (``echo`` 0.8 ms).
    """

    Config = ExecConfig
    config: ExecConfig
    family = "exec"
    metrics = (
        Metric("{command}.up", "1", "1 if it ended with 0 in time and its output made sense, else 0", quantity="state"),
        Metric("{command}.duration", "s", "how long it ran"),
        Metric(
            "{command}.exit_code",
            "1",
            "what it ended with; 128 + n: signal n ended it; not a number: it could not be started",
            quantity="state",
        ),
        Metric("{command}.{name...}", "", "what the command prints"),
    )

    def __init__(self, token: str, url: str | Transport = "", **options: Unpack[HostOptions]) -> None:
        super().__init__(token, url, **options)
        self._texts = Texts(self, OWN)
        # The agent's own variables stay with it: the URL of the broker may hold a password.
        self._environment = {name: value for name, value in os.environ.items() if not name.startswith(OURS)}
        self._slots_at_once = asyncio.Semaphore(AT_ONCE)
        self._jobs = {
            word: _Job(word, command, self.token) for word, command in commands_of(self.config.commands).items()
        }
        self._leaving: list[_Job] = []
        self._is_ending = False

    def describe(self, name: str) -> Metric | None:
        """What the output says about a metric, or the table."""
        metric = self._texts.describe(name) or super().describe(name)
        job = self._jobs.get(name.partition(".")[0])
        if metric is not None and job is not None and job.command.every:
            return replace(metric, every_s=job.command.every)
        return metric

    async def measure(self) -> None:
        """Start what is due, and wait for it, but not beyond the next tick: what takes longer goes on meanwhile."""
        self._harvest()
        for job in self._jobs.values():
            if self._is_due(job) and not self._is_ending:
                self._launch(job)
        await self._wait_for(self._jobs.values(), WAIT_PERIODS * self.config.period)
        self._harvest()

    async def reconfigure(self, config: AgentConfig) -> None:
        """Put a configuration in force at once. Commands that are no longer in it, or are others now, are ended."""
        await super().reconfigure(config)
        old, self._jobs = self._jobs, {}
        for word, command in commands_of(self.config.commands).items():
            known = old.get(word)
            if known is not None and known.command == command:
                self._jobs[word] = old.pop(word)
            else:
                self._jobs[word] = _Job(word, command, self.token)
        for job in old.values():
            job.end()
            self._leaving.append(job)
        self.redescribe([f"{word}.{own}" for word in self._jobs for own in OWN])

    async def wind_down(self) -> None:
        """End the commands that run, then what every source does."""
        await self._end_all()
        await super().wind_down()

    async def teardown(self) -> None:
        """Let go of the threads."""
        await self._end_all()
        await super().teardown()

    def vital_signs(self) -> Json:
        """And how many commands are running."""
        return {**super().vital_signs(), "commandsRunning": sum(job.is_running for job in self._jobs.values())}

    # -- one command -----------------------------------------------------------------------------------

    def _is_due(self, job: "_Job") -> bool:
        every_s = job.command.every
        return every_s <= self.config.period or self.due(f"command {job.word}", every_s)

    def _launch(self, job: "_Job") -> None:
        pace = f"the pace of command {job.word}"
        if job.is_running:
            self.parts.failed(pace, TimeoutError("it was due again while it still ran or waited for its turn"))
        elif job.worker.lost:  # its end is logged already
            self.take(self.tick, {f"{job.word}.up": 0.0})
        else:
            self.parts.well(pace)
            job.task = asyncio.create_task(self._run_job(job), name=f"{self.token}: command {job.word}")

    async def _run_job(self, job: "_Job") -> None:
        """The whole of one run, from its turn to its points."""
        async with self._slots_at_once:
            if job.is_unwanted:
                return
            tick = self.tick
            program = self._program(job.command)
            stop, job.stopper = socket.socketpair()
            try:
                ended, parsed = await job.worker.call(
                    partial(_run_and_parse, program, job.command, stop), program.timeout_s + TERM_S + LINGER_S + GRACE_S
                )
            except CallHung:
                ended, parsed = (
                    Ended(failure=CallHung("it cannot be killed; not started again until it ends")),
                    Parsed(),
                )
            finally:  # also when cancelled: whoever runs it then ends it
                job.stopper.close()
        if not ended.stopped and not job.is_unwanted:
            await self._take_run(job, tick, ended, parsed)

    def _program(self, command: Command) -> Program:
        return Program(
            argv=tuple(command.argv),
            env={**self._environment, **command.env},
            cwd=command.cwd or None,
            timeout_s=command.timeout or self.deadline_s,
            max_output=command.max_output,
        )

    async def _take_run(self, job: "_Job", tick: Timestamp, ended: Ended, parsed: Parsed) -> None:
        part = f"command {job.word}"
        failure = ended.failure
        if failure is None:
            self.parts.well(part)
        else:
            said = last_words(job.command.censored(ended.complaint))
            error = type(failure)(f"{failure}; {said}") if said else failure
            self.parts.failed(part, error, kind=str(failure))
        is_up = failure is None and bool(parsed.samples or not parsed.bad)
        own = (float(is_up), ended.duration_s, ended.exit_code)
        self.take(tick, {f"{job.word}.{name}": value for name, value in zip(OWN, own, strict=True)})
        await self._texts.take_text(job.word, part, parsed, tick)

    # -- all of them -----------------------------------------------------------------------------------

    def _harvest(self) -> None:
        """Forget the runs that are over. Raises what one of them raised."""
        for job in [*self._jobs.values(), *self._leaving]:
            if job.task is not None and job.task.done():
                task, job.task = job.task, None
                task.result()
        for job in [job for job in self._leaving if job.task is None]:
            self._leaving.remove(job)
            job.worker.close()

    async def _wait_for(self, jobs: Iterable["_Job"], patience_s: float) -> None:
        running = [job.task for job in jobs if job.task is not None]
        if running:
            await asyncio.wait(running, timeout=patience_s)

    async def _end_all(self) -> None:
        """Nothing runs any more, and nothing will. May be called twice."""
        self._is_ending = True
        jobs = [*self._jobs.values(), *self._leaving]
        for job in jobs:
            job.end()
        await self._wait_for(jobs, STOP_S)
        for job in jobs:
            if job.task is not None and not job.task.done():
                logger.warning("%s: command %s cannot be killed", self.token, job.word)
                job.task.cancel()
        await self._wait_for(jobs, STOP_S)
        for job in jobs:
            if job.task is not None and not job.task.cancelled() and (error := job.task.exception()) is not None:
                logger.error("%s: command %s failed", self.token, job.word, exc_info=error)
            job.task = None
            job.worker.close()


class _Job:
    """A command, its thread, and its run if there is one."""

    def __init__(self, word: str, command: Command, token: str) -> None:
        self.word = word
        self.command = command
        self.worker = Worker(f"{token}: command {word}")
        self.task: asyncio.Task[None] | None = None
        self.stopper: socket.socket | None = None
        self.is_unwanted = False

    @property
    def is_running(self) -> bool:
        return self.task is not None and not self.task.done()

    def end(self) -> None:
        """Kill what runs; it has no points any more."""
        self.is_unwanted = True
        if self.stopper is not None:
            self.stopper.close()


def _run_and_parse(program: Program, command: Command, stop: socket.socket) -> tuple[Ended, Parsed]:
    """In a thread: run it, and make sense of what it printed."""
    ended = run(program, stop)
    if ended.failure is not None or ended.stopped:
        return ended, Parsed()
    try:
        return ended, parse_text(decoded(ended.output), command)
    except ValueError as error:
        return replace(ended, failure=ValueError(f"its output makes no sense: {error}")), Parsed()


def last_words(text: str) -> str:
    """The last lines of what a program complained of, as one line that a log can bear."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    shown = " / ".join(lines[-SAID_LINES:])[-SAID_CHARACTERS:]
    return "it said: " + "".join(letter if letter.isprintable() else "?" for letter in shown) if shown else ""
