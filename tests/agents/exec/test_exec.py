# SPDX-License-Identifier: MIT
import asyncio
import math
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from agents.exec import source as exec_module
from agents.exec.source import OWN, ExecConfig, ExecSource, last_words
from agents.metric import MetricTable
from bus.errors import ConfigError
from tests.agents.sampled import Sampled, until

GOLDEN = Path(__file__).parents[1] / "fixtures" / "names" / "exec.txt"
PROMETHEUS = "# HELP jobs_total Done.\n# TYPE jobs_total counter\njobs_total 7\n"


def shell(script: str, name: str = "job", **options: Any) -> dict[str, Any]:
    return {"name": name, "argv": ["sh", "-c", script], **options}


@pytest.fixture
def exec_source(host, monkeypatch) -> Callable[..., tuple[ExecSource, Sampled]]:
    def exec_source(*commands: Any, **config: Any) -> tuple[ExecSource, Sampled]:
        source = host.source(ExecSource, {"commands": list(commands), **config})
        return source, Sampled(source, monkeypatch)

    return exec_source


@pytest.fixture
def pipe(tmp_path) -> Callable[[str], Path]:
    """A named pipe: a command that reads it does not go on before the test has written to it."""

    def pipe(name: str = "pipe") -> Path:
        os.mkfifo(tmp_path / name)
        return tmp_path / name

    return pipe


def values(reading: dict[str, float], *names: str) -> dict[str, float]:
    """What is not of the source's own making, and those of the source that are named."""
    return {name: value for name, value in reading.items() if name.partition(".")[2] not in OWN or name in names}


def say(path: Path, text: str) -> None:
    """Write to a named pipe that a command reads."""
    with open(path, "w", encoding="utf-8") as opened:
        assert stat.S_ISFIFO(os.fstat(opened.fileno()).st_mode)
        opened.write(text)


async def test_what_commands_print_is_sampled_under_their_words(exec_source) -> None:
    source, sampled = exec_source(shell("echo size 5; echo queue.length 7"), "echo 'load 1'")
    reading = await sampled.tick(1)
    assert values(reading) == {"job.size": 5.0, "job.queue.length": 7.0, "echo.load": 1.0}
    assert (reading["job.up"], reading["job.exit_code"], reading["echo.up"]) == (1.0, 0.0, 1.0)
    assert 0 < reading["job.duration"] < 20
    assert await sampled.tick(2)
    assert [time for time, _ in sampled.of("job.size")] == [1.0, 2.0]
    await source.teardown()


async def test_the_names_are_as_ever_and_all_described(exec_source) -> None:
    source, sampled = exec_source("nproc", shell("echo queue.length 7"))
    names = sorted(await sampled.tick(1))
    assert names == GOLDEN.read_text().split()
    table = MetricTable(ExecSource.metrics)
    assert {table.find(name) for name in names} == set(ExecSource.metrics)
    await source.teardown()


async def test_lines_may_have_their_own_time_and_prometheus_its_own_metadata(exec_source) -> None:
    source, sampled = exec_source(
        shell("echo a 5 1700000000; echo b 6", units={"a": "B"}, description="of the job"),
        {"name": "prom", "argv": ["printf", PROMETHEUS.replace("\n", "\\n")]},
    )
    await sampled.tick(1_700_000_100)
    await sampled.tick(1_700_000_101)
    assert sampled.of("job.a") == [(1_700_000_000, 5.0)]
    assert len(sampled.of("job.b")) == 2
    assert [value for _, value in sampled.of("prom.jobs_total")] == [7.0, 7.0]
    assert (sampled.about("job.a")["unit"], sampled.about("job.b")["unit"]) == ("B", "")
    assert sampled.about("job.a")["description"] == "of the job"
    assert sampled.about("prom.jobs_total")["description"] == "Done."
    await source.teardown()


@pytest.mark.parametrize(
    ("script", "up"),
    [("true", 1.0), ("echo '# nothing'", 1.0), ("echo a 1; echo no sense", 1.0), ("echo no sense", 0.0)],
)
async def test_a_command_is_up_unless_none_of_its_lines_makes_sense(exec_source, script: str, up: float) -> None:
    source, sampled = exec_source(shell(script))
    assert (await sampled.tick(1))["job.up"] == up
    await source.teardown()


