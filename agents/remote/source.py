# SPDX-License-Identifier: MIT
"""Metrics of many hosts that run no agent, over SSH."""

import asyncio
import contextlib
import importlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Unpack

from agents.host import HostConfig, HostOptions, HostSource, Metric, NothingFound
from agents.remote.commands import HostCommands
from agents.remote.config import RemoteConfig
from agents.remote.parser import MetricParser
from agents.remote.polling import Poller
from agents.remote.registry import DEFAULT_PARSERS, MORE_PARSERS, find_parser, parsers_for
from agents.remote.target import HostWords, MonitorTarget
from bus.config import AgentConfig
from bus.errors import ConfigError
from bus.rpc import Json
from bus.timestamp import Timestamp
from bus.transport.base import Transport

if TYPE_CHECKING:
    from agents.remote.session import Sessions

IMPORT_S = 30.0
SHOWN_DOWN = 20
"""Hosts at most whose troubles are told in the vital signs."""

OWN = (
    Metric("up", "1", "1, or 0 if the host did not answer in time", quantity="state"),
    Metric("duration", "s", "time that the host took for all answers"),
    Metric("skipped", "1", "ticks without an answer in time, since the source started", scope="point"),
    Metric("connects", "1", "sessions opened, since the source started", scope="point"),
)
"""What the source itself says of each host, as ``HOST.remote.NAME``."""


def _all_metrics(parsers: Iterable[MetricParser]) -> tuple[Metric, ...]:
    """The table of the family: the source's own metrics and those of the parsers, of any host."""
    table = {metric.name: metric for metric in (replace(own, name=f"{{host}}.remote.{own.name}") for own in OWN)}
    for parser in parsers:
        for metric in parser.table():
            name = f"{{host}}.{parser.family}.{metric.name}"
            table.setdefault(name, replace(metric, name=name, every_s=max(metric.every_s, parser.every_s)))
    return tuple(table.values())


