# SPDX-License-Identifier: MIT
"""`SynchronousSource`: in scripts, in threads, beside other event loops, and at the end of the interpreter."""

import asyncio
import inspect
import logging
import os
import signal
import sys
import textwrap
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

import bus.agent
from bus.errors import ConfigError, ConnectTimeout
from bus.manager import Manager
from bus.rpc import rpc_handler
from bus.synchronous import EXIT_FLUSH_S, SynchronousSource
from bus.timestamp import Timestamp
from bus.transport.memory_broker import broker_named
from tests.bus.transport.relay import Relay
from tests.services.wiretap import Wiretap, wiretap

S = 1_000_000_000
NOW = 1_790_000_000 * S
ROOT = Path(__file__).resolve().parents[2]
ENDS_S = EXIT_FLUSH_S + 13
"""A program that hangs does so for ever, or for the 60 s of a time-out; a busy machine needs a few seconds."""


def at(second: int) -> Timestamp:
    return Timestamp(NOW + second * S)


@pytest.fixture
async def manager(any_url) -> AsyncIterator[Manager]:
    async with Manager("manager", any_url) as manager:
        yield manager


@pytest.fixture
async def tap(any_url, manager) -> AsyncIterator[Wiretap]:
    async with wiretap(any_url) as tap:
        yield tap


async def in_thread(work: Callable[..., Any], *arguments: Any) -> Any:
    """Blocking code, as its users write it, away from the loop of the manager that it waits for."""
    return await asyncio.to_thread(work, *arguments)


def loop_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.endswith(": event loop")]


@pytest.fixture(autouse=True)
def _no_thread_is_left_over():
    yield
    assert loop_threads() == []


# -- in this process ---------------------------------------------------------------------------------------


async def test_points_are_declared_sent_and_confirmed(any_url, manager, tap):
    def script() -> bool:
        source = SynchronousSource("source-lab", any_url)
        source.declare_metrics({"lab.voltage": {"unit": "V"}})
        for second in range(100):
            source.send("lab.voltage", at(second), float(second))
        return source.stop()

    assert await in_thread(script) is True
    await tap.until_points(100)
    assert tap.points == {"lab.voltage": [(NOW + second * S, float(second)) for second in range(100)]}
    assert manager._registry.metrics["lab.voltage"].metadata["unit"] == "V"


async def test_as_a_context_manager_it_stops_at_the_end_even_after_an_error(any_url, manager, tap):
    def script() -> None:
        with SynchronousSource("source-lab", any_url, chunk_size=None) as source:
            assert isinstance(source, SynchronousSource)
            source.send("lab.voltage", at(0), 1.0)
            raise ZeroDivisionError("of the user")

    with pytest.raises(ZeroDivisionError, match="of the user"):
        await in_thread(script)
    await tap.until_points(1)


async def test_calls_that_do_not_block_keep_their_order_and_are_done_before_the_stop(any_url, manager, tap, caplog):
    def script() -> bool:
        source = SynchronousSource("source-lab", any_url)
        source.declare_metrics(["lab.voltage"], block=False)
        for second in range(2000):
            source.send("lab.voltage", at(second), float(second), block=False)
        return source.stop()

    assert await in_thread(script) is True
    await tap.until_points(2000)
    assert [value for _, value in tap.points["lab.voltage"]] == [float(second) for second in range(2000)]
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


async def test_options_go_to_the_source(memory_url):
    async with Manager("manager", memory_url), wiretap(memory_url) as tap:

        def script() -> None:
            with SynchronousSource("source-lab", memory_url, chunk_size=3, prefix="lab") as source:
                for second in range(7):
                    source.send("lab.room.voltage", at(second), 0.0)

        await in_thread(script)
        await tap.until_points(7)
    assert [frame.points for frame in tap.frames] == [3, 3, 1]
    assert {frame.key for frame in tap.frames} == {"lab"}


