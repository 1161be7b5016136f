# SPDX-License-Identifier: MIT
"""The example of a parser works as its first line says."""

import json
import os
import subprocess
import sys
from pathlib import Path

from tests.services.sshd import SshHome

ROOT = Path(__file__).parents[3]
AGENT = str(Path(sys.executable).with_name("agent"))


def test_a_module_of_ones_own_brings_a_parser(ssh_home: SshHome) -> None:
    server = ssh_home.server()
    command = [AGENT, "start", "remote-source", "--hosts", server.address, "--modules", "logins"]
    done = subprocess.run(
        [*command, "--once", "--dry-run", "--format", "json"],
        env={**os.environ, "PYTHONPATH": str(ROOT / "examples")},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    values = {point["metric"]: point["value"] for point in map(json.loads, done.stdout.splitlines())}
    assert values["127_0_0_1.logins.sessions"] >= 0
    assert values["127_0_0_1.cpu.usage"] >= 0  # beside the ones that are built in
