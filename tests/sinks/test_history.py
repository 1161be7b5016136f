# SPDX-License-Identifier: MIT
"""Archives that answer over the bus, and clients that ask them."""

from __future__ import annotations

import asyncio
import logging
import os
import re
import sys
import time
from array import array
from bisect import bisect_left
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from bus import history_link
from bus.aggregates import Aggregates
from bus.archive import MIN_NS, History, read_points
from bus.chunk import MAX_NS, Chunk
from bus.client import Client
from bus.errors import NotArchived, NotConnected, RpcError, RpcTimeout, StorageBusy, StorageError
from bus.frame import Group
from bus.history import HistoryClient
from bus.history_wire import HistoryRequest, RequestType, decode_history_response, encode_history_request
from bus.manager import Manager, ManagerConfig
from bus.timestamp import Timedelta, Timestamp
from bus.transport import Consumption, Delivery, Message
from sinks import history as history_module
from tests.bus.support import break_connection, until
from tests.services.rabbitmq import RabbitMq
from tests.sinks.answering import DEADLY, START_NS, Answering, S, filled
from tests.sinks.memory_archive import MemoryArchive

METRIC = "web1.power"
MINUTE = 60 * S


@pytest.fixture(autouse=True)
def in_a_hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history_module, "GATHER_S", 0.01)
    monkeypatch.setattr(history_link, "RETRY_S", 0.05)


@pytest.fixture
async def network(any_url: str) -> AsyncIterator[str]:
    """A broker with a manager on it; its URL."""
    async with Manager("manager", any_url):
        yield any_url


@pytest.fixture
async def quick_network(memory_url: str) -> AsyncIterator[str]:
    async with Manager("manager", memory_url):
        yield memory_url


@asynccontextmanager
async def asking(url: str, *, timeout_s: float = 30.0) -> AsyncIterator[HistoryClient]:
    async with HistoryClient("asker", url, timeout_s=timeout_s) as client:
        yield client


@asynccontextmanager
async def answering(url: str, archive: History, token: str = "sink-a") -> AsyncIterator[Answering]:
    """An archive on the bus, all of whose metrics are known to the manager."""
    async with Answering(token, url, archive) as agent:
        count = len(await archive.metrics())

        async def is_known() -> bool:
            return bool((await agent.rpc("db.subscribe", metrics=[], data=False))["kept"] == count)

        await until(is_known, "that the manager knows all metrics")
        yield agent


class Columns(MemoryArchive):
    """One metric in two columns, for many points."""

    def __init__(self, times: array[int], values: array[float]) -> None:
        super().__init__()
        self.times, self.values = times, values

    async def metrics(self, pattern: str = "#") -> dict[str, dict[str, Any]]:
        return {METRIC: {}}

    async def points(self, metric: str, start_ns: int = MIN_NS, end_ns: int = MAX_NS) -> AsyncIterator[Chunk]:
        first, end = bisect_left(self.times, start_ns), bisect_left(self.times, end_ns)
        for begin in range(first, end, 100_000):
            page = slice(begin, min(begin + 100_000, end))
            yield Chunk(metric, self.times[page], self.values[page])


# -- what is read is what is stored --------------------------------------------------------------------------


async def test_a_million_points_come_in_pages(network: str) -> None:
    times = array("q", range(START_NS, START_NS + 1_000_000 * S, S))
    values = array("d", range(1_000_000))
    async with answering(network, Columns(times, values)), asking(network) as client:
        got_times, got_values, pages = array("q"), array("d"), 0
        async for page in client.points(METRIC):
            assert 0 < len(page) <= 100_000
            got_times += page.times
            got_values += page.values
            pages += 1
        assert pages == 10
        assert got_times == times
        assert got_values == values