async def test_several_threads_may_use_one_source(memory_url):
    async with Manager("manager", memory_url), wiretap(memory_url) as tap:
        source = await in_thread(SynchronousSource, "source-lab", memory_url)

        def send(metric: str) -> None:
            for second in range(100):
                source.send(metric, at(second), 0.0)

        await asyncio.gather(*(in_thread(send, f"lab.m{number}") for number in range(4)))
        assert await in_thread(source.stop) is True
        await tap.until_points(400)


async def test_what_goes_wrong_is_logged_and_not_raised(memory_url, caplog):
    async with Manager("manager", memory_url), wiretap(memory_url) as tap:

        def script() -> bool:
            source = SynchronousSource("source-lab", memory_url)
            source.declare_metrics(["no metric!"])
            source.declare_metrics("lab.voltage")  # a common mistake
            source.send("lab.voltage", at(1), 1.0)
            source.send("lab.voltage", at(1), 2.0)
            source.send("lab.voltage", at(2), "3")  # type: ignore[arg-type]
            source.send("lab.voltage", at(3), 4.0)
            return source.stop()

        assert await in_thread(script) is True
        await tap.until_points(2)
    assert [value for _, value in tap.points["lab.voltage"]] == [1.0, 4.0]
    said = [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR]
    assert len(said) == 4
    assert said[0].startswith("could not declare metrics: 'no metric!' is not a metric name")
    assert said[1].startswith("could not declare metrics: metrics must be a mapping or a list of names")
    assert said[2].startswith("could not send lab.voltage: lab.voltage: ")
    assert said[3] == "could not send lab.voltage: lab.voltage: a value must be a number, not str"


class SlowManager(Manager):
    """Takes its time over declarations."""

    def __init__(self, url: str) -> None:
        super().__init__("manager", url)
        self.let_go = asyncio.Event()
        self.asked = asyncio.Event()

    @rpc_handler("source.declare_metrics")
    async def _declare_metrics(self, metrics: Any, from_token: str) -> dict[str, Any]:
        self.asked.set()
        await self.let_go.wait()
        return {}


async def test_a_declaration_that_is_not_answered_in_time_is_a_timeout_error_if_it_blocks(memory_url):
    async with SlowManager(memory_url) as manager:
        source = await in_thread(SynchronousSource, "source-lab", memory_url)
        with pytest.raises(TimeoutError, match=r"could not declare metrics within 0\.05 s"):
            await in_thread(lambda: source.declare_metrics(["lab.voltage"], timeout=0.05))
        manager.asked.clear()
        source.declare_metrics(["lab.voltage"], block=False, timeout=0.05)  # returns, though nobody answers
        await manager.asked.wait()
        manager.let_go.set()
        assert await in_thread(source.stop) is True


async def test_a_point_that_is_not_taken_in_time_is_a_timeout_error_if_it_blocks(memory_url):
    async with Manager("manager", memory_url):
        source = await in_thread(SynchronousSource, "source-lab", memory_url)
        busy = threading.Event()
        source._loop.call_soon_threadsafe(busy.wait)
        with pytest.raises(TimeoutError, match=r"could not send lab\.voltage within 0\.05 s"):
            await in_thread(lambda: source.send("lab.voltage", at(0), 0.0, timeout=0.05))
        source.send("lab.voltage", at(1), 0.0, block=False, timeout=0.05)
        busy.set()
        assert await in_thread(source.stop) is True


async def test_no_manager_is_a_connect_timeout_that_says_so(any_url):
    with pytest.raises(ConnectTimeout, match=r"source-lab: not connected within 0\.3 s: the manager does not answer"):
        await in_thread(lambda: SynchronousSource("source-lab", any_url, timeout=0.3))


async def test_no_broker_is_a_connect_timeout_that_says_why():
    with pytest.raises(ConnectTimeout, match=r"source-lab: not connected within 0\.5 s: .+"):
        await in_thread(lambda: SynchronousSource("source-lab", "amqp://127.0.0.1:1/", timeout=0.5))


