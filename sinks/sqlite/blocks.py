# SPDX-License-Identifier: MIT
"""Columns as blobs: the times and the values of a block, packed without loss, and checked when they are unpacked.

A blob is a CRC-32 (begun with the count of numbers) of what follows, and for each column a byte that says how it is
kept, and its content:

    constant   the one value that all numbers have
    plain      deflated: good for the same few numbers again and again
    shuffled   the first bytes of all numbers side by side, then all second ones, ..., deflated: good for numbers that
               differ from each other in some of their bytes
    decimal    whole numbers to be divided by a power of ten, less the least of them, as shuffled: for what sensors
               tell, which is 234.5 and not 234.5123908127
    like + k   what differs (XOR) from column k of the same blob, as shuffled: good for columns that are mostly equal

Times are the first one and the shortest step, and, unless they are regular, by how much each step is longer. Numbers
are 8 bytes, little-endian.
"""

from __future__ import annotations

import struct
import zlib
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

from bus.chunk import MAX_NS, pack_column, unpack_floats, unpack_ints
from bus.errors import StorageError

MAX_COUNT = 1 << 16
"""Numbers in a column, at most: a damaged count makes nobody ask for all the memory there is."""

LEVEL = 6
"""Of zlib. Host data: 1 takes a tenth more bytes, 9 ten times the time for one in a hundred less."""

DECIMALS = 3
"""That are looked for, at most."""
_FEW = 8

_WIDTH = 8
_CRC = struct.Struct("<I")
_REGULAR = struct.Struct("<qQ")
_DECIMAL_START = struct.Struct("<Bq")
_CONSTANT, _PLAIN, _SHUFFLED, _DECIMAL, _LIKE = range(5)
_RAW_DEFLATE = -15


def pack_times(times: array[int]) -> bytes:
    """Times as a blob. Raises ValueError unless they strictly increase and are 1 to `MAX_COUNT`."""
    if not 1 <= len(times) <= MAX_COUNT:
        raise ValueError(f"a block has 1 to {MAX_COUNT} times, not {len(times)}")
    steps = [after - before for before, after in pairwise(times)]
    shortest = min(steps, default=1)
    if shortest < 1:
        raise ValueError("the times of a block must strictly increase")
    regular = _REGULAR.pack(times[0], shortest)
    if shortest == max(steps, default=1):
        return _sealed(bytes((_CONSTANT,)) + regular, len(times))
    if max(steps) - shortest > MAX_NS:
        raise ValueError("the times of a block cannot be centuries apart")
    longer = array("q", [step - shortest for step in steps])
    return _sealed(bytes((_SHUFFLED,)) + regular + _deflated(_shuffled(pack_column(longer))), len(times))


def unpack_times(blob: bytes, count: int) -> array[int]:
    """The times in a blob. Raises StorageError if it is damaged."""
    return array("q", look_into_times(blob, count))


def look_into_times(blob: bytes, count: int) -> Sequence[int]:
    """The times in a blob, of which no number is made that nobody looks at if they are regular."""
    content = _opened(blob, count)
    if len(content) < 1 + _REGULAR.size:
        raise StorageError("packed times are damaged: they are too short")
    kind = content[0]
    first, step = _REGULAR.unpack_from(content, 1)
    if kind == _CONSTANT:
        if step == 0 or first + (count - 1) * step > MAX_NS:
            raise StorageError("packed times are damaged: there are no such times")
        return range(first, first + count * step, step)
    planes, _ = _inflated(content[1 + _REGULAR.size :], (count - 1) * _WIDTH)
    try:
        steps = [step + longer for longer in unpack_ints(_unshuffled(planes))]
        return array("q", accumulate(steps, initial=first))
    except OverflowError as error:
        raise StorageError(f"packed times are damaged: {error}") from error


def pack_columns(columns: Sequence[array[float]]) -> bytes:
    """Columns of equal length as a blob: every bit comes back."""
    lengths = {len(column) for column in columns}
    if len(lengths) != 1 or not 1 <= max(lengths) <= MAX_COUNT:
        raise ValueError(f"columns of a block have the same 1 to {MAX_COUNT} values, not {sorted(lengths)}")
    plain = [pack_column(column) for column in columns]
    packed = [_smallest(column, plain[number], plain[:number]) for number, column in enumerate(columns)]
    return _sealed(b"".join(packed), len(columns[0]))


def unpack_columns(
    blob: bytes, count: int, columns: int = 1, start: int = 0, end: int = MAX_COUNT
) -> list[array[float]]:
    """The columns in a blob, of each the numbers start <= i < end. Raises StorageError if it is damaged."""
    rest = _opened(blob, count)
    part = _Part(count, start, min(end, count))
    plain: list[bytes] = []
    for _ in range(columns):
        column, rest = _next_column(rest, part, plain)
        plain.append(column)
    if rest:
        raise StorageError(f"packed columns are damaged: there are more than {columns}")
    return [unpack_floats(column) for column in plain]


@dataclass(frozen=True, slots=True)
class _Part:
    """The numbers start <= i < end of `count`."""

    count: int
    start: int
    end: int

    def inflated(self, packed: bytes) -> tuple[bytes, bytes]:
        """Its planes, and what follows the column."""
        planes, rest = _inflated(packed, self.count * _WIDTH)
        if self.end - self.start == self.count:
            return planes, rest
        begins = range(0, len(planes), self.count)
        return b"".join(planes[begin + self.start : begin + self.end] for begin in begins), rest


