# SPDX-License-Identifier: MIT
"""What the families of host metrics share: `HostSource`, and its configuration.

A family is a subclass with a name, a table of metrics and a `read` that touches the host. Everything else
(naming, declaring, sampling, deadlines, counters' rates) is here or in the modules beside it.
"""

import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar, Unpack

from msgspec import Meta

from agents.base.absent import Absence, NothingFound
from agents.base.files import OpenFiles, read_once
from agents.base.naming import MetricNames
from agents.base.parts import Parts
from agents.base.worker import CallHung, Worker
from agents.metric import Metric, MetricTable
from bus.config import AgentConfig
from bus.errors import ConfigError
from bus.interval import IntervalSource
from bus.names import check_metric, short_host_name
from bus.rpc import Json
from bus.source import SourceOptions
from bus.timestamp import NS_PER_S, Timestamp
from bus.transport.base import Transport

__all__ = ["HostConfig", "HostOptions", "HostSource", "Metric", "NothingFound", "Reading", "Roots"]

Reading = Mapping[str, float]
"""What `read` found, by the names of the family's table, ``{"user": 12.5, "core0.user": 3.0}``."""

LONGEST_DEADLINE_S = 30.0
SHORTEST_DEADLINE_S = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Roots:
    """Where the kernel's files are; a fixture tree in tests."""

    proc: Path = Path("/proc")
    sys: Path = Path("/sys")


class HostOptions(SourceOptions, total=False):
    """Keyword arguments of every family, for subclasses that have an `__init__`; see `HostSource`."""

    roots: Roots | None
    clock: Callable[[], float]


class HostConfig(AgentConfig, frozen=True):
    """What every family can be told."""

    period: Annotated[float, Meta(ge=0.001, le=86400, description="seconds between samples")] = 10.0
    chunk_size: Annotated[int, Meta(ge=1, description="points of one metric that are sent together")] = 1
    max_delay: Annotated[
        float | None, Meta(description="seconds after which a chunk is sent though it is not full; default: never")
    ] = None
    prefix: Annotated[
        str, Meta(description="first word or words of all metric names; default: the short host name")
    ] = ""
    max_metrics: Annotated[
        int, Meta(ge=1, description="metrics at most; those that come after are refused and counted")
    ] = 20_000

    def __post_init__(self) -> None:
        """Checks that msgspec's limits cannot express. Raises ValueError."""
        if self.max_delay is not None and not 0 < self.max_delay < float("inf"):
            raise ValueError(f"max_delay must be more than 0 seconds, or None, not {self.max_delay!r}")
        if self.prefix:
            check_metric(self.prefix)

    @property
    def missing(self) -> str:
        """What must be configured before there is anything to measure, and how; empty if nothing is missing."""
        return ""


