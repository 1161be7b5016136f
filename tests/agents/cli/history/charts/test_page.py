# SPDX-License-Identifier: MIT
"""The file that a page is: what is in it, how it is written, and what a browser makes of it."""

import asyncio
import json
import math
import re
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest
from playwright.async_api import Page

from agents.cli.history.charts.page import Picture, check_target, page, write_page
from agents.cli.history.charts.series import Series
from bus.archive import Event
from bus.errors import StorageError
from tests.agents.cli.history.recorded import NS, T0, points, steps, time_zone
from tests.services.chromium import watched

EVIL = "</script><script>document.title = 'owned'</script><b>&lt;x&gt;</b> %{x} ${y}"
CPU = steps({0: (10, 20, 30), 60: (15, 30, 40), 300: (20, 25, 60), 360: (5, 6, 7)}, step_s=60)
NETWORK = points({0: 1e6, 10: 2e6, 20: math.nan, 30: 3e6, 400: 2.5e6}, "web1.network.eth0.rx_bytes", "B/s", hold_s=30)


def picture(*series: Series, events: tuple[Event, ...] = ()) -> Picture:
    return Picture(series=series or (CPU, NETWORK), events=events, start_ns=T0, end_ns=T0 + 420 * NS)


@contextmanager
def files_up_to(size: int) -> Iterator[None]:
    """As if the disk were full after so many bytes of a file."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_page_needs_nothing_but_itself():
    text = page(picture())
    tags = re.findall(
        r"<(?:script|link|img|iframe)[^>]*>", text.replace(text[text.index("/**") : text.rindex("<script>")], "")
    )
    assert all("src=" not in tag and "href=" not in tag for tag in tags)
    assert "default-src 'none'" in text
    assert 4e6 < len(text) < 6e6


def test_what_others_wrote_can_mean_nothing_in_a_page():
    series = replace(NETWORK, unit=EVIL, description=EVIL)
    text = page(picture(series, events=(Event(time=T0, label=EVIL, color=EVIL, dash=EVIL),)))
    assert "<script>document" not in text
    assert text.count("</script>") == 3
    data = json.loads(text.split('id="data">')[1].split("</script>")[0])
    assert data["events"][0]["label"] == data["series"][0]["unit"] == EVIL


def test_times_are_those_of_the_local_clock(monkeypatch):
    with time_zone(monkeypatch, "Asia/Kolkata"):
        text = page(picture())
    data = json.loads(text.split('id="data">')[1].split("</script>")[0])
    assert data["series"][0]["times"][0] == T0 / 1e6 + 5.5 * 3600e3
    assert data["zone"] == "UTC+05:30"
    assert "2026-11-21 05:30:00 to 2026-11-21 05:37:00 UTC+05:30" in text


def test_a_file_is_replaced_all_or_nothing(tmp_path):
    file = tmp_path / "page.html"
    write_page(file, picture())
    before = file.read_text()
    with files_up_to(1_000_000), pytest.raises(StorageError, match=r"page\.html: cannot be written: File too large"):
        write_page(file, picture(NETWORK))
    assert file.read_text() == before
    write_page(file, picture(NETWORK))
    assert file.read_text() != before
    assert [found.name for found in tmp_path.iterdir()] == ["page.html"]


def test_a_link_to_a_file_stays_one(tmp_path):
    link, file = tmp_path / "link.html", tmp_path / "page.html"
    link.symlink_to(file)
    write_page(link, picture(NETWORK))
    assert link.is_symlink()
    assert file.read_text().startswith("<!doctype html>")


def test_a_place_where_no_file_can_be_is_known_before_anything_is_read(tmp_path):
    with pytest.raises(StorageError, match=rf"there is no directory {tmp_path}/nowhere"):
        check_target(tmp_path / "nowhere" / "page.html")
    with pytest.raises(StorageError, match="is not a file"):
        check_target(tmp_path)
    check_target(tmp_path / "page.html")


TRACES = """() => chart.data.map((trace) => ({
    name: trace.name, mode: trace.mode, axis: trace.yaxis, x: trace.x, y: trace.y, fill: trace.fill,
}))"""


async def test_a_browser_draws_lines_bands_holes_and_events(browser, tmp_path):
    file = tmp_path / "page.html"
    events = (
        Event(time=T0 + 90 * NS, label=EVIL, color="#ff0000", dash="dot"),
        Event(time=T0 - 60 * NS, end=T0 + 60 * NS, label="backup", color="rgb(0, 0, 255)", dash="no dash"),
    )
    write_page(file, picture(events=events))
    async with watched(browser) as web:
        await web.page.goto(file.as_uri())
        await web.page.wait_for_selector("#chart .scatterlayer .trace")
        band, mean, line, alone = await web.page.evaluate(TRACES)
        zone_ms = mean["x"][0] - T0 / 1e6
        assert [(x - zone_ms) / 1e3 - T0 / NS for x in mean["x"]] == [0, 60, 120, 120, 300, 360, 420, 420]
        assert mean["y"] == [20, 30, 30, None, 25, 6, 6, None]
        assert (band["fill"], band["y"]) == (
            "toself",
            [30, 30, 40, 40, 15, 15, 10, 10, None, 60, 60, 7, 7, 5, 5, 20, 20, None],
        )
        assert line["y"] == [1e6, 2e6, None, 3e6, None, 2.5e6, None]
        assert (alone["mode"], alone["y"]) == ("markers", [3e6, 2.5e6])
        assert (mean["axis"], line["axis"]) == ("y", "y2")
        assert await web.page.locator("#chart .scatterlayer .trace path.js-line").count() >= 2
        # The events, as they are drawn
        mark, span = await web.page.evaluate(
            "[...document.querySelectorAll('#chart .shapelayer path')].map((path) => path.getAttribute('style'))"
        )
        styles = " ".join([mark, span])
        assert "255, 0, 0" in styles
        assert "0, 0, 255" in styles
        shown = await web.page.locator("#chart .annotation-text").all_text_contents()
        assert sorted(shown) == sorted([EVIL[:27] + "…", "backup"])
        assert "owned" not in await web.page.title()
        assert web.errors == []
        assert web.requests == [file.as_uri()]


async def until(page: Page, fact: str) -> None:
    """Until an expression is true. The page forbids what Playwright's own waiting for functions needs."""
    async with asyncio.timeout(20):
        while not await page.evaluate(fact):
            await asyncio.sleep(0.02)


