# SPDX-License-Identifier: MIT
import asyncio
import threading
from collections.abc import Callable, Iterator

import pytest

from agents.base.worker import MAX_LOST, CallHung, Worker


class Hanging:
    """A call that blocks as a dead NFS server does, until the test lets it go."""

    def __init__(self) -> None:
        self.release = threading.Event()
        self.began = threading.Event()

    def __call__(self) -> str:
        self.began.set()
        self.release.wait()
        return "late"


@pytest.fixture
def hanging() -> Iterator[Hanging]:
    call = Hanging()
    yield call
    call.release.set()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.001)


async def test_a_call_runs_in_a_daemon_thread_that_is_kept() -> None:
    worker = Worker("test")
    first = await worker.call(threading.current_thread, 10)
    assert first is await worker.call(threading.current_thread, 10)
    assert first is not threading.current_thread()
    assert first.daemon
    assert first.name == "test"
    worker.close()


async def test_what_the_function_raises_is_raised_by_the_call() -> None:
    worker = Worker("test")

    def fail() -> None:
        raise TimeoutError("the function's own")

    with pytest.raises(TimeoutError, match="the function's own"):
        await worker.call(fail, 10)
    assert worker.hung == 0
    assert await worker.call(lambda: 1, 10) == 1
    worker.close()


async def test_a_call_that_hangs_is_given_up_and_the_next_one_gets_a_new_thread(hanging: Hanging) -> None:
    complaints: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
    worker = Worker("disk read")
    with pytest.raises(CallHung, match=r"disk read did not answer within 0\.01 s"):
        await worker.call(hanging, 0.01)
    assert (worker.hung, worker.lost) == (1, 1)
    assert await worker.call(lambda: "fine", 10) == "fine"
    hanging.release.set()
    await until(lambda: worker.lost == 0)
    assert await worker.call(lambda: "still fine", 10) == "still fine"
    assert complaints == []  # what came late was dropped in silence
    worker.close()


async def test_the_loop_runs_on_while_a_call_hangs(hanging: Hanging) -> None:
    worker = Worker("test")
    call = asyncio.create_task(worker.call(hanging, 60))
    async with asyncio.timeout(10):
        while not hanging.began.is_set():
            await asyncio.sleep(0)
        for _ in range(100):
            await asyncio.sleep(0)
    assert not call.done()
    hanging.release.set()
    assert await call == "late"
    worker.close()


async def test_threads_that_hang_are_bounded(hanging: Hanging) -> None:
    worker = Worker("test")
    before = threading.active_count()
    for _ in range(MAX_LOST):
        with pytest.raises(CallHung, match="did not answer"):
            await worker.call(hanging, 0.01)
    for _ in range(3):
        with pytest.raises(CallHung, match=f"{MAX_LOST} calls have not returned"):
            await worker.call(lambda: "never made", 10)
    assert threading.active_count() == before + MAX_LOST
    hanging.release.set()
    await until(lambda: worker.lost == 0)
    assert await worker.call(lambda: "again", 10) == "again"
    worker.close()


async def test_a_call_that_is_cancelled_leaves_the_worker_usable(hanging: Hanging) -> None:
    worker = Worker("test")
    call = asyncio.create_task(worker.call(hanging, 60))
    await until(hanging.began.is_set)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert await worker.call(lambda: 5, 10) == 5
    worker.close()


class Prompt(Worker):
    """Has something done when an answer comes, before whoever waits for it runs."""

    def __init__(self, name: str, then: Callable[[], object]) -> None:
        super().__init__(name)
        self.then = then

    def _settled(self, job) -> None:
        super()._settled(job)
        self.then()


async def test_a_call_that_is_cancelled_when_its_answer_has_come_is_not_lost() -> None:
    worker = Prompt("test", lambda: asyncio.get_running_loop().call_soon(call.cancel))
    for _ in range(MAX_LOST + 1):
        call = asyncio.create_task(worker.call(lambda: 5, 10))
        with pytest.raises(asyncio.CancelledError):
            await call
        assert worker.lost == 0
    worker.close()


async def test_an_answer_that_comes_at_the_last_moment_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    limits: list[asyncio.Timeout] = []

    def timeout(seconds: float) -> asyncio.Timeout:
        limits.append(asyncio.Timeout(asyncio.get_running_loop().time() + seconds))
        return limits[-1]

    monkeypatch.setattr("agents.base.worker.asyncio.timeout", timeout)
    worker = Prompt("test", lambda: limits[-1].reschedule(0.0))
    assert await worker.call(lambda: 5, 10) == 5
    worker.close()


async def test_closing_ends_the_thread_and_may_be_done_twice() -> None:
    worker = Worker("test")
    thread = await worker.call(threading.current_thread, 10)
    worker.close()
    worker.close()
    await asyncio.to_thread(thread.join, 10)
    assert not thread.is_alive()


def test_a_call_that_returns_after_its_loop_has_closed_is_forgotten(hanging: Hanging) -> None:
    worker = Worker("test")

    async def give_up() -> None:
        with pytest.raises(CallHung):
            await worker.call(hanging, 0.01)

    asyncio.run(give_up())
    thread = next(thread for thread in threading.enumerate() if thread.name == "test")
    hanging.release.set()
    thread.join(10)
    assert not thread.is_alive()  # and no exception in the thread, which pytest would report
