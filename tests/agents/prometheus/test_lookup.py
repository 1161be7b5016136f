# SPDX-License-Identifier: MIT
import asyncio
import socket
import threading
from typing import Any

import pytest

from agents.prometheus import lookup
from tests.agents.prometheus.scrape_lab import SOON_S, Probe
from tests.services.exporter import Exporter


async def test_names_that_hang_in_the_dns_hold_up_no_other(probe: Probe, server: Exporter, monkeypatch) -> None:
    release = threading.Event()
    real = socket.getaddrinfo

    def look_up(host: str, *arguments: Any, **options: Any) -> Any:
        if host.startswith("hang"):
            release.wait()
        return real("localhost", *arguments, **options)

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    hanging = [probe.scraper(f"http://hang{number}.invalid/").scrape(probe.session, SOON_S) for number in range(50)]
    tasks = [asyncio.create_task(each) for each in hanging]
    assert len(await probe(f"http://web1.invalid:{server.port}")) == 2
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    release.set()


async def test_a_name_that_hangs_in_the_dns_is_given_up(monkeypatch) -> None:
    release = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: release.wait())
    monkeypatch.setattr(lookup, "LOOKUP_S", 0.05)
    with pytest.raises(OSError, match=r"look up web1 did not answer within 0\.05 s"):
        await lookup.look_up("web1", 80, socket.AF_INET)
    release.set()
