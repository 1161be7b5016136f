# SPDX-License-Identifier: MIT
"""Stock MetricQ in an environment of its own, made once."""

import fcntl
import os
import subprocess
import sys
import venv
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.interop.clients import StockClients

STOCK = "metricq==5.4.0"


@pytest.fixture(scope="session")
def metricq_python(pytestconfig: pytest.Config) -> Path:
    """The interpreter of a virtual environment with stock MetricQ, whose pins clash with ours."""
    place = pytestconfig.rootpath / ".venv-metricq"
    python = place / "bin" / "python"
    made = place / "made"
    wanted = f"{STOCK} {sys.version}"
    with (pytestconfig.rootpath / ".venv-metricq.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if made.exists() and made.read_text() == wanted:
            return python
        venv.create(place, clear=True, with_pip=True)
        pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", STOCK]
        installed = subprocess.run(pip, capture_output=True, text=True, check=False)
        if installed.returncode:
            complaint = f"{STOCK} cannot be installed: {installed.stderr.strip()[-1000:]}"
            if os.environ.get("CI"):
                pytest.fail(complaint, pytrace=False)
            pytest.skip(complaint)
        made.write_text(wanted)
    return python


@pytest.fixture
async def stock(metricq_python: Path, tmp_path: Path) -> AsyncIterator[StockClients]:
    """Starts stock clients; those that still run after the test are killed."""
    clients = StockClients(metricq_python, tmp_path)
    yield clients
    for client in clients.running:
        await client.kill()
