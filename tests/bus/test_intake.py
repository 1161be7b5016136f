# SPDX-License-Identifier: MIT
"""How deliveries become batches."""

import asyncio

import pytest

from bus.intake import Batch, Intake
from bus.metricq_wire import encode_data_chunk
from bus.transport import Delivery, Message
from tests.bus.support import START_NS, frame_message, points_in


def delivery(tag: int, points: int = 1) -> Delivery:
    values = {f"web1.m{number}": float(tag) for number in range(points)}
    return Delivery(message=frame_message("web1", values, index=tag, sequence=tag), tag=tag)


def tags(batch: Batch) -> list[int]:
    return [arrived.tag for arrived, _ in batch]


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_without_an_age_a_batch_is_all_that_has_come_in() -> None:
    intake = Intake(400)
    for tag in (1, 2, 3):
        intake.on_delivery(delivery(tag))
    assert tags(await intake.next_batch(50_000, 0)) == [1, 2, 3]
    intake.on_delivery(delivery(4))
    assert tags(await intake.next_batch(50_000, 0)) == [4]


async def test_it_waits_for_the_first_delivery() -> None:
    intake = Intake(400)
    waiting = asyncio.create_task(intake.next_batch(50_000, 0))
    await settle()
    assert not waiting.done()
    intake.on_delivery(delivery(1))
    assert tags(await waiting) == [1]


async def test_a_batch_is_complete_when_it_has_its_points() -> None:
    intake = Intake(400)
    waiting = asyncio.create_task(intake.next_batch(10, 3600))
    for tag in (1, 2, 3):
        intake.on_delivery(delivery(tag, points=3))
        await settle()
        assert not waiting.done()
    intake.on_delivery(delivery(4, points=3))
    assert tags(await waiting) == [1, 2, 3, 4]


async def test_what_came_before_the_batch_was_asked_for_counts_too() -> None:
    intake = Intake(400)
    intake.on_delivery(delivery(1, points=3))
    waiting = asyncio.create_task(intake.next_batch(10, 3600))
    await settle()
    assert not waiting.done(), "the first delivery ended the first batch, however small"
    intake.on_delivery(delivery(2, points=7))
    assert tags(await waiting) == [1, 2]
    intake.on_delivery(delivery(3, points=10))
    assert tags(await intake.next_batch(10, 3600)) == [3]


async def test_a_batch_is_complete_when_it_has_half_the_messages_that_may_be_outstanding() -> None:
    intake = Intake(10)
    waiting = asyncio.create_task(intake.next_batch(50_000, 3600))
    for tag in range(1, 5):
        intake.on_delivery(delivery(tag))
    await settle()
    assert not waiting.done()
    intake.on_delivery(delivery(5))
    assert tags(await waiting) == [1, 2, 3, 4, 5]


async def test_a_batch_is_complete_when_it_is_old_enough() -> None:
    intake = Intake(400)
    intake.on_delivery(delivery(1))
    assert tags(await intake.next_batch(50_000, 0.01)) == [1]


async def test_a_frame_is_decoded_with_its_source_and_key() -> None:
    intake = Intake(400)
    intake.on_delivery(delivery(7, points=2))
    [(_, frame)] = await intake.next_batch(1, 0)
    assert frame is not None
    assert (frame.source, frame.key, frame.sequence) == ("s", "web1", 7)
    assert points_in([frame]) == [("web1.m0", 7, 7.0), ("web1.m1", 7, 7.0)]


async def test_a_chunk_of_metricq_is_a_frame_of_one_metric() -> None:
    intake = Intake(400)
    body = encode_data_chunk([START_NS, START_NS + 10**9], [1.0, 2.0])
    message = Message(body=body, routing_key="web1.cpu.usage", app_id="stock")
    intake.on_delivery(Delivery(message=message, tag=1))
    [(_, frame)] = await intake.next_batch(1, 0)
    assert frame is not None
    assert (frame.source, frame.sequence) == ("stock", None)
    assert points_in([frame]) == [("web1.cpu.usage", 0, 1.0), ("web1.cpu.usage", 1, 2.0)]


async def test_a_frame_is_shown_when_it_arrives_not_when_its_batch_is_complete() -> None:
    shown: list[int | None] = []
    intake = Intake(400, lambda frame: shown.append(frame.sequence))
    intake.on_delivery(delivery(1))
    intake.on_delivery(Delivery(message=Message(body=b"garbage", routing_key="web1"), tag=2))
    intake.on_delivery(delivery(3))
    assert shown == [1, 3]


async def test_garbage_has_no_frame_is_counted_and_named(caplog: pytest.LogCaptureFixture) -> None:
    intake = Intake(400)
    good = frame_message("web1", {"web1.a": 1.0})
    for message in (
        Message(body=b"garbage", routing_key="web1", content_type=good.content_type, app_id="rude"),
        Message(body=b"\xff" * 20, routing_key="web1.a", app_id="rude"),
        Message(body=b"", routing_key="web1", content_type=good.content_type, app_id="rude"),
        good,
    ):
        intake.on_delivery(Delivery(message=message, tag=1))
    frames = [frame for _, frame in await intake.next_batch(1, 0)]
    assert [frame is None for frame in frames] == [True, True, True, False]
    assert intake.rejected == 3
    assert caplog.text.count("rejected a message of 'rude' under 'web1") == 3


async def test_the_message_that_ends_a_subscription_is_empty_but_not_garbage(caplog: pytest.LogCaptureFixture) -> None:
    intake = Intake(400)
    intake.on_delivery(Delivery(message=Message(body=b"", routing_key="sink-data", type="end"), tag=1))
    [(_, frame)] = await intake.next_batch(1, 0)
    assert frame is not None
    assert frame.groups == ()
    assert intake.rejected == 0
    assert not caplog.records


async def test_finish_waits_until_all_that_came_is_worked_off_and_takes_no_more() -> None:
    intake = Intake(400)
    await intake.finish()  # nothing came: nothing to wait for

    intake = Intake(400)
    batches = [delivery(1), delivery(2)]
    intake.on_delivery(batches[0])
    first = await intake.next_batch(50_000, 0)
    intake.on_delivery(batches[1])
    finishing = asyncio.create_task(intake.finish())
    await settle()
    intake.on_delivery(delivery(3))
    assert tags(first) == [1]
    assert not finishing.done(), "the first batch is still being worked off"
    # A batch does not wait for its age any more.
    assert tags(await intake.next_batch(50_000, 3600)) == [2]
    assert not finishing.done()
    asking = asyncio.create_task(intake.next_batch(50_000, 3600))
    await finishing
    asking.cancel()


async def test_finish_cuts_the_waiting_for_a_full_batch_short() -> None:
    intake = Intake(400)
    waiting = asyncio.create_task(intake.next_batch(50_000, 3600))
    intake.on_delivery(delivery(1))
    await settle()
    finishing = asyncio.create_task(intake.finish())
    assert tags(await waiting) == [1]
    asking = asyncio.create_task(intake.next_batch(50_000, 3600))
    await finishing
    asking.cancel()