async def test_everything_that_can_be_asked_has_the_same_answer_as_the_archive_itself(network: str) -> None:
    archive = MemoryArchive(page_points=100)
    times = array("q", [START_NS + index * index * S // 7 for index in range(1, 500)])
    values = array("d", [index % 13 - 5.5 for index in range(1, 500)])
    await archive.insert(
        [Group((METRIC, "web1.other"), times, values + values), Group(("web2.a",), times[:1], values[:1])]
    )
    async with answering(network, archive), asking(network) as client:
        assert list(await client.metrics()) == list(await archive.metrics())
        assert await client.last() == await archive.last()
        assert await client.last("web1.*") == await archive.last("web1.*")
        for start, end in ((MIN_NS, MAX_NS), (times[3], times[400]), (times[3] + 1, times[3] + 2)):
            assert await read_points(client, METRIC, start, end) == await read_points(archive, METRIC, start, end)
            for every in (None, S, 10 * S, 7 * MINUTE, 3600 * S, 86400 * S):
                ours = list((await client.aggregates(METRIC, start, end, every)).rows())
                plain = list((await archive.aggregates(METRIC, start, end, every)).rows())
                assert ours == plain


async def test_metricqs_names_take_timestamps_and_give_our_types(quick_network: str) -> None:
    archive = await filled([METRIC], points=300)
    start, minute = Timestamp(START_NS), Timedelta(MINUTE)
    async with answering(quick_network, archive), asking(quick_network) as client:
        assert await client.history_last_value(METRIC) == (Timestamp(START_NS + 299 * S), 299.0)
        chunk = await client.history_raw_timeline(METRIC, start + minute, start + minute + Timedelta(3 * S))
        assert list(chunk.values) == [60.0, 61.0, 62.0]
        whole = await client.history_aggregate(METRIC)
        assert whole is not None
        assert (whole.count, whole.minimum, whole.maximum, whole.first, whole.last) == (300, 0.0, 299.0, 0.0, 299.0)
        assert whole.covered == 299.0
        assert await client.history_aggregate(METRIC, end_time=start) is None
        found = await client.history_aggregate_timeline(METRIC, minute, start, start + minute * 2)
        assert sum(found.counts) == 120
        assert all(time % MINUTE == 0 for time in found.times)
        flex = await client.history_flex_timeline(METRIC, Timedelta(S))
        assert isinstance(flex, Chunk)
        assert len(flex) == 300
        coarse = await client.history_flex_timeline(METRIC, minute)
        assert isinstance(coarse, Aggregates)
        assert sum(coarse.counts) == 300


async def test_a_data_frame_has_a_column_for_each_metric(quick_network: str) -> None:
    pandas = pytest.importorskip("pandas")
    archive = await filled(["web1.a"], points=120)
    await archive.insert([Group(("web1.b",), array("q", [START_NS + S, START_NS + S + 5]), array("d", [7.0, 8.0]))])
    async with answering(quick_network, archive), asking(quick_network) as client:
        table = await client.to_pandas("web1.*")
        assert list(table.columns) == ["web1.a", "web1.b"]
        assert len(table) == 121
        assert table.index.name == "time"
        assert table.index[0] == pandas.Timestamp(START_NS, tz="UTC")
        assert table["web1.b"].dropna().tolist() == [7.0, 8.0]
        assert table.index[table["web1.b"].notna()].astype("int64").tolist() == [START_NS + S, START_NS + S + 5]
        table = await client.to_pandas(["web1.a", "web1.b"], every=Timedelta(MINUTE), statistic="count")
        assert table["web1.a"].sum() == 120
        assert table["web1.b"].sum() == 2
        assert (await client.to_pandas("web1.a", end_time=Timestamp(START_NS))).empty
        assert list((await client.to_pandas("unknown.#")).columns) == []


async def test_without_pandas_it_is_said_what_to_install(quick_network: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    async with asking(quick_network) as client:
        with pytest.raises(Exception, match=r"pip install 'hostbus\[pandas\]'"):
            await client.to_pandas("#")


# -- who keeps what ------------------------------------------------------------------------------------------


async def test_several_archives_answer_for_their_own_metrics(network: str) -> None:
    first, second = await filled(["web1.a", "web1.both"], points=5), await filled(["web1.b", "web1.both"], points=9)
    async with (
        answering(network, first, "sink-a") as one,
        answering(network, second, "sink-b") as two,
        asking(network) as client,
    ):
        assert list(await client.metrics()) == ["web1.a", "web1.b", "web1.both"]
        assert len(await client.history_raw_timeline("web1.a")) == 5
        assert len(await client.history_raw_timeline("web1.b")) == 9
        assert (one.service.answered, two.service.answered) == (1, 1)
        for _ in range(5):
            assert len(await client.history_raw_timeline("web1.both")) == 9


async def test_of_what_several_archives_keep_nothing_is_missing_and_nothing_double(network: str) -> None:
    """One was away for an hour, the other keeps points for less long: their answers come in any order."""
    times = array("q", [START_NS + second * S for second in range(9000)])
    values = array("d", range(9000))
    whole, first, second = map(MemoryArchive, (700, 700, 900))
    await whole.insert([Group((METRIC,), times, values)])
    await first.insert([Group((METRIC,), times[:3000] + times[7000:], values[:3000] + values[7000:])])
    await second.insert([Group((METRIC,), times[2400:8900], values[2400:8900])])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("bus.history.PAGE_POINTS", 1000)
        async with answering(network, first, "sink-a"), answering(network, second, "sink-b"), asking(network) as client:
            assert await read_points(client, METRIC) == await read_points(whole, METRIC)
            assert await client.last() == await whole.last()
            # 60 s divide what each of them has, so that no bucket is a part in both.
            for every in (20 * S, MINUTE):
                ours = list((await client.aggregates(METRIC, START_NS, times[-1], every)).rows())
                plain = list((await whole.aggregates(METRIC, START_NS, times[-1], every)).rows())
                assert [row[:7] for row in ours] == [row[:7] for row in plain]
            (most,) = (await client.aggregates(METRIC, MIN_NS, MAX_NS)).rows()
            assert most.count == 6500


async def test_an_archive_that_was_killed_holds_up_the_other_once(quick_network: str) -> None:
    archive = await filled(["web1.a", METRIC])
    waited: list[float] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(history_link, "OTHERS_PATIENCE_S", 0.5)
        async with answering(quick_network, archive), asking(quick_network) as client:
            await client.rpc("db.subscribe", metrics=[METRIC, "web1.a"], data=False)  # of which nothing will come
            for metric in (METRIC, "web1.a", METRIC):
                begin = time.monotonic()
                assert len(await client.history_raw_timeline(metric)) == 3
                waited.append(time.monotonic() - begin)
    assert waited[0] >= 0.5
    assert sum(waited[1:]) < 0.5


async def test_history_is_read_while_the_manager_is_away(memory_url: str) -> None:
    archive = await filled([METRIC])
    async with (
        Manager("manager", memory_url) as manager,
        answering(memory_url, archive),
        asking(memory_url) as client,
    ):
        await manager.stop()
        assert len(await client.history_raw_timeline(METRIC)) == 3


async def test_the_manager_learns_of_new_metrics_and_of_those_that_are_gone(network: str) -> None:
    archive = await filled(["web1.a", "web1.b"])
    async with answering(network, archive) as agent, asking(network) as client:
        times = array("q", [START_NS])
        await archive.insert([Group((f"web1.new{number}",), times, array("d", [1.0])) for number in range(1200)])
        agent.service.notice()
        await until(lambda: _count_is(client, 1202), "that 1202 metrics are known")
        assert await client.history_last_value("web1.new1199") == (Timestamp(START_NS), 1.0)
        del archive._points["web1.a"]
        agent.service.notice()
        await until(lambda: _count_is(client, 1201), "that one is gone")
        with pytest.raises(NotArchived):
            await client.history_last_value("web1.a")


async def _count_is(client: HistoryClient, count: int) -> bool:
    return len(await client.metrics()) == count


async def test_what_an_earlier_archive_of_that_name_kept_is_forgotten(network: str) -> None:
    async with answering(network, await filled(["web1.old", "web1.same"])):
        pass
    async with answering(network, await filled(["web1.same", "web1.new"])), asking(network) as client:

        async def is_forgotten() -> bool:
            return list(await client.metrics()) == ["web1.new", "web1.same"]

        await until(is_forgotten)
        with pytest.raises(NotArchived, match="no archive keeps"):
            await client.history_last_value("web1.old")


async def test_a_manager_that_was_started_on_another_store_learns_it_anew(
    memory_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(history_module, "CHECK_S", 0.1)
    archive = await filled(["web1.a", "web1.b"])
    async with Manager("manager", memory_url, config=ManagerConfig(store=":memory:")):
        agent = Answering("sink-a", memory_url, archive)
        await agent.connect()
        async with asking(memory_url) as client:
            await until(lambda: _count_is(client, 2))
    async with Manager("manager", memory_url, config=ManagerConfig(store=":memory:")), asking(memory_url) as client:
        await until(lambda: _count_is(client, 2))
        assert await client.history_last_value("web1.a")
    await agent.stop()


async def test_an_archive_starts_while_the_manager_is_away_and_says_so_once(
    memory_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with Answering("sink-a", memory_url, await filled([METRIC])):
        await until(lambda: "cannot tell the manager what history there is" in caplog.text)
        async with Manager("manager", memory_url), asking(memory_url) as client:
            await until(lambda: _count_is(client, 1))
            assert await client.history_last_value(METRIC)
    assert caplog.text.count("cannot tell the manager") == 1


async def test_after_a_lost_connection_it_is_told_again(network: str) -> None:
    async with answering(network, await filled([METRIC])) as agent, asking(network) as client:
        await agent.rpc("db.release")  # as if the broker and the manager had lost everything
        with pytest.raises(NotArchived):
            await client.history_last_value(METRIC)
        await break_connection(agent.transport)
        await until(lambda: _count_is(client, 1))
        assert await client.history_last_value(METRIC) == (Timestamp(START_NS + 2 * S), 2.0)


# -- things that go wrong ------------------------------------------------------------------------------------


class Slow(MemoryArchive):
    """Reading waits until the test lets it go on."""

    def __init__(self) -> None:
        super().__init__()
        self.go_on = asyncio.Event()
        self.reading = self.most = 0

    async def points(self, metric: str, start_ns: int = MIN_NS, end_ns: int = MAX_NS) -> AsyncIterator[Chunk]:
        self.reading += 1
        self.most = max(self.most, self.reading)
        try:
            await self.go_on.wait()
            async for page in super().points(metric, start_ns, end_ns):
                yield page
        finally:
            self.reading -= 1


async def slow_archive() -> Slow:
    archive = Slow()
    await archive.insert([Group((METRIC,), array("q", [START_NS]), array("d", [1.0]))])
    return archive


async def test_no_more_than_a_few_are_read_at_once_and_all_are_answered(network: str) -> None:
    archive = await slow_archive()
    async with answering(network, archive), asking(network) as client:
        questions = [asyncio.create_task(client.history_raw_timeline(METRIC)) for _ in range(200)]
        await until(lambda: archive.reading == history_module.AT_ONCE)
        await asyncio.sleep(0.2)
        archive.go_on.set()
        assert [len(chunk) for chunk in await asyncio.gather(*questions)] == [1] * 200
        assert archive.most == history_module.AT_ONCE


async def test_large_requests_of_metricqs_clients_do_not_hold_up_small_ones(quick_network: str) -> None:
    archive = await slow_archive()
    async with answering(quick_network, archive), asking(quick_network) as client, Raw(quick_network) as raw:
        for _ in range(20):
            await raw.ask(METRIC, encode_history_request(HistoryRequest(type=RequestType.FLEX_TIMELINE)))
        await until(lambda: archive.reading == 1)
        assert await client.history_last_value(METRIC) == (Timestamp(START_NS), 1.0)
        assert archive.most == 1
        archive.go_on.set()
        await until(lambda: len(raw.answers) == 20)


async def test_reading_for_too_long_is_an_error(quick_network: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history_module, "ANSWER_TIMEOUT_S", 0.1)
    archive = await slow_archive()
    async with answering(quick_network, archive) as agent, asking(quick_network) as client:
        with pytest.raises(RpcError, match=r"sink-a: web1\.power: reading took more than 0\.1 s: ask for less"):
            await client.history_raw_timeline(METRIC)
        assert archive.reading == 0
        assert (await agent.discover(0.1))["sink-a"]["historyRefused"] == 1


class Raw(Client):
    """Sends whatever it likes to archives, and keeps what comes back."""

    def __init__(self, url: str) -> None:
        super().__init__("raw", url)
        self.answers: list[Delivery] = []

    async def start(self) -> None:
        await super().start()
        self.reply = await self.rpc("history.register")
        await self.transport.consume(Consumption(queue=self.reply["historyQueue"], on_delivery=self.answers.append))

    async def ask(self, metric: str, body: bytes, *, reply: bool = True) -> None:
        await self.transport.publish(
            Message(
                body=body,
                exchange="metricq.history",
                routing_key=metric,
                reply_to=self.reply["historyQueue"] if reply else "",
                correlation_id=f"{metric} {len(self.answers)}",
            )
        )

    async def refusal(self, metric: str, body: bytes) -> str:
        count = len(self.answers)
        await self.ask(metric, body)
        await until(lambda: len(self.answers) > count)
        return decode_history_response(self.answers[-1].message.body).error


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"\xff", "within the number before byte 1"),
        (b"\x20\x09", "9 is not a type of history request"),
        (b'{"function": "history"}', "not the number of a field|wire type|is cut off"),
        (bytes(100_000), "0 is not the number of a field"),
        (encode_history_request(HistoryRequest(start_time=9, end_time=5, limit=1)), "ends at 5 ns, before it begins"),
        (encode_history_request(HistoryRequest(interval_max=-5)), "interval_max must be at least 0"),
    ],
)
async def test_garbage_is_answered_with_an_error_and_harms_nobody(quick_network: str, body: bytes, words: str) -> None:
    async with answering(quick_network, await filled([METRIC])), Raw(quick_network) as raw:
        assert re.search(words, await raw.refusal(METRIC, body))
        await raw.ask(METRIC, body, reply=False)
        await raw.ask(METRIC, encode_history_request(HistoryRequest(type=RequestType.LAST_VALUE)), reply=False)
        async with asking(quick_network) as client:
            assert await client.history_last_value(METRIC)
        assert len(raw.answers) == 1


class Broken(MemoryArchive):
    """Raises what the test wants."""

    error: Exception | None = None

    async def last(self, pattern: str = "#") -> dict[str, tuple[int, float]]:
        if self.error is not None:
            raise self.error
        return await super().last(pattern)


async def broken_archive() -> Broken:
    archive = Broken()
    await archive.insert([Group((METRIC,), array("q", [START_NS]), array("d", [1.0]))])
    return archive


async def test_an_archive_that_broke_is_opened_again_for_the_next_request(quick_network: str) -> None:
    archive = await broken_archive()
    async with answering(quick_network, archive) as agent, asking(quick_network) as client:
        assert await client.history_last_value(METRIC)
        archive.error = StorageBusy("archive.db is locked")
        with pytest.raises(RpcError, match=r"sink-a: archive\.db is locked"):
            await client.history_last_value(METRIC)
        assert agent.opened == 1
        archive.error = StorageError("archive.db is damaged")
        with pytest.raises(RpcError, match=r"sink-a: archive\.db is damaged"):
            await client.history_last_value(METRIC)
        archive.error = None
        assert await client.history_last_value(METRIC)
        assert agent.opened == 2


async def test_a_mistake_of_ours_is_logged_and_answered(quick_network: str, caplog: pytest.LogCaptureFixture) -> None:
    archive = await broken_archive()
    async with answering(quick_network, archive), asking(quick_network) as client:
        archive.error = ZeroDivisionError("by nought")
        with pytest.raises(RpcError, match=r"sink-a: web1\.power: ZeroDivisionError: by nought"):
            await client.history_last_value(METRIC)
        archive.error = None
        assert await client.history_last_value(METRIC)
    assert [record.levelno for record in caplog.records if record.exc_info] == [logging.ERROR]


async def test_a_request_that_waited_too_long_is_not_answered(
    quick_network: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = await slow_archive()
    async with answering(quick_network, archive) as agent, asking(quick_network, timeout_s=0.3) as client:
        monkeypatch.setattr(history_module, "AT_ONCE", 1)
        running = [asyncio.create_task(client.history_raw_timeline(METRIC)) for _ in range(history_module.PREFETCH)]
        outcomes = await asyncio.gather(*running, return_exceptions=True)
        assert {type(outcome) for outcome in outcomes} == {RpcTimeout}
        monkeypatch.setattr(history_module, "HISTORY_TTL_S", 0.0)
        archive.go_on.set()
        await until(lambda: archive.reading == 0)
        monkeypatch.setattr(history_module, "HISTORY_TTL_S", 60.0)
        assert await client.history_last_value(METRIC)
        assert agent.service.answered <= 1 + 4


async def test_an_answer_is_sent_again_when_the_connection_for_publishing_comes_back_later_than_the_other(
    quick_network: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Seen when the broker was restarted: the request came in before an answer could go out, and was lost.
    monkeypatch.setattr(history_module, "REPLY_RETRY_S", 0.01)
    async with answering(quick_network, await filled([METRIC])) as agent, asking(quick_network) as client:
        publish, failures = agent.transport.publish, 0

        async def fails_at_first(message: Message) -> None:
            nonlocal failures
            if message.routing_key.endswith("-hrsp") and failures < 3:
                failures += 1
                raise NotConnected("not yet")
            await publish(message)

        monkeypatch.setattr(agent.transport, "publish", fails_at_first)
        assert await client.history_last_value(METRIC)
        assert failures == 3


# -- deaths --------------------------------------------------------------------------------------------------


@pytest.mark.timeout(180)
async def test_what_an_archive_was_answering_when_it_was_killed_is_tried_once_more_and_not_for_ever(
    amqp_url: str, tmp_path: Path
) -> None:
    async with Manager("manager", amqp_url), asking(amqp_url, timeout_s=60) as client:
        first = await start_deadly(amqp_url, tmp_path)
        deadly = asyncio.create_task(client.history_raw_timeline(DEADLY))
        assert await asyncio.wait_for(first.wait(), 30) == -9
        second = await start_deadly(amqp_url, tmp_path, wait=False)
        assert await asyncio.wait_for(second.wait(), 30) == -9
        third = await start_deadly(amqp_url, tmp_path)
        assert await client.history_last_value("web1.a") == (Timestamp(START_NS), 1.0)
        assert not deadly.done()
        assert third.returncode is None
        deadly.cancel()
        third.kill()
        await third.wait()


async def start_deadly(url: str, folder: Path, *, wait: bool = True) -> asyncio.subprocess.Process:
    with (folder / "deadly.log").open("a") as log:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "tests.sinks.answering", "sink-deadly", url, stdout=-1, stderr=log
        )
    assert process.stdout is not None
    if wait:
        line = await asyncio.wait_for(process.stdout.readline(), 60)
        assert line == b"ready\n", (folder / "deadly.log").read_text()
    return process


@pytest.mark.timeout(180)
async def test_a_long_answer_goes_on_after_the_broker_was_restarted(rabbitmq: RabbitMq, amqp_url: str) -> None:
    archive = await filled([METRIC], points=5000, page_points=500)
    history_page = 500
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("bus.history.PAGE_POINTS", history_page)
        patch.setattr("bus.transport.amqp_link.HIGHEST_BACKOFF_S", 1.0)
        async with Manager("manager", amqp_url), answering(amqp_url, archive), asking(amqp_url, timeout_s=90) as client:
            values: list[float] = []
            pages = 0
            async for page in client.points(METRIC):
                values += page.values
                pages += 1
                if pages == 4:
                    await asyncio.to_thread(rabbitmq.restart)
            assert values == [float(index) for index in range(5000)]
            assert pages == 10


async def test_the_loop_is_not_held_up_by_a_long_answer(quick_network: str) -> None:
    # Irregular times take longest: without a thread, a second of nothing else.
    times = array("q", [START_NS + second * S + second * 7919 % 1_000_003 for second in range(800_000)])
    archive = Columns(times, array("d", bytes(8 * len(times))))
    async with answering(quick_network, archive), Raw(quick_network) as raw:
        beats = 0

        async def beat() -> None:
            nonlocal beats
            while True:
                await asyncio.sleep(0.001)
                beats += 1

        task = asyncio.create_task(beat())
        points_read = archive.points

        def noted(metric: str, start_ns: int = MIN_NS, end_ns: int = MAX_NS) -> AsyncIterator[Chunk]:
            nonlocal beats
            beats = 0
            return points_read(metric, start_ns, end_ns)

        archive.points = noted  # type: ignore[method-assign]
        await raw.ask(METRIC, encode_history_request(HistoryRequest(type=RequestType.FLEX_TIMELINE)))
        await until(lambda: bool(raw.answers))
        task.cancel()
        assert len(decode_history_response(raw.answers[0].message.body).times) == len(times)
        assert beats > 5


async def test_the_example_shows_the_last_hour_minute_by_minute(amqp_url: str) -> None:
    minute = (time.time_ns() - 600 * S) // MINUTE * MINUTE
    archive = MemoryArchive()
    times = array("q", range(minute, minute + 2 * MINUTE, S))
    await archive.insert([Group((METRIC,), times, array("d", range(120)))])
    async with Manager("manager", amqp_url), answering(amqp_url, archive):
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            str(Path(__file__).parents[2] / "examples" / "last_hour.py"),
            "web1.*",
            env={**os.environ, "HOSTBUS_SERVER": amqp_url},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        output, _ = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode == 0, output
    assert [line.split()[1:5] for line in output.decode().splitlines()] == [
        [METRIC, "0", "30", "59"],
        [METRIC, "60", "89.5", "119"],
    ]
