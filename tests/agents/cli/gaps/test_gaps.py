# SPDX-License-Identifier: MIT
"""`agent gaps`: over a real broker, with an agent killed, one whose buffer is too small, and frames that come late."""

import asyncio
import json
import signal
import time
from array import array
from contextlib import asynccontextmanager

import pytest

from agents.cli.gaps.survey import survey
from agents.cli.opening import opened
from bus.frame import CONTENT_TYPE, Frame, Group, encode_frame
from bus.interval import IntervalSource
from bus.manager import Manager
from bus.transport.base import Message
from sinks.sqlite import SqliteConfig, SqliteSink
from tests.agents.cli.archived import archive_file
from tests.bus.support import transport_at, until
from tests.bus.transport.relay import Relay

NS = 1_000_000_000
PERIOD_S = 0.1


class Clock(IntervalSource):
    """Two metrics, ten times a second."""

    async def start(self):
        await super().start()
        await self.declare_metrics({name: {"interval": PERIOD_S, "unit": "s"} for name in ("lab.time", "lab.twice")})

    async def update(self):
        self.sample(self.tick, {"lab.time": 1.0, "lab.twice": 2.0})


class Silent(Clock):
    """Declares them, and leaves the rest to the test."""

    async def update(self):
        pass


@pytest.fixture
def path(tmp_path):
    return str(tmp_path / "a.db")


@asynccontextmanager
async def archiving(url, path):
    """A manager and an archive on a broker."""
    async with (
        Manager("manager", url, config=Manager.Config(store=":memory:")),
        SqliteSink("sink-sqlite", url, config=SqliteConfig(path=path, batch_age=0.1)) as sink,
    ):
        yield sink


async def metadata_of(path, *names):
    """Wait until the archive knows how often the metrics should come."""

    async def known():
        async with opened(path) as archive:
            about = await archive.metrics()
        return all("interval" in about.get(name, {}) for name in names)

    await until(known, "the metadata in the archive")


async def points_since(path, metric, time_ns):
    async with opened(path) as archive:
        newest = await archive.last(metric)
    return bool(newest) and newest[metric][0] > time_ns


async def causes(path, begin_ns, *, least_s=0.0):
    """What `agent gaps` finds from then until now, (metric, cause), of holes longer than a busy machine makes."""
    async with opened(path) as archive:
        found = await survey(archive, "#", begin_ns, time.time_ns())
    return [
        (lack.metric, str(lack.cause), lack)
        for lack in found.lacks
        if (lack.end - lack.start) / NS >= least_s and not lack.is_open
    ]


async def test_an_agent_killed_for_a_while_was_down(amqp_url, path, start_agent, monkeypatch):
    monkeypatch.setenv("HOSTBUS_SERVER", amqp_url)
    arguments = ("start", "load-source", "--period", "0.1", "--prefix", "web1")
    async with archiving(amqp_url, path):
        begin = time.time_ns()
        source = await asyncio.to_thread(start_agent, *arguments)
        await metadata_of(path, "web1.load.1m")
        await asyncio.sleep(0.5)
        killed = time.time_ns()
        source.kill()
        await asyncio.sleep(2.0)
        source = await asyncio.to_thread(start_agent, *arguments)
        back = time.time_ns()
        await until(lambda: points_since(path, "web1.load.1m", back + NS), "points of the second start")
        found = [what for what in await causes(path, begin, least_s=1.9) if what[0] == "web1.load.1m"]
        source.send_signal(signal.SIGTERM)
    ((_, cause, lack),) = found
    assert cause == "agent down"
    assert killed - NS < lack.start < killed
    assert back < lack.end


async def test_what_an_outbox_had_to_drop_was_dropped(amqp_url, path):
    async with archiving(amqp_url, path), Relay(amqp_url) as relay:
        begin = time.time_ns()
        async with Clock("source-clock", relay.url, period=PERIOD_S, prefix="lab", buffer_limit=10) as source:
            await metadata_of(path, "lab.time", "lab.twice")
            await asyncio.sleep(0.5)
            relay.freeze()
            relay.cut()  # a connection that is only silent takes 128 frames until it is full
            away = time.time_ns()
            await until(lambda: source.vital_signs()["pointsDropped"] > 30, "points that are dropped")
            back = time.time_ns()
            relay.thaw()
            await until(lambda: points_since(path, "lab.time", back + NS), "points after the outage")
            found = await causes(path, begin, least_s=1.0)
    # A frame that was on its way when the network went away may have come through, with a hole before it and after.
    assert {(metric, cause) for metric, cause, _ in found} == {
        ("lab.time", "dropped by cap"),
        ("lab.twice", "dropped by cap"),
    }
    assert sum(lack.frames for metric, _, lack in found if metric == "lab.time") >= 10
    assert all(away - NS < lack.start < lack.end < back + NS for _, _, lack in found)


async def test_frames_that_came_after_newer_ones_were_late(amqp_url, path):
    begin = time.time_ns() // NS * NS
    async with archiving(amqp_url, path) as sink, transport_at(amqp_url) as transport:
        async with Silent("source-lab", amqp_url, period=1.0) as source:
            epoch = source.started.posix_ns

        async def send(number):
            # The time of each is past: the frames are those of a source that has been running for a while.
            times = array("q", [begin - (100 - number) * NS // 10])
            group = Group(("lab.time", "lab.twice"), times, array("d", [1.0, 2.0]))
            frame = Frame(groups=(group,), epoch=epoch, sequence=number)
            await transport.publish(
                Message(
                    body=encode_frame(frame),
                    exchange="hostbus.data",
                    routing_key="lab",
                    content_type=CONTENT_TYPE,
                    app_id="source-lab",
                )
            )

        for number in range(20):
            await send(number)
        await metadata_of(path, "lab.time")
        for number in (*range(20, 40), *range(50, 80), *range(40, 50), *range(80, 100)):
            await send(number)
        await until(lambda: sink.points_stored >= 200, "all points")
        found = await causes(path, begin - 20 * NS)
    assert sorted((metric, cause, lack.frames) for metric, cause, lack in found) == [
        ("lab.time", "late", 10),
        ("lab.twice", "late", 10),
    ]


def test_two_hundred_metrics_of_one_agent_are_one_line(agent, tmp_path):
    now = time.time()
    seconds = [*range(3600, 1800, -1), *range(1740, 0, -1)]
    names = [f"web1.cpu.core{number}.user" for number in range(200)]
    points = {name: [(round(now) - second, 1.0) for second in seconds] for name in names}
    metadata = {name: {"interval": 1.0, "source": "source-cpu-web1"} for name in names}
    path = archive_file(tmp_path / "many.db", points, metadata=metadata)
    outcome = agent("gaps", "--archive", path, "--since", "-2h")
    assert (outcome.code, outcome.err) == (0, "")
    header, line, summary = outcome.out.splitlines()
    assert header.split() == ["metrics", "from", "for", "why"]
    assert line.startswith("web1.cpu.# (200 metrics)  20")
    assert line.endswith("1 min 1 s  agent down")
    assert len(line) <= 80
    assert summary == "200 metrics, 1 gap"
    told = json.loads(agent("gaps", "web1.cpu.core7.user", "--archive", path, "--format", "json").out)
    assert (told["metrics"], told["cause"], told["duration"]) == (["web1.cpu.core7.user"], "agent down", 61.0)
    assert agent("gaps", "--archive", path, "--since", "-20min").out == "200 metrics, no gaps\n"
    assert agent("gaps", "nobody", "--archive", path).out == "no metric matches nobody\n"
    assert agent("gaps", "--archive", path, "--since", "+1h").code == 2
