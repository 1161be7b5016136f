# SPDX-License-Identifier: MIT
"""`IntervalSource`: a source that is asked for its points at regular intervals."""

import asyncio
import logging
import time
import traceback
from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, Unpack

from bus.errors import ConfigError, gist
from bus.rpc import Json, rpc_handler
from bus.source import Source, SourceOptions
from bus.timestamp import NS_PER_S, Timedelta, Timestamp
from bus.transport.base import Transport

logger = logging.getLogger(__name__)

SHORTEST_PERIOD_NS = 1_000_000
LONGEST_PERIOD_NS = 366 * 86400 * NS_PER_S
CLOCK_STEP_NS = 50_000_000
"""The wall clock has been set if it left the monotonic clock by more than this between two looks (NTP slews
at most 0.5 ms per second)."""


@dataclass(slots=True)
class UpdateHealth:
    """How the updates of an interval source go. Times in seconds."""

    updates: int = 0
    failed: int = 0
    missed: int = 0
    duration_s: float = 0.0
    lag_s: float = 0.0


class Ticker:
    """When the next tick is: multiples of the period on the wall clock, waited for on the monotonic clock.

    All hosts that sample once a second so share their time stamps. Without `align`, ticks are whole periods
    from the first one on, which is at once. When the wall clock is set back, time stamps go on at half speed
    until it has caught up, because points of a metric must increase in time.
    """

    def __init__(self, *, align: bool) -> None:
        self._align = align
        self._last_ns = 0
        self._due_at = 0.0
        self._done_at: float | None = None
        self._offset_ns = 0

    def plan(self, period_ns: int, wall_ns: int, monotonic_s: float) -> tuple[int, float]:
        """The time stamp of the next tick, and when it is due on the monotonic clock."""
        if self._align:
            due_ns = (wall_ns // period_ns + 1) * period_ns
            # The wake-up for a tick may come a little early: that tick has been, the next one is meant.
            if due_ns == self._last_ns:
                due_ns += period_ns
        else:
            due_ns = wall_ns + self._wait_ns(period_ns, monotonic_s)
        self._due_at = monotonic_s + (due_ns - wall_ns) / NS_PER_S
        self._offset_ns = wall_ns - int(monotonic_s * NS_PER_S)
        if due_ns <= self._last_ns:
            due_ns = self._last_ns + period_ns // 2
        return due_ns, self._due_at

    def _wait_ns(self, period_ns: int, monotonic_s: float) -> int:
        """How long until the next whole number of periods after the tick that was last used."""
        if self._done_at is None:
            return 0
        since_ns = int((monotonic_s - self._done_at) * NS_PER_S)
        return max(1, -(-since_ns // period_ns)) * period_ns - since_ns

    def was_set(self, wall_ns: int, monotonic_s: float) -> bool:
        """True if the wall clock has been set since `plan`."""
        return abs(wall_ns - int(monotonic_s * NS_PER_S) - self._offset_ns) > CLOCK_STEP_NS

    def missed(self, period_ns: int, monotonic_s: float) -> int:
        """How many ticks have gone by unused, if the one that was due is only done now."""
        return max(0, int((monotonic_s - self._due_at) * NS_PER_S / period_ns))

    def done(self, tick_ns: int) -> None:
        """The tick was used."""
        self._last_ns = tick_ns
        self._done_at = self._due_at


class IntervalSource(Source):
    """A source that produces points once per `period`: subclass it and write `update`.

    Ticks fall on multiples of the period on the wall clock (``align=False``: from the start on). An update
    that takes longer than the period makes the ticks it covers be skipped, and counted.

    Args:
        token: the source's unique name on the bus
        url: where the broker is, or a shared `Transport`
        period: seconds or Timedelta between updates; it may be set later, before `update` first runs
        align: ticks on multiples of the period
        options: see `SourceOptions`
    """

    def __init__(
        self,
        token: str,
        url: str | Transport = "",
        *,
        period: float | Timedelta | None = None,
        align: bool = True,
        **options: Unpack[SourceOptions],
    ) -> None:
        super().__init__(token, url, **options)
        self._period_ns: int | None = None
        self._interrupted = asyncio.Event()
        self._ticker = Ticker(align=align)
        self._repeated = 0
        self._last_failure = ""
        self.tick = Timestamp(0)
        """The time of the current tick: the time stamp for what `update` samples."""
        self.health = UpdateHealth()
        if period is not None:
            self.period = period

    @property
    def period(self) -> Timedelta | None:
        """The time between updates; None until it is first set.

        Assign seconds or a Timedelta, at any time: it takes effect at once, the current sleep is cut short.
        Raises TypeError for None or what is not a number, ValueError below 1 ms or above a year.
        """
        return None if self._period_ns is None else Timedelta(self._period_ns)

    @period.setter
    def period(self, period: float | Timedelta) -> None:
        if not isinstance(period, int | float | Timedelta) or isinstance(period, bool):
            raise TypeError(f"period must be seconds or a Timedelta, not {period!r}; it cannot be unset")
        seconds = period.s if isinstance(period, Timedelta) else period
        if not SHORTEST_PERIOD_NS <= seconds * NS_PER_S <= LONGEST_PERIOD_NS:  # true for NaN, too
            raise ValueError(f"period must be from 0.001 s to a year, not {period}")
        self._period_ns = period.ns if isinstance(period, Timedelta) else Timedelta.from_s(period).ns
        self._interrupted.set()

    @abstractmethod
    async def update(self) -> None:
        """Produce the points of one tick, stamped with `self.tick`.

        If it raises, that is logged with its traceback and counted, and the next tick runs.
        """

    @property
    def pending(self) -> bool:
        """True while a source has not got hold yet of what it samples, such as hosts that it is connecting to."""
        return False

    async def task(self) -> None:
        """Run `update` on every tick until the source stops."""
        self.task_stop_future.add_done_callback(lambda _: self._interrupted.set())
        while not self.task_stop_future.done():
            if self._period_ns is None:
                raise ValueError(f"{self.token}: the period was not set before the first update")
            period_ns = self._period_ns
            self._interrupted.clear()
            tick_ns, due_at = self._ticker.plan(period_ns, time.time_ns(), time.monotonic())
            if not await self._sleep_until(due_at):
                continue
            if self._ticker.was_set(time.time_ns(), time.monotonic()):
                logger.warning("%s: the clock was set; the ticks follow it", self.token)
                continue
            self._ticker.done(tick_ns)
            await self._update(Timestamp(tick_ns), due_at)
            self._skip(period_ns)

    async def _sleep_until(self, due_at: float) -> bool:
        """True if the time has come, False if the period was changed or the source stops before."""
        try:
            async with asyncio.timeout(max(0.0, due_at - time.monotonic())):
                await self._interrupted.wait()
        except TimeoutError:
            return True
        return False

    def _skip(self, period_ns: int) -> None:
        missed = self._ticker.missed(period_ns, time.monotonic())
        if missed:
            if not self.health.missed:
                logger.warning(
                    "%s: an update took %.3f s, longer than the period of %g s: skipping ticks (counted as missed)",
                    self.token,
                    self.health.duration_s,
                    period_ns / NS_PER_S,
                )
            self.health.missed += missed

    async def _update(self, tick: Timestamp, due_at: float) -> None:
        self.tick = tick
        began = time.monotonic()
        self.health.lag_s = max(0.0, began - due_at)
        try:
            await self.update()
        except asyncio.CancelledError as error:
            # What update awaited was cancelled, not the source: it must not end by that, and silently.
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            self._failed(error)
        except Exception as error:  # noqa: BLE001  # logged in `_failed`; one bad update must not stop the source
            self._failed(error)
        else:
            self._recovered()
        self.health.updates += 1
        self.health.duration_s = time.monotonic() - began

    def _failed(self, error: BaseException) -> None:
        """Count and log a failure; of causes that are the same in a row, the first one only."""
        self.health.failed += 1
        cause = gist(error)
        if cause == self._last_failure:
            self._repeated += 1
            return
        self._recovered()
        self._last_failure = cause
        what = "".join(traceback.format_exception_only(error)).strip()
        logger.error("%s: update failed: %s", self.token, what, exc_info=error)

    def _recovered(self) -> None:
        if self._last_failure and self._repeated:
            logger.warning("%s: that failure came %d more times in a row", self.token, self._repeated)
        self._last_failure = ""
        self._repeated = 0

    @rpc_handler("config")
    async def _on_interval_config(self, period: Any = None, **_others: Any) -> None:
        """A pushed `period` takes effect at once, for sources without a `Config` of their own too."""
        if period is not None:
            try:
                self.period = period
            except (TypeError, ValueError) as error:
                raise ConfigError(str(error)) from error

    def vital_signs(self) -> Json:
        """Updates, failures, missed ticks, and how long the last update took."""
        health = self.health
        return {
            **super().vital_signs(),
            "updates": health.updates,
            "updatesFailed": health.failed,
            "ticksMissed": health.missed,
            "updateDuration": health.duration_s,
            "updateLag": health.lag_s,
        }
