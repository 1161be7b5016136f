# SPDX-License-Identifier: MIT
"""A remote host made of the fixture's files: the commands of parsers run in a real shell, on its /proc and /sys."""

import os
import subprocess

from agents.base.parts import Parts
from agents.remote.parser import Context, MetricParser
from agents.remote.registry import DEFAULT_PARSERS, MORE_PARSERS
from tests.agents.conftest import FixtureHost

NAMES = {type(parser): name for name, parser in {**DEFAULT_PARSERS, **MORE_PARSERS}.items()}

CORES = 3
"""Of the fixture host."""


class FixtureShell:
    """Runs parsers on a fixture host, each with its context, which is called web1 and has the host's clock."""

    def __init__(self, host: FixtureHost) -> None:
        self.host = host
        self.contexts: dict[MetricParser, Context] = {}
        self.programs = host.proc.parent / "bin"
        self.programs.mkdir()

    def program(self, name: str, script: str) -> None:
        """Put a program of the host's where the shell finds it first."""
        file = self.programs / name
        file.write_text(f"#!/bin/sh\n{script}\n")
        file.chmod(0o755)

    def run(self, command: str, path: str = "") -> str:
        """What a command prints, with the names of files as the host has them."""
        proc, sys = str(self.host.proc), str(self.host.sys)
        env = {"LC_ALL": "C.UTF-8", "PATH": path or f"{self.programs}:{os.environ['PATH']}"}
        line = command.replace("/proc/", f"{proc}/").replace("/sys/", f"{sys}/")
        done = subprocess.run(
            ["/bin/sh", "-c", line], env=env, stdin=subprocess.DEVNULL, capture_output=True, check=False
        )
        return done.stdout.decode("utf-8", "surrogateescape").replace(proc, "/proc").replace(sys, "/sys")

    def parse(self, parser: MetricParser, output: str, after_s: float = 1.0) -> dict[str, float]:
        """What a parser makes of an output that came some seconds after the last."""
        if parser not in self.contexts:
            parts = Parts(f"web1: {NAMES.get(type(parser), '')}")
            self.contexts[parser] = Context(host="web1", core_count=CORES, parts=parts)
        context = self.contexts[parser]
        self.host.now_s += after_s
        context.now_s = self.host.now_s
        return dict(parser.parse(output, context))

    def ask(self, parser: MetricParser, after_s: float = 1.0) -> dict[str, float]:
        """Run a parser's command, some seconds after the last."""
        return self.parse(parser, self.run(parser.command), after_s)
