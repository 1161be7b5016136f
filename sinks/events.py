# SPDX-License-Identifier: MIT
"""`EventSink`: a sink whose archive keeps events, too, for everybody on the bus (bus/events.py)."""

from abc import abstractmethod

from bus.archive import MIN_NS, Archive, Event
from bus.chunk import MAX_NS
from bus.errors import StorageBusy
from bus.events import KEEPS_EVENTS
from bus.names import check_pattern
from bus.rpc import Json, rpc_handler
from bus.sink import DurableSink


class EventSink(DurableSink):
    """Answers requests about events."""

    @property
    @abstractmethod
    def archive(self) -> Archive | None:
        """The archive, to be written; None while it cannot be."""

    def vital_signs(self) -> Json:
        """That events are kept here."""
        return {**super().vital_signs(), KEEPS_EVENTS: True}

    @rpc_handler("event.add")
    async def _rpc_event_add(self, event: Event, metrics: list[str]) -> Json:
        end_ns = event.time if event.end is None else event.end
        if not MIN_NS <= event.time <= end_ns <= MAX_NS:
            raise ValueError(f"event: time {event.time} and end {event.end} are no range of ns since 1970")
        archive = self._working_archive()
        for pattern in metrics:
            if await archive.metrics(check_pattern(pattern)):
                return {"id": await archive.add_event(event)}
        return {}

    @rpc_handler("event.list")
    async def _rpc_event_list(self, start_time: int, end_time: int, source: str | None = None) -> Json:
        times = (min(max(time, MIN_NS), MAX_NS) for time in (start_time, end_time))
        return {"events": await self._working_archive().events(*times, source=source)}

    def _working_archive(self) -> Archive:
        if self.archive is None:
            raise StorageBusy(f"{self.token} cannot reach its archive for now: try again later")
        return self.archive
