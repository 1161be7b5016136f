# SPDX-License-Identifier: MIT
import asyncio
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from agents.foreign.samples import PORTION
from agents.metric import MetricTable
from agents.prometheus.source import OWN, PrometheusSource
from bus.errors import ConfigError
from bus.names import is_metric
from tests.agents.toy import Sampled, second
from tests.services.exporter import Exporter, Request, exporter, response

FIXTURES = Path(__file__).parents[1] / "fixtures"
NODE = (FIXTURES / "prometheus" / "node.prom").read_text()


class Scraping:
    """A source on the made-up host, what it sampled, and the time that passes."""

    def __init__(self, host: Any, monkeypatch: pytest.MonkeyPatch, *endpoints: object, **settings: object) -> None:
        config = {"endpoints": list(endpoints), "period": 20.0, **settings}
        self.source: PrometheusSource = host.source(PrometheusSource, config)
        self.sampled = Sampled(self.source, monkeypatch)
        self.ticks = 0

    async def tick(self) -> dict[str, float]:
        """One update. What it sampled, without ``web1.prometheus.``."""
        before = len(self.sampled.points)
        self.ticks += 1
        self.source.tick = second(self.ticks)
        await self.source.update()
        return self.values(before)

    def values(self, since: int = 0) -> dict[str, float]:
        """All that was sampled."""
        found: dict[str, float] = {}
        for _, values in self.sampled.points[since:]:
            found |= {name.removeprefix("web1.prometheus."): value for name, value in values.items()}
        return found

    def metadata(self) -> dict[str, Any]:
        """Of all that was declared."""
        return {name: about for metrics in self.sampled.declared for name, about in metrics.items()}

    async def reload(self, *endpoints: object, **settings: object) -> None:
        """Another configuration."""
        config = {"prefix": "web1", "endpoints": list(endpoints), "period": 20.0, **settings}
        await self.source.reconfigure(PrometheusSource.Config.load(config))


@pytest.fixture
async def server() -> AsyncIterator[Exporter]:
    async with exporter() as made:
        made.say("m 1\n")
        yield made


@pytest.fixture
async def scraping(host, monkeypatch) -> AsyncIterator[Any]:
    """Makes sources, which are closed at the end."""
    made: list[Scraping] = []

    def make(*endpoints: object, **settings: object) -> Scraping:
        made.append(Scraping(host, monkeypatch, *endpoints, **settings))
        return made[-1]

    yield make
    for each in made:
        await each.source.teardown()


def node(server: Exporter, name: str = "node", **settings: object) -> dict[str, object]:
    return {"url": f"http://{server.address}", "name": name, **settings}


def threads_of(word: str) -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == f"source-prometheus: {word}"]


async def until_ended(word: str) -> None:
    async with asyncio.timeout(20):
        while threads_of(word):
            await asyncio.sleep(0.005)


async def test_the_names_are_as_ever_and_all_described(scraping, server: Exporter) -> None:
    server.say(NODE)
    run = scraping(node(server))
    names = await run.tick()
    assert sorted(names) == (FIXTURES / "names" / "prometheus.txt").read_text().split()
    table = MetricTable(PrometheusSource.metrics)
    used = {table.find(name) for name in names}
    assert None not in used
    assert [metric.name for metric in PrometheusSource.metrics if metric not in used] == []


async def test_points_have_the_time_of_the_tick_and_metadata_say_what_they_are(scraping, server: Exporter) -> None:
    server.say(NODE)
    run = scraping(node(server))
    await run.tick()
    assert {time for time, _ in run.sampled.points} == {second(1)}
    about = run.metadata()
    assert about["web1.prometheus.node.node_cpu_seconds_total.cpu_0.mode_idle"] == {
        "name": "node_cpu_seconds_total",
        "labels": {"cpu": "0", "mode": "idle"},
        "type": "counter",
        "unit": "s",
        "description": "Seconds the CPUs spent in each mode.",
        "interval": 20.0,
        "quantity": "time",
        "scope": "point",
    }
    assert about["web1.prometheus.node.up"]["quantity"] == "state"
    assert about["web1.prometheus.node.scrape_duration"]["unit"] == "s"


async def test_what_is_said_about_the_endpoint(scraping, server: Exporter, host) -> None:
    async def slowly(request: Request, writer: asyncio.StreamWriter) -> None:
        host.now_s += 1.5
        writer.write(response("a 1\nb 2\nc 3\n"))

    server.behaviour = slowly
    run = scraping(node(server, exclude=["c"]))
    assert await run.tick() == {
        "node.up": 1.0,
        "node.scrape_duration": 1.5,
        "node.samples": 2.0,
        "node.a": 1.0,
        "node.b": 2.0,
    }


