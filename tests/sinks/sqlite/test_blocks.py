# SPDX-License-Identifier: MIT
"""Packed columns: every bit comes back, what is regular costs nothing, what is damaged is told."""

from __future__ import annotations

import math
import random
import struct
import tracemalloc
import zlib
from array import array
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bus.chunk import MAX_NS
from bus.errors import StorageError
from sinks.sqlite import blocks
from sinks.sqlite.blocks import pack_columns, pack_times, unpack_columns, unpack_times

S = 10**9
T0 = 1_790_000_000 * S

any_float = st.integers(0, 2**64 - 1).map(lambda bits: struct.unpack("<d", struct.pack("<Q", bits))[0])
usual_float = st.sampled_from([0.0, -0.0, 1.0, 0.1, 5e-324, math.inf, -math.inf, math.nan, 1e300, -7.25])
column = st.lists(any_float | usual_float | st.floats(), min_size=1, max_size=200).map(lambda v: array("d", v))


@st.composite
def columns(draw: st.DrawFn) -> list[array[float]]:
    """Some that have nothing to do with each other, some that nearly equal another one."""
    found = [draw(column)]
    for _ in range(draw(st.integers(0, 9))):
        if draw(st.booleans()):
            other = draw(st.sampled_from(found))[:]
            other[draw(st.integers(0, len(other) - 1))] = draw(any_float)
        else:
            other = array("d", draw(st.lists(usual_float, min_size=len(found[0]), max_size=len(found[0]))))
        found.append(other)
    return found


@given(columns())
def test_columns_come_back_bit_by_bit(given_columns: list[array[float]]) -> None:
    packed = pack_columns(given_columns)
    unpacked = unpack_columns(packed, len(given_columns[0]), len(given_columns))
    assert [one.tobytes() for one in unpacked] == [one.tobytes() for one in given_columns]


@given(columns(), st.integers(0, 200), st.integers(0, 200))
def test_a_part_of_columns_is_that_part(given_columns: list[array[float]], start: int, end: int) -> None:
    count = len(given_columns[0])
    start, end = sorted((min(start, count), min(end, count)))
    parts = unpack_columns(pack_columns(given_columns), count, len(given_columns), start, end)
    assert [one.tobytes() for one in parts] == [one[start:end].tobytes() for one in given_columns]


@given(st.lists(st.integers(-(10**6), 10**6) | st.integers(-(2**53), 2**53), min_size=1), st.integers(0, 4), any_float)
def test_numbers_with_decimals_come_back_bit_by_bit(whole: list[int], decimals: int, other: float) -> None:
    values = array("d", [number / 10**decimals for number in whole])
    for given_column in (values, array("d", [*values, other])):
        (unpacked,) = unpack_columns(pack_columns([given_column]), len(given_column))
        assert unpacked.tobytes() == given_column.tobytes()


@pytest.mark.parametrize("odd", [-0.0, math.nan, math.inf, 1e300, 0.1 + 0.2, float(2**60)])
def test_one_number_that_is_no_decimal_comes_back_among_decimals(odd: float) -> None:
    values = array("d", [number / 10 for number in range(500)])
    values[300] = odd
    assert unpack_columns(pack_columns([values]), 500)[0].tobytes() == values.tobytes()


@given(st.sets(st.integers(-(2**62), 2**62) | st.integers(0, 300), min_size=1, max_size=200))
def test_times_come_back(times: set[int]) -> None:
    packed = pack_times(array("q", sorted(times)))
    assert unpack_times(packed, len(times)) == array("q", sorted(times))


@pytest.mark.parametrize(
    "times", [[-MAX_NS - 1], [MAX_NS], [-MAX_NS - 1, -MAX_NS], [-MAX_NS - 1, MAX_NS], [MAX_NS - 1, MAX_NS]]
)
def test_times_at_the_ends_of_all_time_come_back(times: list[int]) -> None:
    assert unpack_times(pack_times(array("q", times)), len(times)).tolist() == times


