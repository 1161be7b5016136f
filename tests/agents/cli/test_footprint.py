# SPDX-License-Identifier: MIT
"""A running agent has loaded what it uses, and no more."""

import os
import subprocess
import sys

HEAVY = (
    "aiohttp",
    "aiosqlite",
    "asyncpg",
    "asyncssh",
    "cryptography",
    "fastapi",
    "numpy",
    "plotly",
    "prometheus_client",
    "pydantic",
    "pynvml",
    "rich",
    "sqlite3",
    "uvicorn",
)

RUN = """
import sys, threading, os
def report():
    heavy = [name for name in sys.argv[-1].split(",") if name in sys.modules]
    print(*heavy, "bus.transport.amqp" in sys.modules)
    sys.stdout.flush()
    os._exit(0)
threading.Timer(2.0, report).start()
from agents.cli.app import run
run(["start", "cpu-source", "--server", "amqp://127.0.0.1:1/"])
"""


def test_a_source_on_rabbitmq_loads_nothing_heavy():
    environment = {name: value for name, value in os.environ.items() if not name.startswith("HOSTBUS_")}
    done = subprocess.run(
        [sys.executable, "-c", RUN, ",".join(HEAVY)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env=environment,
    )
    assert done.stdout.split() == ["True"], (done.stdout, done.stderr)