async def test_an_endpoint_that_is_away_is_down_and_that_is_said_once(scraping, server: Exporter, caplog) -> None:
    caplog.set_level("INFO")
    run = scraping(node(server))
    server.answer = response("", status="500 Oh")
    for _ in range(3):
        reading = await run.tick()
        assert (reading.keys(), reading["node.up"], reading["node.samples"]) == ({f"node.{own}" for own in OWN}, 0, 0)
    server.say("m 2\n")
    assert (await run.tick())["node.m"] == 2.0
    assert [record.message for record in caplog.records if "endpoint" in record.message] == [
        f"web1.prometheus: endpoint node failed: ScrapeError: {server.address} answered 500 Internal Server Error",
        "web1.prometheus: endpoint node works again",
    ]


async def test_a_cause_whose_details_differ_each_time_is_said_once(scraping, server: Exporter, caplog) -> None:
    run = scraping(node(server))
    for number in range(3):
        server.say("m 1\n" * number + f"count {number} oops\n")
        assert (await run.tick())["node.up"] == 0.0
    assert run.source.parts.errors == 3
    server.answer = response("", status="404 No")
    await run.tick()
    assert [record.message.partition("failed: ")[2] for record in caplog.records] == [
        f"ScrapeError: {server.address} answered what makes no sense: line 1, 'count 0 oops': could not convert "
        "string to float: 'oops'",
        f"ScrapeError: {server.address} answered 404 Not Found: is the path right?",
    ]
    server.say("m 1\n")
    await run.tick()
    server.answer = response("", status="404 No")
    await run.tick()
    assert len([record for record in caplog.records if record.levelname == "WARNING"]) == 3


async def test_an_endpoint_that_is_slow_holds_up_no_other(scraping, server: Exporter) -> None:
    asked, answer = asyncio.Event(), asyncio.Event()

    async def slowly(request: Request, writer: asyncio.StreamWriter) -> None:
        asked.set()
        await answer.wait()
        writer.write(response("late 1\n"))

    async with exporter() as slow:
        slow.behaviour = slowly
        run = scraping(node(slow, "slow"), node(server, "quick"))
        update = asyncio.create_task(run.tick())
        await asked.wait()
        async with asyncio.timeout(20):
            while "quick.m" not in run.values():
                await asyncio.sleep(0.005)
        assert not [name for name in run.values() if name.startswith("slow")]
        answer.set()
        assert (await update)["slow.late"] == 1.0
    assert {time for time, _ in run.sampled.points} == {second(1)}


