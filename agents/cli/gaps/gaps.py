# SPDX-License-Identifier: MIT
"""`agent gaps`: which metric misses which range, and why (agents/cli/gaps/causes.py has the rules)."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any

import typer

from agents.cli.opening import ArchivePath
from agents.cli.options import Format, Output, Verbose, examples

if TYPE_CHECKING:
    from agents.cli.gaps.causes import Lack
    from agents.cli.gaps.survey import Survey

NS_PER_S = 1_000_000_000
LAG_NS = 10 * NS_PER_S
"""What came in during the last seconds may not be in the archive yet."""
MOST_APART_NS = 60 * NS_PER_S


def register(app: typer.Typer) -> None:
    """Add the command of this file."""
    app.command(
        epilog=examples("agent gaps", "agent gaps 'web1.#' --since -7d", "agent gaps '#.cpu.usage' --format json")
    )(gaps)


def gaps(
    pattern: Annotated[str, typer.Argument(metavar="PATTERN", help="Metric name or pattern.")] = "#",
    since: Annotated[str, typer.Option(envvar="HOSTBUS_SINCE", metavar="TIME", help="From then until now.")] = "-1d",
    archive: ArchivePath = "",
    output: Output = Format.pretty,
    verbose: Verbose = False,
) -> None:
    """Show where points are missing, and why.

    [bold]agent down[/bold]: neither points nor frames came from its agent

    [bold]dropped by cap[/bold]: the agent ran, but its frames never came: its buffer was full

    [bold]late[/bold]: frames came after newer ones; nothing is missing any more

    [bold]not measured[/bold]: the agent ran, and measured other metrics

    [bold]sparse[/bold]: points came less often than declared

    A hole is longer than three intervals of the metric, or where frames are known to be missing.
    """
    from agents.cli import connection
    from agents.cli.query import checked
    from agents.cli.timespan import moment
    from bus.timestamp import Timestamp

    now = Timestamp.now()
    start = moment(since, "--since", now)
    if start >= now:
        raise typer.BadParameter(f"--since: {since} is not before now")
    connection.run(_show(checked(pattern), start.posix_ns, now.posix_ns, archive, output))


async def _show(pattern: str, start_ns: int, now_ns: int, where: str, output: Format) -> None:
    from agents.cli import columns
    from agents.cli.gaps.survey import survey
    from agents.cli.opening import opened
    from agents.cli.output import print_json, print_line

    async with opened(where) as archive:
        found = await survey(archive, pattern, start_ns, now_ns - LAG_NS)
    told = [(_together(group), _names(group, found)) for group in _groups(found.lacks)]
    if output is Format.json:
        for lack, names in told:
            print_json({**_json(lack), "metrics": names})
        return
    rows = [_row(lack, names) for lack, names in told]
    if rows:
        for line in columns.lines(("metrics", "from", "for", "why"), rows, left=4):
            print_line(line)
    for line in _remarks(pattern, found, told):
        print_line(line)


def _groups(lacks: Iterable["Lack"]) -> list[list["Lack"]]:
    """What is missing for the same reason at about the same time, together: the oldest first."""
    groups: list[list[Lack]] = []
    for lack in sorted(lacks, key=lambda lack: (lack.start, lack.end)):
        same = next((group for group in reversed(groups) if _is_same(group, lack)), None)
        if same is None:
            groups.append([lack])
        else:
            same.append(lack)
    return groups


def _is_same(group: Sequence["Lack"], other: "Lack") -> bool:
    """A hole is at least three intervals long: a third of it is what agents that do not tick together may differ."""
    one = group[0]
    apart = min((one.end - one.start) // 3, MOST_APART_NS)
    return (
        one.cause is other.cause
        and one.is_open == other.is_open
        and abs(one.start - other.start) <= apart
        and abs(one.end - other.end) <= apart
        and all(lack.metric != other.metric for lack in group)
    )


def _together(group: Sequence["Lack"]) -> "Lack":
    """The whole range, and the most frames."""
    return replace(
        group[0],
        start=min(lack.start for lack in group),
        end=max(lack.end for lack in group),
        frames=max(lack.frames for lack in group),
        points=max(lack.points for lack in group),
    )


def _names(group: Sequence["Lack"], found: "Survey") -> list[str]:
    from agents.cli.bundles import bundles

    return bundles({lack.metric for lack in group}, found.known)


def _row(lack: "Lack", names: Sequence[str]) -> tuple[str, str, str, str]:
    from agents.cli.localtime import clock, offset_s
    from agents.cli.quantity import counted, length

    why = str(lack.cause)
    if lack.frames:
        why += f", {counted(lack.frames, 'frame')}"
    lasted = (
        "" if lack.start == lack.end else length((lack.end - lack.start) / NS_PER_S) + ("+" if lack.is_open else "")
    )
    return ", ".join(names), clock(lack.start, offset_s(lack.start)), lasted, why


def _json(lack: "Lack") -> dict[str, Any]:
    return {
        "start": lack.start,
        "end": None if lack.is_open else lack.end,
        "duration": (lack.end - lack.start) / NS_PER_S,
        "cause": str(lack.cause),
        "frames": lack.frames,
    }


def _remarks(pattern: str, found: "Survey", told: Sequence[tuple["Lack", list[str]]]) -> Iterator[str]:
    """How many metrics were looked at, and what to think of it."""
    from agents.cli.quantity import counted

    if not found.judged and not found.unjudged:
        yield f"no metric matches {pattern}"
        return
    gaps = counted(len(told), "gap") if told else "no gaps"
    yield f"{counted(len(found.judged), 'metric')}, {gaps}"
    if any(lack.is_open for lack, _ in told):
        yield "+ still missing"
    if found.unjudged:
        yield f"not judged, as they declare no interval and come as they like: {counted(len(found.unjudged), 'metric')}"
