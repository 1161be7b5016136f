# SPDX-License-Identifier: MIT
"""Commands that hang, and sources that end or get another configuration while commands run."""

import asyncio
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import uvloop

from agents.exec import source as exec_module
from agents.exec.program import Ended
from agents.exec.source import ExecSource
from bus.subscription import Subscriber
from tests.agents.exec.children import children, is_alive
from tests.agents.exec.test_exec import shell
from tests.agents.sampled import Sampled, until


@pytest.fixture
def exec_source(host, monkeypatch) -> Callable[..., tuple[ExecSource, Sampled]]:
    def exec_source(*commands: Any, **config: Any) -> tuple[ExecSource, Sampled]:
        source = host.source(ExecSource, {"commands": list(commands), "period": 0.05, **config})
        return source, Sampled(source, monkeypatch)

    return exec_source


def forever(tmp_path: Path, name: str = "job", **options: Any) -> dict[str, Any]:
    """A command that tells its process id and stays, with a child that ignores SIGTERM."""
    script = f'(trap "" TERM; while true; do sleep 0.01; done) & echo $$ $! > {tmp_path}/{name}.new; '
    script += f"mv {tmp_path}/{name}.new {tmp_path}/{name}; wait"
    return shell(script, name, timeout=1000.0, **options)


async def pids_of(path: Path) -> list[int]:
    await until(path.exists)
    return [int(word) for word in path.read_text().split()]


async def gone(pids: list[int]) -> None:
    await until(lambda: not any(is_alive(pid) for pid in pids))
    await until(lambda: not set(pids) & set(children()))


async def test_at_the_end_nothing_runs_any_more_and_nobody_is_unreaped(exec_source, tmp_path) -> None:
    threads = set(threading.enumerate())
    source, sampled = exec_source(forever(tmp_path))
    await sampled.tick(1)
    pids = await pids_of(tmp_path / "job")
    await source.teardown()
    assert pids[0] not in children()
    await gone(pids)
    await source.teardown()
    assert sampled.points == []
    await until(lambda: set(threading.enumerate()) <= threads)


async def test_after_its_end_a_source_starts_nothing(exec_source, tmp_path) -> None:
    source, sampled = exec_source(forever(tmp_path))
    await source.teardown()
    assert await sampled.tick(1) == {}
    config = {"prefix": "web1", "period": 0.05, "commands": [forever(tmp_path, "other")]}
    await source.reconfigure(ExecSource.Config.load(config))
    assert await sampled.tick(2) == {}
    assert source.vital_signs()["commandsRunning"] == 0


async def test_at_the_end_what_waits_for_its_turn_does_not_begin(exec_source, tmp_path, monkeypatch, caplog) -> None:
    monkeypatch.setattr(exec_module, "AT_ONCE", 1)
    source, sampled = exec_source(forever(tmp_path, "first"), forever(tmp_path, "second"))
    await sampled.tick(1)
    await pids_of(tmp_path / "first")
    await source.teardown()
    assert not (tmp_path / "second").exists()
    assert caplog.messages == []


async def test_a_run_that_is_cancelled_is_ended(exec_source, tmp_path) -> None:
    source, sampled = exec_source(forever(tmp_path))
    await sampled.tick(1)
    pids = await pids_of(tmp_path / "job")
    source._jobs["job"].task.cancel()
    await gone(pids)
    await source.teardown()
    assert sampled.points == []


async def test_another_configuration_ends_what_is_not_in_it_and_leaves_alone_what_is(exec_source, tmp_path) -> None:
    stays, changes, goes = (forever(tmp_path, name) for name in ("stays", "changes", "goes"))
    source, sampled = exec_source(stays, changes, goes)
    await sampled.tick(1)
    pids = {name: await pids_of(tmp_path / name) for name in ("stays", "changes", "goes")}
    config = {"prefix": "web1", "period": 0.05, "commands": [stays, shell("echo a 1", "changes"), "echo b 2"]}
    await source.reconfigure(ExecSource.Config.load(config))
    await gone(pids["changes"] + pids["goes"])
    assert is_alive(pids["stays"][0])
    await until(lambda: source._leaving == [] or not any(job.is_running for job in source._leaving))
    await sampled.tick(2)
    await until(lambda: sampled.of("changes.a") and sampled.of("echo.b"))
    assert source._leaving == []
    assert {name.partition(".")[0] for _, name, _ in sampled.points} == {"changes", "echo"}
    assert source._jobs["stays"].is_running
    await source.teardown()
    await gone(pids["stays"])


