# SPDX-License-Identifier: MIT
"""Charts for the terminal: one above the other, as wide as it, with axes, units and local times.

Written here because of what the packages for it lack: plotille (6.0) stops at a NaN and has no ASCII, plotext changed
its whole interface in 6.0, and neither knows areas, holes or time zones.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from agents.cli.history.charts.axes import LABEL_COLUMNS, ValueAxis, time_ticks, value_axis
from agents.cli.history.charts.raster import Raster, Style
from agents.cli.history.charts.series import Series
from agents.cli.localtime import clock, offset_s, zone
from bus.timestamp import Timedelta

COLOURS = ("cyan", "yellow", "magenta", "green", "red", "blue")
LEAST_ROWS, MOST_ROWS = 5, 18
MOST_SERIES = 12
_LEFT = LABEL_COLUMNS + 1

Line = list[tuple[str, str]]
"""Pieces of text and their colours, "" for none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Canvas:
    """What a chart is drawn for. Without `colours`, lines that share a panel could not be told apart: none do."""

    columns: int
    lines: int
    style: Style
    colours: bool

    @property
    def steps(self) -> int:
        """How many values fit beside each other."""
        return max(1, self.columns - _LEFT) * self.style.across


def chart(series: Sequence[Series], start_ns: int, end_ns: int, canvas: Canvas) -> list[Line]:
    """The lines of a picture of all series over a range; metrics of one unit share a panel if there are colours."""
    panels = _panels(series, canvas.colours)
    rows = min(MOST_ROWS, max(LEAST_ROWS, (canvas.lines - len(series) - 3) // len(panels)))
    columns = max(10, canvas.columns - _LEFT)
    offset = offset_s(end_ns)
    lines: list[Line] = []
    for panel in panels:
        axis = _axis(panel, rows)
        colours = dict(zip((one.metric for one in panel), COLOURS * len(panel), strict=False))
        if not canvas.colours:
            colours = dict.fromkeys(colours, "")
        lines += [_heading(one, axis, colours[one.metric], canvas.columns) for one in panel]
        lines += _picture(panel, axis, (start_ns, end_ns), Raster(columns, rows, canvas.style), colours, canvas.style)
    ticks = time_ticks(start_ns, end_ns, offset, max(1, columns // 12))
    lines += _time_axis(ticks, start_ns, end_ns, columns, canvas.style)
    lines.append([(_footer(series[0], start_ns, end_ns, offset), "")])
    return lines


def _panels(series: Sequence[Series], share: bool) -> list[list[Series]]:
    panels: dict[str, list[Series]] = {}
    for one in series:
        panels.setdefault(one.unit if share else one.metric, []).append(one)
    return list(panels.values())


def _heading(one: Series, axis: ValueAxis, colour: str, columns: int) -> Line:
    unit = f" [{axis.unit}]" if axis.unit else ""
    name = f"{one.metric}{unit}"
    rest = f"  {one.description}"[: max(0, columns - len(name))]
    return [(name, colour), (rest.rstrip(), "")]


def _axis(panel: Sequence[Series], rows: int) -> ValueAxis:
    values = [
        value
        for one in panel
        for begin, end in one.runs()
        for column in ((one.minima, one.maxima) if one.stepped else (one.values,))
        for value in column[begin:end]
    ]
    return value_axis(min(values, default=0.0), max(values, default=1.0), panel[0].unit, max(2, rows // 3))


def _picture(
    panel: Sequence[Series],
    axis: ValueAxis,
    span_ns: tuple[int, int],
    raster: Raster,
    colours: dict[str, str],
    style: Style,
) -> list[Line]:
    start, end = span_ns

    def across(time_ns: int) -> int:
        return min(max(0, (time_ns - start) * raster.width // (end - start)), raster.width - 1)

    def up(value: float) -> int:
        return round(axis.place(value) * (raster.height - 1))

    for one in panel:
        if one.stepped:
            _draw_areas(one, raster, across, up, colours[one.metric])
    for one in panel:
        _draw_lines(one, raster, across, up, colours[one.metric])
    labels = {(raster.height - 1 - up(value)) // style.down: label for value, label in axis.ticks}
    return [
        [(f"{labels.get(row, ''):>{LABEL_COLUMNS}}" + (style.tick if row in labels else style.side), ""), *cells]
        for row, cells in enumerate(raster.rows())
    ]


def _draw_areas(
    one: Series, raster: Raster, across: Callable[[int], int], up: Callable[[float], int], colour: str
) -> None:
    for begin, end in one.runs():
        for index in range(begin, end):
            left, right = across(one.times[index]), across(_until(one, index, end)) - 1
            raster.area(left, max(left, right), up(one.minima[index]), up(one.maxima[index]), colour)


def _draw_lines(
    one: Series, raster: Raster, across: Callable[[int], int], up: Callable[[float], int], colour: str
) -> None:
    """Points are joined; the mean of a step lasts as long as the step."""
    for begin, end in one.runs():
        at = None
        for index in range(begin, end):
            x, y = across(one.times[index]), up(one.values[index])
            raster.line(*(at or (x, y)), x, y, colour)
            at = x, y
            if one.stepped:
                at = max(x, across(_until(one, index, end)) - 1), y
                raster.line(x, y, *at, colour)


def _until(one: Series, index: int, end: int) -> int:
    """When a step's value ends: within a run, where the next begins."""
    return one.times[index + 1] if index + 1 < end else one.times[index] + one.step_ns


def _time_axis(ticks: Sequence[tuple[int, str]], start_ns: int, end_ns: int, columns: int, style: Style) -> list[Line]:
    bottom, labels = [style.bottom] * columns, [" "] * (columns + _LEFT)
    free = 0
    for time_ns, label in ticks:
        column = (time_ns - start_ns) * columns // (end_ns - start_ns)
        bottom[column] = style.foot
        left = min(_LEFT + column - len(label) // 2, len(labels) - len(label))
        if left >= free:
            labels[left : left + len(label)] = label
            free = left + len(label) + 1
    return [[(" " * LABEL_COLUMNS + style.corner + "".join(bottom), "")], [("".join(labels).rstrip(), "")]]


def _footer(one: Series, start_ns: int, end_ns: int, offset: int) -> str:
    begin, end = clock(start_ns, offset), clock(end_ns, offset)
    what = f"means of {Timedelta(one.step_ns).precise_string}, dots: min to max" if one.stepped else "all points"
    if begin[:11] == end[:11]:
        end = end[11:]
    return f"{begin} to {end} {zone(offset)}; {what}"
