# SPDX-License-Identifier: MIT
"""`HistoryClient`: what the archives on the bus know of the past.

It can be asked as every `History` can, in columns and ns; the methods with MetricQ's names (``history_...``)
take `Timestamp` and `Timedelta`. All ranges are start <= time < end.
"""

from __future__ import annotations

import asyncio
import logging
from array import array
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import takewhile
from typing import TYPE_CHECKING, Unpack

from bus.agent import AgentOptions
from bus.aggregates import Aggregate, Aggregates, combine
from bus.archive import MIN_NS, PAGE_POINTS, Event
from bus.chunk import MAX_NS, Chunk
from bus.client import REGISTER_TIMEOUT_S, Client
from bus.dataframe import Statistic, to_dataframe
from bus.errors import HostbusError, NotArchived, RpcError, Unroutable
from bus.events import add_event, list_events
from bus.history_joining import joined
from bus.history_link import HistoryLink
from bus.history_wire import HistoryRequest, HistoryResponse, RequestType
from bus.names import check_metric, check_pattern, is_pattern, matches
from bus.rpc import DEFAULT_TIMEOUT_S, Json
from bus.timestamp import Timedelta, Timestamp
from bus.transport.base import Consumption, Transport

if TYPE_CHECKING:
    from pandas import DataFrame

logger = logging.getLogger(__name__)

AT_ONCE = 32
"""Requests under way when many metrics are asked for."""
KEEPERS_TIMEOUT_S = 2.0
KEEPERS_FOR_S = 60.0
"""So long it is believed which archives keep a metric."""
MAX_KEEPERS = 100_000
JOINED_AT_ONCE = 4000
"""Longer answers of several archives are joined in a thread: 100,000 points take 50 ms."""


class _Unknown(NotArchived):
    """Nobody keeps the metric: for a `History` it has no points."""


