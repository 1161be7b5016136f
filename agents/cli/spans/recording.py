# SPDX-License-Identifier: MIT
"""Where the points come from while `agent run` runs a command.

From whoever fills the archive already, if the metrics are alive there; else this process samples the host itself
for as long as the command runs, the families that the patterns need, as `agent up` does.
"""

import asyncio
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from agents.cli import log, opening
from agents.cli.catalog import known_agents
from agents.cli.settings import Settings
from agents.cli.spans.figures import chosen_metrics
from agents.cli.up.fleet import DEFAULT_PERIOD_S, SOURCE_END, Fleet, Order
from agents.cli.up.report import Family
from agents.host import HostConfig, HostSource
from bus.aggregates import NS_PER_S, declared_interval_s, hold_ns
from bus.archive import History
from bus.client import Client
from bus.errors import HostbusError, StorageError
from bus.state import make_state_folder, state_file

LAG_S = 10.0
"""By how much an archive may be behind: it stores what comes in within 5 s, unless it is told otherwise."""
ASK_EVERY_S = 0.25
LOOK_EVERY_S = 0.02

Say = Callable[[str], None]
"""Tells the user something, in one line."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sources:
    """What the command line says about where points come from.

    archive: a path or URL, "" for none given · server: "" for none given · period_s: of own samples
    """

    patterns: Sequence[str]
    archive: str
    server: str
    timeout_s: float
    period_s: float | None = None
    file: Path | None = None

    @property
    def is_remote(self) -> bool:
        """The points are in an archive that answers on the bus."""
        return bool(self.server and not self.archive)

    @property
    def where(self) -> str:
        """The archive's path or URL."""
        return self.archive or state_file("archive.db")

    def history(self) -> AbstractAsyncContextManager[History]:
        """The archive, to be read."""
        return opening.history(self.archive, self.server, self.timeout_s)


class Recording(Protocol):
    """Points that are on their way into the archive."""

    async def arrived(self, end_ns: int) -> dict[str, float]:
        """Wait until they are there up to `end_ns`. What is not after a while: how many s before it its newest is."""


@asynccontextmanager
async def recording(sources: Sources, interrupted: asyncio.Event, say: Say) -> AsyncIterator[Recording]:
    """Have points of the metrics in the archive until the end. Raises HostbusError if nobody measures any."""
    watched = Watched(sources)
    if sources.is_remote or "://" in sources.where:
        if not await watched.is_live():
            say(f"no points of {' '.join(sources.patterns)} have come into the archive lately")
        yield watched
        return
    if families := wanted_families(sources.patterns, sources.file):
        own = OwnSamples(sources, families)
        try:
            # Points that came lately may be those of another run: whether somebody writes the file is seen by its lock.
            with log.hushed("agents.base.absent"):
                refused = await own.begin(interrupted, say)
            if not refused:
                yield own
                return
        finally:
            await own.aclose()
    else:
        refused = f"no family of this host measures {' '.join(sources.patterns)}: 'agent list' shows them"
    try:
        is_live = await watched.is_live()
    except StorageError:
        raise StorageError(refused) from None  # there is none, and here is why it cannot be made
    if not is_live:
        say(f"no points of {' '.join(sources.patterns)} have come into {sources.where} lately, and {refused}")
    yield watched


class Watched:
    """Points that others write into the archive."""

    def __init__(self, sources: Sources) -> None:
        self._sources = sources

    async def is_live(self) -> bool:
        """True if points of the metrics came into the archive lately. Raises StorageError if it cannot be read."""
        async with self._sources.history() as history:
            return bool(await _alive(history, self._sources.patterns, time.time_ns()))

    async def arrived(self, end_ns: int) -> dict[str, float]:
        """Wait until each metric that is alive has a point from the end or later."""
        deadline = time.monotonic() + LAG_S
        async with self._sources.history() as history:
            while True:
                alive = await _alive(history, self._sources.patterns, end_ns)
                late = {name: newest for name, (newest, _) in alive.items() if newest < end_ns}
                if alive and not late:
                    return {}
                if time.monotonic() >= deadline + max((interval for _, interval in alive.values()), default=0.0):
                    return {name: (end_ns - newest) / NS_PER_S for name, newest in late.items()}
                await asyncio.sleep(ASK_EVERY_S)


