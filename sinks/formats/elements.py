# SPDX-License-Identifier: MIT
"""One large JSON object, read a few elements at a time: its keys, and the elements of the arrays under them.

Whole runs of elements are decoded at once where they can be cut out of the text without looking at it closely;
at the ends, and where that fails, each element is found by its brackets. So a file of any size costs little
memory and 1 µs an element.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Generic, TypeVar, cast

import msgspec

from bus.errors import StorageError
from sinks.formats.files import bad, opened

T = TypeVar("T")

READ_BYTES = 1024 * 1024
MAX_ELEMENT_BYTES = 16 * 1024 * 1024
MAX_SLOW_ELEMENTS = 10_000
MAX_DEPTH = 1000
_SPACE = re.compile(rb"[ \t\r\n]*")
_STRING = re.compile(rb'"(?:[^"\\]++|\\.)*+"', re.DOTALL)  # possessive: no memory for a text however long
_SCALAR = re.compile(rb"[^,\]}\s]+")
_BOM = b"\xef\xbb\xbf"
_STEP = re.compile(rb'"(?:[^"\\]++|\\.)*+"|[\[\]{}]|"', re.DOTALL)


class Scanner:
    """Where we are in the text of a file."""

    def __init__(self, path: Path, text: BinaryIO, offset: int) -> None:
        self.path = path
        self.offset = offset
        """In the text, of the first byte in the buffer."""
        self.at = 0
        """In the buffer."""
        self.buffer = b""
        self._text = text
        self._is_at_end = False
        text.seek(offset)
        if offset == 0 and self.more() and self.buffer.startswith(_BOM):
            self.at = len(_BOM)

    @property
    def position(self) -> int:
        """In the text."""
        return self.offset + self.at

    def more(self) -> bool:
        """Read on, letting go of what is behind us; False at the end of the file."""
        if self._is_at_end:
            return False
        kept = len(self.buffer) - self.at
        if kept > MAX_ELEMENT_BYTES:
            raise self.error(f"no element ends within {MAX_ELEMENT_BYTES >> 20} MiB: this is not such a file")
        # A long element is looked at from its beginning each time: so each time there is twice as much of it.
        read = self._text.read(max(READ_BYTES, kept))
        self.offset += self.at
        self.buffer, self.at = self.buffer[self.at :] + read, 0
        self._is_at_end = not read
        return bool(read)

    def peek(self) -> bytes:
        """The next byte that is no space; b"" at the end of the file."""
        while True:
            space = _SPACE.match(self.buffer, self.at)
            self.at = space.end() if space else self.at
            if self.at < len(self.buffer):
                return self.buffer[self.at : self.at + 1]
            if not self.more():
                return b""

    def expect(self, allowed: bytes, what: str) -> bytes:
        """Step over the next byte that is no space, which must be one of these."""
        found = self.peek()
        if not found:
            raise self.cut_off()
        if found not in allowed:
            raise self.error(f"{self.buffer[self.at : self.at + 20].decode(errors='replace')!r} where {what} is due")
        self.at += 1
        return found

    def element(self) -> bytes:
        """The text of the next value, whatever it is."""
        self.peek()
        while True:
            end = self._end_of_value()
            if end is not None:
                found = self.buffer[self.at : end]
                self.at = end
                return found
            if not self.more():
                raise self.cut_off()

    def _end_of_value(self) -> int | None:
        """Where the value that begins here ends; None if not in the buffer."""
        first = self.buffer[self.at : self.at + 1]
        if first == b'"':
            found = _STRING.match(self.buffer, self.at)
            return found.end() if found else None
        if first in (b"", b"}", b"]", b",", b":") and self.buffer[self.at :]:
            raise self.error(f"{first.decode()!r} where a value is due")
        if first not in (b"{", b"["):
            found = _SCALAR.match(self.buffer, self.at)
            return found.end() if found and (found.end() < len(self.buffer) or self._is_at_end) else None
        depth = 0
        for step in _STEP.finditer(self.buffer, self.at):
            token = step[0]
            if token == b'"':
                return None  # a text that does not end in the buffer
            if token in b"{[":
                depth += 1
                if depth > MAX_DEPTH:
                    raise self.error("is nested too deeply")
            elif token in b"}]":
                depth -= 1
                if depth == 0:
                    return step.end()
        return None

    def error(self, what: str) -> StorageError:
        """What is wrong here."""
        return bad(self.path, place(self.path, self.position), what)

    def cut_off(self) -> StorageError:
        """The file ends too early."""
        return bad(
            self.path, place(self.path, self.offset + len(self.buffer)), "the file is cut off: it ends in the middle"
        )


@dataclass(frozen=True, slots=True)
class Run(Generic[T]):
    """Elements that follow each other in an array, the first of which begins at `start` in the text.

    `goes_on`: they are not the last ones.
    """

    elements: list[T]
    start: int
    goes_on: bool


class Elements(Generic[T]):
    """Decodes values of one kind, many at a time where it can."""

    def __init__(self, kind: Any) -> None:
        self._kind = kind
        self._kinds: Any = list[kind]
        self._one = msgspec.json.Decoder(kind)
        self._many = msgspec.json.Decoder(self._kinds)

    def of_array(self, scanner: Scanner) -> Iterator[Run[T]]:
        """The elements of the array that we are in, to its end.

        It is entered behind its bracket or behind a comma. After each run we are behind a comma, or at the end.
        """
        if scanner.peek() == b"]":
            scanner.at += 1
            return
        slow_until = 0
        while True:
            scanner.peek()
            start = scanner.position
            elements: list[T] = []
            if start >= slow_until:
                elements, slow_until = self._many_elements(scanner)
            ended = False
            if elements:
                ended = scanner.expect(b",]", "',' or ']'") == b"]"
            while not ended and len(elements) < MAX_SLOW_ELEMENTS and scanner.position < slow_until:
                elements.append(self.decode(scanner))
                ended = scanner.expect(b",]", "',' or ']'") == b"]"
            yield Run(elements, start, not ended)
            if ended:
                return

    def decode(self, scanner: Scanner) -> T:
        """The value that comes next. Raises StorageError."""
        scanner.peek()
        at = scanner.position
        text = scanner.element()
        try:
            return cast("T", self._one.decode(text))
        except (ValueError, RecursionError) as error:
            reason = "is nested too deeply" if isinstance(error, RecursionError) else str(error)
        try:  # Python writes NaN and Infinity as if they were JSON
            return cast("T", msgspec.convert(json.loads(text), self._kind))
        except (ValueError, RecursionError):
            raise bad(scanner.path, place(scanner.path, at), reason) from None

    def _many_elements(self, scanner: Scanner) -> tuple[list[T], int]:
        """All elements in the buffer but the last; or none, and how far they have to be looked at one by one."""
        if len(scanner.buffer) - scanner.at < READ_BYTES // 4:
            scanner.more()
        start, end = scanner.at, scanner.buffer.rfind(b"},", scanner.at) + 1
        if not end:
            return [], scanner.offset + len(scanner.buffer)
        text = b"[" + scanner.buffer[start:end] + b"]"
        try:
            elements = self._many.decode(text)
        except (ValueError, RecursionError):
            try:
                elements = msgspec.convert(json.loads(text), self._kinds)
            except (ValueError, RecursionError):
                return [], scanner.offset + end
        scanner.at = end
        return elements, 0


def members(scanner: Scanner) -> Iterator[str]:
    """The keys of the object that comes next; who asks for another one has stepped over the value."""
    scanner.expect(b"{", "'{'")
    if scanner.peek() == b"}":
        scanner.at += 1
        return
    yield from members_from_here(scanner)


def members_from_here(scanner: Scanner) -> Iterator[str]:
    """The same for an object that we are in, before one of its keys."""
    while True:
        if scanner.peek() != b'"':
            scanner.expect(b'"', "a key")
        yield _KEYS.decode(scanner)
        if scanner.expect(b",}", "',' or '}'") == b"}":
            return


_KEYS: Elements[str] = Elements(str)


def place(path: Path, offset: int, skip: int = 0) -> str:
    """A place in a file, for people, or that of the element so many elements further on. Reads the file again."""
    with opened(path) as (text, _):
        if skip:
            scanner = Scanner(path, text, offset)
            for _ in range(skip):
                scanner.element()
                scanner.expect(b",", "','")
            scanner.peek()
            offset = scanner.position
        text.seek(0)
        line, column, left = 1, 1, offset
        while left:
            read = text.read(min(left, READ_BYTES))
            if not read:
                break
            left -= len(read)
            feeds = read.count(b"\n")
            line += feeds
            column = len(read) - read.rfind(b"\n") if feeds else column + len(read)
        return f"line {line}, column {column}"
