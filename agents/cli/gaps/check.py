# SPDX-License-Identifier: MIT
"""`agent check`: is every metric alive and well? For people, cron and monitoring: one line, and an exit code.

dead      the newest point is older than --age intervals (declared, else as the points came), and than an archive may
          be behind (`LAG_S`)
nan, inf  among the points of the last `RECENT_S` before the newest one; not NaN if the metric's metadata has ``nan``,
          which says what it means there: the waiting time of a disk without operations is no number
future    the newest point is later than now: a clock is wrong, and new points may be refused until then
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from math import isfinite, isnan
from typing import TYPE_CHECKING, Annotated, Any

import typer

from agents.cli.opening import ArchivePath
from agents.cli.options import Format, Output, Timeout, Verbose, examples

if TYPE_CHECKING:
    from bus.archive import History

NS_PER_S = 1_000_000_000
LAG_S = 10
RECENT_S = 300
FEWEST_RECENT = 3
"""Intervals that are recent, however long they are."""
FUTURE_S = 5
"""By how much clocks of hosts may differ."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What is wrong with one metric: `kind` is dead, nan, inf or future; `detail` says more."""

    metric: str
    kind: str
    detail: str
    newest_ns: int


def register(app: typer.Typer) -> None:
    """Add the command of this file."""
    app.command(epilog=examples("agent check", "agent check 'web1.#' --age 10", "agent check --format json"))(check)


def check(
    pattern: Annotated[str, typer.Argument(metavar="PATTERN", help="Metric name or pattern.")] = "#",
    age: Annotated[
        float,
        typer.Option(envvar="HOSTBUS_AGE", min=1, metavar="K", help="Dead after so many intervals without a point."),
    ] = 5.0,
    forget: Annotated[
        str,
        typer.Option(envvar="HOSTBUS_FORGET", metavar="TIME", help="Silent for longer: gone for good, and no finding."),
    ] = "7d",
    archive: ArchivePath = "",
    server: Annotated[
        str,
        typer.Option(
            envvar="HOSTBUS_SERVER", metavar="URL", help="Ask the archive on this bus, if no --archive is given."
        ),
    ] = "",
    output: Output = Format.pretty,
    timeout: Timeout = "5s",
    verbose: Verbose = False,
) -> None:
    """Look for metrics that are dead, are not numbers or come from the future; exit code 1 if there are any.

    The first line sums up, for monitoring. A metric that declares no interval is judged by how its points came.
    """
    from agents.cli import connection
    from agents.cli.query import checked
    from bus.timestamp import Timestamp

    checked(pattern)
    forget_s = connection.seconds(forget, "--forget")
    wait_s = connection.seconds(timeout, "--timeout")

    async def look() -> Mapping[str, list[Finding]]:
        from agents.cli.opening import history

        async with history(archive, server, wait_s) as found:
            return await examine(found, pattern, Timestamp.now().posix_ns, age, forget_s)

    examined = connection.run(look())
    (_print_json if output is Format.json else _print)(pattern, examined)
    if not examined or any(examined.values()):
        raise typer.Exit(1)


async def examine(
    history: "History", pattern: str, now_ns: int, age: float, forget_s: float
) -> dict[str, list[Finding]]:
    """What is wrong with each metric that the pattern selects; without those that are gone for good."""
    from agents.cli.gaps.intervals import interval_ns

    about = await history.metrics(pattern)
    found: dict[str, list[Finding]] = {}
    for name, (newest_ns, _) in (await history.last(pattern)).items():
        if newest_ns < now_ns - forget_s * NS_PER_S:
            continue
        metadata = about.get(name, {})
        interval = await interval_ns(history, name, metadata, newest_ns)
        found[name] = [
            *_age(name, newest_ns, now_ns, interval, age),
            *await _values(history, name, newest_ns, interval or 0, may_be_nan="nan" in metadata),
        ]
    return found


def _age(name: str, newest_ns: int, now_ns: int, interval_ns: int | None, age: float) -> Iterator[Finding]:
    from agents.cli.quantity import length

    old_ns = now_ns - newest_ns
    if old_ns < -FUTURE_S * NS_PER_S:
        detail = f"the newest point is {length(-old_ns / NS_PER_S)} in the future"
        yield Finding(metric=name, kind="future", detail=detail, newest_ns=newest_ns)
    elif interval_ns is not None and old_ns > age * interval_ns + LAG_S * NS_PER_S:
        detail = f"no point for {length(old_ns / NS_PER_S)}, should come every {length(interval_ns / NS_PER_S)}"
        yield Finding(metric=name, kind="dead", detail=detail, newest_ns=newest_ns)


async def _values(
    history: "History", name: str, newest_ns: int, interval_ns: int, *, may_be_nan: bool
) -> list[Finding]:
    """NaN and infinities among the recent points."""
    from bus.archive import read_points

    span_ns = max(RECENT_S * NS_PER_S, FEWEST_RECENT * interval_ns)
    values = (await read_points(history, name, newest_ns - span_ns, newest_ns + 1)).values
    kinds = Counter("nan" if isnan(value) else "inf" for value in values if not isfinite(value))
    return [
        Finding(metric=name, kind=kind, detail=f"{count} of the last {len(values)} points", newest_ns=newest_ns)
        for kind, count in sorted(kinds.items())
        if not (kind == "nan" and may_be_nan)
    ]


def _print_json(pattern: str, examined: Mapping[str, list[Finding]]) -> None:
    from agents.cli.output import print_json

    print_json({"metrics": len(examined), "findings": _counts(examined)})
    for finding in _all(examined):
        told: dict[str, Any] = {"metric": finding.metric, "kind": finding.kind, "detail": finding.detail}
        print_json({**told, "newest": finding.newest_ns})


def _print(pattern: str, examined: Mapping[str, list[Finding]]) -> None:
    from agents.cli.bundles import bundles
    from agents.cli.output import print_line
    from agents.cli.quantity import counted

    counts = _counts(examined)
    if not examined:
        print_line(f"no metric that matches {pattern} has points")
    elif not counts:
        print_line(f"{counted(len(examined), 'metric')}, all well")
    else:
        told = ", ".join(f"{count} {kind}" for kind, count in counts.items())
        print_line(f"{counted(len(examined), 'metric')}: {told}")
    same: defaultdict[tuple[str, str], set[str]] = defaultdict(set)
    for finding in _all(examined):
        same[finding.kind, finding.detail].add(finding.metric)
    for (kind, detail), metrics in same.items():
        print_line(f"{kind:<6}  {', '.join(bundles(metrics, list(examined)))}: {detail}")


def _counts(examined: Mapping[str, list[Finding]]) -> dict[str, int]:
    return dict(sorted(Counter(finding.kind for finding in _all(examined)).items()))


def _all(examined: Mapping[str, Iterable[Finding]]) -> Iterator[Finding]:
    return (finding for findings in examined.values() for finding in findings)
