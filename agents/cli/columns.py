# SPDX-License-Identifier: MIT
"""Tables of numbers that fit 80 columns: a name too long for its column has a line of its own."""

from collections.abc import Iterator, Sequence

WIDTH = 80


def lines(header: Sequence[str], rows: Sequence[Sequence[str]], *, left: int = 1, width: int = WIDTH) -> Iterator[str]:
    """The lines of a table: its first `left` columns lean to the left, the others to the right.

    Args:
        header: the names of the columns
        rows: cells, the first of which is a name
        left: how many columns are words, not numbers
        width: of the lines, unless a name alone, or the other columns together, take more
    """
    texts = [header, *rows]
    others = [max(map(len, column)) for column in list(zip(*texts, strict=True))[1:]]
    room = width - sum(others) - 2 * len(others)
    first = max((len(row[0]) for row in texts if len(row[0]) <= room), default=0)
    for row in texts:
        name = row[0]
        if len(name) > first:
            yield name
            name = ""
        cells = [
            cell.ljust(size) if number < left - 1 else cell.rjust(size)
            for number, (cell, size) in enumerate(zip(row[1:], others, strict=True))
        ]
        yield "  ".join([name.ljust(first), *cells]).rstrip()
