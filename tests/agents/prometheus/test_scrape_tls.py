# SPDX-License-Identifier: MIT
"""Endpoints over TLS."""

import asyncio
import os
import shutil
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from agents.prometheus.access import AccessFiles, ScrapeError
from agents.prometheus.endpoint import Endpoint
from tests.agents.prometheus.scrape_lab import METRICS, SOON_S, Probe, probing
from tests.services.certificates import make_certificate, server_context
from tests.services.exporter import exporter


@pytest.fixture
async def probe() -> AsyncIterator[Probe]:
    async with probing() as made:
        yield made


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a certificate that only itself vouches for."""
    if shutil.which("openssl") is None:
        pytest.skip("needs the openssl command")
    return make_certificate(tmp_path_factory.mktemp("tls"))


async def test_a_certificate_is_checked_against_the_ca_file(probe: Probe, authority: Path) -> None:
    async with exporter(tls=server_context(authority)) as server:
        server.say(METRICS)
        scraper = probe.scraper(f"https://localhost:{server.port}", ca_file=str(authority / "cert.pem"))
        for _ in range(2):
            assert len(await scraper.scrape(probe.session, SOON_S)) == 2
        assert server.connections == 1


async def test_a_certificate_that_nobody_vouches_for_is_refused(probe: Probe, authority: Path, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("abc")
    async with exporter(tls=server_context(authority)) as server:
        with pytest.raises(ScrapeError, match=r"certificate that is not trusted \(self.signed certificate\): name who"):
            await probe(f"https://localhost:{server.port}", token_file=str(tmp_path / "token"))
        assert server.requests == []


async def test_a_certificate_for_another_name_is_refused(probe: Probe, authority: Path) -> None:
    async with exporter(tls=server_context(authority)) as server:
        with pytest.raises(ScrapeError, match=r"is not trusted \(IP address mismatch"):
            await probe(f"https://127.0.0.1:{server.port}", ca_file=str(authority / "cert.pem"))
        assert server.requests == []


async def test_a_server_may_ask_for_a_certificate(probe: Probe, authority: Path) -> None:
    context = server_context(authority)
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(authority / "cert.pem")
    trust = {"ca_file": str(authority / "cert.pem")}
    async with exporter(tls=context) as server:
        server.say(METRICS)
        url = f"https://localhost:{server.port}"
        with pytest.raises(ScrapeError):
            await probe(url, **trust)
        own = {"cert_file": str(authority / "cert.pem"), "key_file": str(authority / "key.pem")}
        assert len(await probe(url, **trust, **own)) == 2


async def test_tls_to_a_server_without_it_is_said(probe: Probe) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(ScrapeError, match=f"^127.0.0.1:{port} does not agree on TLS: "):
            await probe(f"https://127.0.0.1:{port}")


def test_certificates_are_loaded_again_when_a_file_has_changed(authority: Path, tmp_path: Path) -> None:
    path = tmp_path / "ca.pem"
    path.write_bytes((authority / "cert.pem").read_bytes())
    files = AccessFiles(Endpoint(url="https://web1", ca_file=str(path)))
    first = files.read().tls
    assert first is files.read().tls
    os.utime(path, ns=(0, 0))
    assert first is not files.read().tls
    assert first is not None
    assert (first.check_hostname, first.verify_mode) == (True, ssl.CERT_REQUIRED)