@pytest.mark.parametrize(
    ("token", "url", "options", "error"),
    [
        ("source-lab", "http://localhost/", {}, ConfigError),
        ("source lab", "memory://never", {}, ValueError),
        ("source-lab", "memory://never", {"chunk_size": 0}, ValueError),
        ("source-lab", "memory://never", {"chunk_size": "1"}, TypeError),
    ],
)
def test_wrong_arguments_are_errors_at_once(token, url, options, error):
    with pytest.raises(error):
        SynchronousSource(token, url, **options)


# -- stop --------------------------------------------------------------------------------------------------


async def test_stop_may_be_called_twice_and_nothing_can_be_sent_after_it(memory_url, caplog):
    async with Manager("manager", memory_url):
        source = await in_thread(SynchronousSource, "source-lab", memory_url)
        assert await in_thread(source.stop) is True
        assert await in_thread(source.stop) is True
        source.send("lab.voltage", at(0), 0.0)
        source.declare_metrics(["lab.voltage"], block=False)
    assert [record.getMessage() for record in caplog.records] == [
        "could not send lab.voltage: source-lab has ended",
        "could not declare metrics: source-lab has ended",
    ]


async def test_stop_is_false_if_points_were_not_confirmed(memory_url, monkeypatch, caplog):
    monkeypatch.setattr(bus.agent, "WIND_DOWN_S", 0.1)
    async with Manager("manager", memory_url):
        source = await in_thread(SynchronousSource, "source-lab", memory_url)
        broker = broker_named(memory_url.removeprefix("memory://"))
        broker.stop()
        source.send("lab.voltage", at(0), 0.0)
        assert await in_thread(source.stop) is False
        broker.start()
    assert "source-lab did not stop cleanly" in caplog.text
    assert "1 points were not confirmed and are lost" in caplog.text


async def test_stop_is_a_timeout_error_if_it_takes_too_long_and_the_thread_ends_all_the_same(memory_url):
    async with Manager("manager", memory_url):
        source = await in_thread(SynchronousSource, "source-lab", memory_url)
        broker = broker_named(memory_url.removeprefix("memory://"))
        broker.stop()
        source.send("lab.voltage", at(0), 0.0)
        with pytest.raises(TimeoutError, match=r"source-lab did not stop within 0\.05 s"):
            await in_thread(source.stop, 0.05)
        broker.start()


async def test_a_source_that_failed_by_itself_says_so_and_takes_no_more(memory_url, caplog):
    async with Manager("manager", memory_url):
        source = await in_thread(SynchronousSource, "source-lab", memory_url)
        other = await in_thread(SynchronousSource, "source-other", memory_url)
        other.declare_metrics(["lab.voltage"], block=False)
        await asyncio.sleep(0.05)
        source._loop.call_soon_threadsafe(source._source.declare_metrics_nowait, ["lab.voltage"])
        async with asyncio.timeout(20):
            while "could not go on with source-lab" not in caplog.text:
                await asyncio.sleep(0.01)
        source.send("lab.current", at(0), 0.0)
        assert "could not send lab.current: source-lab has ended" in caplog.text
        assert await in_thread(source.stop) is False
        assert await in_thread(other.stop) is True


def test_time_outs_are_a_minute_by_default():
    assert inspect.signature(SynchronousSource).parameters["timeout"].default == 60


# -- programs ----------------------------------------------------------------------------------------------

PROLOGUE = """
import asyncio, os, sys, threading, time
from bus.synchronous import SynchronousSource
from bus.timestamp import Timestamp

URL = os.environ["BROKER"]

def at(second):
    return Timestamp(1_790_000_000_000_000_000 + second * 1_000_000_000)

def ready():
    print("ready", flush=True)
    sys.stdin.readline()
"""


