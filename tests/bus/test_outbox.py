# SPDX-License-Identifier: MIT
"""What is not yet confirmed: in order, bounded, sent again until the broker has it."""

import asyncio
import logging
from collections import deque
from contextlib import asynccontextmanager, suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bus import outbox as module
from bus.errors import HostbusError, NotConnected, PublishFailed, Refused
from bus.outbox import WINDOW_BYTES, WINDOW_MESSAGES, Outbox, Parcel, Sender
from bus.transport.base import Message


def parcel(number: int, *, points: int = 1, size: int = 8) -> Parcel:
    return Parcel(Message(body=number.to_bytes(8, "big").rjust(size), routing_key="key"), points)


def number_of(message: Message) -> int:
    return int.from_bytes(message.body[-8:], "big")


class FakeTransport:
    """Publishes into `stored`. A publish is confirmed at once, or when told, or fails as `failures` says.

    As on a channel of AMQP, all that is under way fails with the first that does; whether that one was stored
    all the same is in doubt (`stored_in_doubt`). Only what a `Sender` uses of the `Transport`.
    """

    def __init__(self) -> None:
        self.stored: list[int] = []
        self.failures: deque[HostbusError | None] = deque()
        self.begun: list[int] = []
        self.confirms = asyncio.Event()
        self.confirms.set()
        self.up = asyncio.Event()
        self.up.set()
        self.waiting = 0
        self.most_waiting = 0
        self.most_bytes = 0
        self._bytes = 0
        self.stored_in_doubt = False
        self._channel = 0

    async def connected(self, after: int = 0) -> int:
        await self.up.wait()
        return after + 1

    async def publish(self, message: Message) -> None:
        number = number_of(message)
        self.begun.append(number)
        if not self.up.is_set():
            raise NotConnected("no connection")
        self.waiting += 1
        self._bytes += len(message.body)
        self.most_waiting = max(self.most_waiting, self.waiting)
        self.most_bytes = max(self.most_bytes, self._bytes)
        channel = self._channel
        try:
            await asyncio.sleep(0)
            await self.confirms.wait()
            if channel != self._channel:
                raise PublishFailed("the channel was closed")
            failure = self.failures.popleft() if self.failures else None
            if failure is None or self.stored_in_doubt:
                self.stored.append(number)
            if failure is not None:
                self._channel += 1
                raise failure
        finally:
            self.waiting -= 1
            self._bytes -= len(message.body)


@asynccontextmanager
async def sending(outbox: Outbox, transport: FakeTransport):
    task = asyncio.create_task(Sender(transport, outbox, "source-test").run())  # type: ignore[arg-type]
    try:
        yield task
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def until(condition) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.001)


@pytest.fixture(autouse=True)
def _quick_retries(monkeypatch):
    monkeypatch.setattr(module, "LOWEST_RETRY_S", 0.001)
    monkeypatch.setattr(module, "HIGHEST_RETRY_S", 0.01)


async def test_messages_are_published_in_order_and_counted_when_confirmed():
    outbox, transport = Outbox("source-test"), FakeTransport()
    for number in range(1000):
        outbox.put(parcel(number, points=3))
    assert outbox.points == 3000
    async with sending(outbox, transport):
        await outbox.drained()
    assert transport.stored == list(range(1000))
    assert (outbox.points, outbox.points_confirmed, outbox.points_dropped) == (0, 3000, 0)


async def test_a_message_counts_as_unconfirmed_until_the_confirm():
    outbox, transport = Outbox("source-test"), FakeTransport()
    transport.confirms.clear()
    async with sending(outbox, transport):
        outbox.put(parcel(0, points=5))
        await until(lambda: transport.waiting == 1)
        assert (outbox.points, outbox.points_confirmed) == (5, 0)
        drained = asyncio.create_task(outbox.drained())
        await asyncio.sleep(0)
        assert not drained.done()
        transport.confirms.set()
        await drained
    assert (outbox.points, outbox.points_confirmed) == (0, 5)


async def test_an_empty_outbox_is_drained():
    await Outbox("source-test").drained()


async def test_what_arrives_during_a_publish_is_sent_once_after_it():
    outbox, transport = Outbox("source-test"), FakeTransport()
    transport.confirms.clear()
    async with sending(outbox, transport):
        outbox.put(parcel(0))
        await until(lambda: transport.waiting == 1)
        outbox.put(parcel(1))
        await until(lambda: transport.waiting == 2)  # and need not wait for the first
        outbox.put(parcel(2))
        transport.confirms.set()
        await outbox.drained()
    assert transport.stored == [0, 1, 2]
    assert transport.begun == [0, 1, 2]


