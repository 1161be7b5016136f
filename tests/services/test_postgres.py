# SPDX-License-Identifier: MIT
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.services import postgres as service

ROOT = Path(__file__).parents[2]
SCRIPT = """
import time
from tests.services.postgres import private_postgres
with private_postgres() as server:
    print(server._server.pid, server.base, flush=True)
    time.sleep(1000)
"""


@pytest.mark.skipif(not any(service.PACKAGES.glob("*/bin/initdb")), reason="needs the postgresql package")
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL], ids=lambda how: how.name)
def test_nothing_is_left_of_a_private_cluster_however_its_user_ends(how: signal.Signals) -> None:
    script = [sys.executable, "-c", SCRIPT]
    with subprocess.Popen(script, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, cwd=ROOT) as user:
        assert user.stdout is not None
        pid, base = user.stdout.readline().decode().split()
        assert _command(pid).startswith("postgres")
        user.send_signal(how)
    deadline = time.monotonic() + 30
    while (Path(base).exists() or _command(pid)) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not Path(base).exists()
    assert not _command(pid)


def test_without_any_postgres_the_message_says_how_to_get_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HOSTBUS_TEST_POSTGRES_URL", raising=False)
    monkeypatch.setattr(service, "PACKAGES", Path("/nowhere"))
    monkeypatch.setattr(service, "_docker_answers", lambda: False)
    with pytest.raises(service.NoPostgres, match="apt-get install postgresql"), service.postgres_for_tests():
        pass


def test_a_server_named_in_the_environment_is_used_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOSTBUS_TEST_POSTGRES_URL", "postgresql://me:secret@there:5433/postgres")
    with service.postgres_for_tests() as server:
        assert server.url("mine") == "postgresql://me:secret@there:5433/mine"
        with pytest.raises(NotImplementedError, match="not ours"):
            server.restart()


def _command(pid: str) -> str:
    """The name of a process that runs; empty if there is none, or it waits to be buried."""
    try:
        _, _, rest = Path(f"/proc/{pid}/stat").read_text().partition("(")
    except FileNotFoundError:
        return ""
    name, _, state = rest.rpartition(") ")
    return "" if state.startswith("Z") else name
