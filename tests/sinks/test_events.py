# SPDX-License-Identifier: MIT
"""Events of archives on the bus: added, listed, refused."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

import bus.events
from bus.archive import Event
from bus.errors import RpcError
from bus.history import HistoryClient
from bus.manager import Manager
from sinks.sqlite import SqliteConfig, SqliteSink
from tests.bus.support import START_NS, HandSource, until

S = 10**9
RUN = Event(time=START_NS, end=START_NS + 5 * S, label="make", source="run", host="web1", metadata={"exit_code": 3})


@pytest.fixture(autouse=True)
def in_a_hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bus.events, "DISCOVER_S", 0.3)


@pytest.fixture
async def client(any_url: str, tmp_path: Path) -> AsyncIterator[HistoryClient]:
    """Two archives, one of web1's metrics and one of all, and who asks them."""
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(Manager("manager", any_url))
        sinks = []
        for token, metrics in (("sink-web", ["web1.#"]), ("sink-all", ["#"])):
            config = SqliteConfig(path=str(tmp_path / f"{token}.db"), batch_age=0, metrics=metrics)
            sinks.append(await stack.enter_async_context(SqliteSink(token, any_url, config=config)))
        for host in ("web1", "web2"):
            source = await stack.enter_async_context(HandSource(f"source-{host}", any_url, prefix=host))
            await source.declare_metrics({f"{host}.a": {}})
            source.tick(0, {f"{host}.a": 1.0})
        await until(lambda: [sink.points_stored for sink in sinks] == [1, 2])
        yield await stack.enter_async_context(HistoryClient("asker", any_url, timeout_s=5.0))


async def test_an_event_goes_to_the_archives_that_keep_its_metrics_and_is_listed_once(client: HistoryClient) -> None:
    assert await client.add_event(RUN, ["web3.#", "web1.*"]) == ["sink-all", "sink-web"]
    other = Event(time=START_NS - S, label="deploy")
    assert await client.add_event(other, ["web2.a"]) == ["sink-all"]
    assert await client.add_event(RUN, ["web3.#"]) == []
    assert await client.events() == [other, RUN]
    assert await client.events(START_NS + 4 * S, START_NS + 9 * S) == [RUN]
    assert await client.events(START_NS + 6 * S) == []
    assert await client.events(source="run") == [RUN]


@pytest.mark.parametrize(
    ("event", "said"),
    [
        (Event(time=2**63, label="x"), "no range of ns since 1970"),
        (Event(time=5, end=4, label="x"), "no range of ns since 1970"),
        (Event(time=1, label=7), "label"),  # type: ignore[arg-type]
    ],
)
async def test_an_event_that_is_none_is_refused_with_what_is_wrong(
    client: HistoryClient, event: Event, said: str
) -> None:
    with pytest.raises(RpcError, match=f"^sink-all: .*{said}"):
        await client.add_event(event, ["#"])
    assert await client.events() == []