class Program:
    """A Python program of its own, with `SynchronousSource`, `at` and `ready` at hand."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process

    @classmethod
    async def start(cls, url: str, code: str) -> "Program":
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-c",
            PROLOGUE + textwrap.dedent(code),
            cwd=ROOT,
            env={**os.environ, "BROKER": url},
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        return cls(process)

    async def until_ready(self) -> None:
        """Until the program calls `ready`, where it waits for `go_on`."""
        assert self.process.stdout is not None
        async with asyncio.timeout(30):
            line = await self.process.stdout.readline()
        assert line == b"ready\n", (line, await self.process.communicate())

    def go_on(self) -> None:
        """Let the program go on after `ready`."""
        assert self.process.stdin is not None
        self.process.stdin.write(b"\n")

    async def end(self) -> tuple[int, str]:
        """Its exit code and what it said on stderr. A program that does not end is killed and fails the test."""
        try:
            async with asyncio.timeout(ENDS_S):
                _, stderr = await self.process.communicate()
        except TimeoutError:
            self.process.kill()
            _, stderr = await self.process.communicate()
            pytest.fail(f"the program does not end\n{stderr.decode()}")
        assert self.process.returncode is not None
        return self.process.returncode, stderr.decode()


async def ran(url: str, code: str) -> tuple[int, str]:
    return await (await Program.start(url, code)).end()


@pytest.fixture
async def amqp_manager(amqp_url) -> AsyncIterator[Manager]:
    async with Manager("manager", amqp_url) as manager:
        yield manager


@pytest.fixture
async def amqp_tap(amqp_url, amqp_manager) -> AsyncIterator[Wiretap]:
    async with wiretap(amqp_url) as tap:
        yield tap


PROGRAMS = {
    "a plain script": """
        source = SynchronousSource("source-lab", URL)
        source.declare_metrics(["lab.voltage"])
        for second in range(50):
            source.send("lab.voltage", at(second), 1.0)
        assert source.stop() is True
        """,
    "with": """
        with SynchronousSource("source-lab", URL, chunk_size=None) as source:
            for second in range(50):
                source.send("lab.voltage", at(second), 1.0)
        """,
    "without stop": """
        source = SynchronousSource("source-lab", URL)
        for second in range(50):
            source.send("lab.voltage", at(second), 1.0)
        """,
    "without stop, with points that only a flush sends": """
        source = SynchronousSource("source-lab", URL, chunk_size=None)
        for second in range(50):
            source.send("lab.voltage", at(second), 1.0, block=False)
        """,
    "in a thread, without stop": """
        def work():
            source = SynchronousSource("source-lab", URL)
            for second in range(50):
                source.send("lab.voltage", at(second), 1.0)

        threading.Thread(target=work).start()
        """,
    "inside another event loop": """
        async def main():
            with SynchronousSource("source-lab", URL) as source:
                for second in range(50):
                    source.send("lab.voltage", at(second), 1.0)
                    await asyncio.sleep(0)

        asyncio.run(main())
        """,
    "inside another event loop, without stop": """
        async def main():
            global source
            source = SynchronousSource("source-lab", URL, chunk_size=7)
            for second in range(50):
                source.send("lab.voltage", at(second), 1.0)

        asyncio.run(main())
        """,
    "two sources, without stop": """
        sources = [SynchronousSource(f"source-{number}", URL) for number in range(2)]
        for second in range(25):
            for number, source in enumerate(sources):
                source.send(f"lab.voltage{number}", at(second), 1.0)
        """,
    "ended by sys.exit(0)": """
        source = SynchronousSource("source-lab", URL, chunk_size=None)
        for second in range(50):
            source.send("lab.voltage", at(second), 1.0)
        sys.exit(0)
        """,
}


@pytest.mark.parametrize("name", PROGRAMS)
async def test_all_points_of_a_program_arrive_and_it_ends(amqp_url, amqp_tap, name):
    code, stderr = await ran(amqp_url, PROGRAMS[name])
    assert (code, stderr) == (0, "")
    await amqp_tap.until_points(50)
    assert sum(map(len, amqp_tap.points.values())) == 50


async def test_a_program_that_fails_keeps_its_exit_code_and_its_points(amqp_url, amqp_tap):
    code, stderr = await ran(
        amqp_url,
        """
        source = SynchronousSource("source-lab", URL, chunk_size=None)
        source.send("lab.voltage", at(0), 1.0)
        raise ZeroDivisionError("of the user")
        """,
    )
    assert code == 1
    assert stderr.rstrip().endswith("ZeroDivisionError: of the user")
    await amqp_tap.until_points(1)


async def test_a_program_that_is_interrupted_sends_its_points(amqp_url, amqp_tap):
    program = await Program.start(
        amqp_url,
        """
        source = SynchronousSource("source-lab", URL, chunk_size=None)
        source.send("lab.voltage", at(0), 1.0)
        ready()
        """,
    )
    await program.until_ready()
    program.process.send_signal(signal.SIGINT)
    code, stderr = await program.end()
    assert code == -signal.SIGINT
    assert "KeyboardInterrupt" in stderr
    await amqp_tap.until_points(1)


LEAVES_POINTS = """
source = SynchronousSource("source-lab", URL)
source.send("lab.voltage", at(0), 1.0)
ready()
source.send("lab.voltage", at(1), 1.0)
"""


@pytest.mark.parametrize("how", ["gone", "silent"])
async def test_at_the_end_without_stop_a_broker_that_is_not_there_hangs_nothing(amqp_url, amqp_tap, how):
    async with Relay(amqp_url) as relay:
        program = await Program.start(relay.url, LEAVES_POINTS)
        await program.until_ready()
        await amqp_tap.until_points(1)
        if how == "gone":
            await relay.close()
        else:
            relay.freeze()
        program.go_on()
        code, stderr = await program.end()
    assert code == 0
    assert "the program ended without stop(), and its last points were not confirmed: not within 2 s" in stderr
    assert "Traceback" not in stderr


async def test_stop_says_false_in_a_program_whose_broker_is_gone(amqp_url, amqp_tap):
    async with Relay(amqp_url) as relay:
        program = await Program.start(relay.url, LEAVES_POINTS + "print(source.stop(30), file=sys.stderr)")
        await program.until_ready()
        await relay.close()
        program.go_on()
        code, stderr = await program.end()
    assert code == 0
    assert stderr.rstrip().endswith("False")
    assert "points were not confirmed and are lost" in stderr


async def test_points_sent_while_the_broker_is_away_arrive_when_it_is_back(amqp_url, amqp_tap):
    async with Relay(amqp_url) as relay:
        program = await Program.start(relay.url, LEAVES_POINTS + "ready()\nassert source.stop(60)")
        await program.until_ready()
        await amqp_tap.until_points(1)
        relay.cut()
        program.go_on()
        await program.until_ready()
        await amqp_tap.until_points(2)
        program.go_on()
        code, _ = await program.end()
    assert code == 0
    # The first may come twice, if the network was cut before its confirm.
    assert list(dict.fromkeys(time for time, _ in amqp_tap.points["lab.voltage"])) == [NOW, NOW + S]


async def test_many_sources_are_flushed_together_at_the_end(memory_url):
    code, stderr = await ran(
        memory_url,
        """
        from bus.manager import Manager
        from bus.transport.memory_broker import broker_named

        async def manage():
            async with Manager("manager", URL):
                await asyncio.Event().wait()

        threading.Thread(target=lambda: asyncio.run(manage()), daemon=True).start()
        sources = [SynchronousSource(f"source-{number}", URL) for number in range(20)]
        broker_named(URL.removeprefix("memory://")).stop()
        for source in sources:
            source.send("lab.voltage", at(0), 1.0)
        """,
    )
    assert code == 0
    assert stderr.count("its last points were not confirmed: not within 2 s") == 20
