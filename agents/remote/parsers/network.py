# SPDX-License-Identifier: MIT
"""What goes through the network interfaces of a remote host: metrics of agents/network.py."""

from collections.abc import Mapping

from agents.base.devices import DeviceWords, Globs, names_of
from agents.base.rates import Counters
from agents.base.tcp import parse_time_wait
from agents.network import NetworkConfig, NetworkSource, chosen, is_up, parse_interface, parse_speed, traffic
from agents.remote.parser import Context, MetricParser
from agents.remote.parsers.common import by_file, kept, missing, table_of

_DEV, _SOCKSTAT = "/proc/net/dev", "/proc/net/sockstat"


class NetworkParser(MetricParser):
    """Traffic, state and speed of the interfaces, and of the TCP connections those that the kernel keeps count of.

    The other states would take a line for each connection (/proc/net/tcp), every time.
    """

    family = "network"
    command = f"grep -sH '' {_DEV} {_SOCKSTAT} /sys/class/net/*/operstate /sys/class/net/*/speed || :"
    metrics = table_of(NetworkSource, lambda name: not name.startswith("tcp.") or name == "tcp.time_wait")
    wanted = Globs((), NetworkConfig().exclude)

    def parse(self, output: str, context: Context) -> Mapping[str, float]:
        """Traffic since the last run, states now."""
        files = by_file(output)
        if _DEV not in files:
            raise missing(_DEV, output)
        words = kept(context, "words", DeviceWords)
        counters = dict(context.parts.each("interface", chosen(files[_DEV], self.wanted), parse_interface))
        reading = traffic(kept(context, "counters", Counters).update(context.now_s, counters), words)
        for interface in counters:
            with context.parts(f"state of {interface}"):
                reading |= state(interface, files, words[interface])
        with context.parts("TCP connections"):
            if _SOCKSTAT in files:
                reading["tcp.time_wait"] = parse_time_wait("\n".join(files[_SOCKSTAT]))
        return reading


def state(interface: str, files: Mapping[str, list[str]], word: str) -> dict[str, float]:
    """If an interface is up, and then its speed, by its files of /sys; empty if it went meanwhile."""
    folder = f"/sys/class/net/{interface}"
    if f"{folder}/operstate" not in files:
        return {}
    up_name, speed_name = names_of(word, ("up", "speed"))
    up = is_up(files[f"{folder}/operstate"][0])
    reading = {up_name: float(up)}
    if up and f"{folder}/speed" in files:  # which many cannot read: then grep prints nothing
        speed = parse_speed(files[f"{folder}/speed"][0])
        if speed is not None:
            reading[speed_name] = speed
    return reading
