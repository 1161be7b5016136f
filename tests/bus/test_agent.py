# SPDX-License-Identifier: MIT
"""An agent's life: how it starts, what ends it, and what it still does then."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bus import agent as agent_module
from bus.agent import Agent
from bus.client import Client
from bus.config import AgentConfig
from bus.errors import ConfigError, NotConnected
from bus.manager import Manager
from bus.rpc import Json, rpc_handler
from bus.sink import DurableSink
from bus.transport import Consumption, Delivery, Queue
from bus.transport.memory import MemoryTransport
from tests.bus.support import HandSource, transport_at, until
from tests.bus.transport.relay import Relay


class Recorder(Agent):
    """Notes what happens to it; `on[step]` is called in each step and may raise or wait."""

    def __init__(self, url: str = "memory://", **on: Callable[[], Any]) -> None:
        super().__init__("recorder", url)
        self.steps: list[str] = []
        self.on = on

    async def _note(self, step: str) -> None:
        self.steps.append(step)
        if step in self.on:
            answer = self.on[step]()
            if answer is not None:
                await answer

    async def setup(self) -> None:
        await super().setup()
        await self._note("setup")

    async def start(self) -> None:
        await super().start()
        await self._note("start")

    async def wind_down(self) -> None:
        await self._note("wind_down")
        await super().wind_down()

    async def teardown(self) -> None:
        await self._note("teardown")
        await super().teardown()


def failing(error: Exception) -> Callable[[], None]:
    def fail() -> None:
        raise error

    return fail


WHOLE_LIFE = ["setup", "start", "wind_down", "teardown"]


async def test_a_life_goes_through_all_its_steps_in_order(memory_url: str) -> None:
    agent = Recorder(memory_url)
    async with agent as entered:
        assert entered is agent
        assert agent.steps == ["setup", "start"]
    assert agent.steps == WHOLE_LIFE
    assert agent.transport.last_error == "closed"


async def test_connect_returns_when_the_agent_works_and_stop_when_it_has_ended(memory_url: str) -> None:
    agent = Recorder(memory_url)
    await agent.connect()
    assert agent.steps == ["setup", "start"]
    await agent.stop()
    assert agent.steps == WHOLE_LIFE
    await agent.stopped()


async def test_stop_may_be_called_twice_at_once_and_again_later(memory_url: str) -> None:
    agent = Recorder(memory_url)
    await agent.connect()
    await asyncio.gather(agent.stop(), agent.stop())
    await agent.stop()
    assert agent.steps == WHOLE_LIFE


async def test_an_agent_lives_once(memory_url: str) -> None:
    async with Recorder(memory_url) as agent:
        with pytest.raises(RuntimeError, match="recorder was started before"):
            await agent.connect()


async def test_stopping_what_never_started_does_nothing() -> None:
    agent = Recorder()
    await agent.stop()
    assert agent.steps == []
    with pytest.raises(RuntimeError, match="recorder was not started"):
        await agent.stopped()


async def test_a_setup_that_raises_keeps_the_agent_from_starting(memory_url: str) -> None:
    agent = Recorder(memory_url, setup=failing(PermissionError("a.db")))
    with pytest.raises(PermissionError, match=r"a\.db"):
        await agent.connect()
    assert agent.steps == ["setup"]
    assert agent.transport.last_error == "closed"
    with pytest.raises(PermissionError):
        await agent.stopped()


async def test_a_start_that_raises_tears_down_what_setup_built_but_sends_nothing(memory_url: str) -> None:
    agent = Recorder(memory_url, start=failing(ConfigError("no")))
    with pytest.raises(ConfigError, match="no"):
        async with agent:
            pytest.fail("the body must not run")
    assert agent.steps == ["setup", "start", "teardown"]
    assert agent.transport.last_error == "closed"


async def test_a_task_that_raises_ends_the_agent_in_order_with_its_error(memory_url: str) -> None:
    agent = Recorder(memory_url)

    async def fail() -> None:
        raise OSError("the sensor is gone")

    await agent.connect()
    agent.start_task(fail(), name="failing")
    with pytest.raises(OSError, match="the sensor is gone"):
        await agent.stopped()
    assert agent.steps == WHOLE_LIFE


async def test_the_first_failure_counts_and_the_later_ones_are_logged(
    memory_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    agent = Recorder(memory_url, wind_down=failing(ValueError("second")), teardown=failing(ValueError("third")))
    agent.resources.callback(failing(ValueError("fourth")))

    async def fail() -> None:
        raise OSError("first")

    await agent.connect()
    agent.start_task(fail(), name="failing")
    with pytest.raises(OSError, match="first"):
        await agent.stopped()
    assert agent.steps == WHOLE_LIFE
    assert [word for word in ("second", "third", "fourth") if word not in caplog.text] == []


async def test_a_failing_last_step_is_raised_and_the_steps_after_it_are_taken(memory_url: str) -> None:
    agent = Recorder(memory_url, wind_down=failing(ValueError("cannot send")))
    with pytest.raises(ValueError, match="cannot send"):
        async with agent:
            pass
    assert agent.steps == WHOLE_LIFE
    assert agent.transport.last_error == "closed"


async def test_an_error_in_the_body_is_the_error_and_the_agent_ends_in_order(memory_url: str) -> None:
    agent = Recorder(memory_url)
    with pytest.raises(ZeroDivisionError):
        async with agent:
            _ = 1 / 0
    assert agent.steps == WHOLE_LIFE


async def test_tasks_are_cancelled_after_the_wind_down_and_before_the_teardown(memory_url: str) -> None:
    agent = Recorder(memory_url)

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            agent.steps.append("task ended")

    async with agent:
        agent.start_task(work(), name="work")
        await asyncio.sleep(0)
    assert agent.steps == ["setup", "start", "wind_down", "task ended", "teardown"]


async def test_a_task_that_comes_too_late_is_not_begun(memory_url: str) -> None:
    ran = []

    async def late() -> None:
        ran.append("late")

    agent = Recorder(memory_url, teardown=lambda: agent.start_task(late(), name="late"))
    async with agent:
        pass
    assert ran == []


@pytest.mark.parametrize("step", ["setup", "start", "wind_down", "teardown"])
async def test_a_hook_may_stop_its_own_agent(memory_url: str, step: str) -> None:
    agent = Recorder(memory_url, **{step: lambda: agent.stop()})
    async with asyncio.timeout(5):  # it waited for itself
        await agent.connect()
        await agent.stop()
    assert step in agent.steps


async def test_an_own_task_and_one_that_it_began_may_stop_the_agent(memory_url: str) -> None:
    for is_nested in (False, True):
        agent = Recorder(memory_url)

        async def stop(agent: Recorder = agent) -> None:
            await agent.stop()
            agent.steps.append("returned")

        async def begin(stop: Callable[[], Any] = stop) -> None:
            async with asyncio.TaskGroup() as group:
                group.create_task(stop())

        await agent.connect()
        agent.start_task(begin() if is_nested else stop(), name="stop")
        async with asyncio.timeout(2):
            await agent.stopped()
        assert agent.steps == ["setup", "start", "returned", "wind_down", "teardown"]


async def test_an_rpc_may_stop_the_agent_that_serves_it(any_url: str) -> None:
    class Mortal(Client):
        @rpc_handler("die")
        async def die(self) -> Json:
            await self.stop()
            return {"last": "words"}

    async with Client("caller", any_url) as caller:
        mortal = Mortal("mortal", any_url)
        await mortal.connect()
        # The answer may or may not get out before the end; the request must not hold it up.
        call = asyncio.create_task(caller.call("mortal", "die", timeout=60))
        async with asyncio.timeout(5):
            await mortal.stopped()
        call.cancel()
        await asyncio.wait({call})


async def test_one_agent_may_stop_another_from_its_task_and_waits_for_it(memory_url: str) -> None:
    first, second = Recorder(memory_url), Recorder(memory_url)

    async def stop_second() -> None:
        await second.stop()
        first.steps.append(f"after {second.steps[-1]}")

    async with first:
        await second.connect()
        first.start_task(stop_second(), name="stop the other")
        await second.stopped()
        await until(lambda: "after teardown" in first.steps)


async def test_a_cancelled_connect_leaves_nothing_behind(memory_url: str) -> None:
    agent = Recorder(memory_url, start=asyncio.Event().wait)
    connecting = asyncio.create_task(agent.connect())
    await until(lambda: "start" in agent.steps)
    connecting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await connecting
    assert agent.steps == ["setup", "start", "teardown"]
    assert agent.transport.last_error == "closed"
    assert not [task for task in asyncio.all_tasks() if "recorder" in task.get_name()]


async def test_a_connect_with_a_timeout_to_a_broker_that_is_not_there_gives_up_in_order() -> None:
    agent = Client("lonely", "amqp://guest:guest@127.0.0.1:9/")
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.5):
            await agent.connect()
    assert not [task for task in asyncio.all_tasks() if "lonely" in task.get_name()]


async def test_an_agent_that_is_stopped_while_it_starts_does_not_enter_the_body(memory_url: str) -> None:
    agent = Recorder(memory_url, start=asyncio.Event().wait)

    async def enter() -> None:
        async with agent:
            pytest.fail("the body must not run")

    entering = asyncio.create_task(enter())
    await until(lambda: "start" in agent.steps)
    await agent.stop()
    with pytest.raises(NotConnected, match="recorder was stopped before it worked"):
        await entering
    assert agent.steps == ["setup", "start", "teardown"]


async def test_a_wind_down_that_hangs_is_cut_off(
    memory_url: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(agent_module, "WIND_DOWN_S", 0.05)
    monkeypatch.setattr(agent_module, "TEARDOWN_S", 0.05)
    agent = Recorder(memory_url, wind_down=asyncio.Event().wait, teardown=asyncio.Event().wait)
    async with agent:
        pass
    assert agent.steps == WHOLE_LIFE
    assert "recorder could not send all that is buffered within 0.05 s" in caplog.text
    assert "recorder could not close its resources within 0.05 s" in caplog.text


async def test_agents_whose_network_fell_silent_end_within_ten_seconds(
    amqp_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with Relay(amqp_url) as relay, Manager("manager", amqp_url):
        source = HandSource("source-a", relay.url)
        sink = DurableSink("sink-a", relay.url, metrics=["a.#"])
        await asyncio.gather(source.connect(), sink.connect())
        relay.freeze()
        source.tick(0, {"a.x": 1.0})
        async with asyncio.timeout(10):
            await asyncio.gather(source.stop(), sink.stop())
    assert "source-a: 1 points were not confirmed and are lost" in caplog.text


async def test_a_shared_transport_is_left_open_and_its_consumers_end_with_the_agent(any_url: str) -> None:
    # A dead predecessor on the same transport kept its consumer, and took every other message of the queue.
    async with transport_at(any_url) as transport:
        async with Client("twin", transport):
            pass
        assert await transport.connected() == 1
        async with Client("twin", transport) as second, Client("caller", transport) as caller:
            for _ in range(4):
                assert (await caller.call("twin", "discover", timeout=5))["alive"] is True
            await second.stop()


async def test_a_shared_transport_may_carry_many_agents(any_url: str) -> None:
    async with (
        transport_at(any_url) as transport,
        Manager("manager", transport),
        HandSource("one", transport) as one,
        HandSource("two", transport) as two,
    ):
        await one.declare_metrics(["a.x"])
        await two.declare_metrics(["b.x"])
        assert list(await one.get_metrics()) == ["a.x", "b.x"]


# -- tokens, URLs, configurations --------------------------------------------------------------------------


@pytest.mark.parametrize("token", ["", "a b", "a/b", "ü", "x" * 201, "a\n"])
def test_a_token_that_is_none_is_refused(token: str) -> None:
    with pytest.raises(ValueError, match="is not an agent token"):
        Agent(token, "memory://")


def test_a_random_part_makes_tokens_unique() -> None:
    first, second = (Agent("tool", "memory://", add_uuid=True).token for _ in range(2))
    assert first != second
    assert first.startswith("tool.")
    assert Agent("tool", "memory://").token == "tool"


def test_the_environment_names_the_broker_that_the_program_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOSTBUS_SERVER", "memory://from-environment")
    assert Agent("a").url == "memory://from-environment"
    assert Agent("a", "memory://given").url == "memory://given"
    monkeypatch.delenv("HOSTBUS_SERVER")
    assert Agent("a").url == "amqp://localhost/"


def test_a_wrong_url_is_refused_at_once() -> None:
    with pytest.raises(ConfigError, match="amqp://"):
        Agent("a", "http://localhost/")


class PlainConfig(AgentConfig, frozen=True, kw_only=True):
    size: int = 3


class Configurable(Agent):
    Config = PlainConfig


def test_a_configurable_agent_begins_with_its_configuration_or_the_defaults() -> None:
    assert Configurable("a", "memory://").config == PlainConfig(size=3)
    assert Configurable("a", "memory://", config=PlainConfig(size=4)).config == PlainConfig(size=4)


def test_a_configuration_of_another_agent_is_a_mistake_of_the_program() -> None:
    class OtherConfig(AgentConfig, frozen=True, kw_only=True):
        pass

    with pytest.raises(TypeError, match="Configurable takes a PlainConfig, not OtherConfig"):
        Configurable("a", "memory://", config=OtherConfig())
    with pytest.raises(TypeError, match="Agent takes no config"):
        Agent("a", "memory://", config=PlainConfig())


# -- signals ---------------------------------------------------------------------------------------------

PROGRAM = """
import sys
from bus.source import Source
from bus.timestamp import Timestamp

