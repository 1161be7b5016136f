# SPDX-License-Identifier: MIT
"""AMQP over TLS."""

import logging
import shutil
import ssl
import subprocess
from pathlib import Path
from urllib.parse import quote

import pytest

from bus.transport import Message, Queue
from tests.bus.transport.amqp_lab import connected, connection, hurry, opened, told, until
from tests.bus.transport.relay import Relay


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Short waits between attempts to connect."""
    hurry(monkeypatch)


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a certificate for localhost, cert.pem and key.pem, that only itself vouches for."""
    if shutil.which("openssl") is None:
        pytest.skip("needs the openssl command")
    folder = tmp_path_factory.mktemp("tls")
    command = "openssl req -x509 -newkey rsa:2048 -nodes -keyout key.pem -out cert.pem -days 2 -subj /CN=localhost"
    subprocess.run([*command.split(), "-addext", "subjectAltName=DNS:localhost"], cwd=folder, check=True)
    return folder


@pytest.fixture
def tls(authority: Path) -> ssl.SSLContext:
    """A server's side of TLS with that certificate."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(authority / "cert.pem", authority / "key.pem")
    return context


@pytest.mark.usefixtures("impatient")
async def test_over_tls_a_certificate_is_checked_against_the_cafile_of_the_url(
    amqp_url: str, authority: Path, tls: ssl.SSLContext
) -> None:
    cafile = quote(str(authority / "cert.pem"))
    async with Relay(amqp_url, tls=tls) as relay, connected(f"{relay.url}?cafile={cafile}") as transport:
        await transport.declare_queue(Queue(name="queue", durable=False, exclusive=True))
        await transport.publish(Message(body=b"x" * 300_000, routing_key="queue", mandatory=True))
        transport.drop_connections()
        await connection(transport, 1)


@pytest.mark.usefixtures("impatient")
async def test_over_tls_a_certificate_that_nobody_vouches_for_is_refused(
    amqp_url: str, tls: ssl.SSLContext, caplog: pytest.LogCaptureFixture
) -> None:
    async with Relay(amqp_url, tls=tls) as relay, opened(relay.url) as transport:
        await until(lambda: transport.last_error != "")
        assert "is not trusted" in transport.last_error
        assert "?cafile=FILE" in transport.last_error
        assert len(told(caplog, logging.ERROR)) == 1


@pytest.mark.usefixtures("impatient")
async def test_over_tls_a_cafile_that_is_not_there_is_named(amqp_url: str, tls: ssl.SSLContext) -> None:
    async with Relay(amqp_url, tls=tls) as relay, opened(f"{relay.url}?cafile=/nowhere/ca.pem") as transport:
        await until(lambda: transport.last_error != "")
        assert transport.last_error == "cafile '/nowhere/ca.pem' in the broker's URL cannot be read"


@pytest.mark.usefixtures("impatient")
async def test_tls_to_a_port_without_tls_is_said_in_words(amqp_url: str) -> None:
    async with opened(amqp_url.replace("amqp://", "amqps://")) as transport:
        await until(lambda: transport.last_error != "")
        assert transport.last_error.startswith("TLS with ")


async def test_closing_does_not_wait_for_a_silent_network_under_tls(
    amqp_url: str, authority: Path, tls: ssl.SSLContext
) -> None:
    cafile = quote(str(authority / "cert.pem"))
    async with Relay(amqp_url, tls=tls) as relay, connected(f"{relay.url}?cafile={cafile}"):
        relay.freeze()