async def test_unconfirmed_messages_are_bounded_by_count():
    outbox, transport = Outbox("source-test"), FakeTransport()
    transport.confirms.clear()
    for number in range(3 * WINDOW_MESSAGES):
        outbox.put(parcel(number))
    async with sending(outbox, transport):
        await until(lambda: transport.waiting == WINDOW_MESSAGES)
        for _ in range(10):
            await asyncio.sleep(0)
        assert transport.waiting == WINDOW_MESSAGES
        transport.confirms.set()
        await outbox.drained()
    assert transport.most_waiting == WINDOW_MESSAGES
    assert transport.stored == list(range(3 * WINDOW_MESSAGES))


async def test_unconfirmed_messages_are_bounded_by_bytes():
    outbox, transport = Outbox("source-test"), FakeTransport()
    for number in range(20):
        outbox.put(parcel(number, size=WINDOW_BYTES // 4))
    async with sending(outbox, transport):
        await outbox.drained()
    assert transport.most_waiting == 4
    assert transport.most_bytes <= WINDOW_BYTES
    assert transport.stored == list(range(20))


async def test_a_message_larger_than_the_window_goes_alone():
    outbox, transport = Outbox("source-test"), FakeTransport()
    outbox.put(parcel(0))
    outbox.put(parcel(1, size=2 * WINDOW_BYTES))
    outbox.put(parcel(2))
    async with sending(outbox, transport):
        await outbox.drained()
    assert transport.most_waiting == 1
    assert transport.stored == [0, 1, 2]


def first_times(numbers: list[int]) -> list[int]:
    return list(dict.fromkeys(numbers))


@pytest.mark.parametrize(
    "error",
    [PublishFailed("nack"), NotConnected("gone"), Refused("no permission", 403)],
    ids=lambda e: type(e).__name__,
)
async def test_after_a_failure_in_mid_window_the_rest_is_sent_again_in_order(error):
    outbox, transport = Outbox("source-test"), FakeTransport()
    transport.confirms.clear()
    async with sending(outbox, transport) as sender:
        for number in range(10):
            outbox.put(parcel(number))
        await until(lambda: transport.waiting == 10)
        transport.failures.extend([None, None, None, error])
        transport.confirms.set()
        await outbox.drained()
        assert not sender.done()
    # 0 to 2 were confirmed and are not sent again; all others are, from the one that failed on.
    second = transport.begun[10:]
    assert second == list(range(3, 10))
    assert first_times(transport.stored) == list(range(10))
    assert outbox.points_confirmed == 10


async def test_what_arrives_while_a_failure_is_waited_out_comes_after_what_failed():
    outbox, transport = Outbox("source-test"), FakeTransport()
    transport.failures.extend([PublishFailed("nack")] * 5)
    async with sending(outbox, transport):
        outbox.put(parcel(0))
        await until(lambda: len(transport.failures) < 5)
        outbox.put(parcel(1))
        await outbox.drained()
    assert transport.stored == [0, 1]


async def test_messages_wait_for_the_connection_and_go_when_it_is_there():
    outbox, transport = Outbox("source-test"), FakeTransport()
    transport.up.clear()
    async with sending(outbox, transport):
        for number in range(5):
            outbox.put(parcel(number))
        for _ in range(10):
            await asyncio.sleep(0)
        assert not transport.begun
        transport.up.set()
        await outbox.drained()
    assert transport.stored == [0, 1, 2, 3, 4]


async def test_a_cause_of_failure_is_logged_once_and_the_recovery_too(caplog):
    caplog.set_level(logging.INFO)
    outbox, transport = Outbox("source-test"), FakeTransport()
    transport.failures.extend([PublishFailed("nack")] * 4 + [PublishFailed("other")] * 3)
    outbox.put(parcel(0))
    async with sending(outbox, transport):
        await outbox.drained()
    said = [record.getMessage() for record in caplog.records]
    assert said == [
        "source-test: cannot publish, will try again: nack",
        "source-test: cannot publish, will try again: other",
        "source-test: publishing again",
    ]


async def test_another_kind_of_error_ends_the_sender_and_is_not_swallowed():
    outbox, transport = Outbox("source-test"), FakeTransport()
    transport.failures.append(ZeroDivisionError("a bug"))  # type: ignore[arg-type]
    outbox.put(parcel(0))
    sender = asyncio.create_task(Sender(transport, outbox, "source-test").run())  # type: ignore[arg-type]
    await asyncio.wait({sender})
    assert sender.exception() is not None


# -- the limit ---------------------------------------------------------------------------------------------


async def test_past_the_limit_the_oldest_are_dropped_and_counted(caplog):
    outbox, transport = Outbox("source-test", limit_points=10), FakeTransport()
    for number in range(25):
        outbox.put(parcel(number, points=2))
        assert outbox.points <= 10
    assert outbox.points_dropped == 40
    async with sending(outbox, transport):
        await outbox.drained()
    assert transport.stored == [20, 21, 22, 23, 24]
    assert outbox.points_confirmed == 10
    # Once a minute, not once a message.
    (warning,) = caplog.records
    assert "source-test: the buffer is full at 10 points" in warning.getMessage()
    assert "buffer_limit" in warning.getMessage()


async def test_dropped_points_are_logged_again_after_a_minute(caplog, monkeypatch):
    now = 1000.0
    monkeypatch.setattr(asyncio.get_running_loop(), "time", lambda: now, raising=False)
    outbox = Outbox("source-test", limit_points=1)
    for number in range(10):
        outbox.put(parcel(number))
    now += module.DROP_LOG_INTERVAL_S
    outbox.put(parcel(10))
    monkeypatch.undo()
    first, second = [record.getMessage() for record in caplog.records]
    assert "dropped the oldest 1 (1 since the start)" in first
    assert "dropped the oldest 9 (10 since the start)" in second


async def test_the_newest_message_stays_though_it_is_above_the_limit():
    outbox, transport = Outbox("source-test", limit_points=10), FakeTransport()
    outbox.put(parcel(0))
    outbox.put(parcel(1, points=100))
    assert outbox.points == 100
    async with sending(outbox, transport):
        await outbox.drained()
    assert transport.stored == [1]


async def test_what_is_in_flight_is_not_dropped():
    outbox, transport = Outbox("source-test", limit_points=10), FakeTransport()
    transport.confirms.clear()
    async with sending(outbox, transport):
        for number in range(5):
            outbox.put(parcel(number, points=2))
        await until(lambda: transport.waiting == 5)
        for number in range(5, 12):
            outbox.put(parcel(number, points=2))
        transport.confirms.set()
        await outbox.drained()
    assert first_times(transport.stored) == [0, 1, 2, 3, 4, 11]
    assert outbox.points_dropped == 12


async def test_what_failed_may_be_dropped_when_it_waits_again():
    outbox, transport = Outbox("source-test", limit_points=4), FakeTransport()
    transport.failures.append(NotConnected("gone"))
    transport.confirms.clear()
    async with sending(outbox, transport):
        outbox.put(parcel(0, points=4))
        await until(lambda: transport.waiting == 1)
        transport.up.clear()
        transport.confirms.set()
        await until(lambda: transport.waiting == 0)
        await asyncio.sleep(0.005)
        outbox.put(parcel(1, points=4))
        transport.up.set()
        await outbox.drained()
    assert transport.stored == [1]
    assert outbox.points_dropped == 4


async def test_withdrawn_messages_are_not_sent_and_not_counted():
    outbox, transport = Outbox("source-test"), FakeTransport()
    parcels = [parcel(0, points=2), parcel(1, points=3)]
    for each in parcels:
        outbox.put(each)
    assert outbox.withdraw() == parcels
    assert outbox.points == 0
    await outbox.drained()
    outbox.put(parcel(2))
    async with sending(outbox, transport):
        await outbox.drained()
    assert transport.stored == [2]


@settings(max_examples=60, deadline=None)
@given(
    outcomes=st.lists(st.sampled_from([None, None, None, PublishFailed("nack"), NotConnected("gone")]), max_size=80),
    pauses=st.lists(st.integers(0, 5), min_size=30, max_size=30),
    in_doubt=st.booleans(),
)
def test_whatever_fails_every_message_arrives_and_the_first_arrivals_are_in_order(outcomes, pauses, in_doubt):
    async def run() -> None:
        module.LOWEST_RETRY_S = module.HIGHEST_RETRY_S = 0.0
        outbox, transport = Outbox("source-test"), FakeTransport()
        transport.failures.extend(outcomes)
        transport.stored_in_doubt = in_doubt
        async with sending(outbox, transport), asyncio.timeout(20):
            for number, pause in enumerate(pauses):
                outbox.put(parcel(number))
                for _ in range(pause):
                    await asyncio.sleep(0)
            await outbox.drained()
        assert first_times(transport.stored) == list(range(len(pauses)))
        assert (outbox.points, outbox.points_confirmed) == (0, len(pauses))

    asyncio.run(run())
