# SPDX-License-Identifier: MIT
"""`Source`: an agent that declares metrics and sends points.

Points go into the chunk of their metric, and leave it by `bus.outflow`. Whoever samples never waits for the network.
"""

import asyncio
import logging
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, Literal, Unpack, get_args

from bus.agent import AgentOptions
from bus.chunk import ChunkBuffer
from bus.client import Client
from bus.declarations import Declarations, Metrics
from bus.encoder import FrameEncoder, MetricqEncoder
from bus.errors import PublishFailed
from bus.membership import Membership
from bus.names import check_metric, routing_key
from bus.outbox import DEFAULT_LIMIT_POINTS
from bus.outflow import Outflow
from bus.rpc import Json
from bus.source_task import SourceTask
from bus.timestamp import Timedelta, Timestamp
from bus.transport.base import Transport

logger = logging.getLogger(__name__)

Wire = Literal["auto", "metricq"]

YIELD_EVERY_POINTS = 1000
"""`send` in a loop of its own lets other tasks run after so many points."""


class SourceOptions(AgentOptions, total=False):
    """Keyword arguments of every source.

    chunk_size: points of one metric that are sent together (default 1; None: only `flush()` sends).
    max_delay: seconds or Timedelta after which a chunk is sent though it is not full (default: never).
    buffer_limit: points held while the bus is away (as many again may be in chunks); past it the oldest are
        dropped and counted.
    prefix: the words that all metrics of this source have in common, its routing key.
    wire: "auto" sends frames where the manager knows them, "metricq" always MetricQ's chunks.
    """

    chunk_size: int | None
    max_delay: float | Timedelta | None
    buffer_limit: int
    prefix: str
    wire: Wire


