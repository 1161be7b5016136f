# SPDX-License-Identifier: MIT
"""`Sink` and `DurableSink`: agents that consume points.

A message is decoded once, handed over as columns, and acknowledged only after the sink's work with it is
done. What cannot be decoded is rejected: the broker keeps it in its dead-letter queue.
"""

import asyncio
import logging
from abc import ABC
from collections.abc import Iterable, Sequence
from typing import Any, Unpack

from bus.agent import AgentOptions
from bus.chunk import Chunk
from bus.client import Client
from bus.config import nearest
from bus.errors import StorageBusy
from bus.frame import Frame
from bus.gaps import Gap, GapWatch
from bus.intake import Batch, Intake
from bus.names import Selection
from bus.rpc import Json
from bus.timestamp import Timedelta, Timestamp
from bus.transport.base import Consumer, Consumption, Delivery, Transport

logger = logging.getLogger(__name__)

DEFAULT_PREFETCH = 400
LOWEST_RETRY_S = 0.5
HIGHEST_RETRY_S = 30.0


class Sink(Client, ABC):
    """An agent that consumes points: subclass it and override one of the `on_...` methods.

    `on_frames` gets all that has come in; it calls `on_frame` for each frame, which calls `on_chunk` for
    each metric, which calls `on_data` for each point. The earlier in this chain a sink takes over, the less
    a point costs. A delivery is acknowledged after `on_frames` returns.

    Args:
        token: the sink's name on the bus; a random part is added unless ``add_uuid=False``
        url: where the broker is, or a shared `Transport`
        prefetch: messages that may be outstanding without an ack
        options: see `AgentOptions`
    """

    batch_points: int = 50_000
    """`on_frames` is called at the latest when so many points have come in ..."""

    batch_age_s: float = 0.0
    """... or when the oldest is so old. 0: at once, with whatever is there."""

    def __init__(
        self,
        token: str,
        url: str | Transport = "",
        *,
        prefetch: int = DEFAULT_PREFETCH,
        **options: Unpack[AgentOptions],
    ) -> None:
        super().__init__(token, url, add_uuid=options.get("add_uuid", True), config=options.get("config"))
        self._prefetch = prefetch
        self._selection = Selection()
        self._subscription: Json = {}
        self._intake = Intake(prefetch, self.on_arrival)
        self._consumers: list[Consumer] = []
        self._consuming = asyncio.Event()
        self._subscribing = asyncio.Lock()
        self._gaps = GapWatch()
        self.points_received = 0

    # -- what a sink does with points ------------------------------------------------------------------

    async def on_frames(self, frames: Sequence[Frame]) -> None:
        """All frames that have come in since the last call, oldest first.

        Raise StorageBusy if they cannot be kept for now: consumption pauses, and the same frames come again.
        Any other error is logged, and a frame that raises alone too is rejected.
        """
        for frame in frames:
            await self.on_frame(frame)

    async def on_frame(self, frame: Frame) -> None:
        """One message of data."""
        for chunk in frame.chunks():
            await self.on_chunk(chunk)

    async def on_chunk(self, chunk: Chunk) -> None:
        """Points of one metric."""
        for time, value in chunk.points():
            await self.on_data(chunk.metric, time, value)

    async def on_data(self, metric: str, time: Timestamp, value: float) -> None:
        """One point."""

    def on_arrival(self, frame: Frame) -> None:
        """A frame has come, and waits for its batch; it may come again. For what must not wait: the newest values.

        All of the frame, with metrics that nobody subscribed to. Must neither wait nor raise.
        """

    async def on_gap(self, gap: Gap) -> None:
        """Frames are missing, or late. The default logs it."""
        logger.warning(
            "%s: frames %d to %d of %s (%s) are missing", self.token, gap.first, gap.last, gap.key, gap.source
        )

    # -- subscriptions ---------------------------------------------------------------------------------

    async def subscribe(
        self,
        metrics: Iterable[str],
        expires: float | Timedelta | None = None,
        metadata: bool | None = None,
        **others: Any,
    ) -> Json:
        """Have points of metrics delivered, by name or pattern (``web1.#``, ``*.cpu.*``).

        Args:
            metrics: names and patterns, added to those subscribed before
            expires: seconds after which the broker drops the queue when nobody consumes from it
            metadata: whether the reply has metadata
            others: further arguments of ``sink.subscribe``; ours, ``frames=True``, says that frames can be read

        Returns the manager's reply: `dataQueue`, and `metrics`, those known so far.
        """
        wanted = pattern_list(metrics)
        if expires is not None:
            others["expires"] = expires.s if isinstance(expires, Timedelta) else expires
        if metadata is not None:
            others["metadata"] = metadata
        # One at a time: the first answer brings the queue that the next question names.
        async with self._subscribing:
            arguments = {**self._subscription, **others}
            new = [pattern for pattern in wanted if pattern not in self._selection.patterns]
            self._selection.update(new)
            try:
                reply = await self.rpc("sink.subscribe", metrics=wanted, frames=True, **arguments)
            except BaseException:
                self._selection.discard(new)
                raise
            self._subscription = {**arguments, "dataQueue": reply["dataQueue"]}
            if not self._consumers:
                await self._consume_data(str(reply["dataQueue"]), str(reply.get("dataServerAddress", "")))
            return reply

    async def unsubscribe(self, metrics: Iterable[str]) -> None:
        """No more points of these names and patterns.

        Raises ValueError for one that is not subscribed.
        """
        unwanted = pattern_list(metrics)
        async with self._subscribing:
            patterns = self._selection.patterns
            for name in unwanted:
                if name not in patterns:
                    raise ValueError(f"{self.token} is not subscribed to {name!r}; {nearest(name, patterns)}")
            # A manager that was started since the subscription does not know what else the queue wants, and
            # would take away routing keys that the rest needs: tell it.
            await self._subscribe_again()
            await self.rpc("sink.unsubscribe", dataQueue=self._subscription["dataQueue"], metrics=unwanted, end=False)
            self._selection.discard(unwanted)
            self._gaps.forget()

    async def _consume_data(self, queue: str, address: str) -> None:
        transport = await self.data_transport(address)
        consumption = Consumption(queue=queue, on_delivery=self._intake.on_delivery, prefetch=self._prefetch)
        self._consumers.append(await self._consume(transport, consumption))
        self._consuming.set()

    async def start(self) -> None:
        """Join the bus; `subscribe` begins the deliveries."""
        await super().start()
        self.start_task(self._work_off(), name="work off")
        self.start_task(self._after_reconnects(self._rejoin), name="subscribe again")

    async def _rejoin(self) -> None:
        if self._subscription:
            await self._persist("subscribe again", self._subscribe_again)

    async def _subscribe_again(self) -> Json:
        return await self.rpc("sink.subscribe", metrics=self._selection.patterns, frames=True, **self._subscription)

    # -- deliveries ------------------------------------------------------------------------------------

    async def _work_off(self) -> None:
        await self._consuming.wait()
        while True:
            await self._process(self._consumers[0], await self._intake.next_batch(self.batch_points, self.batch_age_s))

    async def _process(self, consumer: Consumer, batch: Batch) -> None:
        """Work off a batch and settle it: what cannot be decoded is rejected, the rest acknowledged."""
        arrivals: list[tuple[Delivery, Frame]] = []
        for delivery, frame in batch:
            if frame is None:
                consumer.reject(delivery)
                continue
            gap = self._gaps.check(frame)
            if gap is not None:
                await self._report(gap)
            arrivals.append((delivery, self._wanted(frame)))
        if not arrivals:
            return
        try:
            await self._until_stored([frame for _, frame in arrivals if frame.groups])
        except Exception:
            logger.exception("%s: cannot take %d frames together, trying each alone", self.token, len(arrivals))
            await self._one_by_one(consumer, arrivals)
        else:
            consumer.ack(arrivals[-1][0], multiple=True)
        self.points_received += sum(frame.points for _, frame in arrivals)

    async def _report(self, gap: Gap) -> None:
        try:
            await self.on_gap(gap)
        except Exception:
            # What came after the gap is no less worth for it.
            logger.exception("%s: cannot note that frames of %r are missing", self.token, gap.source)

    def _wanted(self, frame: Frame) -> Frame:
        """The frame without the metrics that nobody subscribed to, which travel under the same key."""
        return frame if self._selection.takes_all else frame.select(self._selection.__contains__)

    async def _one_by_one(self, consumer: Consumer, arrivals: Sequence[tuple[Delivery, Frame]]) -> None:
        for delivery, frame in arrivals:
            try:
                await self._until_stored([frame] if frame.groups else [])
            except Exception:
                logger.exception("%s: rejected a frame of %r under %r", self.token, frame.source, frame.key)
                self._intake.rejected += 1
                consumer.reject(delivery)
            else:
                consumer.ack(delivery)

    async def _until_stored(self, frames: Sequence[Frame]) -> None:
        """Hand the frames over; while the store is busy, wait and do so again. Prefetch holds back the rest."""
        delay_s = LOWEST_RETRY_S
        paused = False
        while frames:
            try:
                await self.on_frames(frames)
            except StorageBusy as error:
                if not paused:
                    logger.warning("%s pauses: %s", self.token, error)
                    paused = True
                await asyncio.sleep(delay_s)
                delay_s = min(delay_s * 2, HIGHEST_RETRY_S)
            else:
                if paused:
                    logger.info("%s goes on", self.token)
                return

    async def wind_down(self) -> None:
        """Finish what has come in, then stop the deliveries: what comes meanwhile stays with the broker."""
        if self._consumers:
            await self._intake.finish()
            await self._consumers[0].cancel()
        await super().wind_down()

    def vital_signs(self) -> Json:
        """Points received, messages rejected."""
        return {
            **super().vital_signs(),
            "pointsReceived": self.points_received,
            "framesRejected": self._intake.rejected,
        }