async def test_an_exposition_that_makes_no_sense_is_refused_as_a_whole(exec_source, caplog) -> None:
    source, sampled = exec_source(shell("echo a 1; echo b", format="prometheus"))
    reading = await sampled.tick(1)
    assert values(reading, "job.up", "job.exit_code") == {"job.up": 0.0, "job.exit_code": 0.0}
    assert "its output makes no sense" in caplog.text
    await source.teardown()


async def test_a_command_that_fails_costs_only_itself(exec_source) -> None:
    source, sampled = exec_source(
        shell("echo a 1; exit 3", "fails"), shell("echo a 1; kill -9 $$", "dies"), "hostbus-no-such", "echo b 2"
    )
    assert values(
        await sampled.tick(1), "fails.up", "fails.exit_code", "dies.up", "dies.exit_code", "hostbus-no-such.up"
    ) == {
        "fails.up": 0.0,
        "fails.exit_code": 3.0,
        "dies.up": 0.0,
        "dies.exit_code": 137.0,
        "hostbus-no-such.up": 0.0,
        "echo.b": 2.0,
    }
    assert math.isnan(sampled.of("hostbus-no-such.exit_code")[0][1])
    await source.teardown()


async def test_a_cause_is_logged_once_with_the_last_words_but_no_values_of_variables(
    exec_source, caplog, tmp_path
) -> None:
    script = f"cat {tmp_path}/what >&2; echo $$ $TOKEN >&2; exit $(cat {tmp_path}/status)"
    source, sampled = exec_source(shell(script, env={"TOKEN": "sekrit"}))
    (tmp_path / "what").write_text("1\n2\n3\nno disk\n")
    for status in (3, 3, 4, 4):
        (tmp_path / "status").write_text(str(status))
        await sampled.tick(len(sampled.points))
    assert len(caplog.messages) == 2
    assert (
        "command job failed: ChildProcessError: it ended with status 3; it said: 3 / no disk / " in caplog.messages[0]
    )
    assert "sekrit" not in caplog.text
    assert source.parts.errors == 4
    await source.teardown()


def test_last_words_fit_a_line_of_the_log() -> None:
    assert last_words("") == last_words("\n \n") == ""
    assert last_words("a\x1b[31m\tb\n\nc\n") == "it said: a?[31m?b / c"
    assert len(last_words("x" * 1000)) < 320


async def test_commands_see_the_agents_variables_but_not_those_of_the_bus(exec_source, monkeypatch) -> None:
    monkeypatch.setenv("HOSTBUS_SERVER", "amqp://user:5@host/")
    monkeypatch.setenv("FROM_AGENT", "6")
    script = "env | grep -c HOSTBUS; echo agent $FROM_AGENT; echo own $OWN; echo here $(ls | wc -l)"
    source, sampled = exec_source(shell(script, env={"OWN": "8"}, cwd="/proc/self/fd"))
    assert values(await sampled.tick(1)) == {"job.value": 0.0, "job.agent": 6.0, "job.own": 8.0, "job.here": 4.0}
    await source.teardown()


async def test_a_command_has_its_own_limits(exec_source) -> None:
    source, sampled = exec_source(
        shell("echo a 1; sleep 1000", "slow", timeout=0.2), shell("echo aa 1", "long", max_output=4), period=100.0
    )
    assert values(await sampled.tick(1), "slow.up", "long.up") == {"slow.up": 0.0, "long.up": 0.0}
    assert source.vital_signs()["partsFailed"] == 2
    await source.teardown()


@pytest.mark.parametrize(("config", "timeout_s"), [({}, 9.0), ({"period": 0.1}, 0.5), ({"period": 3600.0}, 30.0)])
async def test_the_deadline_follows_the_period_unless_it_is_given(exec_source, config, timeout_s: float) -> None:
    source, _ = exec_source(shell("a", "one"), shell("a", "two", timeout=100.0), **config)
    found = [source._program(job.command).timeout_s for job in source._jobs.values()]
    assert found == [timeout_s, 100.0]


