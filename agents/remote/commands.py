# SPDX-License-Identifier: MIT
"""What one host is asked in a round, and what the answers mean: its parsers, and which of them are set aside."""

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from agents.base.absent import NothingFound
from agents.base.parts import FAILURES, Parts
from agents.metric import Metric, MetricTable
from agents.remote.parser import Context, MetricParser
from agents.remote.script import Answer
from bus.timestamp import Timestamp

logger = logging.getLogger(__name__)

CORE_COUNT = "getconf _NPROCESSORS_ONLN || nproc || grep -c ^processor /proc/cpuinfo"
NOT_FOUND = (126, 127)
"""Exit codes of a shell that cannot run a command."""

SHOWN_CHARACTERS = 80

ASIDE_S = 60.0
LONGEST_ASIDE_S = 1920.0
"""A command that hangs each time it is tried is tried ever more seldom: what hangs may stay on the host for ever."""


@dataclass(frozen=True, slots=True)
class Command:
    """One command of a round. name: its parser's, empty for the number of cores."""

    name: str
    line: str

    def __str__(self) -> str:
        return f"{self.name or 'the number of cores'} ({shortened(self.line)})"


class HostCommands:
    """The parsers of one host, with what they remember.

    Args:
        word: the host's word in metric names
        parsers: by name
        core_count: None to ask the host
        parts: notes what fails
        due: True once per so many seconds: ``due("db1.gpu", 30.0)``
        clock: monotonic seconds
    """

    def __init__(
        self,
        word: str,
        parsers: Mapping[str, MetricParser],
        core_count: int | None,
        *,
        parts: Parts,
        due: Callable[[str, float], bool],
        clock: Callable[[], float],
    ) -> None:
        self._word = word
        self._parsers = dict(parsers)
        self._parts = parts
        self._due = due
        self._clock = clock
        self._asks_cores = core_count is None
        self._core_count = core_count
        self._contexts = {name: Context(host=word, parts=Parts(f"{word}: {name}")) for name in parsers}
        self._tables = _tables(parsers.values())
        self._aside: dict[str, tuple[float, float]] = {}
        self._absent: dict[str, str] = {}

    @property
    def aside(self) -> list[str]:
        """The parsers whose command is not run for now."""
        now_s = self._clock()
        return sorted(name for name, (until_s, _) in self._aside.items() if now_s < until_s)

    def describe(self, family: str, name: str) -> Metric | None:
        """What the parsers of a family say about one of its metrics."""
        table = self._tables.get(family)
        return table.find(name) if table else None

    def on_session(self) -> None:
        """A new session: the host may have been booted with other cores."""
        if self._asks_cores:
            self._core_count = None

    def plan(self) -> list[Command]:
        """What is to be asked now."""
        now_s = self._clock()
        commands = [] if self._core_count is not None else [Command("", CORE_COUNT)]
        for name, parser in self._parsers.items():
            until_s, _ = self._aside.get(name, (0.0, 0.0))
            if now_s >= until_s and (not parser.every_s or self._due(f"{self._word}.{name}", parser.every_s)):
                commands.append(Command(name, parser.command))
        return commands

    def hung(self, command: Command) -> float:
        """A command did not end in time: set it aside. Returns for how many seconds."""
        _, before_s = self._aside.get(command.name, (0.0, 0.0))
        span_s = min(2 * before_s, LONGEST_ASIDE_S) or ASIDE_S
        if command.name:
            self._aside[command.name] = (self._clock() + span_s, span_s)
        else:
            self._core_count, self._asks_cores = 1, False
        return span_s

    def read(self, commands: Sequence[Command], answers: Sequence[Answer], tick: Timestamp) -> dict[str, float]:
        """The values of those commands that were answered, by ``HOST.FAMILY.NAME``."""
        values: dict[str, float] = {}
        for command, answer in zip(commands, answers, strict=False):
            if not command.name:
                self._core_count = _core_count(answer)
                continue
            with self._parts(f"{self._word}: {command.name}"):
                values |= self._parse(command.name, answer, tick)
        return values

    def _parse(self, name: str, answer: Answer, tick: Timestamp) -> dict[str, float]:
        parser = self._parsers[name]
        if answer.exit_code in NOT_FOUND and not answer.output.strip():
            why = f"exit code {answer.exit_code}, the command cannot be run: {shortened(parser.command)}"
            self._set_aside(name, why)
            return {}
        context = self._contexts[name]
        context.core_count = self._core_count or 1
        context.tick = tick
        context.now_s = answer.at_s
        failed_before = context.parts.errors
        try:
            found = parser.parse(answer.output, context)
            values = {f"{self._word}.{parser.family}.{key}": float(value) for key, value in found.items()}
        except NothingFound as nothing:
            self._set_aside(name, str(nothing))
            return {}
        except FAILURES as error:
            if answer.exit_code == 0:
                raise
            raise ValueError(f"{error} (exit code {answer.exit_code} of: {shortened(parser.command)})") from error
        except Exception as error:  # anybody's code: it costs its own values
            raise ValueError(f"{type(error).__name__}: {error}") from error
        finally:
            self._parts.errors += context.parts.errors - failed_before
        self._aside.pop(name, None)
        if self._absent.pop(name, None) is not None:
            logger.info("%s: %s: there is something to measure now", self._word, name)
        return values

    def _set_aside(self, name: str, why: str) -> None:
        self._aside[name] = (self._clock() + ASIDE_S, 0.0)
        if self._absent.get(name) != why:
            self._absent[name] = why
            logger.info("%s: %s: %s; looking again every %g s", self._word, name, why, ASIDE_S)


def shortened(line: str) -> str:
    """A command, fit for a line in the log."""
    return line if len(line) <= SHOWN_CHARACTERS else f"{line[:SHOWN_CHARACTERS]}..."


def _core_count(answer: Answer) -> int:
    """The number in an answer; 1 if there is none."""
    text = answer.output.strip()
    return int(text) if text.isascii() and text.isdigit() and 0 < len(text) < 6 and int(text) else 1


def _tables(parsers: Iterable[MetricParser]) -> dict[str, MetricTable]:
    """What each family's metrics are. Several parsers may share a family."""
    families: dict[str, list[Metric]] = {}
    for parser in parsers:
        table = [replace(metric, every_s=max(metric.every_s, parser.every_s)) for metric in parser.table()]
        families.setdefault(parser.family, []).extend(table)
    return {family: MetricTable(metrics) for family, metrics in families.items()}
