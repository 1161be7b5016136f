# SPDX-License-Identifier: MIT
"""One endpoint, scraped over HTTP from a server that does what servers should not do."""

import asyncio
import base64
import gzip
import re
import socket
import tracemalloc
from pathlib import Path

import pytest

from agents.prometheus import scrape
from agents.prometheus.access import ScrapeError
from agents.prometheus.scrape import unpack
from tests.agents.prometheus.scrape_lab import METRICS, SOON_S, Probe
from tests.services.exporter import Exporter, Request, exporter, packed, response


def url_of(server: Exporter) -> str:
    return f"http://{server.address}/metrics"


async def refusal(probe: Probe, server: Exporter, **settings: object) -> str:
    """Why the scrape failed."""
    with pytest.raises(ScrapeError) as caught:
        await probe(url_of(server), **settings)
    text = str(caught.value)
    assert text.startswith(f"{server.address} ")
    return text.removeprefix(f"{server.address} ")


# -- what goes well ------------------------------------------------------------------------------------


async def test_a_scrape_gives_samples(probe: Probe, server: Exporter) -> None:
    samples = await probe(url_of(server))
    assert [(sample.name, sample.value) for sample in samples] == [("m.a_b", 1.5), ("n", 2.0)]
    assert samples[0].time is not None


async def test_what_a_request_asks_for(probe: Probe, server: Exporter) -> None:
    await probe(f"http://{server.address}/probe?target=x")
    (request,) = server.requests
    assert request[""] == "GET /probe?target=x HTTP/1.1"
    assert request["accept"] == "text/plain;version=0.0.4,application/openmetrics-text;version=1.0.0;q=0.5"
    assert (request["accept-encoding"], request["x-prometheus-scrape-timeout-seconds"]) == ("gzip", "20")
    assert (request["host"], "authorization" in request) == (server.address, False)


async def test_a_connection_stays_open_for_the_next_scrape(probe: Probe, server: Exporter) -> None:
    scraper = probe.scraper(url_of(server))
    for _ in range(3):
        await scraper.scrape(probe.session, SOON_S)
    assert (server.connections, len(server.requests)) == (1, 3)


async def test_a_connection_that_the_server_closed_meanwhile_is_made_anew(probe: Probe, server: Exporter) -> None:
    scraper = probe.scraper(url_of(server))
    await scraper.scrape(probe.session, SOON_S)
    server.end()
    assert len(await scraper.scrape(probe.session, SOON_S)) == 2


async def test_an_answer_may_be_packed(probe: Probe, server: Exporter) -> None:
    server.answer = packed(METRICS)
    assert len(await probe(url_of(server))) == 2


@pytest.mark.parametrize("kind", ["", "text/plain", "Text/Plain; version=1.0.0"])
async def test_plain_text_is_the_text_format(probe: Probe, server: Exporter, kind: str) -> None:
    server.answer = response(METRICS, kind=kind)
    assert len(await probe(url_of(server))) == 2


async def test_openmetrics_is_told_by_its_content_type(probe: Probe, server: Exporter) -> None:
    server.answer = response("m 1 5.5\n# EOF\n", kind="application/openmetrics-text; version=1.0.0; charset=utf-8")
    (sample,) = await probe(url_of(server))
    assert sample.time is not None
    assert sample.time.posix_ns == 5_500_000_000


async def test_of_openmetrics_that_makes_no_sense_the_text_format_is_asked_for(probe: Probe, server: Exporter) -> None:
    async def stubborn(request: Request, writer: asyncio.StreamWriter) -> None:
        openmetrics = "openmetrics" in request["accept"]
        kind = "application/openmetrics-text" if openmetrics else "text/plain"
        writer.write(response("# TYPE m counter\nm 1\n", kind=kind))

    server.behaviour = stubborn
    scraper = probe.scraper(url_of(server))
    with pytest.raises(ScrapeError, match="answered what makes no sense: line 2, 'm 1': Clashing name: m"):
        await scraper.scrape(probe.session, SOON_S)
    assert [sample.name for sample in await scraper.scrape(probe.session, SOON_S)] == ["m"]


