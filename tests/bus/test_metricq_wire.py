# SPDX-License-Identifier: MIT
"""MetricQ's data messages, judged by the protobuf library."""

import contextlib
import math
import struct
import tracemalloc
from array import array
from itertools import accumulate

import pytest
from google.protobuf.message import DecodeError
from hypothesis import example, given
from hypothesis import strategies as st

from bus.errors import BadFrame
from bus.frame import MAX_FRAME_BYTES, MAX_FRAME_POINTS, Frame, Group
from bus.metricq_wire import (
    decode_data_chunk,
    decode_metricq,
    encode_data_chunk,
    encode_group,
)
from tests.bus.protobuf_oracle import ORACLE, deltas, field, varint

INT64 = st.integers(-(2**63), 2**63 - 1)
UINT64 = st.integers(0, 2**64 - 1)
TIMES = st.lists(INT64, min_size=1, max_size=6, unique=True).map(sorted)
NOW = 1_795_251_600_000_000_000


def test_the_bytes_of_a_data_chunk_are_fixed() -> None:
    body = encode_data_chunk([300, 301], [1.0, -2.0])
    assert body.hex() == "0a03ac0201" "1210000000000000f03f00000000000000c0"  # fmt: skip
    chunk = decode_data_chunk(body, "web1.load")
    assert (chunk.metric, list(chunk.times), list(chunk.values)) == ("web1.load", [300, 301], [1.0, -2.0])


def test_a_negative_time_takes_ten_bytes() -> None:
    body = encode_data_chunk([-1], [0.0])
    assert body.hex() == "0a0affffffffffffffffff01" "12080000000000000000"  # fmt: skip
    assert list(decode_data_chunk(body, "a").times) == [-1]


@given(TIMES, st.data())
def test_a_data_chunk_is_what_protobuf_makes_of_it(times: list[int], data: st.DataObject) -> None:
    values = data.draw(st.lists(st.floats(), min_size=len(times), max_size=len(times)))
    body = encode_data_chunk(times, values)
    assert body == ORACLE["DataChunk"](time_delta=deltas(times), value=values).SerializeToString()
    chunk = decode_data_chunk(body, "a.b")
    assert list(chunk.times) == times
    assert chunk.values.tobytes() == array("d", values).tobytes()


def test_the_extremes_of_int64_and_float64_come_back() -> None:
    times = [-(2**63), -1, 0, 2**63 - 1]
    values = [-math.inf, math.inf, 5e-324, -0.0]
    chunk = decode_data_chunk(encode_data_chunk(times, values), "a")
    assert list(chunk.times) == times
    assert struct.pack("4d", *chunk.values) == struct.pack("4d", *values)
    assert list(decode_data_chunk(encode_data_chunk([-(2**63), 2**63 - 1], [1.0, 2.0]), "a").times) == [
        times[0],
        times[3],
    ]


PIECES = st.sampled_from(["packed times", "time", "packed values", "value", "unknown"])


@given(st.lists(st.tuples(PIECES, st.lists(st.integers(0, 2**40), max_size=3), INT64), max_size=8))
def test_pieces_in_any_order_packed_or_not_are_read_as_protobuf_reads_them(
    pieces: list[tuple[str, list[int], int]],
) -> None:
    body = b""
    for piece, numbers, number in pieces:
        match piece:
            case "packed times":
                body += field(1, 2, b"".join(map(varint, numbers)))
            case "time":
                body += field(1, 0, varint(number % 2**64))
            case "packed values":
                body += field(2, 2, array("d", numbers).tobytes())
            case "value":
                body += field(2, 1, struct.pack("<d", number))
            case _:
                body += field(3, 0, varint(number % 2**64)) + field(4, 1, bytes(8)) + field(1000, 5, b"abcd")
                body += field(17, 2, bytes(len(numbers)))
    expected = ORACLE["DataChunk"].FromString(body)
    increments = expected.time_delta[1:]
    times = list(accumulate([*expected.time_delta[:1], *(delta % 2**64 for delta in increments)]))
    good = len(times) == len(expected.value) > 0 and 0 not in increments and times[-1] < 2**63
    if good:
        chunk = decode_data_chunk(body, "a")
        assert (list(chunk.times), list(chunk.values)) == (times, list(expected.value))
    else:
        with pytest.raises(BadFrame):
            decode_data_chunk(body, "a")


@given(st.binary() | st.binary().map(lambda rest: b"\x0a\x01\x05\x12\x08" + bytes(8) + rest), st.text())
@example(b"\x0a\x01\x05\x12\x08" + bytes(8), "a.b")
@example(b"\x0a\x01\x05\x12\x08" + bytes(8), "a b")
@example(b"\x0a\x01\x05\x12\x08" + bytes(8) + b"\x0b\x0c", "a.b")
def test_any_bytes_under_any_key_are_a_frame_or_a_bad_frame(body: bytes, key: str) -> None:
    with contextlib.suppress(BadFrame):
        frame = decode_metricq(body, key, "source-x")
        assert frame.points == len(frame.groups[0].times) > 0


@given(TIMES, st.data())
def test_a_damaged_chunk_is_read_as_protobuf_reads_it_or_refused(times: list[int], data: st.DataObject) -> None:
    body = bytearray(encode_data_chunk(times, [1.5] * len(times)))
    body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    damaged = bytes(body[: data.draw(st.integers(0, len(body)))])
    with contextlib.suppress(BadFrame):
        chunk = decode_data_chunk(damaged, "a")
        expected = ORACLE["DataChunk"].FromString(damaged)
        assert deltas(chunk.times) == list(expected.time_delta)
        assert chunk.values.tobytes() == array("d", expected.value).tobytes()