@pytest.mark.parametrize(
    ("times", "complaint"),
    [
        ([], "has 1 to 65536 times, not 0"),
        ([2, 1], "must strictly increase"),
        ([1, 1], "must strictly increase"),
        ([-MAX_NS, 1, MAX_NS, MAX_NS - 1], "must strictly increase"),
        ([-MAX_NS - 1, -MAX_NS, MAX_NS], "centuries apart"),
    ],
)
def test_times_that_cannot_be_those_of_a_block_are_refused(times: list[int], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        pack_times(array("q", times))


@pytest.mark.parametrize("given_columns", [[], [array("d")], [array("d", [1.0]), array("d", [1.0, 2.0])]])
def test_columns_that_cannot_be_those_of_a_block_are_refused(given_columns: list[array[float]]) -> None:
    with pytest.raises(ValueError, match="columns of a block have the same"):
        pack_columns(given_columns)


def test_what_was_packed_once_can_be_read_for_ever() -> None:
    """Blobs of the first version of the format."""
    regular, jitter = array("q", [T0, T0 + S, T0 + 2 * S]), array("q", [T0, T0 + S, T0 + 3 * S])
    assert pack_times(regular).hex() == FIXED["regular"]
    assert unpack_times(bytes.fromhex(FIXED["jitter"]), 3) == jitter
    roots = array("d", [math.sqrt(number) for number in range(12)])
    other = roots[:]
    other[3] = 9.75
    assert unpack_columns(bytes.fromhex(FIXED["columns"]), 12, 3) == [array("d", [1.5] * 12), roots, other]
    decimals = array("d", [round(number * number * 7.3 % 100, 1) for number in range(40)])
    assert unpack_columns(bytes.fromhex(FIXED["decimal"]), 40) == [decimals]
    assert unpack_columns(bytes.fromhex(FIXED["plain"]), 6) == [array("d", [0.1, math.inf, 0.1, 0.1, math.inf, 0.1])]


FIXED = {
    "regular": "aff25611000000f323845bd71800ca9a3b00000000",
    "jitter": "a8254731020000f323845bd71800ca9a3b0000000063606038c5308bc19a010a00",
    "columns": "f275ccbd00000000000000f83f01636040061feccf5ad7a7cd5bf0cd7e954fc48baa6dbfeda1120e2bbe4c9f5dfe98d1414f"
    "9153a46f06b3c3ab1f9756d66bb13a40d4b339409471380447dfb28af0e17430c9ff3bb9a883cb01000563606058c580003e"
    "48ec0824f60b24761512db0c897d03895d0f630000",
    "decimal": "2091454e0301000000000000000063f05499b8c2b2c471c1441d47864093951b127b124f1cf4c934288cb9f9a273cfcc0f1f"
    "5b5626ac9ca3c8c0c0c8c4c0ccc4c4c4ccc8ccc4c808e4303182c5e014508c19c81e610000",
    "plain": "c7ef17d5019b35130476da3380c187fa5950fe2c1ce200",
}


def test_what_is_regular_costs_next_to_nothing() -> None:
    assert len(pack_times(array("q", range(T0, T0 + 3600 * S, S)))) < 24
    assert len(pack_columns([array("d", [math.pi]) * 3600])) < 16
    ticks = [T0 + tick * S + (tick >= 1000) * 17 * S for tick in range(3600)]
    assert len(pack_times(array("q", ticks))) < 120, "one pause in an hour"


def test_random_values_of_one_decimal_take_a_fifth_of_their_bytes() -> None:
    noise = random.Random(1)
    values = array("d", [round(noise.uniform(0, 100), 1) for _ in range(3600)])
    assert len(pack_columns([values])) < 3600 * 1.6


def test_a_column_that_mostly_equals_another_costs_what_differs() -> None:
    noise = random.Random(1)
    sums = array("d", [noise.random() for _ in range(2160)])
    integrals = sums[:]
    integrals[0] *= 0.9
    assert len(pack_columns([sums, integrals])) < len(pack_columns([sums])) + 100


@given(st.binary(max_size=100), st.integers(1, 50), st.integers(1, 4), st.booleans())
def test_any_bytes_are_columns_or_a_storage_error(content: bytes, count: int, number: int, has_crc: bool) -> None:
    blob = struct.pack("<I", zlib.crc32(content, count)) + content if has_crc else content
    with suppress(StorageError):
        assert [len(one) for one in unpack_columns(blob, count, number)] == [count] * number
    with suppress(StorageError):
        assert len(unpack_times(blob, count)) == count


def test_every_flipped_bit_is_noticed() -> None:
    noise = random.Random(2)
    times = array("q", sorted(noise.sample(range(10**9), 20)))
    values = [array("d", [noise.random() for _ in times]), array("d", [1.0]) * 20]
    for blob, unpack in ((pack_times(times), unpack_times), (pack_columns(values), unpack_columns)):
        for bit in range(len(blob) * 8):
            damaged = bytearray(blob)
            damaged[bit // 8] ^= 1 << bit % 8
            with pytest.raises(StorageError, match="damaged"):
                unpack(bytes(damaged), 20)


def test_a_wrong_number_of_points_or_columns_is_noticed() -> None:
    blob = pack_columns([array("d", [1.0, 2.0, 3.0])] * 2)
    for count, number in [(2, 2), (4, 2), (3, 1), (3, 3), (0, 2), (-3, 2), (2**60, 2)]:
        with pytest.raises(StorageError, match="damaged"):
            unpack_columns(blob, count, number)
    for count in (2, 4, 0, 2**60):
        with pytest.raises(StorageError, match="damaged"):
            unpack_times(pack_times(array("q", [1, 3, 4])), count)


def test_a_bomb_does_not_go_off() -> None:
    """A blob of 100 kB that would become 100 MB."""
    squeeze = zlib.compressobj(9, wbits=-15)
    content = bytes((1,)) + squeeze.compress(bytes(100_000_000)) + squeeze.flush()
    blob = struct.pack("<I", zlib.crc32(content, 1000)) + content
    tracemalloc.start()
    try:
        with pytest.raises(StorageError, match="damaged"):
            unpack_columns(blob, 1000)
        assert tracemalloc.get_traced_memory()[1] < 2_000_000
    finally:
        tracemalloc.stop()


def test_the_largest_block_is_as_large_as_it_says() -> None:
    largest = array("q", range(blocks.MAX_COUNT))
    assert unpack_times(pack_times(largest), len(largest)) == largest
    with pytest.raises(ValueError, match="not 65537"):
        pack_times(array("q", range(blocks.MAX_COUNT + 1)))
