# SPDX-License-Identifier: MIT
"""What groups of processes take of the host, and which single processes take most."""

import heapq
import logging
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from operator import itemgetter
from typing import Annotated, ClassVar, Unpack

from msgspec import Meta, field

from agents.base.devices import names_of
from agents.host import HostConfig, HostOptions, HostSource, Metric, NothingFound, Reading
from agents.process.details import PSS_EVERY_S, DetailReader, Shares, inherited, io_gain
from agents.process.groups import Members, ProcessGroup, group_of
from agents.process.pace import Pace
from agents.process.procfs import TICKS_PER_S, Look, Looker, Stat, since_boot
from agents.process.sums import Gain, Member, amounts, gains_since, rates, shares
from bus.config import AgentConfig
from bus.transport.base import Transport

logger = logging.getLogger(__name__)

MOST_GROUPS = 100
MOST_RANKS = 50
RENAME_EVERY_S = 10.0
"""Who holds a rank may change with every look; the manager is told not that often, and of all ranks at once."""

LONGEST_NAME = 64


class ProcessConfig(HostConfig, frozen=True):
    """What the family can be told."""

    # An expression that is looked for in command lines answers, by the number of processes that fit, what is in them.
    local_only: ClassVar[frozenset[str]] = frozenset({"groups"})

    groups: Annotated[
        list[Annotated[str, Meta(min_length=1, max_length=256)] | ProcessGroup],
        Meta(max_length=MOST_GROUPS, description="groups of processes; a text is a glob on names, like nginx"),
    ] = field(default_factory=list)
    top: Annotated[
        int, Meta(ge=0, le=MOST_RANKS, description="how many single processes to rank, by CPU time and by memory")
    ] = 5
    scan_every: Annotated[
        float,
        Meta(
            ge=0, le=3600, description="seconds between looks at all processes; 0: as often as 0.5 % of a core allows"
        ),
    ] = 0.0

    def __post_init__(self) -> None:
        """Checks that msgspec's limits cannot express. Raises ValueError."""
        super().__post_init__()
        words: set[str] = set()
        for group in self.all_groups:
            if group.name in words:
                raise ValueError(f"groups: two are called {group.name!r}; give each a name of its own")
            words.add(group.name)

    @property
    def all_groups(self) -> list[ProcessGroup]:
        """The groups, each as a table. Raises ValueError."""
        return [group_of(group) for group in self.groups]

    @property
    def most_metrics(self) -> int:
        """How many metrics there may be."""
        return len(GROUP_METRICS) * len(self.groups) + 2 * self.top


GROUP_METRICS = (
    Metric("{group}.count", "1", "processes that run, without zombies"),
    Metric("{group}.cpu", "%", "CPU time, of one core; without the last moments of processes that ended", scope="last"),
    Metric("{group}.rss", "B", "memory in use; what processes share is counted for each of them"),
    Metric("{group}.vms", "B", "addresses in use"),
    Metric("{group}.threads", "1", "threads"),
    Metric("{group}.faults", "1/s", "page faults, minor and major", scope="last"),
    Metric("{group}.fds", "1", "open files, of the processes where that may be read"),
    Metric("{group}.read_bytes", "B/s", "read from devices, by the processes where that may be read", scope="last"),
    Metric("{group}.written_bytes", "B/s", "written to devices, by the processes where that may be read", scope="last"),
    Metric(
        "{group}.pss",
        "B",
        "memory in use; what processes share is split among them; of the processes where that may be read",
        every_s=PSS_EVERY_S,
    ),
)


