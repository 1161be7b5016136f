# SPDX-License-Identifier: MIT
"""Debian's Chromium without a window, driven by Playwright: pages that say what went wrong in them."""

import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Literal

from playwright.async_api import Browser, Page, async_playwright


class NoChromium(Exception):
    """There is none to be had here; says how to get one."""


@dataclass
class Watched:
    """A page, what it complained about, and what it asked the network for."""

    page: Page
    errors: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)


@asynccontextmanager
async def chromium() -> AsyncIterator[Browser]:
    """A browser with a profile of its own. Raises NoChromium if the package is not installed."""
    program = shutil.which("chromium")
    if program is None:
        raise NoChromium("no chromium for the tests: install it (sudo apt install chromium)")
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        try:
            yield browser
        finally:
            await browser.close()


@asynccontextmanager
async def watched(browser: Browser, *, scheme: Literal["light", "dark"] = "light") -> AsyncIterator[Watched]:
    """A page for which the user prefers light or dark."""
    context = await browser.new_context(color_scheme=scheme, viewport={"width": 1200, "height": 800})
    found = Watched(await context.new_page())
    found.page.on("pageerror", lambda error: found.errors.append(str(error)))
    found.page.on("console", lambda message: found.errors.append(f"{message.type}: {message.text}"))
    found.page.on("request", lambda request: found.requests.append(request.url))
    try:
        yield found
    finally:
        await context.close()
