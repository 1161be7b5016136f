# SPDX-License-Identifier: MIT
"""`Source`: an agent that declares metrics and sends points.

Points go into the chunk of their metric; chunks that are ready are swapped out, made into messages and put
into the outbox, from where a task of its own publishes them. Whoever samples never waits for the network.
"""

import asyncio
import logging
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from typing import Any, Literal, Unpack, get_args

from bus.agent import AgentOptions
from bus.buffers import Buffers
from bus.chunk import ChunkBuffer
from bus.client import Client
from bus.encoder import Column, Encoder, FrameEncoder, MetricqEncoder
from bus.errors import PublishFailed, RpcError
from bus.frame import decode_frame
from bus.names import check_metric, routing_key
from bus.outbox import DEFAULT_LIMIT_POINTS, Outbox, Sender
from bus.rpc import Json
from bus.timestamp import Timedelta, Timestamp
from bus.transport.base import Transport

logger = logging.getLogger(__name__)

Wire = Literal["auto", "metricq"]

TASK_END_S = 2.0
"""How long `task()` has to end by itself after `task_stop_future` is set; then it is cancelled."""

CANCEL_S = 0.5
"""How long `task()` has to clean up when it is cancelled."""

REFUSED_S = 30.0

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
        self._buffers = Buffers(chunk_size, buffer_limit, self._on_ready)
        self._outbox = Outbox(self.token, buffer_limit)
        self.max_delay = max_delay
        self._collecting = False
        self._ageing = False
        self._since_yield = 0
        self._encoder: Encoder = FrameEncoder("hostbus.data", self.token, self.started.posix_ns, self.routing_key)
        self._declared: dict[str, Json] = {}
        self._undeclared: dict[str, Json] = {}
        self._declare_wanted = asyncio.Event()
        self._registered = asyncio.Event()
        self._task_limit = asyncio.Timeout(None)  # `timeout()` would want a running loop
        self._task_ended = asyncio.Event()

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
        return None if self._max_delay_s is None else Timedelta.from_s(self._max_delay_s)

    @max_delay.setter
    def max_delay(self, max_delay: float | Timedelta | None) -> None:
        seconds = max_delay.s if isinstance(max_delay, Timedelta) else max_delay
        if seconds is not None and not 0 < seconds < float("inf"):
            raise ValueError(f"max_delay must be more than 0 seconds, or None, not {max_delay!r}")
        self._max_delay_s = seconds

    def __getitem__(self, metric: str) -> ChunkBuffer:
        """The chunk of a metric, to set its own `chunk_size`. Raises ValueError for what is not a metric name."""
        return self._buffers[metric]

    async def send(self, metric: str, time: Timestamp, value: float) -> None:
        """Send one point: into its metric's chunk; returns without waiting for the network.

        Raises ValueError unless `time` is later than the metric's last point, TypeError for a value that is
        no number.
        """
        self._buffers.add(metric, time.posix_ns, value)
        self._age()
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
            self._age()

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
        self._age()

    async def flush(self) -> None:
        """Send all buffered points now, full chunk or not. Does not wait for the network: see `drain`."""
        self._emit(self._buffers.take_all())
        await asyncio.sleep(0)

    async def drain(self, timeout: float = 60) -> None:
        """Flush, and wait until the broker has confirmed all points. Raises PublishFailed after `timeout` seconds."""
        await self.flush()
        try:
            async with asyncio.timeout(timeout):
                await self._outbox.drained()
        except TimeoutError:
            raise PublishFailed(
                f"{self.token}: {self._outbox.points} points are not confirmed after {timeout:g} s"
                + (f": {self.transport.last_error}" if self.transport.last_error else "")
            ) from None

    def _on_ready(self) -> None:
        """Collect once per turn of the event loop, so that all chunks that get ready in it share a frame.

        At once if the buffers are full: a loop that samples without ever waiting must not fill the memory.
        """
        if self._buffers.is_full:
            self._emit(self._buffers.take_ready())
        elif not self._collecting:
            asyncio.get_running_loop().call_soon(self._collect)
            self._collecting = True

    def _collect(self) -> None:
        self._collecting = False
        self._emit(self._buffers.take_ready())

    def _emit(self, columns: list[Column]) -> None:
        if columns:
            for parcel in self._encoder.encode(columns):
                self._outbox.put(parcel)

    def _age(self) -> None:
        if self._max_delay_s is not None and not self._ageing and self._buffers.points:
            asyncio.get_running_loop().call_later(self._max_delay_s, self._collect_aged)
            self._ageing = True

    def _collect_aged(self) -> None:
        # All chunks go, the younger ones too: that is simpler than a timer per chunk, and fewer messages.
        self._ageing = False
        self._emit(self._buffers.take_all(manual=False))

    def routing_key(self, metric: str) -> str:
        """Under which key the frames with a metric travel: metrics of one key share a frame.

        It must be a proper word-prefix of the metric, or sinks' bindings would miss it. Asked once per metric.
        """
        return routing_key(metric, self._prefix)

    # -- metrics ---------------------------------------------------------------------------------------

    async def declare_metrics(self, metrics: Mapping[str, Json] | Iterable[str]) -> None:
        """Declare metrics and their metadata to the manager; needed before points of them are sent.

        They are declared again whenever the bus was away. Metadata: `unit`, `description`, `rate` or
        `interval`, `quantity`, `scope`, and any other JSON. Raises RpcError if the manager refuses (say,
        because another source that is alive owns one), RpcTimeout or NotConnected if it does not answer.
        """
        described = self._describe(metrics)
        await self.rpc("source.declare_metrics", metrics=described)
        self._declared.update(described)

    def declare_metrics_nowait(self, metrics: Mapping[str, Json] | Iterable[str]) -> None:
        """Declare as soon as the manager answers. If it refuses, the source fails."""
        self._undeclared.update(self._describe(metrics))
        self._declare_wanted.set()

    def _describe(self, metrics: Mapping[str, Json] | Iterable[str]) -> dict[str, Json]:
        if isinstance(metrics, str):
            raise TypeError(f"metrics must be a mapping or a list of names, not the name {metrics!r} alone")
        named = metrics if isinstance(metrics, Mapping) else {metric: {} for metric in metrics}
        for name, about in named.items():
            if not isinstance(about, Mapping):
                raise TypeError(f"{name}: the metadata must be a mapping, not {type(about).__name__}")
        return {check_metric(name): {"chunkSize": self[name].chunk_size, **about} for name, about in named.items()}

    # -- life ------------------------------------------------------------------------------------------

    @abstractmethod
    async def task(self) -> None:
        """Produce points. Starts when the source is registered and configured.

        It should end when `task_stop_future` is done; 2 s later it is cancelled. If it raises, the source
        sends what is buffered and fails with that error.
        """

    @property
    def task_stop_future(self) -> asyncio.Future[None]:
        """Done when `task` should end."""
        return self._task_stop

    async def start(self) -> None:
        """Register, take the configuration, then start `task`."""
        await super().start()
        self._task_stop: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.start_task(self._keep_registered(), name="register")
        await self._registered.wait()
        self.start_task(self._declare_pending(), name="declare")
        self.start_task(self._run_task(), name="task")

    async def _run_task(self) -> None:
        try:
            async with self._task_limit:
                await self.task()
        except TimeoutError:
            if not self._task_limit.expired():
                raise
            logger.warning("%s: task() did not end within %g s of its stop: cancelled", self.token, TASK_END_S)
        finally:
            self._task_ended.set()

    async def _keep_registered(self) -> None:
        """Register after every connection: the manager or the broker may have lost what it knew.

        Raises RpcError if the manager refuses the first time. Later, points go on while it is asked again.
        """
        seen = 0
        while True:
            seen = await self.transport.connected(seen)
            try:
                await self._join()
            except RpcError as error:
                if not self._registered.is_set():
                    raise
                logger.error("%s: refused on its return, asking again in %g s: %s", self.token, REFUSED_S, error)  # noqa: TRY400
                await asyncio.sleep(REFUSED_S)
                seen = 0

    async def _join(self) -> None:
        reply = await self._register("source.register")
        if not self._registered.is_set():
            await self._open_data(reply)
        await self._accept_config(reply)
        if self._declared:
            await self._persist("declare metrics", lambda: self.rpc("source.declare_metrics", metrics=self._declared))
        self._registered.set()

    async def _open_data(self, reply: Json) -> None:
        """Publish where, and in the way that, the manager says; what was sent before that is made anew."""
        transport = await self._data_transport(str(reply.get("dataServerAddress", "")))
        frames = reply.get("frameExchange")
        if self._wire == "metricq" or not frames:
            self._encoder = MetricqEncoder(str(reply["dataExchange"]), self.token)
        else:
            self._encoder = FrameEncoder(str(frames), self.token, self.started.posix_ns, self.routing_key)
        for parcel in self._outbox.withdraw():
            chunks = decode_frame(parcel.message.body).chunks()
            self._emit([(chunk.metric, list(chunk.times), list(chunk.values)) for chunk in chunks])
        self.start_task(Sender(transport, self._outbox, self.token).run(), name="send")

    async def _declare_pending(self) -> None:
        while True:
            await self._declare_wanted.wait()
            self._declare_wanted.clear()
            pending, self._undeclared = self._undeclared, {}
            await self._persist("declare metrics", lambda: self.rpc("source.declare_metrics", metrics=pending))  # noqa: B023  # awaited in this round
            self._declared.update(pending)

    async def wind_down(self) -> None:
        """Stop `task`, send what is buffered, wait for the confirms."""
        if not self._task_stop.done():  # `wait_for` in a task may have cancelled it
            self._task_stop.set_result(None)
        if not self._task_ended.is_set():
            self._task_limit.reschedule(asyncio.get_running_loop().time() + TASK_END_S)
            try:
                async with asyncio.timeout(TASK_END_S + CANCEL_S):
                    await self._task_ended.wait()
            except TimeoutError:
                logger.warning("%s: task() does not let itself be cancelled", self.token)
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