class HistoryClient(Client):
    """Reads history: ``async with HistoryClient("my-tool", url) as history``.

    What several archives keep is joined: each point that one of them has, of each bucket the fullest aggregate.

    A metric that no archive keeps has no points for `points`, `aggregates` and `last`, as the protocol `History`
    has it; the methods with MetricQ's names raise NotArchived for it. All raise NotArchived if the archive that
    keeps the metric is not running, RpcTimeout if it does not answer in time, RpcError with its words if it cannot.

    Args:
        token: a name on the bus, to which a random part is added unless ``add_uuid=False``
        url: where the broker is, or a shared `Transport`
        timeout_s: how long to wait for each answer; a long range takes several
        options: see `AgentOptions`
    """

    def __init__(
        self,
        token: str,
        url: str | Transport = "",
        *,
        timeout_s: float = DEFAULT_TIMEOUT_S,
        **options: Unpack[AgentOptions],
    ) -> None:
        super().__init__(token, url, add_uuid=options.get("add_uuid", True), config=options.get("config"))
        self._timeout_s = timeout_s
        self._keepers: dict[str, tuple[float, list[str]]] = {}  # by metric: until when it holds, and tokens
        self._keepers_unknown_until = 0.0

    async def start(self) -> None:
        """Join the bus. Raises NotConnected if there is no manager."""
        await super().start()
        reply = await self.rpc("history.register", timeout=min(self._timeout_s, REGISTER_TIMEOUT_S))
        self._data = await self.data_transport(str(reply.get("dataServerAddress", "")))
        self._queue = str(reply["historyQueue"])
        self._archives = HistoryLink(self._data, self.token, exchange=str(reply["historyExchange"]), queue=self._queue)
        consumption = Consumption(queue=self._queue, on_delivery=self._archives.on_delivery)
        self._consumer = await self._consume(self._data, consumption)
        self._archives.consumes_with(self._consumer)
        self.start_task(self._keep_asking(), name="ask again after reconnects")

    async def _keep_asking(self) -> None:
        """After every connection, the queue for answers may have to be made again."""
        seen = await self._data.connected()
        while True:
            seen = await self._data.connected(seen)
            await self._register("history.register")
            self._archives.ask_again()

    async def wind_down(self) -> None:
        """No more answers; nobody else has a use for the queue."""
        await self._consumer.cancel()
        if not self._data.last_error:
            await self._data.delete_queue(self._queue)
        await super().wind_down()

    async def aclose(self) -> None:
        """The same as `stop`."""
        await self.stop()

    # -- as a `History` --------------------------------------------------------------------------------

    async def metrics(self, pattern: str = "#") -> dict[str, Json]:
        """The metrics that archives keep and that the name or pattern selects, sorted, with their metadata."""
        check_pattern(pattern)
        if not is_pattern(pattern):
            return await self.get_metrics([pattern], historic=True, timeout=self._timeout_s)
        # The words before the first wildcard: what the manager can look for.
        prefix = ".".join(takewhile(lambda word: word not in "*#", pattern.split(".")))
        found = await self.get_metrics(prefix=prefix or None, historic=True, timeout=self._timeout_s)
        return {name: about for name, about in found.items() if matches(pattern, name)}

    async def points(self, metric: str, start_ns: int = MIN_NS, end_ns: int = MAX_NS) -> AsyncIterator[Chunk]:
        """The points of a metric, oldest first, one page per answer."""
        with suppress(_Unknown):
            async for page in self._pages(metric, _points_request(start_ns, end_ns)):
                if page.times:
                    yield _chunk(metric, page)

    async def aggregates(self, metric: str, start_ns: int, end_ns: int, every_ns: int | None = None) -> Aggregates:
        """Aggregates over buckets of `every_ns`, each beginning at a multiple of it; None: at most one, over all."""
        rows: list[Aggregate] = []
        with suppress(_Unknown):
            rows = await self._aggregate_rows(metric, start_ns, end_ns, every_ns)
        return Aggregates.from_rows(metric, rows)

    async def last(self, pattern: str = "#") -> dict[str, tuple[int, float]]:
        """The newest (time in ns, value) of each metric that the name or pattern selects; sorted by name.

        One request for each metric, `AT_ONCE` at a time.
        """
        names = list(await self.metrics(pattern)) if is_pattern(pattern) else [check_pattern(pattern)]
        await self._learn_keepers(names)
        found: dict[str, tuple[int, float]] = {}
        remaining = iter(names)

        async def work_off() -> None:
            for name in remaining:
                with suppress(_Unknown):
                    response = await self._ask(name, HistoryRequest(type=RequestType.LAST_VALUE, limit=1))
                    if response.times:
                        found[name] = (response.times[-1], _chunk(name, response).values[-1])

        try:
            async with asyncio.TaskGroup() as group:
                for number in range(min(AT_ONCE, len(names))):
                    group.create_task(work_off(), name=f"{self.token}: last values, {number}")
        except ExceptionGroup as errors:
            raise errors.exceptions[0] from None
        return {name: found[name] for name in names if name in found}

    # -- events ----------------------------------------------------------------------------------------

    async def events(self, start_ns: int = MIN_NS, end_ns: int = MAX_NS, *, source: str | None = None) -> list[Event]:
        """The events that begin before `end_ns` and do not end before `start_ns`, oldest first; their ids are 0.

        Takes a second: all archives are looked for.
        """
        return await list_events(self, start_ns, end_ns, source, self._timeout_s)

    async def add_event(self, event: Event, metrics: Iterable[str]) -> list[str]:
        """Store an event in each archive that keeps any of the metrics, names or patterns; the tokens of these."""
        return await add_event(self, event, metrics, self._timeout_s)

    # -- by MetricQ's names ----------------------------------------------------------------------------

    async def history_aggregate(
        self, metric: str, start_time: Timestamp | None = None, end_time: Timestamp | None = None
    ) -> Aggregate | None:
        """One aggregate over a range, or over everything; None if no points lie in it."""
        rows = await self._aggregate_rows(metric, *_range(start_time, end_time), None)
        return rows[0] if rows else None

    async def history_aggregate_timeline(
        self,
        metric: str,
        interval_max: Timedelta,
        start_time: Timestamp | None = None,
        end_time: Timestamp | None = None,
    ) -> Aggregates:
        """Aggregates over spans of `interval_max`, each beginning at a multiple of it since 1970."""
        rows = await self._aggregate_rows(metric, *_range(start_time, end_time), interval_max.ns)
        return Aggregates.from_rows(metric, rows)

    async def history_raw_timeline(
        self, metric: str, start_time: Timestamp | None = None, end_time: Timestamp | None = None
    ) -> Chunk:
        """All points of a range, which must fit into memory; `points` hands them over page by page."""
        chunk, _ = await self._gather(metric, _points_request(*_range(start_time, end_time)))
        return chunk

    async def history_flex_timeline(
        self,
        metric: str,
        interval_max: Timedelta,
        start_time: Timestamp | None = None,
        end_time: Timestamp | None = None,
    ) -> Chunk | Aggregates:
        """The points of a range, or aggregates over spans of `interval_max` if the points lie closer together."""
        start_ns, end_ns = _range(start_time, end_time)
        request = replace(_points_request(start_ns, end_ns), interval_max=interval_max.ns)
        chunk, rows = await self._gather(metric, request)
        return Aggregates.from_rows(metric, combine(rows, interval_max.ns)) if rows else chunk

    async def history_last_value(self, metric: str) -> tuple[Timestamp, float] | None:
        """The newest point of a metric; None if it has none."""
        response = await self._ask(metric, HistoryRequest(type=RequestType.LAST_VALUE, limit=1))
        return (Timestamp(response.times[-1]), _chunk(metric, response).values[-1]) if response.times else None

    async def to_pandas(
        self,
        metrics: str | Iterable[str],
        start_time: Timestamp | None = None,
        end_time: Timestamp | None = None,
        every: Timedelta | None = None,
        statistic: Statistic = "mean",
    ) -> DataFrame:
        """A DataFrame with the time (UTC) as its index and a column for each metric; needs ``hostbus[pandas]``.

        Args:
            metrics: names and patterns
            start_time: where the range begins; None: with the first point
            end_time: where it ends; None: with the last point
            every: a row for each such span of time; None: all points, a row for each time at which there is one
            statistic: what to say of each span
        """
        return await to_dataframe(
            self, metrics, *_range(start_time, end_time), None if every is None else every.ns, statistic
        )

    # -- requests --------------------------------------------------------------------------------------

    async def _aggregate_rows(self, metric: str, start_ns: int, end_ns: int, every_ns: int | None) -> list[Aggregate]:
        if every_ns is not None and every_ns <= 0:
            raise ValueError(f"{metric}: aggregates must be over more than 0 ns, not {every_ns}")
        request = HistoryRequest(
            start_time=start_ns,
            end_time=end_ns,
            interval_max=every_ns or 0,
            type=RequestType.AGGREGATE if every_ns is None else RequestType.AGGREGATE_TIMELINE,
            limit=PAGE_POINTS,
        )
        _, rows = await self._gather(metric, request)
        # What lies across the end of a page is joined here; MetricQ's databases have spans of their own, too.
        return combine(rows, every_ns)

    async def _gather(self, metric: str, request: HistoryRequest) -> tuple[Chunk, list[Aggregate]]:
        """All pages: points or aggregates."""
        times, values = array("q"), array("d")
        rows: list[Aggregate] = []
        async for page in self._pages(metric, request):
            if page.aggregates:
                rows += [row for row in page.aggregates if row.count or row.covered]
            else:
                chunk = _chunk(metric, page)
                times += chunk.times
                values += chunk.values
        if times and (rows or request.type is not RequestType.FLEX_TIMELINE):
            raise RpcError(f"{metric}: an archive answered with points where aggregates were asked for")
        return Chunk(metric, times, values), rows

    async def _pages(self, metric: str, request: HistoryRequest) -> AsyncIterator[HistoryResponse]:
        """The answer to a request, in as many parts as the archive makes of it."""
        while request.start_time < request.end_time:
            page = await self._ask(metric, request)
            yield page
            if page.next_time is None:
                return
            if page.next_time <= request.start_time:
                raise RpcError(f"{metric}: an archive wants to be asked for the same times again")
            if page.aggregates:
                request = replace(request, type=RequestType.AGGREGATE_TIMELINE)
            elif request.type is RequestType.FLEX_TIMELINE:
                request = replace(request, interval_max=0)
            request = replace(request, start_time=page.next_time)

    async def _ask(self, metric: str, request: HistoryRequest) -> HistoryResponse:
        check_metric(metric)
        await self._learn_keepers([metric])
        _, archives = self._keepers.get(metric, (0.0, ()))
        try:
            answers = await self._archives.ask(metric, request, self._timeout_s, archives)
        except Unroutable:
            pass
        else:
            if sum(len(answer.times) for answer in answers) <= JOINED_AT_ONCE or len(answers) == 1:
                return joined(answers, request)
            return await asyncio.to_thread(joined, answers, request)
        if await self.get_metrics([metric], historic=True, timeout=self._timeout_s):
            raise NotArchived(f"the archive that keeps {metric!r} is not running: start it, and ask again")
        raise _Unknown(f"no archive keeps {metric!r}: check the name, and that the archive has subscribed to it")

    async def _learn_keepers(self, metrics: Sequence[str]) -> None:
        """Make sure that `_keepers` has these metrics, unless the manager is away or does not know."""
        now = asyncio.get_running_loop().time()
        unknown = [metric for metric in metrics if self._keepers.get(metric, (now, ()))[0] <= now]
        if not unknown or now < self._keepers_unknown_until:
            return
        try:
            reply = await self.rpc("history.archives", metrics=unknown, timeout=min(self._timeout_s, KEEPERS_TIMEOUT_S))
        except HostbusError as error:  # MetricQ's manager does not know: then the first answer is taken
            logger.debug("%s: not known who keeps %d metrics: %s", self.token, len(unknown), error)
            self._keepers_unknown_until = now + KEEPERS_FOR_S
            return
        archives: dict[str, list[str]] = reply["archives"]
        if len(self._keepers) + len(unknown) > MAX_KEEPERS:
            self._keepers.clear()
        self._keepers.update({metric: (now + KEEPERS_FOR_S, archives.get(metric, [])) for metric in unknown})


def _range(start: Timestamp | None, end: Timestamp | None) -> tuple[int, int]:
    return MIN_NS if start is None else start.posix_ns, MAX_NS if end is None else end.posix_ns


def _points_request(start_ns: int, end_ns: int) -> HistoryRequest:
    return HistoryRequest(start_time=start_ns, end_time=end_ns, type=RequestType.FLEX_TIMELINE, limit=PAGE_POINTS)


def _chunk(metric: str, response: HistoryResponse) -> Chunk:
    """The points of an answer. Raises RpcError if it has aggregates."""
    if response.aggregates:
        raise RpcError(f"{metric}: an archive answered with aggregates where points were asked for")
    return Chunk(metric, response.times, response.values)