def _smallest(values: array[float], plain: bytes, others: Sequence[bytes]) -> bytes:
    """Kind and content of a column, in the fewest bytes; `plain` are those of the column, and `others` of others."""
    if plain == plain[:_WIDTH] * len(values):
        return bytes((_CONSTANT,)) + plain[:_WIDTH]
    ways = [bytes((_PLAIN,)) + _deflated(plain), bytes((_SHUFFLED,)) + _deflated(_shuffled(plain))]
    if decimal := _decimal(values):
        ways.append(bytes((_DECIMAL,)) + decimal)
    if differences := [_difference(plain, other) for other in others]:
        nearest = max(range(len(others)), key=lambda number: differences[number].count(0))
        ways.append(bytes((_LIKE + nearest,)) + _deflated(_shuffled(differences[nearest])))
    return min(ways, key=len)


def _decimal(values: array[float]) -> bytes | None:
    """The content of a column of numbers with few decimals; None for others."""
    for decimals in range(DECIMALS + 1):
        scale = 10.0**decimals
        if _scaled(values[:_FEW], scale) and (whole := _scaled(values, scale)):
            least = min(whole)
            if least > -(2**52) and max(whole) < 2**52:
                more = array("q", [number - least for number in whole])
                return _DECIMAL_START.pack(decimals, least) + _deflated(_shuffled(pack_column(more)))
    return None


def _scaled(values: array[float], scale: float) -> list[int] | None:
    """Whole numbers which divided by `scale` are just the values; None if there are none."""
    try:
        whole = [round(value * scale) for value in values]
        again = array("d", [number / scale for number in whole])
    except (ValueError, OverflowError):  # NaN, infinity
        return None
    return whole if again.tobytes() == values.tobytes() else None


def _from_decimal(packed: bytes, part: _Part) -> tuple[bytes, bytes]:
    """What was made by `_decimal`, and what follows it."""
    if len(packed) < _DECIMAL_START.size:
        raise StorageError("packed columns are damaged: a number is cut")
    decimals, least = _DECIMAL_START.unpack_from(packed)
    planes, rest = part.inflated(packed[_DECIMAL_START.size :])
    scale = 10.0**decimals
    return pack_column(array("d", [(least + more) / scale for more in unpack_ints(_unshuffled(planes))])), rest


def _next_column(packed: bytes, part: _Part, others: Sequence[bytes]) -> tuple[bytes, bytes]:
    """A part of the first column of what is packed, and what follows it; `others` are the columns before it."""
    if len(packed) < 2:
        raise StorageError("packed columns are damaged: one is missing")
    kind, content = packed[0], packed[1:]
    if kind == _CONSTANT:
        if len(content) < _WIDTH:
            raise StorageError("packed columns are damaged: a number is cut")
        return content[:_WIDTH] * (part.end - part.start), content[_WIDTH:]
    if kind == _PLAIN:
        plain, rest = _inflated(content, part.count * _WIDTH)
        return plain[part.start * _WIDTH : part.end * _WIDTH], rest
    if kind == _DECIMAL:
        return _from_decimal(content, part)
    planes, rest = part.inflated(content)
    if kind == _SHUFFLED:
        return _unshuffled(planes), rest
    if kind - _LIKE >= len(others):
        raise StorageError(f"packed columns are damaged: {kind} is no way to keep one")
    return _difference(_unshuffled(planes), others[kind - _LIKE]), rest


def _sealed(content: bytes, count: int) -> bytes:
    return _CRC.pack(zlib.crc32(content, count)) + content


def _opened(blob: bytes, count: int) -> bytes:
    """What was sealed. Raises StorageError unless it is whole and may have `count` numbers."""
    if not 1 <= count <= MAX_COUNT:
        raise StorageError(f"a block is damaged: it cannot have {count} points")
    content = blob[_CRC.size :]
    if len(blob) < _CRC.size or _CRC.pack(zlib.crc32(content, count)) != blob[: _CRC.size]:
        raise StorageError("a block is damaged: its checksum does not fit")
    return content


def _deflated(content: bytes) -> bytes:
    squeeze = zlib.compressobj(LEVEL, wbits=_RAW_DEFLATE)
    return squeeze.compress(content) + squeeze.flush()


def _inflated(packed: bytes, length: int) -> tuple[bytes, bytes]:
    """What was deflated, of which no more than `length` bytes are made, and what follows it."""
    expand = zlib.decompressobj(wbits=_RAW_DEFLATE)
    try:
        content = expand.decompress(packed, length + 1)
    except zlib.error as error:
        raise StorageError(f"a block is damaged: {error}") from error
    if len(content) != length or not expand.eof:
        raise StorageError(f"a block is damaged: it does not hold {length // _WIDTH} numbers")
    return content, expand.unused_data


def _shuffled(plain: bytes) -> bytes:
    return b"".join(plain[place::_WIDTH] for place in range(_WIDTH))


def _unshuffled(planes: bytes) -> bytes:
    plain = bytearray(len(planes))
    count = len(planes) // _WIDTH
    for place in range(_WIDTH):
        plain[place::_WIDTH] = planes[place * count : (place + 1) * count]
    return bytes(plain)


def _difference(column: bytes, other: bytes) -> bytes:
    """XOR, which undoes itself."""
    return (int.from_bytes(column, "little") ^ int.from_bytes(other, "little")).to_bytes(len(column), "little")
