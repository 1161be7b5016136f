# SPDX-License-Identifier: MIT
"""How many processes of a remote host are in which state: metrics of agents/load.py."""

from collections import Counter
from collections.abc import Mapping
from contextlib import suppress

from agents.load import PROCESSES_EVERY_S, LoadSource, numbers, parse_state
from agents.remote.parser import Context, MetricParser
from agents.remote.parsers.common import missing, table_of


class ProcessesParser(MetricParser):
    """Processes by state. Of each, the host sends its number, name and state: about 20 bytes.

    grep goes on where a process ends while it is read; sed would not.
    """

    family = "load"
    command = "LC_ALL=C grep -hso '^[0-9]* (.*) [A-Za-z] ' /proc/[0-9]*/stat || :"
    every_s = PROCESSES_EVERY_S
    metrics = table_of(LoadSource, lambda name: name.startswith("processes."))

    def parse(self, output: str, context: Context) -> Mapping[str, float]:
        """How many there are now."""
        states: Counter[str] = Counter()
        for line in output.splitlines():
            with suppress(ValueError):  # it is dead, and gone at the next look
                states[parse_state(line)] += 1
        if not states:
            raise missing("/proc/PID/stat", output)
        return numbers(states)
