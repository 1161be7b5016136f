# SPDX-License-Identifier: MIT
"""`agent start remote-source` as a process, against five real targets of which two are broken."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.services.sshd import SshHome

AGENT = str(Path(sys.executable).with_name("agent"))


def five_targets(home: SshHome) -> str:
    """A hostbus.toml: three hosts that answer, one that is frozen, one whose key nobody has accepted."""
    good = [home.server() for _ in range(3)]
    frozen, strange = home.server(), home.server(known=False)
    frozen.freeze()
    hosts = [
        f'{{ host = "{server.address}", name = "{name}" }}'
        for name, server in zip(("web1", "web2", "db1", "frozen", "strange"), [*good, frozen, strange], strict=True)
    ]
    return "\n".join(["[remote]", "connect_timeout = 3", "hosts = [", *(f"{host}," for host in hosts), "]"])


@pytest.mark.parametrize("output", ["pretty", "json"])
def test_once_prints_the_hosts_that_answer_and_says_what_is_wrong_with_the_others(
    ssh_home: SshHome, tmp_path: Path, output: str
) -> None:
    file = tmp_path / "hostbus.toml"
    file.write_text(five_targets(ssh_home))
    command = [AGENT, "start", "remote-source", "--once", "--dry-run", "--config", str(file), "--format", output]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=dict(os.environ))
    assert done.returncode == 0, done.stderr
    points = dict(map(json_point if output == "json" else text_point, done.stdout.splitlines()))
    assert {name: points[f"{name}.remote.up"] for name in ("web1", "web2", "db1", "frozen", "strange")} == {
        "web1": 1,
        "web2": 1,
        "db1": 1,
        "frozen": 0,
        "strange": 0,
    }
    for host in ("web1", "web2", "db1"):
        assert points[f"{host}.memory.total"] == points["web1.memory.total"] > 0
        assert 0 <= points[f"{host}.cpu.usage"] <= 100  # a rate: it was read twice
    assert not any(re.match(r"(frozen|strange)\.(?!remote)", name) for name in points)
    assert re.search(r"frozen.*no session within 3 s", done.stderr), done.stderr
    assert re.search(r"strange: .* the host key of 127\.0\.0\.1:\d+ is not known: ssh-ed25519 SHA256:", done.stderr)
    assert "accept it with: echo '[127.0.0.1]:" in done.stderr


def json_point(line: str) -> tuple[str, float]:
    point = json.loads(line)
    return point["metric"], point["value"]


def text_point(line: str) -> tuple[str, float]:
    _, metric, value = line.split()
    return metric, float(value)
