# SPDX-License-Identifier: MIT
"""A certificate for localhost that only itself vouches for."""

import shutil
import ssl
import subprocess
from pathlib import Path

COMMAND = "openssl req -x509 -newkey rsa:2048 -nodes -keyout key.pem -out cert.pem -days 2 -subj /CN=localhost"


def make_certificate(folder: Path) -> Path:
    """Writes cert.pem and key.pem. Returns the folder. Raises FileNotFoundError without the openssl command."""
    if shutil.which("openssl") is None:
        raise FileNotFoundError("needs the openssl command")
    subprocess.run(
        [*COMMAND.split(), "-addext", "subjectAltName=DNS:localhost"], cwd=folder, check=True, stderr=subprocess.DEVNULL
    )
    return folder


def server_context(folder: Path) -> ssl.SSLContext:
    """A server's side of TLS with that certificate."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(folder / "cert.pem", folder / "key.pem")
    return context
