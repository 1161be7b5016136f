# SPDX-License-Identifier: MIT
"""Points in time and ranges as people type them: ``-1h``, ``now``, ``2026-11-21``, ``2026-11-21T10:00:00Z``.

A command asks the clock once (`Timestamp.now()`) and measures everything relative from there.
"""

import datetime as dt
import re
from typing import Annotated

import typer

from bus.chunk import MAX_NS
from bus.timestamp import Timedelta, Timestamp

EXAMPLES = "-1h, now, 2026-11-21, 2026-11-21T10:00:00Z, @SECONDS or NANOSECONDS since 1970"

From = Annotated[
    str,
    typer.Option("--from", envvar="HOSTBUS_FROM", metavar="TIME", help=f"Begin of the range, included: {EXAMPLES}."),
]
To = Annotated[
    str, typer.Option("--to", envvar="HOSTBUS_TO", metavar="TIME", help="End of the range, not included; as --from.")
]
Every = Annotated[
    str, typer.Option("--every", envvar="HOSTBUS_EVERY", metavar="TIME", help="Length of a step: 10s, 1m, 1h, 1d.")
]

_RELATIVE = re.compile(r"(?:now)?\s*([+-])\s*(.*)", re.DOTALL)
_SECONDS = re.compile(r"@(-?)(\d+)(?:\.(\d{1,9}))?")
_LOOKS_LIKE = {8: "a date", 10: "seconds", 13: "milliseconds", 16: "microseconds"}
_FRACTION = re.compile(r"[.,]\d+")


def moment(text: str, option: str, now: Timestamp) -> Timestamp:
    """The time that `text` means; without a time zone it is this machine's local time.

    Raises typer.BadParameter, which names the option and what would be right.
    """
    try:
        found = _read(text.strip(), now)
    except (ValueError, TypeError, OverflowError) as error:
        raise typer.BadParameter(f"{option}: {error}") from None
    if abs(found.posix_ns) > MAX_NS:
        raise typer.BadParameter(f"{option}: {text!r} is out of range: 1677-09-21 to 2262-04-11")
    return found


def span(begin: str, end: str, now: Timestamp) -> tuple[Timestamp, Timestamp]:
    """What --from and --to mean. Raises typer.BadParameter, too, if there is no time between them."""
    start, stop = moment(begin, "--from", now), moment(end, "--to", now)
    if start >= stop:
        raise typer.BadParameter(f"--from: {begin} ({start}) is not before --to {end} ({stop})")
    return start, stop


def step(text: str, option: str = "--every") -> Timedelta:
    """The length that `text` means. Raises typer.BadParameter unless it is one and more than 0."""
    try:
        found = Timedelta.from_string(text)
    except ValueError as error:
        raise typer.BadParameter(f"{option}: {error}") from None
    if not 0 < found.ns <= MAX_NS:
        raise typer.BadParameter(f"{option}: {text!r} is not more than 0 s, and at most 292 years")
    return found


def _read(text: str, now: Timestamp) -> Timestamp:
    if text == "now":
        return now
    if relative := _RELATIVE.fullmatch(text):
        if relative[2].replace(".", "").isdigit():
            raise ValueError(f"{text!r} has no unit: {text}s, {text}min, {text}h or {text}d")
        return now + Timedelta.from_string(relative[1] + relative[2])
    if seconds := _SECONDS.fullmatch(text):
        ns = int(seconds[2]) * 1_000_000_000 + int((seconds[3] or "").ljust(9, "0"))
        return Timestamp(-ns if seconds[1] else ns)
    if text.isascii() and text.isdigit():
        if kind := _LOOKS_LIKE.get(len(text)):
            raise ValueError(
                f"{text!r} looks like {kind}, but a plain number means nanoseconds since 1970: "
                "write @SECONDS, or a date like 2026-11-21"
            )
        return Timestamp(int(text))
    if not text.isprintable():  # datetime overlooks a NUL at the end
        raise ValueError(f"{text!r} is not a time: {EXAMPLES}")
    try:
        return Timestamp.from_iso8601(text)
    except TypeError:
        return Timestamp.from_iso8601(text + _local_offset(text) if "T" in text or " " in text else _midnight(text))
    except ValueError:
        raise ValueError(f"{text!r} is not a time: {EXAMPLES}") from None


def _midnight(date: str) -> str:
    return f"{date}T00:00:00{_local_offset(date)}"


def _local_offset(text: str) -> str:
    """The offset from UTC, like ``+01:00``, that this machine's clock has at a local time."""
    local = dt.datetime.fromisoformat(_FRACTION.sub("", text)).astimezone()
    return local.isoformat()[len("2026-11-21T10:00:00") :]
