# SPDX-License-Identifier: MIT
"""Columns of times: regular ones take a short way, and all ways lead to the same bytes."""

import contextlib
from array import array
from itertools import accumulate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bus.errors import BadFrame
from bus.protobuf import pack_times, read_times
from tests.bus.protobuf_oracle import ORACLE, deltas, varint

NOW = 1_795_251_600_000_000_000


@given(
    st.integers(-(2**62), NOW),
    st.lists(st.sampled_from([1, 10**9, 10**9 + 1, 60 * 10**9]) | st.integers(1, 2**40), min_size=1, max_size=30),
    st.integers(1, 20),
)
def test_times_are_packed_as_protobuf_packs_them_and_come_back(first: int, steps: list[int], repeats: int) -> None:
    times = list(accumulate(steps * repeats, initial=first))
    packed = pack_times(times)
    chunk = ORACLE["DataChunk"](time_delta=deltas(times)).SerializeToString()
    assert chunk.endswith(packed)
    assert list(read_times([packed], len(times))) == times


@pytest.mark.parametrize("count", [1, 64, 65, 66, 1000])
def test_a_regular_column_of_any_length_comes_back(count: int) -> None:
    times = [NOW + 10**9 * index for index in range(count)]
    assert read_times([pack_times(times)], count) == array("q", times)


@given(st.binary(max_size=20), st.integers(1, 30))
def test_any_bytes_are_times_or_a_bad_frame(piece: bytes, repeats: int) -> None:
    raw = piece * repeats
    with contextlib.suppress(BadFrame):
        count = sum(byte < 128 for byte in raw)
        found = read_times([raw], count)
        assert len(found) == count


@pytest.mark.parametrize("before", [0, 200])
def test_a_number_of_more_than_ten_bytes_is_refused(before: int) -> None:
    raw = varint(10**9) * before + b"\x80" * 10 + b"\1" + varint(10**9) * before
    with pytest.raises(BadFrame, match="a time of more than 64 bits"):
        read_times([raw], 2 * before + 1)
