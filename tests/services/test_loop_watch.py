# SPDX-License-Identifier: MIT
import asyncio
import time

from tests.services.loop_watch import LoopWatch


async def test_a_loop_that_is_free_is_not_complained_about() -> None:
    watch = LoopWatch(limit_s=1.0)
    await asyncio.sleep(0.3)
    assert watch.stop() == ""


async def test_a_blocked_loop_is_complained_about_with_the_place() -> None:
    watch = LoopWatch(limit_s=0.2)
    time.sleep(0.5)
    complaint = watch.stop()
    assert "blocked for 0.5 s" in complaint
    assert "time.sleep(0.5)" in complaint


async def test_a_block_in_the_middle_is_not_forgotten() -> None:
    watch = LoopWatch(limit_s=0.2)
    time.sleep(0.4)
    await asyncio.sleep(0.3)
    assert "blocked" in watch.stop()


async def test_every_asynchronous_test_is_watched(request) -> None:
    assert "loop_watch" in request.fixturenames
    assert request.getfixturevalue("loop_watch") is None


def test_synchronous_tests_get_no_loop(request) -> None:
    assert "loop_watch" not in request.fixturenames
