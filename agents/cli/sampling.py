# SPDX-License-Identifier: MIT
"""``agent start SOURCE --once`` and ``--dry-run``: what a source measures, on stdout."""

import asyncio
import logging
from collections.abc import Iterable

import typer

from agents.cli import connection
from agents.cli.options import Format
from agents.cli.output import point_line, print_json, print_line
from agents.cli.running import run_agent
from agents.cli.settings import Instance
from agents.cli.up.tap import Tap, frame_of
from bus.agent import default_url
from bus.config import AgentConfig
from bus.errors import HostbusError
from bus.interval import IntervalSource
from bus.source import Source
from bus.timestamp import Timestamp
from bus.transport.base import Message, Transport

logger = logging.getLogger(__name__)

READINGS = 2
"""How often --once reads: a rate is the difference of two readings."""

LONGEST_PERIOD_S = 1.0
"""Between the readings of --once; the configured period if that is shorter."""

REACH_S = 5.0
LOOK_S = 0.02
UPDATES_S = 60.0
"""For how long --once waits for readings. What has come by then is printed."""

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
    await connection.begin(agent, REACH_S)
    reading = asyncio.create_task(_read_twice(agent), name="read twice")
    ending = asyncio.create_task(agent.stopped(), name="stopped")
    done, _ = await asyncio.wait({reading, ending}, timeout=UPDATES_S, return_when=asyncio.FIRST_COMPLETED)
    is_read = bool(done or agent.health.updates)
    if not done and agent.pending:
        logger.warning("%s has not got hold of all that it samples within %g s", instance.name, UPDATES_S)
    for task in (reading, ending):
        task.cancel()
    await asyncio.gather(reading, ending, return_exceptions=True)
    await agent.stop()
    await agent.stopped()
    printer.finish()
    if not is_read:
        raise HostbusError(f"{instance.name} took no reading within {UPDATES_S:g} s")


async def _read_twice(agent: IntervalSource) -> None:
    """Wait for `READINGS` of all that the source samples, once it has got hold of it."""
    before = 0
    while agent.health.updates < before + READINGS:
        if agent.pending:
            before = agent.health.updates
        await asyncio.sleep(LOOK_S)
