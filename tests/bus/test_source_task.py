# SPDX-License-Identifier: MIT
"""How the task of a source ends."""

import asyncio
import logging

import pytest

import bus.source_task
from bus.source_task import SourceTask


class Work:
    """Waits for something that never comes, or for `go`."""

    def __init__(self) -> None:
        self.go = asyncio.Event()
        self.began = asyncio.Event()
        self.outcome = ""

    async def __call__(self) -> None:
        self.began.set()
        try:
            await self.go.wait()
            self.outcome = "done"
        except asyncio.CancelledError:
            self.outcome = "cancelled"
            raise


@pytest.mark.parametrize(("cancel_on_stop", "lines"), [(False, 1), (True, 0)])
async def test_work_that_does_not_end_is_cancelled_which_is_a_warning_unless_it_may_be(
    cancel_on_stop: bool, lines: int, caplog, monkeypatch
) -> None:
    caplog.set_level(logging.DEBUG, "bus")
    monkeypatch.setattr(bus.source_task, "SOON_S" if cancel_on_stop else "TASK_END_S", 0.01)
    task, work = SourceTask("source-a", cancel_on_stop=cancel_on_stop), Work()
    async with asyncio.TaskGroup() as group:
        group.create_task(task.run(work))
        await work.began.wait()
        await task.end()
    assert work.outcome == "cancelled"
    assert len(caplog.messages) == lines


async def test_what_may_be_cancelled_has_a_moment_to_end_by_itself() -> None:
    task, work = SourceTask("source-a", cancel_on_stop=True), Work()
    async with asyncio.TaskGroup() as group:
        group.create_task(task.run(work))
        await work.began.wait()
        ending = group.create_task(task.end())
        await task.stop_wanted
        work.go.set()
        await ending
    assert work.outcome == "done"


async def test_a_time_out_of_the_works_own_is_raised() -> None:
    async def fail() -> None:
        raise TimeoutError("its own")

    with pytest.raises(TimeoutError, match="its own"):
        await SourceTask("source-a", cancel_on_stop=True).run(fail)
