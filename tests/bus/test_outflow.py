# SPDX-License-Identifier: MIT
"""When points leave their chunks for the outbox; what goes from there is tested with sources on a bus."""

import asyncio

import pytest

from bus.encoder import FrameEncoder
from bus.frame import decode_frame
from bus.outflow import Outflow

NOW = 1_790_000_000 * 10**9


def frames() -> FrameEncoder:
    return FrameEncoder("hostbus.data", "source-lab", NOW, lambda metric: metric.partition(".")[0])


@pytest.fixture
def outflow() -> Outflow:
    return Outflow("source-lab", frames(), 2, 1000)


def waiting(outflow: Outflow) -> list[tuple[str, int, list[str]]]:
    """Key, number and metrics of what is in the outbox; takes it out."""
    decoded = [(parcel.message.routing_key, decode_frame(parcel.message.body)) for parcel in outflow.outbox.withdraw()]
    return [(key, frame.sequence or 0, [chunk.metric for chunk in frame.chunks()]) for key, frame in decoded]


async def test_chunks_that_get_ready_in_one_turn_leave_together(outflow: Outflow) -> None:
    for metric in ("a.x", "a.y", "b.x"):
        for number in range(2):
            outflow.buffers.add(metric, NOW + number, 1.0)
    outflow.buffers.add("a.z", NOW, 1.0)
    assert outflow.outbox.points == 0
    await asyncio.sleep(0)
    assert outflow.outbox.points == 6
    assert waiting(outflow) == [("a", 0, ["a.x", "a.y"]), ("b", 0, ["b.x"])]
    outflow.flush()
    assert waiting(outflow) == [("a", 1, ["a.z"])]
    outflow.flush()
    assert waiting(outflow) == []


async def test_one_timer_runs_for_all_points_that_wait(outflow: Outflow, monkeypatch) -> None:
    timers = []
    monkeypatch.setattr(asyncio.get_running_loop(), "call_later", lambda delay, act: timers.append((delay, act)))
    outflow.age()
    outflow.buffers.add("a.x", NOW, 1.0)
    outflow.age()
    assert timers == []  # no delay was set
    outflow.max_delay_s = 5.0
    for number in range(3):
        outflow.buffers.add(f"a.y{number}", NOW, 1.0)
        outflow.age()
    ((delay, act),) = timers
    assert delay == 5.0
    act()
    assert waiting(outflow) == [("a", 0, ["a.x", "a.y0", "a.y1", "a.y2"])]
    outflow.age()
    assert len(timers) == 1  # nothing waits
    outflow.buffers.add("a.x", NOW + 1, 1.0)
    outflow.age()
    assert len(timers) == 2


async def test_another_encoder_makes_anew_what_did_not_leave(outflow: Outflow) -> None:
    for number in range(4):
        outflow.buffers.add("a.x", NOW + number, float(number))
        await asyncio.sleep(0)
    outflow.use(FrameEncoder("elsewhere", "source-lab", NOW, lambda _: "key"))
    parcels = outflow.outbox.withdraw()
    assert {(parcel.message.exchange, parcel.message.routing_key) for parcel in parcels} == {("elsewhere", "key")}
    times = [time for parcel in parcels for chunk in decode_frame(parcel.message.body).chunks() for time in chunk.times]
    assert times == [NOW + number for number in range(4)]
