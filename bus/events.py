# SPDX-License-Identifier: MIT
"""Events over the bus: archives are told what happened, and asked for it.

An archive that keeps events says so when agents are discovered (`KEEPS_EVENTS`), and answers

    event.add    event, metrics (names and patterns): stored by an archive that keeps any of them, which replies an id
    event.list   startTime, endTime, source: the events of that range, as `Archive.events` has them
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import msgspec

from bus.archive import Event
from bus.client import Client
from bus.errors import HostbusError, RpcError
from bus.rpc import Json

KEEPS_EVENTS = "keepsEvents"
"""Of a reply to `discover`: true if the agent has an archive of events."""
DISCOVER_S = 1.0


async def add_event(client: Client, event: Event, metrics: Iterable[str], timeout_s: float) -> list[str]:
    """Have an event stored by each archive that keeps any of the metrics; the tokens of these.

    Raises HostbusError if an archive cannot.
    """
    body, wanted = msgspec.to_builtins(event), list(metrics)
    replies = await _ask_all(client, "event.add", timeout_s, event=body, metrics=wanted)
    return [token for token, reply in replies.items() if "id" in reply]


async def list_events(client: Client, start_ns: int, end_ns: int, source: str | None, timeout_s: float) -> list[Event]:
    """The events of all archives, oldest first; what several of them keep comes once. Raises HostbusError."""
    found: list[Event] = []
    arguments = {"startTime": start_ns, "endTime": end_ns, "source": source}
    for token, reply in (await _ask_all(client, "event.list", timeout_s, **arguments)).items():
        try:
            told = msgspec.convert(reply["events"], list[Event])
        except (KeyError, msgspec.ValidationError) as error:
            raise RpcError(f"{token}: its answer to 'event.list' is not one: {error}") from error
        found += (event for event in (replace(event, id=0) for event in told) if event not in found)
    return sorted(found, key=lambda event: event.time)


async def _ask_all(client: Client, function: str, timeout_s: float, **arguments: Any) -> dict[str, Json]:
    """The replies of all archives that keep events."""
    agents = await client.discover(DISCOVER_S)
    tokens = sorted(token for token, reply in agents.items() if reply.get(KEEPS_EVENTS) is True)
    calls = (client.call(token, function, timeout=timeout_s, **arguments) for token in tokens)
    replies = await asyncio.gather(*calls, return_exceptions=True)
    for token, reply in zip(tokens, replies, strict=True):
        if isinstance(reply, HostbusError):
            raise RpcError(f"{token}: {reply}") from reply
        if isinstance(reply, BaseException):
            raise reply
    return {token: reply for token, reply in zip(tokens, replies, strict=True) if isinstance(reply, dict)}
