# SPDX-License-Identifier: MIT
"""``agent start SOURCE --once`` and ``--dry-run``: what a source measures, on stdout."""

import asyncio
from collections.abc import Iterable

import typer

from agents.cli import connection
from agents.cli.options import Format
from agents.cli.output import point_line, print_json, print_line
from agents.cli.running import run_agent
from agents.cli.settings import Instance
from agents.cli.tap import Tap, frame_of
from bus.agent import default_url
from bus.config import AgentConfig
from bus.interval import IntervalSource
from bus.source import Source
from bus.timestamp import Timestamp
from bus.transport.base import Message, Transport

READINGS = 2
"""How often --once reads: a rate is the difference of two readings."""

LONGEST_PERIOD_S = 1.0
"""Between the readings of --once; the configured period if that is shorter."""

REACH_S = 5.0
UPDATES_S = 60.0

Point = tuple[str, int, float]


class Printer:
    """Prints points: each message as it goes, or at the end the newest point of every metric."""

    def __init__(self, output: Format, *, at_once: bool) -> None:
        self._output = output
        self._at_once = at_once
        self._newest: dict[str, Point] = {}

    def on_data(self, message: Message) -> None:
        """Take one message of points."""
        for chunk in frame_of(message).chunks():
            if self._at_once:
                self._print((chunk.metric, ns, value) for ns, value in zip(chunk.times, chunk.values, strict=True))
            else:
                self._newest[chunk.metric] = (chunk.metric, chunk.times[-1], chunk.values[-1])

    def finish(self) -> None:
        """Print what was kept for the end."""
        self._print(self._newest[name] for name in sorted(self._newest))

    def _print(self, points: Iterable[Point]) -> None:
        for metric, ns, value in points:
            time = Timestamp(ns)
            if self._output is Format.json:
                print_json({"metric": metric, "time": time.isoformat(), "value": value})
            else:
                print_line(point_line(metric, time, value))


async def show(
    instance: Instance, token: str, config: AgentConfig, url: str, *, once: bool, dry_run: bool, output: Format
) -> None:
    """Run a source, and print the points that it sends; with `dry_run`, over a bus of its own that nobody hears."""
    if not issubclass(instance.agent.load(), IntervalSource if once else Source):
        raise typer.BadParameter(f"{instance.name} takes no samples: --once and --dry-run are for sources")
    printer = Printer(output, at_once=not once)
    if dry_run:
        async with connection.own_bus() as transport:
            await _run(instance, token, config, transport, printer, once=once)
        return
    async with connection.broker(url or default_url(), REACH_S) as transport:
        await _run(instance, token, config, transport, printer, once=once)


async def _run(
    instance: Instance, token: str, config: AgentConfig, transport: Transport, printer: Printer, *, once: bool
) -> None:
    agent = instance.make(token, Tap(transport, printer.on_data), config)
    if not once:
        await run_agent(agent)
        return
    assert isinstance(agent, IntervalSource)
    period = agent.period
    if period is None or period.s > LONGEST_PERIOD_S:
        agent.period = LONGEST_PERIOD_S
    async with asyncio.timeout(UPDATES_S):
        await connection.begin(agent, REACH_S)
        while agent.health.updates < READINGS:  # noqa: ASYNC110  # the source has no event for it; this lasts a second
            await asyncio.sleep(0.02)
    await agent.stop()
    await agent.stopped()
    printer.finish()