class OwnSamples:
    """Points that this process samples, and writes into the archive."""

    def __init__(self, sources: Sources, families: Sequence[str]) -> None:
        self._period_s = sources.period_s or DEFAULT_PERIOD_S
        self._sources = sources
        self._bus = f"memory://run-{uuid.uuid4().hex}"
        self._metadata: dict[str, dict[str, Any]] = {}
        self._fleet = Fleet(
            Order(
                server=self._bus,
                period_s=self._period_s,
                only=tuple(families),
                archive=Path(sources.where),
                file=sources.file,
            )
        )

    async def begin(self, interrupted: asyncio.Event, say: Say) -> str:
        """Start, and wait for two readings: a rate is the difference of two. Why it cannot start, "" if it did."""
        try:
            if not self._sources.archive:
                await asyncio.to_thread(make_state_folder, "--archive")
            await self._fleet.start()
        except StorageError as error:
            return str(error)
        names = ", ".join(family.watch.family for family in self._fleet.families)
        say(f"sampling {names} every {self._period_s:g} s meanwhile, into {self._sources.where}")
        first: dict[str, int] = {}
        deadline = time.monotonic() + 3 * self._period_s + 2.0
        while time.monotonic() < deadline and not interrupted.is_set():
            for family in self._fleet.families:
                if family.watch.newest_ns:
                    first.setdefault(family.watch.family, family.watch.newest_ns)
            if all(
                family.absence or family.watch.newest_ns > first.get(family.watch.family, family.watch.newest_ns)
                for family in self._fleet.families
            ):
                break
            await asyncio.sleep(LOOK_EVERY_S)
        return ""

    async def arrived(self, end_ns: int) -> dict[str, float]:
        """Wait for the first reading after the end: it speaks for the time before it."""
        async with Client("agent-run", self._bus) as client:
            self._metadata = await client.get_metrics()
        deadline = time.monotonic() + 2 * self._period_s + 2.0
        while (late := self._late(end_ns)) and time.monotonic() < deadline:  # noqa: ASYNC110  # a table tells nobody
            await asyncio.sleep(LOOK_EVERY_S)
        return {family.watch.family: (end_ns - family.watch.newest_ns) / NS_PER_S for family in late}

    def _late(self, end_ns: int) -> list[Family]:
        return [one for one in self._fleet.families if not one.absence and 0 < one.watch.newest_ns < end_ns]

    async def aclose(self) -> None:
        """Stop: then all that was sampled is in the archive, and what it means.

        The archive asks for metadata now and then, and may not have had the time.
        """
        await self._fleet.aclose()
        if self._metadata:
            async with opening.opened(self._sources.where, opening.Access.write) as archive:
                await archive.set_metadata(self._metadata)


async def _alive(history: History, patterns: Iterable[str], now_ns: int) -> dict[str, tuple[int, float]]:
    """The metrics that have points up to about now: the newest time, and the declared interval in s."""
    about = await chosen_metrics(history, patterns)
    newest: dict[str, tuple[int, float]] = {}
    for pattern in patterns:
        newest.update(await history.last(pattern))
    oldest = {name: now_ns - hold_ns(about.get(name, {})) - LAG_S * NS_PER_S for name in newest}
    return {
        name: (time_ns, declared_interval_s(about.get(name, {})) or 0.0)
        for name, (time_ns, _) in newest.items()
        if time_ns >= oldest[name]
    }


def wanted_families(patterns: Iterable[str], file: Path | None) -> list[str]:
    """The families of this host, as far as they are configured, that may have metrics the patterns select."""
    families = dict(_configured(Settings.read(file)))
    found: set[str] = set()
    for pattern in patterns:
        words = pattern.split(".")
        # '#.cpu.usage' might be a GPU called cpu; who says cpu means the family.
        named = [family for family in families if family in words] or list(families)
        found |= {family for family in named if _may_have(*families[family], words)}
    return sorted(found)


def _configured(settings: Settings) -> Iterator[tuple[str, tuple[type[HostSource], HostConfig]]]:
    for name, known in known_agents().items():
        if not name.endswith(SOURCE_END):
            continue
        try:
            family = known.load()
        except HostbusError:
            continue  # `agent list` says what is wrong with it
        if issubclass(family, HostSource):
            config = settings.instance(name).config({})
            assert isinstance(config, HostConfig)
            if not config.missing:
                yield name.removesuffix(SOURCE_END), (family, config)


def _may_have(family: type[HostSource], config: HostConfig, pattern: Sequence[str]) -> bool:
    """True if one of the family's metrics may match; if its table does not say all, any name below its prefix may."""
    prefix = family.prefix_of(config).split(".")
    is_listed = family.describe is HostSource.describe
    below = [[_as_pattern(word) for word in metric.name.split(".")] for metric in family.metrics]
    return any(_overlap(pattern, [*prefix, *rest]) for rest in (below if is_listed else [*below, ["#"]]))


def _as_pattern(word: str) -> str:
    """``{labels...}`` may be several words, ``{device}`` and ``core{n}`` are one."""
    return "#" if "...}" in word else "*" if "{" in word else word


def _overlap(one: Sequence[str], other: Sequence[str]) -> bool:
    """True if there is a name that both patterns select."""
    if not one or not other:
        return all(word == "#" for word in (*one, *other))
    if one[0] == "#":
        return _overlap(one[1:], other) or _overlap(one, other[1:])
    if other[0] == "#":
        return _overlap(other, one)
    return (one[0] == other[0] or "*" in (one[0], other[0])) and _overlap(one[1:], other[1:])