async def test_how_often_a_command_runs_may_change(exec_source) -> None:
    source, sampled = exec_source(shell("echo a 1"), period=1.0)
    await sampled.tick(1)
    config = {"prefix": "web1", "period": 1.0, "commands": [shell("echo a 1", every=10.0)]}
    await source.reconfigure(ExecSource.Config.load(config))
    await sampled.tick(20)
    await sampled.tick(21)
    assert [time for time, _ in sampled.of("job.a")] == [1.0, 20.0]
    assert sampled.about("job.up")["interval"] == 10.0
    await source.teardown()


async def test_a_command_that_cannot_be_killed_costs_only_itself_and_is_left_alone(
    exec_source, monkeypatch, gate, caplog
) -> None:
    starts: list[str] = []

    def stuck(program, stop) -> Ended:
        with stop:
            starts.append(program.argv[0])
            if program.argv[0] == "stuck":
                gate.wait()
        return Ended(failure=None, output=b"a 1\n", exit_code=0.0)

    monkeypatch.setattr(exec_module, "run", stuck)
    for name in ("GRACE_S", "TERM_S", "LINGER_S"):
        monkeypatch.setattr(exec_module, name, 0.0)
    source, sampled = exec_source({"argv": ["stuck"], "timeout": 0.01}, "fine", period=1.0)
    for second in (1, 2, 3):
        await sampled.tick(second)
    assert sampled.of("stuck.up") == [(1.0, 0.0), (2.0, 0.0), (3.0, 0.0)]
    assert len(sampled.of("fine.a")) == 3
    assert starts.count("stuck") == 1
    assert len([message for message in caplog.messages if "it cannot be killed" in message]) == 1
    gate.set()
    await until(lambda: source._jobs["stuck"].worker.lost == 0)
    await sampled.tick(4)
    assert sampled.of("stuck.a") == [(4.0, 1.0)]
    await source.teardown()


async def test_an_end_does_not_wait_for_ever_for_what_cannot_be_killed(exec_source, monkeypatch, gate, caplog) -> None:
    def stuck(program, stop) -> Ended:
        with stop:
            gate.wait()
        return Ended(failure=None, output=b"a 1\n", exit_code=0.0)

    monkeypatch.setattr(exec_module, "run", stuck)
    monkeypatch.setattr(exec_module, "STOP_S", 0.05)
    source, sampled = exec_source("stuck")
    await sampled.tick(1)
    await source.teardown()
    assert "command stuck cannot be killed" in caplog.text
    assert sampled.points == []


async def test_a_mistake_in_a_run_is_raised_once_by_an_update(exec_source, monkeypatch) -> None:
    def wrong(program, stop) -> Ended:
        stop.close()
        raise RuntimeError("a mistake")

    monkeypatch.setattr(exec_module, "run", wrong)
    source, sampled = exec_source("job", period=1.0)
    with pytest.raises(RuntimeError, match="a mistake"):
        await sampled.tick(1)
    monkeypatch.undo()
    await source.teardown()


async def test_a_mistake_that_nobody_saw_is_logged_at_the_end(exec_source, monkeypatch, gate, caplog) -> None:
    def wrong(program, stop) -> Ended:
        stop.close()
        gate.wait()
        raise RuntimeError("a mistake")

    monkeypatch.setattr(exec_module, "run", wrong)
    source, sampled = exec_source("job")
    await sampled.tick(1)
    gate.set()
    await until(lambda: not source._jobs["job"].is_running)
    await source.teardown()
    assert "a mistake" in caplog.text


async def test_points_travel_over_a_bus_and_an_agent_that_stops_ends_its_commands(network, host, tmp_path) -> None:
    config = {"period": 0.05, "commands": [shell("echo a 1", "quick"), forever(tmp_path)]}
    async with Subscriber(["web1.exec.#"], network) as points:
        async with host.source(ExecSource, config, url=network) as source:
            async with asyncio.timeout(20):
                async for chunk in points.chunks():
                    if chunk.metric == "web1.exec.quick.a":
                        break
            pids = await pids_of(tmp_path / "job")
        assert pids[0] not in children()
        await gone(pids)
        assert source.health.failed == 0


async def test_a_stop_does_not_wait_for_the_commands(network, host, tmp_path, monkeypatch, caplog) -> None:
    monkeypatch.setattr("bus.source_task.TASK_END_S", 0.3)
    config = {"period": 1.0, "commands": [forever(tmp_path)]}
    async with host.source(ExecSource, config, url=network):
        pids = await pids_of(tmp_path / "job")
    await gone(pids)
    assert "did not end" not in caplog.text


def test_it_works_on_uvloop_as_well(exec_source, tmp_path) -> None:
    async def work() -> None:
        source, sampled = exec_source(shell("echo a 1", "quick"), forever(tmp_path))
        await sampled.tick(1)
        await until(lambda: sampled.of("quick.a"))
        pids = await pids_of(tmp_path / "job")
        await source.teardown()
        await gone(pids)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(work())