async def test_a_slow_command_delays_no_other_and_its_points_are_of_its_tick(exec_source, pipe) -> None:
    slow = pipe()
    source, sampled = exec_source(shell(f"cat {slow}", "slow"), shell("echo a 1", "quick"))
    update = asyncio.create_task(sampled.tick(1))
    await until(lambda: sampled.of("quick.a"))
    assert not update.done()
    assert source.vital_signs()["commandsRunning"] == 1
    await asyncio.to_thread(say, slow, "b 2\n")
    await update
    assert sampled.of("slow.b") == [(1.0, 2.0)]
    await source.teardown()


async def test_a_command_that_still_runs_is_not_started_again(exec_source, pipe, tmp_path, caplog) -> None:
    slow = pipe()
    source, sampled = exec_source(
        shell(f"echo x >> {tmp_path}/starts; cat {slow}", timeout=60.0), shell("echo b 1", "quick"), period=0.05
    )
    for second in (1, 2, 3):
        await sampled.tick(second)
    await until((tmp_path / "starts").exists)
    await until(lambda: len(sampled.of("quick.b")) >= 1)
    await asyncio.to_thread(say, slow, "a 2\n")
    await until(lambda: sampled.of("job.a"))
    assert (tmp_path / "starts").read_text() == "x\n"
    assert sampled.of("job.a") == [(1.0, 2.0)]
    assert len([message for message in caplog.messages if "due again while it still ran" in message]) == 1
    await source.teardown()


async def test_so_many_commands_run_at_once_and_the_others_wait_for_their_turn(
    exec_source, pipe, tmp_path, monkeypatch
) -> None:
    monkeypatch.setattr(exec_module, "AT_ONCE", 2)
    gates = [pipe(f"pipe{number}") for number in range(3)]
    source, sampled = exec_source(
        *(shell(f"echo x >> {tmp_path}/starts; cat {gate}", f"c{number}") for number, gate in enumerate(gates))
    )
    update = asyncio.create_task(sampled.tick(1))
    await until(lambda: (tmp_path / "starts").exists() and len((tmp_path / "starts").read_text()) == 4)
    assert source._slots_at_once.locked()
    for number, gate in enumerate(gates):
        await asyncio.to_thread(say, gate, f"a {number}\n")
    assert values(await update) == {"c0.a": 0.0, "c1.a": 1.0, "c2.a": 2.0}
    await source.teardown()


async def test_a_command_may_run_less_often_and_says_so(exec_source) -> None:
    source, sampled = exec_source(shell("echo a 1", every=10.0), "echo b 2", period=1.0)
    for second in (10, 11, 19, 20, 21):
        await sampled.tick(second)
    assert [time for time, _ in sampled.of("job.a")] == [10.0, 20.0]
    assert [time for time, _ in sampled.of("job.up")] == [10.0, 20.0]
    assert len(sampled.of("echo.b")) == 5
    assert [sampled.about(name)["interval"] for name in ("job.a", "job.up", "echo.b", "echo.up")] == [10, 10, 1, 1]
    await source.teardown()


async def test_the_sources_own_names_win(exec_source, caplog) -> None:
    source, sampled = exec_source(shell("echo up 5; echo duration 1e9; echo a 1"))
    reading = await sampled.tick(1)
    assert (reading["job.up"], values(reading)) == (1.0, {"job.a": 1.0})
    assert reading["job.duration"] < 20
    assert "duration, up: the source has metrics of its own" in caplog.text
    await source.teardown()


def test_without_commands_it_says_what_to_do(host) -> None:
    assert host.source(ExecSource).missing == 'no commands; name them: [exec-source] commands = ["nproc --all", ...]'
    assert host.source(ExecSource, {"commands": ["nproc"]}).missing == ""


def test_commands_do_not_come_over_the_bus() -> None:
    assert ExecConfig.local_only == {"commands"}


@pytest.mark.parametrize(
    ("commands", "cause"),
    [
        (["who | wc -l"], "there is no shell"),
        (["df /", "df /home"], "two are called 'df'"),
        ([{"argv": ["a"], "name": "a b"}], "name: 'a b'"),
        ([{"argv": ["a"], "nam": "b"}], "nam"),
        ([5], "commands"),
        (["a"] * 101, "commands"),
    ],
)
def test_commands_that_cannot_be_run_are_refused(commands, cause: str) -> None:
    with pytest.raises(ConfigError, match=cause):
        ExecConfig.load({"commands": commands})
    with pytest.raises(ConfigError, match="max_delay"):
        ExecConfig.load({"max_delay": -1})
