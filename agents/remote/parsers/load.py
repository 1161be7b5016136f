# SPDX-License-Identifier: MIT
"""How much wants to run on a remote host, what it waits for, and who is logged in: metrics of agents/load.py."""

from collections.abc import Mapping

from agents.base.absent import NothingFound
from agents.base.rates import Counters
from agents.load import RESOURCES, LoadSource, averages, parse_uptime, pressure, stalls
from agents.remote.parser import Context, MetricParser
from agents.remote.parsers.common import by_file, kept, missing, table_of

_WHO_WORKED = "# end"
_USERS_EVERY_S = 10.0


class LoadParser(MetricParser):
    """Load averages, threads, uptime and pressure. A kernel that does not measure pressure has none."""

    family = "load"
    command = (
        "grep -sH '' /proc/loadavg /proc/uptime " + " ".join(f"/proc/pressure/{name}" for name in RESOURCES) + " || :"
    )
    metrics = table_of(LoadSource, lambda name: name != "users" and not name.startswith("processes."))

    def parse(self, output: str, context: Context) -> Mapping[str, float]:
        """What /proc says now; pressure also since the last run."""
        files = by_file(output)
        if "/proc/loadavg" not in files:
            raise missing("/proc/loadavg", output)
        reading: dict[str, float] = {}
        with context.parts("load"):
            reading |= averages(files["/proc/loadavg"][0], context.core_count)
        with context.parts("uptime"):
            reading["uptime"] = parse_uptime(files["/proc/uptime"][0])
        stalled: dict[str, list[int]] = {}
        for resource in RESOURCES:
            with context.parts(f"pressure of {resource}"):
                for line in files.get(f"/proc/pressure/{resource}", ()):
                    found, total = pressure(resource, line)
                    reading |= found
                    stalled |= total
        return reading | stalls(kept(context, "stalled", Counters).update(context.now_s, stalled))


class UsersParser(MetricParser):
    """Sessions logged in, one for each line of ``who``."""

    family = "load"
    command = f"who 2>/dev/null && echo '{_WHO_WORKED}' || :"
    every_s = _USERS_EVERY_S
    metrics = table_of(LoadSource, lambda name: name == "users")

    def parse(self, output: str, context: Context) -> Mapping[str, float]:
        """How many there are now. Raises NothingFound if `who` did not work."""
        *sessions, last = output.splitlines() or [""]
        if last != _WHO_WORKED:
            raise NothingFound("the host has no `who`, or no list of who is logged in")
        return {"users": float(len(sessions))}
