# SPDX-License-Identifier: MIT
"""All agents of `agent up`: in which order they start and stop, and what is told about them."""

import asyncio
import logging
import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import typer

from agents.cli.catalog import KnownAgent, known_agents
from agents.cli.output import print_line
from agents.cli.quantity import human_bytes
from agents.cli.running import reload
from agents.cli.settings import Instance, Settings
from agents.cli.up.report import Family, Report
from agents.cli.up.supervisor import Supervised
from agents.cli.up.tap import Tap
from agents.cli.up.watch import ArchiveFile, FamilyWatch
from agents.host import HostConfig, HostSource
from agents.metric import MetricTable
from bus.agent import Agent
from bus.client import Client
from bus.config import nearest
from bus.errors import ConfigError, HostbusError
from bus.sink import Sink
from bus.transport import connect
from bus.transport.base import Transport

logger = logging.getLogger(__name__)

MANAGER = "manager"
ARCHIVE = "sqlite-sink"
SOURCE_END = "-source"
DEFAULT_PERIOD_S = 1.0
SUMMARY_EVERY_S = 10.0
STOP_WITHIN_S = 9.0
"""For all agents together."""

DRAIN_LOOK_S = 0.02


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What the command line asked for.

    only: families, empty for all. keep: whether there is an archive; `archive` is its path, None for the one
    of the file or the default.
    """

    server: str
    period_s: float | None = None
    duration_s: float | None = None
    only: tuple[str, ...] = ()
    keep: bool = True
    archive: Path | None = None
    file: Path | None = None


class Fleet:
    """Manager, archive and every host family over one transport. Raises ConfigError for an order that is wrong."""

    def __init__(self, order: Order) -> None:
        self._order = order
        self._settings = Settings.read(order.file)
        self._transport: Transport = connect(order.server or self._settings.bus.server or "memory://up")
        self._archive_file = ArchiveFile(self._archive_path()) if order.keep else None
        self._manager = Supervised(MANAGER, lambda: self._make(MANAGER, self._manager_values()))
        self._archive = Supervised(ARCHIVE, lambda: self._make(ARCHIVE, self._archive_values()))
        self._families: list[Family] = []
        self._unconfigured = self._chosen()
        self._adopt_configured()
        for known in self._unconfigured.values():
            if order.only:
                raise ConfigError(f"{known.name}: {self._lack(self._settings.instance(known.name))}")
        self._report = Report(
            families=self._families,
            unconfigured=self._unconfigured,
            archive=self._archive_file,
            where=self._transport.url,
        )
        self._said: list[str] = []
        self._stop = asyncio.Event()

    @property
    def families(self) -> Sequence[Family]:
        """Those that run, or are to run."""
        return self._families

    # -- what runs -------------------------------------------------------------------------------------

    def _chosen(self) -> dict[str, KnownAgent]:
        """The families that --only names, or all. Agents that cannot be loaded are logged and left out."""
        found: dict[str, KnownAgent] = {}
        for name, known in sorted(known_agents().items()):
            if not name.endswith(SOURCE_END):
                continue
            try:
                if issubclass(known.load(), HostSource):
                    found[name.removesuffix(SOURCE_END)] = known
            except HostbusError as error:
                logger.warning("left out: %s", error)
        for family in self._order.only:
            if family not in found:
                raise typer.BadParameter(f"--only: there is no family {family!r}; {nearest(family, found)}")
        return {family: known for family, known in found.items() if not self._order.only or family in self._order.only}

    def _lack(self, instance: Instance) -> str:
        """What a family must be told before it can do anything. Raises ConfigError for what it is told wrongly."""
        config = instance.config(self._family_values(instance))
        return config.missing if isinstance(config, HostConfig) else ""

    def _adopt_configured(self) -> list[Family]:
        """Count those in that have something to do by now, and were not configured before."""
        idle = self._unconfigured
        ready = [family for family, known in idle.items() if not self._lack(self._settings.instance(known.name))]
        adopted = [self._family(idle.pop(family)) for family in ready]
        self._families += adopted
        return adopted

    def _family(self, known: KnownAgent) -> Family:
        instance = self._settings.instance(known.name)
        table = MetricTable(getattr(known.load(), "metrics", ()))
        watch = FamilyWatch(known.name.removesuffix(SOURCE_END), table)
        tap = Tap(self._transport, watch.on_data)
        runner = Supervised(known.name, lambda: self._make(known.name, None, tap))
        return Family(watch=watch, runner=runner, instance=instance)

    @property
    def _is_alone(self) -> bool:
        """The bus is within this process: nobody else can be on it."""
        return self._transport.url.startswith("memory:")

    def _manager_values(self) -> dict[str, Any]:
        """Alone, there is nobody whose configuration could be kept."""
        is_named = "store" in self._settings.instance(MANAGER).values
        return {"store": ":memory:"} if self._is_alone and not is_named else {}

    def _archive_values(self) -> dict[str, Any]:
        return {"path": str(self._order.archive)} if self._order.archive else {}

    def _archive_path(self) -> Path:
        """Where the archive's own configuration puts it."""
        config = self._settings.instance(ARCHIVE).config(self._archive_values())
        return Path(config.to_dict()["path"]).expanduser()

    def _family_values(self, instance: Instance) -> dict[str, Any]:
        if self._order.period_s is not None:
            return {"period": self._order.period_s}
        return {} if "period" in instance.values else {"period": DEFAULT_PERIOD_S}

    def _make(self, name: str, over: Mapping[str, Any] | None = None, transport: Transport | None = None) -> Agent:
        """A new agent, from the settings as they are now. `over` None: it is a family."""
        instance = self._settings.instance(name)
        values = self._family_values(instance) if over is None else over
        return instance.make(instance.token, transport or self._transport, instance.config(values))

    # -- life ------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Start everything, show it, and stop everything at the end: SIGINT, SIGTERM, or the duration is over."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._stop.set)
        hangup = asyncio.Event()
        loop.add_signal_handler(signal.SIGHUP, hangup.set)
        self._say_archive("archive")
        waiting = asyncio.create_task(self._reload_on(hangup), name="reload")
        try:
            await self._until_stopped(self.start())
            if self._order.duration_s is not None:
                loop.call_later(self._order.duration_s, self._stop.set)
            with self._shown():
                await self._until_stopped(self._summaries())
        finally:
            waiting.cancel()
            await self.aclose()
        self._say_remarks()
        self._say_archive("archived to")

    async def _until_stopped(self, work: Any) -> None:
        """Work that ends at once when the stop is wanted."""
        working = asyncio.create_task(work, name="up")
        stopping = asyncio.create_task(self._stop.wait(), name="stop wanted")
        await asyncio.wait({working, stopping}, return_when=asyncio.FIRST_COMPLETED)
        for task in (working, stopping):
            task.cancel()
        await asyncio.gather(working, stopping, return_exceptions=True)
        if working.done() and not working.cancelled():
            working.result()

    async def start(self) -> None:
        """Start all, for who does not `run`: `aclose` must follow, even if this raises."""
        await self._transport.open()
        await self._start()

    async def aclose(self) -> None:
        """Stop all: when it returns, what was sampled is in the archive."""
        await self._end()
        await self._transport.aclose()

    async def _start(self) -> None:
        """The manager, then the archive, then the families; without the first two there is nothing to go on with."""
        if await self._has_manager():
            logger.info("the broker at %s has a manager already, which is used", self._transport.url)
        else:
            await self._manager.start(needed=True)
        if self._archive_file is not None:
            await self._archive.start(needed=True)
        await asyncio.gather(*(family.runner.start() for family in self._families))

    async def _has_manager(self) -> bool:
        if self._is_alone:
            return False
        async with Client("agent-up", self._transport, add_uuid=True) as client:
            return await client.has_manager()

    async def _end(self) -> None:
        """Sources send what they hold, then the archive stores what was sent, then the manager goes."""
        try:
            async with asyncio.timeout(STOP_WITHIN_S):
                await asyncio.gather(*(family.runner.stop() for family in self._families))
                await self._drained()
                await self._archive.stop()
                await self._manager.stop()
        except TimeoutError:
            logger.error("not all agents ended within %g s", STOP_WITHIN_S)  # noqa: TRY400  # where it waited does not matter

    async def _drained(self) -> None:
        """Wait until the archive has all points that the families sent, for as long as it makes progress."""
        sent = sum(family.watch.points for family in self._families)
        seen, since = -1, 0.0
        clock = asyncio.get_running_loop().time
        while isinstance(self._archive.agent, Sink) and self._archive.state == "working":
            stored = self._archive.agent.points_received
            if stored >= sent:
                return
            if stored != seen:
                seen, since = stored, clock()
            elif clock() - since > 1.0:
                return  # what is missing went to an earlier life of the archive
            await asyncio.sleep(DRAIN_LOOK_S)

    async def _reload_on(self, hangup: asyncio.Event) -> None:
        """SIGHUP: read the file again. What is wrong with it is logged, and all stays as it was."""
        while True:
            await hangup.wait()
            hangup.clear()
            try:
                settings = Settings.read(self._order.file)
                self._check(settings)
            except HostbusError as error:
                logger.error("the configuration stays as it is: %s", error)  # noqa: TRY400  # known errors are one line
                continue
            self._settings = settings
            for family in self._families:
                await self._reload(family.runner, settings.instance(family.instance.name))
            for family in self._adopt_configured():
                logger.info("%s is configured now, and started", family.runner.name)
                await family.runner.start()
            logger.info("the configuration was read again")

    def _check(self, settings: Settings) -> None:
        """Raises ConfigError if a family could not go on, or start, with other settings."""
        for family in self._families:
            if lack := self._lack(settings.instance(family.instance.name)):
                raise ConfigError(f"{family.instance.name} is running, and would have nothing to do: {lack}")
        for known in self._unconfigured.values():
            self._lack(settings.instance(known.name))

    async def _reload(self, runner: Supervised, instance: Instance) -> None:
        if runner.agent is None or runner.state != "working":
            return
        try:
            await reload(runner.agent, instance.config(self._family_values(instance)))
        except HostbusError as error:
            logger.error("%s keeps its configuration: %s", runner.name, error)  # noqa: TRY400  # known errors are one line

    # -- what is told ----------------------------------------------------------------------------------

    def _say_archive(self, what: str) -> None:
        if self._archive_file is not None:
            size = f" ({human_bytes(self._archive_file.size())})" if self._archive_file.path.exists() else ""
            print_line(f"{what} {self._archive_file.path}{size}")

    @contextmanager
    def _shown(self) -> Iterator[None]:
        """In a terminal, the live table."""
        with self._live() if sys.stdout.isatty() else nullcontext():
            yield

    def _live(self) -> Any:
        from agents.cli.up import live

        return live.live_table(
            lambda width: live.picture(self._report, width),
            redirect_stderr=sys.stderr.isatty(),
        )

    async def _summaries(self) -> None:
        """Without a terminal, a line every 10 s, and remarks when they change; for ever."""
        while True:
            await asyncio.sleep(SUMMARY_EVERY_S)
            self._say_remarks()
            if not sys.stdout.isatty():
                print_line(self._report.summary())

    def _say_remarks(self) -> None:
        """What the live table says all the time, said once where there is none."""
        if sys.stdout.isatty():
            return
        remarks = self._report.remarks()
        for remark in remarks:
            if remark not in self._said:
                print_line(remark)
        self._said = remarks