async def test_an_endpoint_that_never_answers_has_its_own_time(scraping, server: Exporter) -> None:
    async def never(request: Request, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(60)

    async with exporter() as dead:
        dead.behaviour = never
        run = scraping(node(dead, "dead", timeout=0.1), node(server, "quick"))
        reading = await run.tick()
    assert (reading["dead.up"], reading["quick.up"], reading["quick.m"]) == (0.0, 1.0, 1.0)
    assert run.source.parts.causes == {
        "endpoint dead": f"ScrapeError: {dead.address} did not answer within 0.1 s",
    }


async def test_what_nobody_foresaw_costs_one_endpoint(scraping, server: Exporter, monkeypatch) -> None:
    run = scraping(node(server, "odd"), node(server, "even"))

    async def break_down(*_: object) -> None:
        raise TypeError("who would have thought")

    monkeypatch.setattr(run.source._scrapers[0], "scrape", break_down)
    reading = await run.tick()
    assert (reading["odd.up"], reading["even.up"]) == (0.0, 1.0)
    assert run.source.parts.causes == {"endpoint odd": "TypeError: who would have thought"}


async def test_a_series_is_not_mistaken_for_what_is_said_about_the_endpoint(scraping, server: Exporter) -> None:
    server.say('up 7\nup{job="a"} 8\nsamples 9\n')
    reading = await scraping(node(server)).tick()
    assert (reading["node.up"], reading["node.samples"]) == (1.0, 3.0)
    assert (reading["node.up-scraped"], reading["node.up.job_a"], reading["node.samples-scraped"]) == (7.0, 8.0, 9.0)


async def test_samples_keep_their_times_and_count_once(scraping, server: Exporter) -> None:
    server.say(f"m 1 {second(0.5).posix_ns // 10**6}\n")
    run = scraping(node(server), node(server, "now", honor_timestamps=False))
    assert (await run.tick())["node.m"] == 1.0
    assert "node.m" not in await run.tick()
    times = [time for time, values in run.sampled.points if "web1.prometheus.node.m" in values]
    assert times == [second(0.5)]
    times = [time for time, values in run.sampled.points if "web1.prometheus.now.m" in values]
    assert times == [second(1), second(2)]


async def test_many_samples_are_taken_in_portions_so_that_others_have_their_turn(scraping, server: Exporter) -> None:
    server.say("".join(f"m{number} 1\n" for number in range(2 * PORTION + 1)))
    run = scraping(node(server))
    reading = await run.tick()
    assert len(reading) == 2 * PORTION + 1 + len(OWN)
    assert [len(values) for _, values in run.sampled.points] == [len(OWN), PORTION, PORTION, 1]


async def test_the_number_of_metrics_is_bounded(scraping, server: Exporter) -> None:
    server.say("".join(f"m{number} 1\n" for number in range(100)))
    run = scraping(node(server), max_metrics=10)
    assert len(await run.tick()) == 10
    assert run.source.metrics_refused


async def test_names_have_room_behind_a_long_prefix(scraping, server: Exporter) -> None:
    server.say(f'm{{a="{"x" * 400}"}} 1\n')
    run = scraping(node(server, "n" * 60), prefix=f"web1.{'p' * 90}")
    reading = await run.tick()
    assert run.source.parts.causes == {}
    assert all(is_metric(name) for _, values in run.sampled.points for name in values)
    assert len(reading) == 4


# -- another configuration -----------------------------------------------------------------------------


async def test_another_configuration_is_in_force_at_once(scraping, server: Exporter) -> None:
    run = scraping(node(server, "one"), node(server, "two"))
    await run.tick()
    kept = run.source._scrapers[1]
    await run.reload(node(server, "two"), node(server, "three", include=["x"]))
    reading = await run.tick()
    assert {name.partition(".")[0] for name in reading} == {"two", "three"}
    assert ("two.m" in reading, "three.m" in reading) == (True, False)
    assert run.source._scrapers[0] is kept
    await until_ended("one")
    await run.reload(node(server, "two", exclude=["m"]))
    assert "two.m" not in await run.tick()


async def test_an_endpoint_that_is_taken_away_while_it_is_asked_says_nothing_more(
    scraping, server: Exporter, caplog
) -> None:
    asked, answer = asyncio.Event(), asyncio.Event()

    async def slowly(request: Request, writer: asyncio.StreamWriter) -> None:
        asked.set()
        await answer.wait()
        writer.write(response("m 1\n"))

    server.behaviour = slowly
    run = scraping(node(server))
    update = asyncio.create_task(run.tick())
    await asked.wait()
    await run.reload(node(server, "other"))
    answer.set()
    assert await update == {}
    assert caplog.records == []
    assert threads_of("node") == []


async def test_without_endpoints_there_is_nothing_to_measure(scraping, server: Exporter) -> None:
    run = scraping()
    with pytest.raises(ConfigError, match=r'no endpoints; name them: \[prometheus-source\] endpoints = \["'):
        await run.source.setup()
    await run.tick()
    assert run.source.absence.reason.startswith("no endpoints")
    await run.reload(node(server))
    assert (await run.tick())["node.m"] == 1.0


async def test_a_pushed_configuration_that_is_wrong_is_refused(scraping, server: Exporter) -> None:
    run = scraping(node(server, timeout=15))
    with pytest.raises(ConfigError, match=r"timeout of node is 15 s: at most 0\.9 periods, 9 s"):
        await run.reload(node(server, timeout=15), period=10.0)


async def test_teardown_closes_connections_and_ends_threads(scraping, server: Exporter) -> None:
    run = scraping(node(server, "ending"))
    await run.tick()
    assert (server.open_connections, len(threads_of("ending"))) == (1, 1)
    await run.source.teardown()
    await run.source.teardown()
    await until_ended("ending")
    async with asyncio.timeout(20):
        while server.open_connections:
            await asyncio.sleep(0.005)


async def test_a_source_that_is_stopped_in_a_scrape_leaves_nothing(scraping, server: Exporter) -> None:
    asked = asyncio.Event()

    async def never(request: Request, writer: asyncio.StreamWriter) -> None:
        asked.set()
        await asyncio.sleep(60)

    server.behaviour = never
    run = scraping(node(server))
    update = asyncio.create_task(run.tick())
    await asked.wait()
    update.cancel()
    with pytest.raises(asyncio.CancelledError):
        await update
    connector = run.source._sessions[0].connector
    assert connector is not None
    assert (len(connector._acquired), len(connector._conns)) == (0, 0)
    assert run.sampled.points == []


async def test_secrets_are_shown_nowhere(scraping, server: Exporter, tmp_path: Path, caplog) -> None:
    caplog.set_level("DEBUG")
    (tmp_path / "token").write_text("hunter2")
    server.answer = response("", status="401 No")
    run = scraping(node(server, token_file=str(tmp_path / "token")))
    await run.tick()
    server.answer = b"hm?\r\n\r\n"
    await run.tick()
    assert server.requests[0]["authorization"] == "Bearer hunter2"
    assert "hunter2" not in caplog.text + repr(run.source.config) + repr(run.source.vital_signs())
