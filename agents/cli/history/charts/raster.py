# SPDX-License-Identifier: MIT
"""A picture made of characters: lines over shaded areas, in dots of braille or in plain ASCII."""

from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter

_BRAILLE = 0x2800
_BITS = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))
"""Of the dots of a braille character, from top to bottom, left and right (Unicode, chapter 21.1)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Style:
    """What a picture and its frame are made of, and how many dots a character has in either direction."""

    across: int
    down: int
    tick: str
    side: str
    corner: str
    bottom: str
    foot: str


BRAILLE = Style(across=2, down=4, tick="┤", side="│", corner="└", bottom="─", foot="┬")
ASCII = Style(across=1, down=1, tick="+", side="|", corner="+", bottom="-", foot="+")


def style_for(encoding: str) -> Style:
    """The best that an output of this encoding can show."""
    try:
        (chr(_BRAILLE + 0xFF) + BRAILLE.tick + BRAILLE.foot).encode(encoding)
    except (UnicodeEncodeError, LookupError):
        return ASCII
    return BRAILLE


class Raster:
    """Dots, (0, 0) at the bottom left; each character has the colour of what was drawn into it last."""

    def __init__(self, columns: int, rows: int, style: Style) -> None:
        self._style = style
        self.width = columns * style.across
        self.height = rows * style.down
        self._lines = [[0] * columns for _ in range(rows)]
        self._areas = [[0] * columns for _ in range(rows)]
        self._colours = [[""] * columns for _ in range(rows)]

    def area(self, left: int, right: int, bottom: int, top: int, colour: str = "") -> None:
        """Shade a rectangle, its edges included: every other dot."""
        for y in range(bottom, top + 1):
            for x in range(left, right + 1):
                if (x + y) % 2 == 0 or self._style.down == 1:
                    self._dot(self._areas, x, y, colour)

    def line(self, x0: int, y0: int, x1: int, y1: int, colour: str = "") -> None:
        """Draw a line, both ends included."""
        steps = max(abs(x1 - x0), abs(y1 - y0), 1)
        for step in range(steps + 1):
            x, y = x0 + (x1 - x0) * step / steps, y0 + (y1 - y0) * step / steps
            self._dot(self._lines, round(x), round(y), colour)

    def rows(self) -> list[list[tuple[str, str]]]:
        """From top to bottom, as (text, colour) from left to right."""
        return [
            [
                ("".join(self._character(lines, areas) for lines, areas, _ in same), colour)
                for colour, same in groupby(zip(*row, strict=True), key=itemgetter(2))
            ]
            for row in zip(self._lines, self._areas, self._colours, strict=True)
        ]

    def _dot(self, layer: list[list[int]], x: int, y: int, colour: str) -> None:
        if 0 <= x < self.width and 0 <= y < self.height:
            column, right = divmod(x, self._style.across)
            row, below = divmod(self.height - 1 - y, self._style.down)
            layer[row][column] |= _BITS[below][right]
            self._colours[row][column] = colour

    def _character(self, lines: int, areas: int) -> str:
        if self._style.down == 1:
            return "*" if lines else ":" if areas else " "
        dots = lines or areas  # around a line the shade is left out, so that the line can be seen
        return chr(_BRAILLE + dots) if dots else " "
