# SPDX-License-Identifier: MIT
"""A chart as one HTML file for the browser, with all that it needs: plotly.js, the data, nothing from the network.

The file forbids the browser everything but the two scripts that are in it (Content-Security-Policy with their
hashes), so that nothing that metadata or labels of events say can run. `page.js` turns the data into Plotly's traces.
"""

import base64
import hashlib
import html
import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Any

import msgspec

from agents.cli.history.charts.axes import WITH_PREFIXES
from agents.cli.history.charts.series import Series
from agents.cli.localtime import NS_PER_S, clock, offset_s, zone
from bus.archive import Event
from bus.errors import StorageError

MOST_SERIES = 60
MOST_EVENTS = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """What a page shows: start_ns <= time < end_ns."""

    series: Sequence[Series]
    events: Sequence[Event]
    start_ns: int
    end_ns: int


def check_target(path: Path) -> None:
    """Raises StorageError if no page can be written there, before anything is read for it."""
    folder = path.resolve().parent
    if not folder.is_dir():
        raise StorageError(f"{path}: there is no directory {folder}")
    if path.exists() and not path.is_file():
        raise StorageError(f"{path}: is not a file")


def write_page(path: Path, picture: Picture) -> None:
    """Make or replace the file, all or nothing. Blocks. Raises StorageError."""
    path = path.resolve()  # a link stays one
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        try:
            unfinished.write_text(page(picture), encoding="utf-8")
            unfinished.replace(path)
        finally:
            with suppress(OSError):
                unfinished.unlink(missing_ok=True)
    except OSError as error:
        raise StorageError(f"{path}: cannot be written: {error.strerror}") from error


def page(picture: Picture) -> str:
    """The text of the file."""
    from plotly.offline import get_plotlyjs

    ours = files(__package__)
    plotly, script = get_plotlyjs(), ours.joinpath("page.js").read_text(encoding="utf-8")
    offset = offset_s(picture.end_ns)
    when = f"{clock(picture.start_ns, offset)} to {clock(picture.end_ns, offset)} {zone(offset)}"
    return Template(ours.joinpath("page.html").read_text(encoding="utf-8")).substitute(
        policy=f"script-src {_hash(plotly)} {_hash(script)}",
        title=html.escape(", ".join(one.metric for one in picture.series[:3]) + ("…" if picture.series[3:] else "")),
        when=html.escape(when),
        rows="".join(_row(one) for one in picture.series),
        data=_embedded(_data(picture, offset)),
        plotly=plotly,
        script=script,
    )


def _row(one: Series) -> str:
    cells = (one.metric, one.unit, one.description)
    return f"<tr>{''.join(f'<td>{html.escape(cell)}</td>' for cell in cells)}</tr>"


def _hash(script: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"


def _embedded(data: object) -> str:
    """JSON that can stand in an element of HTML: no character of it means anything there."""
    text = msgspec.json.encode(data).decode()
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _data(picture: Picture, offset: int) -> dict[str, Any]:
    """What page.js draws. Times are in ms since 1970 on this machine's clock, which is what Plotly's axes show."""

    def ms(time_ns: int) -> float:
        return (time_ns + offset * NS_PER_S) / 1e6

    return {
        "zone": zone(offset),
        "range": [ms(picture.start_ns), ms(picture.end_ns)],
        "series": [
            {
                "metric": one.metric,
                "unit": one.unit,
                "prefixes": one.unit in WITH_PREFIXES,
                "step": one.step_ns / 1e6,
                "runs": one.runs(),
                "times": [ms(time) for time in one.times],
                "values": list(one.values),
                "minima": list(one.minima),
                "maxima": list(one.maxima),
                "counts": list(one.counts),
            }
            for one in picture.series
        ],
        "events": [
            {
                "start": ms(event.time),
                "end": None if event.end is None else ms(event.end),
                "label": event.label,
                "color": event.color,
                "dash": event.dash,
            }
            for event in picture.events
        ],
    }
