# SPDX-License-Identifier: MIT
"""What all tests share: brokers, and a check that no test blocks its event loop."""

import inspect
import os
import signal
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.services.loop_watch import LoopWatch
from tests.services.rabbitmq import NoRabbitMq, RabbitMq, rabbitmq_for_tests


@pytest.fixture(autouse=True)
def own_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test touches what the user who runs it keeps."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


@pytest.fixture(scope="session")
def rabbitmq() -> Iterator[RabbitMq]:
    """A RabbitMQ server, started when the first test asks for it. In CI its absence is a failure."""
    try:
        with rabbitmq_for_tests() as server:
            yield server
    except NoRabbitMq as error:
        if os.environ.get("CI"):
            pytest.fail(str(error), pytrace=False)
        pytest.skip(str(error))


@pytest.fixture
def amqp_url(rabbitmq: RabbitMq) -> Iterator[str]:
    """The URL of a virtual host of the test's own."""
    vhost = f"test-{uuid.uuid4().hex}"
    rabbitmq.add_vhost(vhost)
    yield rabbitmq.url(vhost)
    rabbitmq.delete_vhost(vhost)


@pytest.fixture
def memory_url() -> str:
    """The URL of a broker of the test's own, in this process."""
    return f"memory://test-{uuid.uuid4().hex}"


@pytest.fixture(params=["memory", "amqp"])
def any_url(request: pytest.FixtureRequest) -> str:
    """The test runs once per transport, on a broker or virtual host of its own."""
    url: str = request.getfixturevalue(f"{request.param}_url")
    return url


@pytest.fixture
async def loop_watch() -> AsyncIterator[None]:
    """Every asynchronous test gets it: fails the test if its event loop was blocked for more than 2 s."""
    watch = LoopWatch()
    yield
    complaint = watch.stop()
    if complaint:
        pytest.fail(complaint, pytrace=False)


def pytest_configure() -> None:
    """A shell starts what runs in its background with SIGINT and SIGQUIT ignored, and processes inherit that."""
    for number, handler in ((signal.SIGINT, signal.default_int_handler), (signal.SIGQUIT, signal.SIG_DFL)):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Not an autouse fixture, which would give an event loop to every synchronous test too."""
    for item in items:
        if isinstance(item, pytest.Function) and inspect.iscoroutinefunction(item.obj):
            item.fixturenames.append("loop_watch")
