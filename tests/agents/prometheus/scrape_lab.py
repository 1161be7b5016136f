# SPDX-License-Identifier: MIT
"""A client side for tests of scraping."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from agents.foreign.samples import Sample
from agents.prometheus.endpoint import Endpoint
from agents.prometheus.scrape import Scraper, open_session

METRICS = '# TYPE m gauge\nm{a="b"} 1.5 1790000000000\nn 2\n'
SOON_S = 20.0


class Probe:
    """Scrapes with a session of its own, and lets go of everything."""

    def __init__(self) -> None:
        self.session = open_session()
        self.scrapers: list[Scraper] = []

    def scraper(self, url: str, **settings: object) -> Scraper:
        made = Scraper(Endpoint(url=url, **settings), owner="test", longest=160)  # type: ignore[arg-type]
        self.scrapers.append(made)
        return made

    async def __call__(self, url: str, **settings: object) -> list[Sample]:
        return await self.scraper(url, **settings).scrape(self.session, SOON_S)

    async def aclose(self) -> None:
        for scraper in self.scrapers:
            scraper.close()
        await self.session.close()


@asynccontextmanager
async def probing() -> AsyncIterator[Probe]:
    """A probe that leaves nothing behind."""
    made = Probe()
    try:
        yield made
    finally:
        await made.aclose()
