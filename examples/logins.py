# SPDX-License-Identifier: MIT
"""A parser for remote hosts: `PYTHONPATH=examples agent start remote-source --hosts me@db1 --modules logins`."""

from agents.remote import Context, MetricParser, register_parsers


class Logins(MetricParser):
    family = "logins"
    command = "who | wc -l"
    unit = "1"
    description = "sessions logged in"

    def parse(self, output: str, context: Context) -> dict[str, float]:
        return {"sessions": float(output)}


register_parsers({"logins": Logins()})