class Slow(Source):
    async def task(self):
        self.chunk_size = None
        await self.declare_metrics(["slow.value"])
        for index in range(1000):
            await self.send("slow.value", Timestamp(index + 1), index)
        print("sent", flush=True)
        await self.task_stop_future

if "fail" in sys.argv:
    class Failing(Slow):
        async def task(self):
            raise OSError("the sensor is gone")
    Failing("source-slow", sys.argv[1]).run()
else:
    Slow("source-slow", sys.argv[1]).run()
print("ended", flush=True)
"""


def start_program(url: str, *arguments: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, url, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    )


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_ends_a_running_agent_with_0_after_it_sent_what_was_buffered(
    amqp_url: str, number: signal.Signals
) -> None:
    async with Manager("manager", amqp_url), transport_at(amqp_url) as transport:
        arrived: list[Delivery] = []
        await transport.declare_queue(Queue(name="all", durable=False, exclusive=True))
        await transport.bind("all", "hostbus.data", "#")
        await transport.consume(Consumption(queue="all", on_delivery=arrived.append))
        program = start_program(amqp_url)
        try:
            assert program.stdout is not None
            assert await asyncio.to_thread(program.stdout.readline) == "sent\n"
            assert arrived == []
            program.send_signal(number)
            output, errors = await asyncio.to_thread(program.communicate, timeout=15)
        finally:
            program.kill()
        assert (program.returncode, output) == (0, "ended\n"), errors
        assert "Traceback" not in errors
        await until(lambda: bool(arrived))
        assert len(arrived) == 1


async def test_a_signal_ends_an_agent_that_still_waits_for_its_broker() -> None:
    program = start_program("amqp://guest:guest@127.0.0.1:9/")
    try:
        assert program.stderr is not None
        line = await asyncio.to_thread(program.stderr.readline)
        assert "waiting for broker" in line
        program.send_signal(signal.SIGTERM)
        output, errors = await asyncio.to_thread(program.communicate, timeout=15)
    finally:
        program.kill()
    assert (program.returncode, output) == (0, "ended\n"), errors


async def test_a_program_whose_agent_fails_fails_with_that_error(amqp_url: str) -> None:
    async with Manager("manager", amqp_url):
        program = start_program(amqp_url, "fail")
        _, errors = await asyncio.to_thread(program.communicate, timeout=30)
    assert program.returncode == 1
    assert errors.strip().splitlines()[-1] == "OSError: the sensor is gone"


# -- two of one name -------------------------------------------------------------------------------------


async def test_a_second_agent_with_the_same_token_waits_until_the_first_is_gone(
    any_url: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bus.client.LOWEST_BACKOFF_S", 0.05)
    async with Client("caller", any_url) as caller:
        first = Client("twin", any_url)
        await first.connect()
        second = Client("twin", any_url)
        connecting = asyncio.create_task(second.connect())
        await until(lambda: "queue twin-rpc is held by another connection" in caplog.text)
        assert "stop it or choose another --token" in caplog.text
        assert not connecting.done()
        assert (await caller.call("twin", "discover"))["startingTime"] == first.started.isoformat()
        await first.stop()
        await connecting
        assert (await caller.call("twin", "discover"))["startingTime"] == second.started.isoformat()
        assert caplog.text.count("is held by another connection") == 1
        await second.stop()


async def test_the_transport_is_closed_last(memory_url: str) -> None:
    transports: list[bool] = []

    def look() -> None:
        assert isinstance(agent.transport, MemoryTransport)
        transports.append(agent.transport.last_error == "")

    agent = Recorder(memory_url, wind_down=look, teardown=look)
    agent.resources.callback(look)
    async with agent:
        agent.resources.callback(look)
    assert transports == [True, True, True, False]
