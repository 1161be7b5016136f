# SPDX-License-Identifier: MIT
"""Reaching an AMQP broker, or not: what is tried, and what people are told."""

import asyncio
import logging

import pytest

from bus.errors import ConfigError, NotConnected
from bus.transport import Message, amqp_link
from bus.transport.amqp import AmqpTransport
from tests.bus.transport.amqp_lab import connection, hurry, nothing_left, opened, told, until
from tests.bus.transport.relay import Relay
from tests.services.rabbitmq import Managed, RabbitMq

SECRET = "Tiefes-Geheimnis"


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Short waits between attempts to connect."""
    hurry(monkeypatch)


@pytest.mark.usefixtures("impatient")
async def test_a_broker_that_comes_later_is_found_and_each_state_is_logged_once(
    amqp_url: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    attempts = 0
    create = amqp_link.Wire.create

    async def counted(*args: object, **kwargs: object) -> object:
        nonlocal attempts
        attempts += 1
        return await create(*args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(amqp_link.Wire, "create", counted)
    async with Relay(amqp_url, refusing=True) as relay, opened(relay.url) as transport:
        await until(lambda: attempts >= 8)
        assert transport.last_error == "Connection refused"
        assert told(caplog, logging.WARNING) == [f"waiting for broker at {transport.url}: Connection refused"]
        with pytest.raises(NotConnected, match="Connection refused"):
            await transport.publish(Message(body=b"", routing_key="key"))
        await relay.open()
        assert await connection(transport) == 1
        assert transport.last_error == ""
        (news,) = told(caplog, logging.INFO)
        assert news.startswith(f"connected to broker at {transport.url}, after ")


@pytest.mark.usefixtures("impatient")
async def test_a_wrong_password_is_said_once_and_loudly_and_mended_without_a_restart(
    rabbitmq: RabbitMq, amqp_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    if not isinstance(rabbitmq, Managed):
        pytest.skip("needs a broker whose users may be changed")
    async with Relay(amqp_url.replace("guest:guest", f"late:{SECRET}")) as relay, opened(relay.url) as transport:
        await until(lambda: relay.accepted >= 6)
        assert "login of user 'late' refused" in transport.last_error
        assert len(told(caplog, logging.ERROR)) == 1
        assert not told(caplog, logging.WARNING)
        try:
            rabbitmq.api("PUT", "users/late", {"password": SECRET, "tags": ""})
            vhost = amqp_url.rpartition("/")[2]
            rabbitmq.api("PUT", f"permissions/{vhost}/late", {"configure": ".*", "write": ".*", "read": ".*"})
            assert await connection(transport) == 1
        finally:
            rabbitmq.api("DELETE", "users/late")
    assert SECRET not in caplog.text


@pytest.mark.usefixtures("impatient")
async def test_an_absent_vhost_is_named_and_used_when_it_comes(rabbitmq: RabbitMq, amqp_url: str) -> None:
    url = amqp_url + "-late"
    async with opened(url) as transport:
        await until(lambda: transport.last_error != "")
        vhost = url.rpartition("/")[2]
        if not isinstance(rabbitmq, Managed):
            pytest.skip("needs a broker whose vhosts may be changed")
        assert transport.last_error.startswith(f"vhost {vhost!r} refused: it must exist")
        rabbitmq.add_vhost(vhost)
        try:
            await connection(transport)
        finally:
            rabbitmq.delete_vhost(vhost)


async def test_a_host_that_nobody_knows_is_said_in_words() -> None:
    async with opened("amqp://no-such-host.invalid/") as transport:
        await until(lambda: transport.last_error != "")
        assert transport.last_error.startswith("host name not found")


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "does not speak AMQP"),
        (b"AMQP\0\x01\0\0", "does not speak AMQP 0-9-1"),
        (b"", "hung up at once: it is starting, or it does not speak AMQP"),
    ],
)
async def test_something_that_is_no_broker_is_said_in_words(answer: bytes, words: str) -> None:
    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(8)
        writer.write(answer)
        writer.close()

    async with await asyncio.start_server(greet, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        async with opened(f"amqp://127.0.0.1:{port}/") as transport:
            await until(lambda: transport.last_error != "")
            assert words in transport.last_error


@pytest.mark.usefixtures("impatient")
async def test_a_server_that_accepts_and_says_nothing_is_given_up_and_tried_again(
    amqp_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(amqp_link, "CONNECT_TIMEOUT_S", 0.2)
    async with Relay(amqp_url) as relay:
        relay.freeze()
        async with opened(relay.url) as transport:
            await until(lambda: relay.accepted >= 6)
            assert transport.last_error == "no answer within 0.2 s"
            relay.thaw()
            await connection(transport)


async def test_closing_does_not_wait_for_a_server_that_says_nothing(amqp_url: str) -> None:
    async with Relay(amqp_url) as relay:
        relay.freeze()
        async with nothing_left(), opened(relay.url):
            await until(lambda: relay.accepted >= 2)


@pytest.mark.parametrize("url", ["amqp:///vhost", "http://host/", "host", "amqp://user:Tiefes-Geheimnis@host:port/"])
def test_a_wrong_url_is_refused_in_words_that_hold_no_password(url: str) -> None:
    with pytest.raises(ConfigError, match="right is amqp://") as caught:
        AmqpTransport(url)
    assert SECRET not in str(caught.value)


async def test_the_password_is_in_no_text(amqp_url: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, logger="bus")
    login = amqp_url.replace("guest:guest", f"guest:{SECRET}")
    async with Relay(login, refusing=True) as relay, opened(relay.url) as transport:
        await until(lambda: transport.last_error != "")
        with pytest.raises(NotConnected) as caught:
            await transport.publish(Message(body=b"", routing_key="key"))
        texts = [repr(transport), repr(transport._address), transport.url, transport.last_error, str(caught.value)]
        assert SECRET not in "".join(texts) + caplog.text