async def test_a_page_is_pointed_at_zoomed_thinned_out_and_recoloured(browser, tmp_path):
    file = tmp_path / "page.html"
    write_page(file, picture())
    async with watched(browser, scheme="light") as web:
        await web.page.goto(file.as_uri())
        box = await web.page.locator("#chart .nsewdrag").first.bounding_box()
        assert box is not None
        at = {part: box["x"] + box["width"] * part for part in (0.01, 0.6)}
        await web.page.mouse.move(at[0.01], box["y"] + 50)
        hover = web.page.locator("#chart .hoverlayer .legendtext", has_text="web1.cpu.usage")
        assert await hover.text_content() == "web1.cpu.usage: 20 (10 to 30, 60 values)"
        await web.page.mouse.down()
        await web.page.mouse.move(at[0.6], box["y"] + 50, steps=3)
        await web.page.mouse.up()
        await web.page.locator("#chart .legend .legendtoggle").last.click()
        await until(web.page, "chart._fullData[2].visible === 'legendonly'")
        zoomed = await web.page.evaluate("chart._fullLayout.xaxis.range")
        whole = await web.page.evaluate("JSON.parse(document.getElementById('data').textContent).range")
        ground = "getComputedStyle(document.body).backgroundColor"
        assert await web.page.evaluate(ground) == "rgb(255, 255, 255)"
        await web.page.emulate_media(color_scheme="dark")
        await until(web.page, "chart._fullLayout.font.color === '#dce3ea'")
        assert await web.page.evaluate(ground) == "rgb(20, 24, 29)"
        assert zoomed != whole
        assert await web.page.evaluate("chart._fullLayout.xaxis.range") == zoomed
        assert await web.page.evaluate("chart._fullData[2].visible") == "legendonly"
        assert await web.page.locator(".modebar-btn").count() > 3
        assert await web.page.locator(".modebar-btn[data-title*='Share']").count() == 0
        assert web.errors == []
        assert web.requests == [file.as_uri()]


async def test_a_script_that_is_not_ours_does_not_run_and_nothing_is_fetched(browser, tmp_path):
    file = tmp_path / "page.html"
    evil = "<script>document.title = 'owned'</script><img src=http://127.0.0.1:9/x onerror=document.title='owned'>"
    file.write_text(page(picture()).replace("<body>", f"<body>{evil}"))
    async with watched(browser) as web:
        await web.page.goto(file.as_uri())
        await web.page.wait_for_selector("#chart .scatterlayer .trace")
        assert await web.page.title() == "web1.cpu.usage, web1.network.eth0.rx_bytes"
        assert len([error for error in web.errors if "Content Security Policy" in error]) >= 2
