# SPDX-License-Identifier: MIT
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.services import rabbitmq as service

ROOT = Path(__file__).parents[2]
SCRIPT = """
import sys, time
from tests.services.rabbitmq import private_rabbitmq
with private_rabbitmq() as node:
    print(*(path.read_text().strip() for path in node._base.glob("*.pid")), node._base, flush=True)
    time.sleep(1000)
"""


@pytest.mark.skipif(not service.SERVER.exists(), reason="needs the rabbitmq-server package")
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL], ids=lambda how: how.name)
def test_nothing_is_left_of_a_private_node_however_its_user_ends(how: signal.Signals) -> None:
    script = [sys.executable, "-c", SCRIPT]
    with subprocess.Popen(script, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, cwd=ROOT) as user:
        assert user.stdout is not None
        *pids, base = user.stdout.readline().decode().split()
        user.send_signal(how)
    assert len(pids) == 3, "epmd, the start script and the node"
    deadline = time.monotonic() + 30
    while (Path(base).exists() or any(map(_runs, pids))) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not Path(base).exists()
    assert not [pid for pid in pids if _runs(pid)]


def test_without_any_rabbitmq_the_message_says_how_to_get_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HOSTBUS_TEST_AMQP_URL", raising=False)
    monkeypatch.setattr(service, "SERVER", Path("/nowhere/rabbitmq-server"))
    monkeypatch.setattr(service, "_docker_answers", lambda: False)
    with pytest.raises(service.NoRabbitMq, match="apt-get install rabbitmq-server"), service.rabbitmq_for_tests():
        pass


def test_a_server_named_in_the_environment_is_used_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOSTBUS_TEST_AMQP_URL", "amqp://there/lab")
    with service.rabbitmq_for_tests() as server:
        assert server.url("elsewhere") == "amqp://there/lab"
        with pytest.raises(NotImplementedError, match="not ours"):
            server.restart()


def _runs(pid: str) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"