class Source(Client, ABC):
    """An agent that produces points: subclass it and write `task`.

    Args:
        token: the source's unique name on the bus
        url: where the broker is, or a shared `Transport`
        chunk_size, max_delay, buffer_limit, prefix, wire: see `SourceOptions`
        options: see `AgentOptions`
    """

    cancel_on_stop: ClassVar[bool] = False
    """True if `task` may be cancelled as soon as the source stops, because it only waits for others."""

    def __init__(
        self,
        token: str,
        url: str | Transport = "",
        *,
        chunk_size: int | None = 1,
        max_delay: float | Timedelta | None = None,
        buffer_limit: int = DEFAULT_LIMIT_POINTS,
        prefix: str = "",
        wire: Wire = "auto",
        **options: Unpack[AgentOptions],
    ) -> None:
        super().__init__(token, url, **options)
        if wire not in get_args(Wire):
            raise ValueError(f"wire must be 'auto' or 'metricq', not {wire!r}")
        if buffer_limit < 1:
            raise ValueError(f"buffer_limit must be at least 1 point, not {buffer_limit}")
        self._prefix = check_metric(prefix) if prefix else ""
        self._wire = wire
        self._outflow = Outflow(self.token, self._frames("hostbus.data"), chunk_size, buffer_limit)
        self._buffers, self._outbox = self._outflow.buffers, self._outflow.outbox
        self.max_delay = max_delay
        self._since_yield = 0
        self._declared = Declarations(
            tell=lambda metrics: self.rpc("source.declare_metrics", metrics=metrics),
            insist=lambda metrics: self._persist(
                "declare metrics", lambda: self.rpc("source.declare_metrics", metrics=metrics)
            ),
            chunk_size=lambda metric: self[metric].chunk_size,
        )
        self._membership = Membership(self.token, self.transport, self._join)

    # -- points ----------------------------------------------------------------------------------------

    @property
    def chunk_size(self) -> int | None:
        """Points of one metric that make a chunk; None: only `flush()` sends.

        Set it for all metrics, or for one: ``source["a.b"].chunk_size = 10`` keeps its own from then on. If a
        chunk holds more points than its new size, the next point sends them.
        Raises TypeError for anything but None or an integer, ValueError below 1.
        """
        return self._buffers.chunk_size

    @chunk_size.setter
    def chunk_size(self, size: int | None) -> None:
        self._buffers.chunk_size = size

    @property
    def max_delay(self) -> Timedelta | None:
        """How long a point may wait for its chunk to fill; None: as long as it takes.

        Assign seconds, a Timedelta or None; a chunk that is waiting keeps the delay it began with.
        Raises ValueError unless it is more than 0.
        """
        seconds = self._outflow.max_delay_s
        return None if seconds is None else Timedelta.from_s(seconds)

    @max_delay.setter
    def max_delay(self, max_delay: float | Timedelta | None) -> None:
        seconds = max_delay.s if isinstance(max_delay, Timedelta) else max_delay
        if seconds is not None and not 0 < seconds < float("inf"):
            raise ValueError(f"max_delay must be more than 0 seconds, or None, not {max_delay!r}")
        self._outflow.max_delay_s = seconds

    def __getitem__(self, metric: str) -> ChunkBuffer:
        """The chunk of a metric, to set its own `chunk_size`. Raises ValueError for what is not a metric name."""
        return self._buffers[metric]

    async def send(self, metric: str, time: Timestamp, value: float) -> None:
        """Send one point: into its metric's chunk; returns without waiting for the network.

        Raises ValueError unless `time` is later than the metric's last point, TypeError for a value that is
        no number.
        """
        self._buffers.add(metric, time.posix_ns, value)
        self._outflow.age()
        self._since_yield += 1
        if self._since_yield >= YIELD_EVERY_POINTS:
            self._since_yield = 0
            await asyncio.sleep(0)

    def sample(self, time: Timestamp, values: Mapping[str, float]) -> None:
        """Send one point each for many metrics, all of the same time.

        Raises ValueError or TypeError for the first point that is refused (see `send`); the rest is sent.
        """
        try:
            self._buffers.sample(time.posix_ns, values)
        finally:
            self._outflow.age()

    def send_many(self, metric: str, times: Any, values: Any) -> None:
        """Send many points of one metric.

        Args:
            metric: its name
            times: nanoseconds since 1970, strictly increasing: an array, a NumPy array, any buffer or sequence
            values: as many numbers

        Raises ValueError unless the times strictly increase and are later than the metric's last point, and
        TypeError for what are no numbers; nothing is sent then.
        """
        self._buffers.add_many(metric, times, values)
        self._outflow.age()

    async def flush(self) -> None:
        """Send all buffered points now, full chunk or not. Does not wait for the network: see `drain`."""
        self._outflow.flush()
        await asyncio.sleep(0)

    async def drain(self, timeout: float = 60) -> None:
        """Flush, and wait until the broker has confirmed all points. Raises PublishFailed after `timeout` seconds."""
        await self.flush()
        try:
            async with asyncio.timeout(timeout):
                await self._outbox.drained()
        except TimeoutError:
            reason = f": {self.transport.last_error}" if self.transport.last_error else ""
            count = self._outbox.points
            raise PublishFailed(f"{self.token}: {count} points are not confirmed after {timeout:g} s{reason}") from None

    def routing_key(self, metric: str) -> str:
        """Under which key the frames with a metric travel: metrics of one key share a frame.

        It must be a proper word-prefix of the metric, or sinks' bindings would miss it. Asked once per metric.
        """
        return routing_key(metric, self._prefix)

    # -- metrics ---------------------------------------------------------------------------------------

    async def declare_metrics(self, metrics: Metrics) -> None:
        """Declare metrics and their metadata to the manager; needed before points of them are sent.

        They are declared again whenever the bus was away. Metadata: `unit`, `description`, `rate` or
        `interval`, `quantity`, `scope`, and any other JSON. Raises RpcError if the manager refuses (say,
        because another source that is alive owns one), RpcTimeout or NotConnected if it does not answer.
        """
        await self._declared.declare(metrics)

    def declare_metrics_nowait(self, metrics: Metrics) -> None:
        """Declare as soon as the manager answers. If it refuses, the source fails."""
        self._declared.declare_soon(metrics)

    # -- life ------------------------------------------------------------------------------------------

    @abstractmethod
    async def task(self) -> None:
        """Produce points. Starts when the source is registered and configured.

        It should end when `task_stop_future` is done; 2 s later it is cancelled (see `cancel_on_stop`). If it
        raises, the source sends what is buffered and fails with that error.
        """

    @property
    def task_stop_future(self) -> asyncio.Future[None]:
        """Done when `task` should end."""
        return self._source_task.stop_wanted

    async def start(self) -> None:
        """Register, take the configuration, then start `task`."""
        await super().start()
        self._source_task = SourceTask(self.token, cancel_on_stop=self.cancel_on_stop)
        self.start_task(self._membership.keep(), name="register")
        await self._membership.begin()
        self.start_task(self._declared.run(), name="declare")
        self.start_task(self._source_task.run(self.task), name="task")

    async def _join(self) -> None:
        reply = await self._register("source.register")
        if not self._membership.is_begun:
            await self._open_data(reply)
        await self._accept_config(reply)
        await self._declared.repeat()

    async def _open_data(self, reply: Json) -> None:
        """Publish where, and in the way that, the manager says; what was sent before that is made anew."""
        transport = await self.data_transport(str(reply.get("dataServerAddress", "")))
        frames = reply.get("frameExchange")
        if self._wire == "metricq" or not frames:
            self._outflow.use(MetricqEncoder(str(reply["dataExchange"]), self.token))
        else:
            self._outflow.use(self._frames(str(frames)))
        self.start_task(self._outflow.run(transport), name="send")

    def _frames(self, exchange: str) -> FrameEncoder:
        return FrameEncoder(exchange, self.token, self.started.posix_ns, self.routing_key)

    async def wind_down(self) -> None:
        """Stop `task`, send what is buffered, wait for the confirms."""
        await self._source_task.end()
        try:
            await self.drain()
        finally:
            if self._outbox.points:
                logger.error("%s: %d points were not confirmed and are lost", self.token, self._outbox.points)
        await super().wind_down()

    def vital_signs(self) -> Json:
        """Points confirmed, buffered and dropped."""
        return {
            **super().vital_signs(),
            "pointsConfirmed": self._outbox.points_confirmed,
            "pointsBuffered": self._buffers.points + self._outbox.points,
            "pointsDropped": self._outbox.points_dropped,
        }
