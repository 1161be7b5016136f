# SPDX-License-Identifier: MIT
"""`agent diff`: two spans side by side, metric by metric; without labels, which spans there are."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from math import inf, isfinite, log
from operator import attrgetter
from typing import TYPE_CHECKING, Annotated, Any

import typer

from agents.cli.opening import ArchivePath
from agents.cli.options import Format, Output, Verbose, examples

if TYPE_CHECKING:
    from agents.cli.spans.figures import Figures
    from agents.cli.spans.spans import Span
    from bus.archive import Archive

Pair = tuple["Figures | None", "Figures | None"]


COMPLETE = 0.995
"""A coverage that is told as 100 %."""


def register(app: typer.Typer) -> None:
    """Add the command of this file."""
    app.command(
        epilog=examples(
            "agent diff", "agent diff before after", "agent diff 'make#1' 'make#2' -m '#.power' --format json"
        )
    )(diff)


def diff(
    labels: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[LABEL LABEL]",
            help="Two spans: the newest of the label, or its nth as LABEL#n.",
            show_default=False,
        ),
    ] = None,
    metrics: Annotated[
        list[str] | None,
        typer.Option(
            "-m",
            "--metrics",
            envvar="HOSTBUS_METRICS",
            metavar="PATTERN",
            help="Which metrics.",
            show_default="those of the runs",
        ),
    ] = None,
    archive: ArchivePath = "",
    output: Output = Format.pretty,
    verbose: Verbose = False,
) -> None:
    """Compare two spans that 'agent run' recorded; without labels, list all that are recorded.

    Other events of the archive that have an end can be compared, too. What changed most comes first.
    """
    from agents.cli import connection
    from agents.cli.query import checked

    if len(labels or ()) not in (0, 2):
        raise typer.BadParameter("two labels, or none for a list of all")
    patterns = [checked(pattern) for pattern in metrics or ()]
    connection.run(_compare(labels, patterns, archive, output) if labels else _list(archive, output))


async def _list(where: str, output: Format) -> None:
    from agents.cli.metadata import plain
    from agents.cli.opening import opened
    from agents.cli.output import print_json, print_table
    from agents.cli.quantity import length
    from agents.cli.spans.spans import all_spans

    async with opened(where) as archive:
        spans = await all_spans(archive)
    if output is Format.json:
        for span in spans:
            print_json(span.to_json())
        return
    rows = [
        (plain(span.name), span.began, length(span.duration_s), "" if span.exit_code is None else span.exit_code)
        for span in spans
    ]
    print_table(("label", "began", "lasted", "exit code"), rows, empty="no span is recorded; 'agent run' records them")


async def _compare(labels: Sequence[str], patterns: Sequence[str], where: str, output: Format) -> None:
    from agents.cli.opening import opened
    from agents.cli.output import print_json, print_line
    from agents.cli.spans.spans import all_spans, find

    async with opened(where) as archive:
        spans = await all_spans(archive)
        old, new = (find(spans, label) for label in labels)
        pairs = await _pairs(archive, patterns, old, new)
    if output is Format.json:
        for name, pair in pairs.items():
            print_json(_json(name, pair))
        return
    for line in _lines(old, new, pairs):
        print_line(line)


async def _pairs(archive: "Archive", patterns: Sequence[str], old: "Span", new: "Span") -> dict[str, Pair]:
    """The metrics of both spans, what changed most first. Raises HostbusError for a span without points."""
    from agents.cli.spans.figures import all_figures, chosen_metrics
    from bus.errors import HostbusError

    both: list[Mapping[str, Figures]] = []
    for span, other in ((old, new), (new, old)):
        chosen = await chosen_metrics(archive, patterns or [*old.patterns, *new.patterns] or ["#"])
        found = await all_figures(archive, chosen, span.event.time, span.end_ns)
        if not found:
            what = " ".join(patterns or span.patterns or ["any metric"])
            raise HostbusError(f"{span.name!r} ({span.began}) has no points of {what} in the archive")
        if span.event.host != other.event.host:  # their metrics have different names
            mine, others = f"{span.event.host}.", f"{other.event.host}."
            found = {name.removeprefix(mine): one for name, one in found.items() if not name.startswith(others)}
        both.append(found)
    first, second = both
    pairs = {name: (first.get(name), second.get(name)) for name in sorted({*first, *second})}
    return dict(sorted(pairs.items(), key=lambda item: -_change(item[1])))


def _change(pair: Pair) -> float:
    """How much the mean changed, whichever way; what is in one span only comes last."""
    if pair[0] is None or pair[1] is None:
        return -1.0
    old, new = pair[0].mean, pair[1].mean
    if old == new:
        return 0.0
    if not (isfinite(old) and isfinite(new)) or old == 0 or new == 0 or (old < 0) != (new < 0):
        return inf
    return abs(log(abs(new)) - log(abs(old)))  # their quotient may be too large or too small for a float


def _json(name: str, pair: Pair) -> dict[str, Any]:
    old, new = (None if figures is None else figures.to_json() for figures in pair)
    told: dict[str, Any] = {"metric": name, "old": old, "new": new}
    if old is not None and new is not None:
        for key in ("mean", "max", "integral"):
            told[key] = {"difference": new[key] - old[key], "ratio": new[key] / old[key] if old[key] else None}
    return told


def _lines(old: "Span", new: "Span", pairs: Mapping[str, Pair]) -> Iterator[str]:
    """Which spans, then a table with a heading for each metric."""
    from agents.cli import columns
    from agents.cli.metadata import plain
    from agents.cli.quantity import change, length

    for which, span in (("old", old), ("new", new)):
        ended = "" if span.exit_code is None else f", exit code {span.exit_code}"
        yield f"{which}  {plain(span.name)}, {span.began}{ended}"
    yield ""
    first, second = old.duration_s, new.duration_s
    headings = [""]
    rows = [("duration", length(first), length(second), _signed(second - first, length), change(first, second))]
    for name, pair in pairs.items():
        own = list(_rows(pair))
        rows += own
        unit = _unit_of(pair)
        headings += [f"{name} ({unit})" if unit else name, *[""] * (len(own) - 1)]
    header, *lines = columns.lines(("", "old", "new", "difference", "change"), rows)
    yield header
    for heading, line in zip(headings, lines, strict=True):
        if heading:
            yield heading
        yield line


def _rows(pair: Pair) -> Iterator[tuple[str, str, str, str, str]]:
    """The lines of one metric; the coverage where it is not complete."""
    from agents.cli.quantity import amount, change, integral_amount, percent

    old, new = pair
    unit = _unit_of(pair)
    for what, of, told in (
        ("mean", attrgetter("mean"), amount),
        ("max", attrgetter("maximum"), amount),
        ("integral", attrgetter("integral"), integral_amount),
    ):
        difference = changed = ""
        if old is not None and new is not None:
            difference = _signed(of(new) - of(old), partial(told, unit=unit))
            changed = change(of(old), of(new))
        first, second = ("-" if one is None else told(of(one), unit) for one in pair)
        yield f"  {what}", first, second, difference, changed
    if old is None or new is None or min(old.coverage, new.coverage) < COMPLETE:
        first, second = ("-" if one is None else percent(one.coverage) for one in pair)
        yield "  coverage", first, second, "", ""


def _unit_of(pair: Pair) -> str:
    return next((one.unit for one in pair if one is not None), "")


def _signed(difference: float, told: Callable[[float], str]) -> str:
    return f"+{told(difference)}" if difference > 0 else told(difference)
