# SPDX-License-Identifier: MIT
import subprocess
import sys

import pytest

import bus.transport
from bus.errors import ConfigError
from bus.transport import base, connect
from bus.transport.amqp import AmqpTransport
from bus.transport.memory import MemoryTransport

SECRET = "s3cr3t"


@pytest.mark.parametrize("url", ["memory://", "memory://lab"])
def test_memory_urls_mean_the_memory_transport(url: str) -> None:
    assert isinstance(connect(url), MemoryTransport)


@pytest.mark.parametrize(
    "url",
    [
        "amqp://localhost",
        "amqp://localhost/",
        "amqp://guest:guest@127.0.0.1:5672/vhost",
        "amqps://user@broker.example:5671/a%2Fb?cafile=/etc/ca.pem",
        "amqp://[::1]:5672/",
    ],
)
def test_amqp_urls_mean_the_amqp_transport(url: str) -> None:
    assert isinstance(connect(url), AmqpTransport)


@pytest.mark.parametrize(
    ("url", "wrong"),
    [
        ("", "'' is not a broker's URL"),
        ("localhost", "'localhost' is not a broker's URL"),
        ("localhost:5672", "'localhost:5672' is not a broker's URL"),
        (f"guest:{SECRET}@localhost", "'localhost' is not a broker's URL"),
        (f"http://guest:{SECRET}@localhost/", "'http://localhost/' begins with 'http'"),
        ("memory//x", "is not a broker's URL"),
        ("amqp://", "names no host"),
        ("amqp:///vhost", "names no host"),
        (f"amqp://guest:{SECRET}@/vhost", "names no host"),
        (f"amqp://guest:{SECRET}@:5672/", "names no host"),
        ("amqp://localhost:port/", "'localhost' has a port that is not a number from 1 to 65535"),
        ("amqp://localhost:0/", "1 to 65535"),
        ("amqp://localhost:65536/", "1 to 65535"),
        ("amqp://localhost:-1/", "1 to 65535"),
        (f"amqp://guest:{SECRET}/x@localhost/", "%2F"),
        (f"amqp://guest:{SECRET}", "1 to 65535"),
        (f"amqp://guest:{SECRET}@[::1/", "cannot be read"),
        (f"amqps://guest:x@{SECRET}@[/", "cannot be read"),
    ],
)
def test_a_bad_url_is_refused_with_what_is_wrong_and_what_is_right(url: str, wrong: str) -> None:
    with pytest.raises(ConfigError) as caught:
        connect(url)
    assert wrong in str(caught.value)
    assert "amqp://user:password@host:5672/vhost" in str(caught.value)
    assert "memory://" in str(caught.value)
    assert SECRET not in str(caught.value)
    assert caught.value.__suppress_context__ or caught.value.__context__ is None, "a traceback would show the URL"


def test_a_bad_memory_url_is_refused() -> None:
    with pytest.raises(ConfigError, match="memory://NAME"):
        connect("memory://a/b/c")


def test_memory_needs_no_amqp_library() -> None:
    script = (
        "import sys; from bus.transport import connect; connect('memory://');"
        "print(*sorted(name for name in ('aiormq', 'aio_pika', 'pamqp', 'yarl') if name in sys.modules))"
    )
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == ""


def test_the_package_hands_on_all_of_the_seam() -> None:
    names = bus.transport.__all__
    assert len(names) == len(set(names))
    public = {name for name in vars(base) if not name.startswith("_")}
    imported = {"Callable", "Sequence", "dataclass", "field", "Literal", "Protocol"}
    assert set(names) == public - imported | {"connect"}
    assert all(getattr(bus.transport, name) is not None for name in names)