async def test_times_are_kept_only_if_they_are_to_be(probe: Probe, server: Exporter) -> None:
    samples = await probe(url_of(server), honor_timestamps=False)
    assert [sample.time for sample in samples] == [None, None]


async def test_only_wanted_names_are_taken(probe: Probe, server: Exporter) -> None:
    assert [sample.name for sample in await probe(url_of(server), include=["n*", "m"], exclude=["m*"])] == ["n"]


async def test_a_proxy_of_the_environment_is_not_asked(probe: Probe, server: Exporter, monkeypatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    assert len(await probe(url_of(server))) == 2


async def test_secrets_go_into_the_header(probe: Probe, server: Exporter, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("abc\n")
    (tmp_path / "password").write_text("xyz\n")
    await probe(url_of(server), token_file=str(tmp_path / "token"))
    await probe(url_of(server), user="me", password_file=str(tmp_path / "password"))
    basic = base64.b64encode(b"me:xyz").decode()
    assert [request["authorization"] for request in server.requests] == ["Bearer abc", f"Basic {basic}"]


# -- what goes wrong -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "message"),
    [
        ("401 Unauthorized", "answered 401 Unauthorized: give user and password_file, or token_file"),
        ("403 Forbidden", "answered 403 Forbidden: its user or token may not read metrics"),
        ("404 Not Found", "answered 404 Not Found: is the path right?"),
        ("500 Internal Server Error", "answered 500 Internal Server Error"),
        ("204 No Content", "answered 204 No Content"),
    ],
)
async def test_an_answer_that_is_not_200_is_said(probe: Probe, server: Exporter, status: str, message: str) -> None:
    server.answer = response("no 1\n" if not status.startswith("204") else "", status=status)
    assert await refusal(probe, server) == message


async def test_a_redirection_is_named_and_not_followed(probe: Probe, server: Exporter, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("abc")
    async with exporter() as other:
        there = f"http://me:hunter2@{other.address}/x?key=hunter2"
        server.answer = response("", status="302 Found", location=there)
        text = await refusal(probe, server, token_file=str(tmp_path / "token"))
        assert text == (
            f"answered 302, which points elsewhere: give the URL that is meant, perhaps 'http://{other.address}/x'"
        )
        assert other.requests == []


@pytest.mark.parametrize("kind", ["text/html; charset=utf-8", "application/json", "application/vnd.google.protobuf"])
async def test_an_answer_of_another_kind_is_refused(probe: Probe, server: Exporter, kind: str) -> None:
    server.answer = response("m 1\n", kind=kind)
    text = await refusal(probe, server)
    assert text.startswith(f"answered with '{kind.partition(';')[0]}', not with text/plain")


async def test_an_encoding_that_was_not_asked_for_is_refused(probe: Probe, server: Exporter) -> None:
    server.answer = response("m 1\n", content_encoding="br")
    assert "the encoding 'br', not in gzip" in await refusal(probe, server)


async def test_garbage_is_refused_with_the_line(probe: Probe, server: Exporter) -> None:
    server.say("m 1\n<html>\n")
    assert re.match(r"answered what makes no sense: line 2, '<html>'", await refusal(probe, server))


@pytest.mark.parametrize(
    "answer",
    [
        b"\x16\x03\x01garbage\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"x" * 99999 + b"\r\n\r\n",
    ],
)
async def test_what_is_not_http_is_said(probe: Probe, server: Exporter, answer: bytes) -> None:
    server.answer = answer
    assert "answered what is not HTTP" in await refusal(probe, server)


async def test_a_server_that_hangs_up_is_said(probe: Probe, server: Exporter) -> None:
    async def hang_up(request: Request, writer: asyncio.StreamWriter) -> None:
        writer.close()

    server.behaviour = hang_up
    assert await refusal(probe, server) == "closed the connection without an answer"


async def test_a_server_that_is_killed_in_the_middle_is_said(probe: Probe, server: Exporter) -> None:
    async def die(request: Request, writer: asyncio.StreamWriter) -> None:
        writer.write(response(METRICS * 1000)[:5000])
        await writer.drain()
        writer.close()

    server.behaviour = die
    assert await refusal(probe, server) == "broke off in the middle of its answer"


async def test_nobody_there_is_said(probe: Probe) -> None:
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        where = f"127.0.0.1:{reserved.getsockname()[1]}"
        with pytest.raises(ScrapeError, match=f"^{where} cannot be reached: Connection refused$"):
            await probe(f"http://{where}/metrics")


async def test_a_host_that_does_not_exist_is_said(probe: Probe, monkeypatch) -> None:
    def nothing(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", nothing)
    with pytest.raises(ScrapeError, match=r"^nowhere\.invalid:80 is not known to the DNS$"):
        await probe("http://nowhere.invalid/metrics")


@pytest.mark.parametrize("whole", [b"", response("m 1\n" * 100)[:150]])
async def test_a_server_that_is_slow_is_given_up_and_its_connection_closed(
    probe: Probe, server: Exporter, whole: bytes
) -> None:
    async def drip(request: Request, writer: asyncio.StreamWriter) -> None:
        writer.write(whole)
        await asyncio.sleep(60)

    server.behaviour = drip
    scraper = probe.scraper(url_of(server))
    with pytest.raises(ScrapeError, match=r"did not answer within 0\.05 s$"):
        await scraper.scrape(probe.session, 0.05)
    assert probe.session.connector is not None
    assert not probe.session.connector._acquired


async def test_an_endless_answer_is_cut_off(probe: Probe, server: Exporter) -> None:
    sent = 0

    async def flood(request: Request, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\n")
        while True:
            writer.write(b"m 1\n" * 4096)
            await writer.drain()
            sent += 16384

    server.behaviour = flood
    assert await refusal(probe, server, max_size=100_000) == "answered more than max_size, 100000 bytes"
    async with asyncio.timeout(SOON_S):
        while server.open_connections:
            await asyncio.sleep(0.01)
    assert sent < 2**25


async def test_what_gets_too_large_when_unpacked_is_refused(probe: Probe, server: Exporter) -> None:
    server.answer = response(gzip.compress(b"#" * 10_000_000), content_encoding="gzip")
    text = await refusal(probe, server, max_size=1_000_000)
    assert text == "answered what makes no sense: more than max_size, 1000000 bytes, when unpacked"


def test_unpacking_makes_no_more_than_the_limit() -> None:
    data = gzip.compress(b"x" * 1000)
    assert unpack(data, 1000) == b"x" * 1000
    with pytest.raises(ValueError, match="more than max_size, 999 bytes"):
        unpack(data, 999)
    with pytest.raises(ValueError, match="cut off"):
        unpack(data[:-1], 1000)
    with pytest.raises(ValueError, match="is not"):
        unpack(b"m 1\n", 1000)


def test_what_gets_too_large_when_unpacked_costs_no_memory() -> None:
    bomb = gzip.compress(bytes(30_000_000))
    tracemalloc.start()
    with pytest.raises(ValueError, match="more than max_size"):
        unpack(bomb, 1_000_000)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 4_000_000


async def test_too_many_samples_are_refused(probe: Probe, server: Exporter) -> None:
    assert "more than 1 samples" in await refusal(probe, server, max_samples=1)


async def test_what_takes_too_long_to_parse_is_given_up(probe: Probe, server: Exporter, monkeypatch) -> None:
    release = asyncio.get_running_loop().create_future()

    def slow(packed: bytes, limit: int) -> bytes:
        asyncio.run_coroutine_threadsafe(asyncio.wait_for(release, SOON_S), release.get_loop()).result()
        return packed

    monkeypatch.setattr(scrape, "unpack", slow)
    server.answer = packed(METRICS)
    scraper = probe.scraper(url_of(server))
    with pytest.raises(ScrapeError, match=r"answered what could not be parsed within 0\.2 s"):
        await scraper.scrape(probe.session, 0.2)
    release.set_result(None)


async def test_what_was_closed_is_not_scraped_any_more(probe: Probe, server: Exporter) -> None:
    scraper = probe.scraper(url_of(server))
    scraper.close()
    with pytest.raises(ScrapeError, match="is no longer scraped"):
        await scraper.scrape(probe.session, SOON_S)
