# SPDX-License-Identifier: MIT
"""MetricQ's own history client, unchanged, asks our archive through our manager."""

from array import array
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from bus.client import Client
from bus.frame import Group
from bus.manager import Manager
from sinks import history_answers
from sinks.sqlite import SqliteConfig, SqliteSink
from sinks.sqlite.archive import SqliteArchive
from tests.bus.support import START_NS, until
from tests.interop.clients import Stock, StockClients

METRIC = "ours.node1.power"
S = 10**9
MINUTE = 60 * S
START = START_NS // MINUTE * MINUTE

pytestmark = pytest.mark.timeout(300)  # the first test may have to install MetricQ and start RabbitMQ


@pytest.fixture
async def asker(amqp_url: str, stock: StockClients, tmp_path: Path) -> AsyncIterator[Stock]:
    """A stock history client in a network with an archive of ours: 300 points, one a second, 0 to 299."""
    path = tmp_path / "archive.db"
    async with await SqliteArchive.open(path) as archive:
        times = array("q", [START + second * S for second in range(300)])
        await archive.insert([Group((METRIC,), times, array("d", range(300)))])
    async with (
        Manager("manager", amqp_url),
        SqliteSink("sink-archive", amqp_url, config=SqliteConfig(path=str(path))),
        Client("tool", amqp_url) as tool,
    ):

        async def is_known() -> bool:
            return METRIC in await tool.get_metrics(historic=True)

        await until(is_known)
        yield await stock.start("stock_history", "history-stock", amqp_url)


async def asked(client: Stock, words: str) -> dict[str, Any]:
    client.order(words)
    return await client.hear()


async def test_metricqs_history_client_gets_all_that_it_can_ask_for(asker: Stock) -> None:
    found = await asked(asker, "metrics ours.*")
    assert found["metrics"][METRIC]["historic"] is True

    assert await asked(asker, f"last {METRIC}") == {"last": [START + 299 * S, 299.0]}

    raw = (await asked(asker, f"raw {METRIC}"))["raw"]
    assert raw == [[START + second * S, float(second)] for second in range(300)]
    raw = (await asked(asker, f"raw {METRIC} {START + 10 * S} {START + 12 * S}"))["raw"]
    assert raw == [[START + 10 * S, 10.0], [START + 11 * S, 11.0]]

    whole = (await asked(asker, f"aggregate {METRIC}"))["aggregate"]
    assert (whole["count"], whole["sum"], whole["minimum"], whole["maximum"]) == (300, 44850.0, 0.0, 299.0)
    assert whole["active_ns"] == 299 * S
    assert whole["integral_s"] == 44850.0
    part = (await asked(asker, f"aggregate {METRIC} {START + MINUTE} {START + 2 * MINUTE}"))["aggregate"]
    assert (part["count"], part["mean"], part["active_ns"]) == (60, 89.5, MINUTE)

    timeline = (await asked(asker, f"timeline {METRIC} {START} {START + 5 * MINUTE} {MINUTE}"))["timeline"]
    assert [(row["time"], row["count"], row["minimum"], row["maximum"]) for row in timeline] == [
        (START + minute * MINUTE, 60, 60.0 * minute, 60.0 * minute + 59) for minute in range(5)
    ]
    assert await asked(asker, f"flex {METRIC} 0 0 {S}") == {"flex": "VALUES", "length": 300}
    assert await asked(asker, f"flex {METRIC} 0 0 {MINUTE}") == {"flex": "AGGREGATES", "length": 5}
    await asker.end()


async def test_it_gets_answers_that_say_that_there_is_nothing(asker: Stock) -> None:
    nothing = (await asked(asker, f"aggregate {METRIC} 1000 2000"))["aggregate"]
    assert (nothing["time"], nothing["count"], nothing["active_ns"]) == (1000, 0, 0)
    assert await asked(asker, f"raw {METRIC} 1000 2000") == {"raw": []}
    assert await asked(asker, f"timeline {METRIC} 1000 2000 {MINUTE}") == {"timeline": []}
    await asker.end()


async def test_it_is_told_why_it_gets_no_answer(asker: Stock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history_answers, "MAX_POINTS", 299)
    error = (await asked(asker, f"raw {METRIC}"))["error"]
    assert "more than 299 points in this range" in error
    assert "aggregates with an interval_max of 10s or more" in error
    error = (await asked(asker, f"aggregate {METRIC} 2000 1000"))["error"]
    assert "the range ends at 1000 ns, before it begins at 2000 ns" in error
    assert await asked(asker, f"last {METRIC}") == {"last": [START + 299 * S, 299.0]}
    await asker.end()