class DurableSink(Sink):
    """A sink with a configuration and a queue that outlives it: what arrives while it is away is kept.

    Its token is its identity, so that no random part is added to it.

    Args:
        token: the sink's unique name on the bus
        url: where the broker is, or a shared `Transport`
        metrics: names and patterns to subscribe to at the start
        prefetch: messages that may be outstanding without an ack
        options: see `AgentOptions`
    """

    def __init__(
        self,
        token: str,
        url: str | Transport = "",
        *,
        metrics: Sequence[str] = (),
        prefetch: int = DEFAULT_PREFETCH,
        **options: Unpack[AgentOptions],
    ) -> None:
        super().__init__(
            token, url, prefetch=prefetch, add_uuid=options.get("add_uuid", False), config=options.get("config")
        )
        self.metrics = Selection(pattern_list(metrics)).patterns

    async def start(self) -> None:
        """Register, take the configuration, subscribe."""
        await super().start()
        await self._accept_config(await self._register("sink.register"))
        if self.metrics:
            await self._persist("subscribe", lambda: self.subscribe(self.metrics))

    async def change_metrics(self, metrics: Sequence[str]) -> None:
        """Subscribe to these names and patterns instead of those so far: what is in both goes on undisturbed."""
        if self._subscription:
            if added := set(metrics) - set(self.metrics):
                await self.subscribe(sorted(added))
            if removed := set(self.metrics) - set(metrics):
                await self.unsubscribe(sorted(removed))
        self.metrics = list(metrics)

    async def _rejoin(self) -> None:
        # A configuration that was set while the connection was away is in force from now on.
        await self._accept_config(await self._register("sink.register"))
        await super()._rejoin()


def pattern_list(metrics: Iterable[str]) -> list[str]:
    """A list of names and patterns. Raises TypeError for a string, whose letters would be taken for names."""
    if isinstance(metrics, str):
        raise TypeError(f"metrics must be a list of names and patterns, like [{metrics!r}], not one string")
    return list(metrics)