CHUNK = encode_data_chunk([5], [0.0])


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "a data chunk without points"),
        (field(9, 0, b"\0"), "a data chunk without points"),
        (encode_data_chunk([5], []), "1 times for 0 values"),
        (encode_data_chunk([], [5.0]), "0 times for 1 values"),
        (encode_data_chunk([5], [1.0, 2.0]), "1 times for 2 values"),
        (encode_data_chunk([5, 5], [1.0, 2.0]), "times do not strictly increase"),
        (encode_data_chunk([5, 4], [1.0, 2.0]), "times do not strictly increase, or leave the range of 64 bits"),
        (CHUNK[:-1], "field 2 is cut off: 1 bytes are missing"),
        (CHUNK[:1], "within the number before byte 1"),
        (CHUNK + b"\x80", "within the number before byte 14"),
        (CHUNK + b"\x80" * 20, "within the number before byte 23"),
        (b"\x0a\x01\x85" + CHUNK[2:], "0 is not the number of a field"),
        (b"\x0a\x01\x85" + CHUNK[3:], "the times are cut off within a number"),
        (field(1, 2, b"\xff" * 10 + b"\1") + CHUNK[3:], "a time of more than 64 bits"),
        (field(1, 2, b"\xff" * 9 + b"\x7f") + CHUNK[3:], "times do not strictly increase, or leave the range"),
        (field(1, 2, b"\5") + field(2, 2, bytes(7)), "7 bytes of values: 8 are needed for each"),
        (field(1, 1, bytes(8)), "field 1 has wire type 1, not 2"),
        (field(2, 0, b"\0"), "field 2 has wire type 0, not 2"),
        (CHUNK + field(3, 3, b""), "unknown wire type 3"),
        (CHUNK + field(3, 7, b""), "unknown wire type 7"),
        (CHUNK + field(0, 0, b"\0"), "0 is not the number of a field"),
        (CHUNK + field(1 << 29, 0, b"\0"), "536870912 is not the number of a field"),
        (CHUNK + b"\x1a" + varint(2**63), "field 3 is cut off"),
        (field(1, 0, b"\5") * 400_001, "a message of more than 400000 fields"),
        (bytes(MAX_FRAME_BYTES + 1), "a message of 16777217 bytes: at most 16777216 are allowed"),
    ],
    ids=range(25),
)
def test_a_bad_chunk_is_refused_with_the_broken_rule(body: bytes, message: str) -> None:
    with pytest.raises(BadFrame, match=message):
        decode_data_chunk(body, "a.b")


@pytest.mark.parametrize("key", ["", "a b", "a..b", "x" * 256])
def test_a_key_that_is_no_metric_name_is_refused(key: str) -> None:
    with pytest.raises(BadFrame, match="is not a metric name"):
        decode_metricq(CHUNK, key, "source-x")


def test_the_limit_of_points_is_exact() -> None:
    values = array("d", bytes(8 * (MAX_FRAME_POINTS + 1)))
    assert (
        len(decode_data_chunk(encode_data_chunk(range(1, MAX_FRAME_POINTS + 1), values[1:]), "a")) == MAX_FRAME_POINTS
    )
    with pytest.raises(BadFrame, match="1000001 points: at most 1000000 are allowed in one message"):
        decode_data_chunk(encode_data_chunk(range(1, MAX_FRAME_POINTS + 2), values), "a")


@pytest.mark.parametrize(
    "body",
    [
        b"\x0a" + varint(2**34) + bytes(100),
        field(1, 2, bytes(MAX_FRAME_BYTES - 100)),
        field(1, 2, b"\xff" * (MAX_FRAME_BYTES - 100)),
        b"\x08\x01" * (MAX_FRAME_BYTES // 2),
        b"\x18\x01" * (MAX_FRAME_BYTES // 2),
        field(2, 2, bytes(MAX_FRAME_BYTES - 8 * 12)),
    ],
    ids=["length", "16 M zeros", "one endless number", "8 M times one by one", "8 M unknown fields", "2 M values"],
)
def test_a_bomb_is_a_bad_frame_and_makes_no_wild_allocation(body: bytes) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(BadFrame):
            decode_data_chunk(body, "a")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 256 * 1024 * 1024


def test_a_metricq_message_is_a_frame_of_one_group_without_a_number() -> None:
    group = Group(("web1.load",), array("q", [NOW]), array("d", [0.5]))
    frame = decode_metricq(encode_data_chunk([NOW], [0.5]), "web1.load", "source-x")
    assert frame == Frame(groups=(group,), epoch=0, sequence=None, source="source-x", key="web1.load")


def test_a_group_becomes_one_chunk_per_metric_with_the_same_times() -> None:
    times = array("q", [NOW, NOW + 10**9])
    group = Group(("a", "b"), times, array("d", [1.0, 2.0, 3.0, math.nan]))
    assert list(encode_group(group)) == [
        ("a", encode_data_chunk(times, [1.0, 2.0])),
        ("b", encode_data_chunk(times, [3.0, math.nan])),
    ]


def test_the_oracle_itself_refuses_what_is_cut_off() -> None:
    with pytest.raises(DecodeError):
        ORACLE["DataChunk"].FromString(CHUNK[:-1])