class RemoteSource(HostSource):
    """Many hosts, each over one held SSH connection, all at the same tick.

    A host that does not answer in time is skipped for that tick and connected to again; no host waits for another.
    Measured: 1.4 ms of CPU a host and tick with all parsers and 160 metrics, of which the round trip takes 0.2 ms;
    on the host 7 to 15 ms, nearly all of it the commands. asyncssh takes 17 MB, 100 hosts 40 MB with their metrics;
    a connection costs 6 ms of CPU, in steps below 4 ms: 100 sessions are open after 2.3 s.
    """

    Config = RemoteConfig
    config: RemoteConfig
    family = "remote"
    metrics = _all_metrics([*DEFAULT_PARSERS.values(), *MORE_PARSERS.values()])

    def __init__(
        self,
        token: str,
        url: str | Transport = "",
        *,
        targets: Sequence[MonitorTarget] | None = None,
        **options: Unpack[HostOptions],
    ) -> None:
        super().__init__(token, url, **options)
        self._given = None if targets is None else list(targets)
        self._host_words = HostWords()
        self._pollers: dict[str, Poller] = {}
        self._sessions: Sessions | None = None
        self._own = {metric.name: metric for metric in OWN}
        self._key_words = 1 + (self.prefix.count(".") + 1 if self.prefix else 0)
        self._running = 0
        self._settled = asyncio.Event()

    @classmethod
    def prefix_of(cls, config: HostConfig) -> str:
        """Only what was configured: the hosts' own words come first otherwise."""
        return config.prefix

    @property
    def missing(self) -> str:
        """Nothing, if the hosts were given to the constructor."""
        return self.config.missing if self._given is None else ""

    @property
    def pending(self) -> bool:
        """True until every host has been asked twice, or could not be reached."""
        return self._sessions is None or any(poller.pending for poller in self._pollers.values())

    def routing_key(self, metric: str) -> str:
        """The host's words: what was found on a host travels together."""
        return ".".join(metric.split(".", self._key_words)[: self._key_words])

    def describe(self, name: str) -> Metric | None:
        """What the source or the host's parsers say about ``HOST.FAMILY.NAME``."""
        word, family, rest = name.split(".", 2)
        if family == "remote":
            return self._own.get(rest)
        poller = self._pollers.get(word)
        return poller.commands.describe(family, rest) if poller else None

    # -- ticks -----------------------------------------------------------------------------------------

    async def measure(self) -> None:
        """Ask all hosts at once; what a host answers is sampled as soon as it is there.

        Waits for them, but never into the next tick: with very short periods a slow host goes on by itself.
        """
        if not self._pollers:
            raise NothingFound("no hosts are configured")
        tick, deadline_s = self.tick, self.deadline_s
        self._settled.clear()
        for poller in self._pollers.values():
            if (task := poller.begin(tick, deadline_s)) is not None:
                self._running += 1
                task.add_done_callback(self._on_round)
        patience_s = None if deadline_s <= self.config.period else 0.9 * self.config.period
        if self._running:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(patience_s):
                    await self._settled.wait()

    def _on_round(self, _: asyncio.Task[None]) -> None:
        self._running -= 1
        if not self._running:
            self._settled.set()

    def _take(self, tick: Timestamp, values: Mapping[str, float]) -> None:
        with self.parts("points"):
            self.take(tick, values)

    # -- life ------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Begin to connect, then join the bus. Raises ConfigError for modules and parsers that are not there."""
        self._sessions = await self.worker.call(self._load, IMPORT_S)
        await self._adopt(await self._targets(self.config))
        await super().start()
        self.task_stop_future.add_done_callback(lambda _: self._settled.set())

    async def reconfigure(self, config: AgentConfig) -> None:
        """Put a configuration in force at once: hosts that it does not change keep their sessions."""
        if not isinstance(config, RemoteConfig):
            raise TypeError(f"{type(self).__name__} takes a RemoteConfig, not {type(config).__name__}")
        targets = await self._targets(config)  # what is wrong is said before anything changes
        await super().reconfigure(config)
        await self._adopt(targets)

    async def teardown(self) -> None:
        """Close all sessions, without waiting for the hosts."""
        await self._close(self._pollers.values())
        self._pollers.clear()
        await super().teardown()

    def _load(self) -> "Sessions":
        """In a thread: asyncssh is heavy, and modules are anybody's."""
        from agents.remote.session import Sessions

        return Sessions(self.clock, self.worker)

    async def _targets(self, config: RemoteConfig) -> dict[str, MonitorTarget]:
        """The hosts by their words, with their parsers. Raises ConfigError."""
        if config.modules:
            await self.worker.call(lambda: _import(config.modules), IMPORT_S)
        try:
            if self._given is not None:
                return self._host_words.of([_with_parsers(target, config.parsers) for target in self._given])
            targets = zip(config.targets(), config.parsers_of(), strict=True)
            return self._host_words.of([_with_parsers(target, names) for target, names in targets])
        except ValueError as error:
            raise ConfigError(f"{self.token}: {error}") from None

    async def _adopt(self, targets: Mapping[str, MonitorTarget]) -> None:
        """Monitor these hosts and no others."""
        if self._sessions is None:
            return
        before, self._pollers = self._pollers, {}
        for word, target in targets.items():
            same = word in before and before[word].target == target
            self._pollers[word] = before.pop(word) if same else self._poller(word, target, self._sessions)
        self.redescribe([name for name in self._names.known if name.split(".", 1)[0] in before])
        await self._close(before.values())

    def _poller(self, word: str, target: MonitorTarget, sessions: "Sessions") -> Poller:
        commands = HostCommands(
            word, target.parsers or {}, target.core_count, parts=self.parts, due=self.due, clock=self.clock
        )
        return Poller(word, target, commands, open_session=sessions.session, take=self._take, clock=self.clock)

    async def _close(self, pollers: Iterable[Poller]) -> None:
        await asyncio.gather(*(poller.aclose() for poller in pollers))

    def vital_signs(self) -> Json:
        """How many hosts are up, and what is wrong with the others."""
        down = {word: poller.problem for word, poller in self._pollers.items() if not poller.is_up}
        return {
            **super().vital_signs(),
            "hosts": len(self._pollers),
            "hostsUp": len(self._pollers) - len(down),
            "hostsDown": dict(list(down.items())[:SHOWN_DOWN]),
        }


def _with_parsers(target: MonitorTarget, names: Sequence[str] | None) -> MonitorTarget:
    """A target whose parsers are known. Raises ConfigError for a name that is not."""
    if target.parsers is not None:
        return target
    host = target.address.host
    if names is None:
        return replace(target, parsers=parsers_for(host))
    return replace(target, parsers={name: find_parser(name, host) for name in names})


def _import(modules: Iterable[str]) -> None:
    for module in modules:
        try:
            importlib.import_module(module)
        except Exception as error:
            raise ConfigError(f"modules: {module!r} cannot be imported: {type(error).__name__}: {error}") from error
