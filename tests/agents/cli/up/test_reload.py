# SPDX-License-Identifier: MIT
"""What a SIGHUP does to `agent up`: which families it starts, and what it leaves as it was."""

import asyncio
import os
import signal
from contextlib import asynccontextmanager
from importlib.metadata import entry_points

import pytest

from agents.cli import catalog
from agents.cli.up.fleet import Fleet, Order
from tests.agents.cli.toys import entries
from tests.bus.support import until

JOBS = '[idle-source]\njobs = ["a"]\n'


@pytest.fixture
def file(tmp_path, monkeypatch, caplog):
    """A hostbus.toml, for a world of two families."""
    caplog.set_level("INFO")
    manager = [entry for entry in entry_points(group=catalog.GROUP) if entry.name == "manager"]
    monkeypatch.setattr(catalog, "entry_points", lambda group: [*entries(["Empty", "Idle"]), *manager])
    return tmp_path / "hostbus.toml"


@asynccontextmanager
async def up(file, text, url):
    """`agent up` with a file of this text, and how to give it another one."""
    file.write_text(text)
    fleet = Fleet(Order(server=url, period_s=0.05, keep=False, file=file))
    running = asyncio.create_task(fleet.run())
    await until(lambda: all(family.runner.state == "working" for family in fleet._families))

    def reload(text):
        file.write_text(text)
        os.kill(os.getpid(), signal.SIGHUP)

    try:
        yield fleet, reload
    finally:
        fleet._stop.set()
        await running


def agents(fleet):
    return {family.runner.name: family.runner.agent for family in fleet._families}


async def test_a_family_that_is_configured_now_is_started(file, memory_url, caplog, capsys):
    async with up(file, "", memory_url) as (fleet, reload):
        assert fleet._report.remarks()[-1].startswith("not configured: idle ")
        reload(JOBS)
        await until(lambda: "the configuration was read again" in caplog.messages)
        assert "idle-source is configured now, and started" in caplog.messages
        await until(lambda: any(family.watch.newest == {"jobs": 1.0} for family in fleet._report.found))
        assert not [line for line in fleet._report.remarks() if "not configured" in line]
        source = agents(fleet)["idle-source"]
        reload('[idle-source]\njobs = ["a", "b"]\n')  # from now on it is one like the others
        await until(lambda: source.config.jobs == ["a", "b"])
        assert agents(fleet)["idle-source"] is source
    assert source.vital_signs()["pointsBuffered"] == 0  # it was stopped in order


async def test_a_family_that_runs_is_not_left_without_anything_to_do(file, memory_url, caplog, capsys):
    async with up(file, JOBS, memory_url) as (fleet, reload):
        reload("[empty-source]\nmax_metrics = 5\n")
        await until(lambda: any("stays as it is" in message for message in caplog.messages))
        assert (
            "the configuration stays as it is: idle-source is running, and would have nothing to do: "
            "no jobs; name them under [idle-source] jobs = [...]"
        ) in caplog.messages
        assert agents(fleet)["idle-source"].config.jobs == ["a"]
        assert agents(fleet)["empty-source"].config.max_metrics == 20_000
        assert fleet._settings.instance("idle-source").values == {"jobs": ["a"]}  # for its next life


async def test_a_mistake_about_a_family_that_does_not_run_is_a_mistake_too(file, memory_url, caplog, capsys):
    async with up(file, "", memory_url) as (fleet, reload):
        reload("[idle-source]\njobs = 5\n[empty-source]\nmax_metrics = 5\n")
        await until(lambda: any("stays as it is" in message for message in caplog.messages))
        assert "[idle-source]: jobs: expected `array`, got `int`" in caplog.text
        assert list(agents(fleet)) == ["empty-source"]
        assert agents(fleet)["empty-source"].config.max_metrics == 20_000
