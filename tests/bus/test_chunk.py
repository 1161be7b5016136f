# SPDX-License-Identifier: MIT
"""Chunks and the buffers in which they grow."""

import math
from array import array

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bus.chunk import MAX_NS, Chunk, ChunkBuffer, pack_column, unpack_floats, unpack_ints
from bus.timestamp import Timestamp


def test_points_come_out_in_the_order_in_which_they_went_in() -> None:
    buffer = ChunkBuffer("a.b", None)
    buffer.append(1, 1.5)
    buffer.append(2, math.nan)
    buffer.append(3, 7)
    times, values = buffer.take()
    assert times == [1, 2, 3]
    assert values[0] == 1.5
    assert math.isnan(values[1])
    assert type(values[2]) is float


def test_taken_points_are_gone_and_later_ones_start_a_new_chunk() -> None:
    buffer = ChunkBuffer("a.b", 1)
    buffer.append(1, 1.0)
    times, _ = buffer.take()
    buffer.append(2, 2.0)
    assert times == [1]
    assert buffer.times == [2]


def test_a_chunk_is_ready_at_its_size_and_never_without_one() -> None:
    buffer = ChunkBuffer("a.b", 2)
    ready = []
    for time in range(3):
        buffer.append(time, 0.0)
        ready.append(buffer.is_ready)
    assert ready == [False, True, True]
    buffer.chunk_size = None
    assert not buffer.is_ready


@pytest.mark.parametrize("earlier", [9, 10])
def test_a_point_that_is_not_later_is_refused_by_name_and_both_times(earlier: int) -> None:
    buffer = ChunkBuffer("web1.load", None)
    buffer.append(10, 1.0)
    buffer.take()  # the rule holds across chunks
    message = f"web1.load: {Timestamp(earlier)} is not later than the last point, {Timestamp(10)}"
    with pytest.raises(ValueError, match=message):
        buffer.append(earlier, 2.0)
    with pytest.raises(ValueError, match=message):
        buffer.extend(array("q", [earlier, 11]), array("d", [1.0, 2.0]))
    assert len(buffer) == 0
    buffer.append(11, 3.0)


@pytest.mark.parametrize("time", [2**63, -(2**63) - 1, 10**30])
def test_a_time_beyond_64_bits_is_refused(time: int) -> None:
    buffer = ChunkBuffer("a.b", None)
    with pytest.raises(ValueError, match=r"a\.b: -?[0-9]+ ns is not a time that int64 nanoseconds can hold"):
        buffer.append(time, 1.0)
    buffer.append(MAX_NS, 1.0)
    assert len(buffer) == 1


@pytest.mark.parametrize(
    ("value", "error"), [("high", TypeError), ("1.5", TypeError), (None, TypeError), (10**400, ValueError)]
)
def test_a_value_that_is_no_number_leaves_no_half_point_behind(value: float, error: type[Exception]) -> None:
    buffer = ChunkBuffer("a.b", None)
    with pytest.raises(error):
        buffer.append(5, value)
    assert buffer.take() == ([], [])
    buffer.append(5, 1.0)
    assert buffer.take() == ([5], [1.0])


def test_columns_and_points_may_alternate() -> None:
    buffer = ChunkBuffer("a.b", None)
    buffer.append(1, 1.0)
    buffer.extend(array("q", [2, 3]), array("d", [2.0, 3.0]))
    buffer.append(4, 4.0)
    assert buffer.take() == ([1, 2, 3, 4], [1.0, 2.0, 3.0, 4.0])


@pytest.mark.parametrize("size", [1.0, "1", True, [1]])
def test_a_chunk_size_of_the_wrong_type_is_a_type_error(size: int) -> None:
    buffer = ChunkBuffer("a.b", 1)
    with pytest.raises(TypeError, match="chunk_size must be None or a positive integer, not"):
        buffer.chunk_size = size
    assert buffer.chunk_size == 1


@pytest.mark.parametrize("size", [0, -1])
def test_a_chunk_size_below_one_is_a_value_error(size: int) -> None:
    with pytest.raises(ValueError, match=f"chunk_size must be at least 1, not {size}"):
        ChunkBuffer("a.b", size)


def test_a_chunk_gives_its_points_one_by_one() -> None:
    chunk = Chunk("a.b", array("q", [1, 2]), array("d", [0.5, 1.5]))
    assert len(chunk) == 2
    assert list(chunk.points()) == [(Timestamp(1), 0.5), (Timestamp(2), 1.5)]


def test_columns_are_little_endian_bytes() -> None:
    assert pack_column(array("q", [1, -2])).hex() == "0100000000000000feffffffffffffff"
    assert pack_column(array("d", [1.0])).hex() == "000000000000f03f"


@given(st.lists(st.integers(-(2**63), 2**63 - 1)), st.lists(st.floats()))
def test_columns_come_back_from_their_bytes(ints: list[int], floats: list[float]) -> None:
    assert unpack_ints(pack_column(array("q", ints))) == array("q", ints)
    packed = pack_column(array("d", floats))
    assert pack_column(unpack_floats(packed)) == packed


def test_on_a_big_endian_machine_the_bytes_are_swapped_in_a_copy(monkeypatch: pytest.MonkeyPatch) -> None:
    column, floats = array("q", [1]), array("d", [1.0])
    swapped = column.tobytes()[::-1]
    monkeypatch.setattr("sys.byteorder", "big")
    assert pack_column(column) == swapped
    assert unpack_ints(swapped) == column == array("q", [1])
    assert unpack_floats(floats.tobytes()[::-1]) == floats
