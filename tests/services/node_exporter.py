# SPDX-License-Identifier: MIT
"""Prometheus' node_exporter, as Debian packages it: a private process on a free port of this machine."""

import contextlib
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

PROGRAM = "prometheus-node-exporter"
BOOT_TIMEOUT_S = 20.0

_GUARD = '"$@" 2>"$0" & cat >/dev/null; kill -9 $!'
"""Its standard input ends when the tests end, in whatever way; then so does the program."""

_LISTENS = re.compile(r'"Listening on" address=(127\.0\.0\.1:\d+)')


class NoNodeExporter(Exception):
    """There is none to be had here; says how to get one."""


@contextlib.contextmanager
def node_exporter(*options: str) -> Iterator[str]:
    """Where it answers, like ``127.0.0.1:40657``. Nothing of a node_exporter of the system's is touched.

    Raises NoNodeExporter if the package is not installed.
    """
    program = shutil.which(PROGRAM)
    if program is None:
        raise NoNodeExporter(f"{PROGRAM} is not installed (sudo apt install {PROGRAM})")
    with tempfile.TemporaryDirectory(prefix="node-exporter-") as folder:
        log = Path(folder) / "log"
        command = ["/bin/sh", "-c", _GUARD, str(log), program, "--web.listen-address=127.0.0.1:0", *options]
        with subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True) as process:
            try:
                yield _address(log)
            finally:
                assert process.stdin is not None
                process.stdin.close()


def _address(log: Path) -> str:
    deadline = time.monotonic() + BOOT_TIMEOUT_S
    while True:
        text = log.read_text() if log.exists() else ""
        listens = _LISTENS.search(text)
        if listens is not None:
            return listens[1]
        if time.monotonic() > deadline:
            raise TimeoutError(f"{PROGRAM} did not listen within {BOOT_TIMEOUT_S:g} s; it said: {text[-2000:]}")
        time.sleep(0.02)