class HostSource(IntervalSource):
    """Base of the families: ``PREFIX.FAMILY.NAME``, sampled once per period.

    A subclass names its `family`, lists its `metrics` and writes `read`, or `measure` if it waits for others
    (programs, servers) and not for the kernel. A reading that is late is given up (the tick has no points, the
    failure is counted); the other agents of the process do not notice.

    Args:
        token: the source's unique name on the bus
        url: where the broker is, or a shared `Transport`
        roots: where /proc and /sys are
        clock: monotonic seconds, for rates
        options: see `SourceOptions`; `config` is an instance of the class's `Config`, which also says
            chunk_size, max_delay and prefix
    """

    Config: ClassVar[type[HostConfig]] = HostConfig
    config: HostConfig

    family: ClassVar[str]
    """One word: the metrics are called ``PREFIX.FAMILY.NAME``."""

    metrics: ClassVar[tuple[Metric, ...]]
    """What `read` may return."""

    cancel_on_stop: ClassVar[bool] = True
    """What waits for a server, a program or a hung file when the stop comes is given up."""

    platform: ClassVar[str] = "Linux"
    """Where there is something to measure."""

    def __init__(
        self,
        token: str,
        url: str | Transport = "",
        *,
        roots: Roots | None = None,
        clock: Callable[[], float] = time.monotonic,
        **options: Unpack[SourceOptions],
    ) -> None:
        config = options.get("config") or self.Config()
        if not isinstance(config, HostConfig):
            raise TypeError(f"{type(self).__name__} takes a {self.Config.__name__}, not {type(config).__name__}")
        options["config"] = config
        options["prefix"] = self.prefix_of(config)
        options["chunk_size"] = config.chunk_size
        options["max_delay"] = config.max_delay
        super().__init__(token, url, period=config.period, **options)
        self.prefix = options["prefix"]
        self.roots = roots or Roots()
        self.clock = clock
        self.files = OpenFiles()
        self.parts = Parts(self.prefix or self.token)
        self.worker = Worker(f"{self.token}: read")
        self.absence = Absence(self.token)
        self._reading = threading.Lock()
        self._table = MetricTable(self.metrics)
        self._names = MetricNames(self.token, self.prefix, self.parts)
        self._slots: dict[str, int] = {}

    # -- for families ----------------------------------------------------------------------------------

    def read(self) -> Reading:
        """What the host says now. Runs in a thread of its own, so it may block; `deadline_s` is its time.

        Parts that may fail alone go into ``with self.parts("what"):``; what `read` raises costs the whole tick.
        Raise NothingFound if this host has nothing of the kind: that is said once, and tried again in a minute.
        """
        raise NotImplementedError(f"{type(self).__name__} has neither a read nor a measure of its own")

    async def measure(self) -> None:
        """One tick: hand what was found to `take`. A family that waits for others overrides this, not `read`."""
        self.take(self.tick, await self.worker.call(self._read_alone, self.deadline_s))

    def _read_alone(self) -> Reading:
        """Read once a reading that was late has returned: both would count from what the other found."""
        if not self._reading.acquire(timeout=2 * self.deadline_s):  # in vain: its own deadline comes first
            raise CallHung(f"{self.token}: the reading before this one has not returned")
        try:
            return self.read()
        finally:
            self._reading.release()

    def take(self, time: Timestamp, reading: Reading) -> None:
        """Sample what was found at `time`. Names that are new are declared first.

        Raises ValueError for points that are not later than the last of their metric; the others are kept.
        """
        try:
            values = self._names.label(reading)
        except KeyError:
            self._declare(self._names.unknown(reading))
            values = self._names.label_known(reading)
        self.sample(time, values)

    def describe(self, name: str) -> Metric | None:
        """The table's entry for one name of a reading; None if there is none, and it is not sampled.

        A family that learns at run time what its metrics are overrides this.
        """
        return self._table.find(name)

    def redescribe(self, names: Iterable[str]) -> None:
        """Declare metrics anew with their next points, because `describe` says something else by now."""
        self._names.outdate(names)

    @classmethod
    def prefix_of(cls, config: HostConfig) -> str:
        """The words that all metrics have in common."""
        return f"{config.prefix or short_host_name()}.{cls.family}"

    @property
    def missing(self) -> str:
        """What must be given before there is anything to measure; empty if nothing is missing."""
        return self.config.missing

    @property
    def metrics_refused(self) -> int:
        """How many metrics were refused because there were `max_metrics` already."""
        return self._names.refused

    def proc(self, name: str) -> str:
        """The text of a file under /proc, which stays open. Raises OSError."""
        return self.files.read(f"{self.roots.proc}/{name}")

    def sys(self, name: str) -> str:
        """The text of a file under /sys, without the newline at its end. Raises OSError."""
        return read_once(f"{self.roots.sys}/{name}").rstrip("\n")

    def due(self, part: str, every_s: float) -> bool:
        """True on the first tick of each span of `every_s` seconds: for parts that are too dear for every tick."""
        slot = self.tick.posix_ns // round(every_s * NS_PER_S)
        if self._slots.get(part) == slot:
            return False
        self._slots[part] = slot
        return True

    @property
    def deadline_s(self) -> float:
        """Seconds that `read` may take: 0.9 periods, but at least 0.5 s and at most 30 s."""
        return min(max(0.9 * self.config.period, SHORTEST_DEADLINE_S), LONGEST_DEADLINE_S)

    # -- life ------------------------------------------------------------------------------------------

    async def setup(self) -> None:
        """Raises ConfigError if something is missing without which there is nothing to measure."""
        await super().setup()
        if self.missing:
            raise ConfigError(f"{self.token}: {self.missing}")

    async def update(self) -> None:
        """Read the host and sample what it said. Raises CallHung if it does not answer in time."""
        if not self.absence.is_over(self.tick):
            return
        try:
            await self.measure()
        except NothingFound as nothing:
            self.absence.begin(self.tick, str(nothing))
        else:
            self.absence.end()

    def _declare(self, names: Iterable[str]) -> None:
        """Declare metrics that are new, or whose metadata changed."""
        described = self._names.take_in(
            names, self.describe, limit=self.config.max_metrics, period_s=self.config.period
        )
        if described:
            self.declare_metrics_nowait(described)

    async def reconfigure(self, config: AgentConfig) -> None:
        """Put a configuration in force at once. Raises ConfigError for another prefix, or if something is missing."""
        if not isinstance(config, HostConfig):
            raise TypeError(f"{type(self).__name__} takes a {self.Config.__name__}, not {type(config).__name__}")
        if self.prefix_of(config) != self.prefix:
            raise ConfigError(
                f"prefix cannot change while {self.token} runs: it names all metrics; "
                f"keep {self.config.prefix!r}, or restart the agent with prefix {config.prefix!r}"
            )
        if config.missing and not self.config.missing:  # one that lacked it from the start was given it otherwise
            raise ConfigError(f"{self.token}: {config.missing}")
        await super().reconfigure(config)
        self.period = config.period
        self.chunk_size = config.chunk_size
        self.max_delay = config.max_delay
        self.absence.look_now()
        self._names.reopen()
        self._declare(self._names.known)

    async def teardown(self) -> None:
        """Let go of the thread and the files."""
        await super().teardown()
        self.worker.close()
        if not self.worker.lost:  # a call that hangs may still be reading them
            self.files.close()

    def vital_signs(self) -> Json:
        """Parts that failed, readings that did not come in time, metrics beyond the limit, and what is absent."""
        return {
            **super().vital_signs(),
            "partsFailed": self.parts.errors,
            "readsHung": self.worker.hung,
            "metricsRefused": self.metrics_refused,
            **({"nothingFound": self.absence.reason} if self.absence.reason else {}),
        }