class ProcessSource(HostSource):
    """What groups of processes take of the host, and which single processes take most.

    Processes are told apart by pid and start, so a pid that is used again means nothing. Measured: a look takes
    1.2 ms of CPU for 80 processes and 23 ms for 2,000; it is made every 1, 2, 5, 10 or 30 s, so that it stays below
    0.5 % of a core. A group makes each new process cost 20 to 50 µs once, and each member 13 µs at every look.
    """

    Config = ProcessConfig
    config: ProcessConfig
    family = "process"
    metrics = (
        Metric("metrics_refused", "1", "metrics beyond max_metrics; there if the configuration may lead to any"),
        *GROUP_METRICS,
        Metric(
            "top.cpu.{rank}", "%", "CPU time of the process that took most, second most, ..., of one core", scope="last"
        ),
        Metric("top.memory.{rank}", "B", "memory in use of the process that uses most, second most, ..."),
    )

    def __init__(
        self,
        token: str,
        url: str | Transport = "",
        *,
        uptime: Callable[[], float] = since_boot,
        **options: Unpack[HostOptions],
    ) -> None:
        super().__init__(token, url, **options)
        self._uptime = uptime
        self._last: Mapping[int, Stat] = {}
        self._last_s: float | None = None
        self._last_ticks = 0
        self._ranked: dict[str, str] = {}
        self._looker = Looker(str(self.roots.proc))
        self._details = DetailReader(str(self.roots.proc), self.token)
        self._shares = Shares(str(self.roots.proc), self.token)
        self._choose()

    def _choose(self) -> None:
        """What follows from the configuration, to be worked out anew."""
        self._members = Members(self.config.all_groups, self.parts, self.token)
        self._pace = Pace(self.config.period, self.config.scan_every)
        self._denied: set[str] = set()

    async def reconfigure(self, config: AgentConfig) -> None:
        """Put a configuration in force at once."""
        await super().reconfigure(config)
        self._choose()
        self.redescribe(self._names.known)

    def describe(self, name: str) -> Metric | None:
        """The table's entry, with the time between looks, and for a rank the name of the process that holds it."""
        metric = super().describe(name)
        if metric is None:
            return None
        details = {"process": self._ranked[name]} if name in self._ranked else {}
        return replace(metric, every_s=max(metric.every_s, self._pace.every_s), details=details)

    def read(self) -> Reading:
        """All processes, if it is time to look at them again."""
        pace = self._pace
        if pace.every_s > self.config.period and not self.due("processes", pace.every_s):
            return {}
        is_first = not self._last
        began_s, others_s = time.thread_time(), self._others_s
        reading = self._look()
        cost_s = time.thread_time() - began_s + self._others_s - others_s
        if not is_first and pace.took(cost_s):  # the first one gets to know everybody
            logger.info(
                "%s: a look at %d processes takes %.1f ms of CPU time: one every %g s from now on (scan_every sets it)",
                self.token,
                len(self._last),
                1e3 * pace.cost_s,
                pace.every_s,
            )
            self.redescribe(self._names.known)
        return reading

    @property
    def _others_s(self) -> float:
        """CPU time of the threads that read for this one; shares of memory have an allowance of their own."""
        return self._members.spent_s + self._details.spent_s

    def _look(self) -> Reading:
        now_s, now_ticks = self.clock(), int(self._uptime() * TICKS_PER_S)
        found = self._processes()
        elapsed_s = None if self._last_s is None else now_s - self._last_s
        gains = gains_since(self._last, found.processes, self._last_ticks) if elapsed_s else {}
        rename = self.due("ranks", RENAME_EVERY_S)
        reading: dict[str, float] = {}
        if self.config.most_metrics > self.config.max_metrics:
            reading["metrics_refused"] = self.metrics_refused
        reading |= self._groups(found.processes, gains, now_s, elapsed_s)
        if elapsed_s:
            used = {pid: 100 * gain.ticks / TICKS_PER_S / elapsed_s for pid, gain in gains.items()}
            reading |= self._top("top.cpu", used, found.processes, rename=rename)
        memory = {pid: stat.rss for pid, stat in found.processes.items()}
        reading |= self._top("top.memory", memory, found.processes, rename=rename)
        is_late = self.clock() - now_s > self.deadline_s  # nobody hears it, and what it read is of some later time
        self._last, self._last_s, self._last_ticks = found.processes, None if is_late else now_s, now_ticks
        return reading

    def _processes(self) -> Look:
        proc = str(self.roots.proc)
        try:
            found = self._looker.look()
        except FileNotFoundError:
            raise NothingFound(f"there is no {proc}") from None
        if not found.processes:
            raise NothingFound(f"{proc} shows no processes" + (" that may be read (hidepid)" if found.denied else ""))
        with self.parts("processes"):
            if found.garbled:
                raise ValueError(found.garbled)
        return found

    # -- groups ----------------------------------------------------------------------------------------

    def _groups(
        self, processes: Mapping[int, Stat], gains: Mapping[int, Gain], now_s: float, elapsed_s: float | None
    ) -> dict[str, float]:
        members = self._members
        if not members.groups:
            return {}
        proc = str(self.roots.proc)
        patience_s = self.deadline_s / 5  # four things may hang, each of them so long at most
        from_ended = inherited(self._last, processes, members.known)
        known = {pid: who for pid, who in members.update(proc, processes, now_s, patience_s).items() if who.groups}
        alive = [pid for pid in known if not processes[pid].ended]
        details = self._details.read(alive, patience_s)
        if pss_due := self.due("pss", PSS_EVERY_S):
            self._shares.refresh(known, [pid for pid in alive if not processes[pid].kernel], now_s, patience_s)
        grouped: dict[str, list[Member]] = {group.word: [] for group in members.groups}
        for pid, who in known.items():
            stat, found, io = processes[pid], details.get(pid), None
            if found is not None and found.io is not None:
                base = (0, 0) if elapsed_s and stat.start >= self._last_ticks else who.io
                io = io_gain(base, found.io, from_ended.get(pid, (0, 0)))
            who.io = found.io if found else None
            member = Member(stat, who, gains.get(pid), found, io)
            for group in who.groups:
                grouped[group.word].append(member)
        reading: dict[str, float] = {}
        for word, theirs in grouped.items():
            values = (
                amounts(theirs) | (rates(theirs, elapsed_s) if elapsed_s else {}) | (shares(theirs) if pss_due else {})
            )
            reading.update(zip(names_of(word, tuple(values)), values.values(), strict=True))
            self._note_denied(word, theirs)
        return reading

    def _note_denied(self, word: str, members: Iterable[Member]) -> None:
        alive = [member for member in members if not member.stat.ended]
        for what, denied in (
            ("read_bytes and written_bytes", [m for m in alive if m.details and m.details.io_denied]),
            ("fds", [m for m in alive if m.details and m.details.fds_denied]),
            ("pss", [m for m in alive if m.known.pss_denied]),
        ):
            if denied and f"{word} {what}" not in self._denied:
                self._denied.add(f"{word} {what}")
                logger.info(
                    "%s: %s of %d of %d processes of group %s may not be read; it takes root or CAP_SYS_PTRACE",
                    self.token,
                    what,
                    len(denied),
                    len(alive),
                    word,
                )

    # -- ranks -----------------------------------------------------------------------------------------

    def _top(
        self, what: str, values: Mapping[int, float], processes: Mapping[int, Stat], *, rename: bool
    ) -> dict[str, float]:
        """The greatest values by rank, down to 0 where there are not as many processes.

        rename: say who holds the ranks now, not only those that had no holder yet.
        """
        names = names_of(what, RANKS[: self.config.top])
        reading = dict.fromkeys(names, 0.0)
        ranked = heapq.nlargest(len(names), values.items(), key=itemgetter(1)) if names else []
        for name, (pid, value) in zip(names, ranked, strict=False):
            reading[name] = value
            if value > 0 and (rename or name not in self._ranked):
                process = readable(processes[pid].name)
                if self._ranked.get(name) != process:
                    self._ranked[name] = process
                    self.redescribe([name])
        return reading


RANKS = tuple(str(rank) for rank in range(1, MOST_RANKS + 1))


def readable(name: str) -> str:
    """A process's name for people: it may have called itself anything."""
    return "".join(letter if letter.isprintable() else "?" for letter in name[:LONGEST_NAME]) or "?"
