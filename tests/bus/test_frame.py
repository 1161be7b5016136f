# SPDX-License-Identifier: MIT
"""Frames: their bytes, their limits, and what hostile bytes may not do."""

import contextlib
import math
import tracemalloc
from array import array
from collections.abc import Callable

import msgpack
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from bus import frame as frame_module
from bus.chunk import Chunk
from bus.errors import BadFrame
from bus.frame import MAX_FRAME_BYTES, MAX_FRAME_POINTS, Frame, Group, decode_frame, encode_frame, group_columns

INT64 = st.integers(-(2**63), 2**63 - 1)
NAMES = st.from_regex(r"[A-Za-z0-9_-]{1,8}(\.[A-Za-z0-9_-]{1,8}){0,3}", fullmatch=True)
TIMES = st.lists(INT64, min_size=1, max_size=5, unique=True).map(sorted)


@st.composite
def groups(draw: st.DrawFn) -> Group:
    metrics = draw(st.lists(NAMES, min_size=1, max_size=4, unique=True))
    times = draw(TIMES)
    size = len(metrics) * len(times)
    values = draw(st.lists(st.floats(), min_size=size, max_size=size))
    return Group(tuple(metrics), array("q", times), array("d", values))


FRAMES = st.builds(
    Frame,
    groups=st.lists(groups(), max_size=3).map(tuple),
    epoch=st.integers(0, 2**63 - 1),
    sequence=st.integers(0, 2**63 - 1),
)


def one_group(metrics: object = ("a.b",), times: object = b"\1" + bytes(7), values: object = bytes(8)) -> bytes:
    """A frame of one group, packed by another library, of whatever is given."""
    packed: bytes = msgpack.packb([1, 10, 3, [[metrics, times, values]]])
    return packed


def test_the_bytes_of_a_frame_are_fixed() -> None:
    group = Group(("web1.a", "web1.b"), array("q", [1, 2]), array("d", [0.0, 1.0, -1.0, math.inf]))
    body = encode_frame(Frame(groups=(group,), epoch=1000, sequence=7))
    assert body.hex() == (
        "94" "01" "cd03e8" "07" "91"  # [version, epoch, sequence, [one group]]
        "93" "92" "a6" + b"web1.a".hex() + "a6" + b"web1.b".hex() +
        "c410" "0100000000000000" "0200000000000000"
        "c420" "0000000000000000" "000000000000f03f" "000000000000f0bf" "000000000000f07f"
    )  # fmt: skip
    assert msgpack.unpackb(body)[:3] == [1, 1000, 7]
    assert decode_frame(body, source="s", key="web1") == Frame(
        groups=(group,), epoch=1000, sequence=7, source="s", key="web1"
    )


@given(FRAMES)
def test_a_frame_comes_back_from_its_bytes(frame: Frame) -> None:
    body = encode_frame(frame)
    again = decode_frame(body)
    # Compared as bytes, because NaN is not equal to itself; its payload must survive, too.
    assert encode_frame(again) == body
    assert (again.epoch, again.sequence, again.points) == (frame.epoch, frame.sequence, frame.points)
    assert [group.metrics for group in again.groups] == [group.metrics for group in frame.groups]
    assert [group.times for group in again.groups] == [group.times for group in frame.groups]


@given(FRAMES)
def test_another_library_reads_the_same_frame(frame: Frame) -> None:
    plain = [[list(group.metrics), group.times.tobytes(), group.values.tobytes()] for group in frame.groups]
    assert msgpack.unpackb(encode_frame(frame)) == [1, frame.epoch, frame.sequence, plain]
    assert decode_frame(msgpack.packb([1, frame.epoch, frame.sequence, plain])).points == frame.points


@given(st.binary() | st.binary(max_size=60).map(lambda rest: b"\x94\x01\x00\x00" + rest))
@example(b"")
@example(b"\xc1")
@example(b"\x94\x01\x00\x00\x91\x93\x91\xa1\xff\xc4\x08" + bytes(8) + b"\xc4\x08" + bytes(8))
def test_any_bytes_are_a_frame_or_a_bad_frame(body: bytes) -> None:
    try:
        frame = decode_frame(body)
    except BadFrame:
        return
    assert encode_frame(decode_frame(encode_frame(frame))) == encode_frame(frame)


@given(FRAMES, st.data())
def test_a_damaged_frame_is_a_frame_or_a_bad_frame(frame: Frame, data: st.DataObject) -> None:
    body = bytearray(encode_frame(frame))
    for _ in range(data.draw(st.integers(1, 3))):
        body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(body)))
    for damaged in (bytes(body), bytes(body[:cut])):
        with contextlib.suppress(BadFrame):
            decode_frame(damaged)


JSON_LIKE = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text(max_size=3) | st.binary(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)


@given(st.lists(JSON_LIKE, max_size=6) | st.tuples(st.just(1), JSON_LIKE, JSON_LIKE, st.lists(JSON_LIKE, max_size=2)))
def test_well_packed_nonsense_is_a_frame_or_a_bad_frame(nonsense: object) -> None:
    with contextlib.suppress(BadFrame):
        decode_frame(msgpack.packb(nonsense))


@pytest.mark.parametrize(
    "head",
    [
        [2, 0, 0, []],
        [1, 0, 0],
        [1, 0, 0, [], 5],
        [True, 0, 0, []],
        [1.0, 0, 0, []],
        ["1", 0, 0, []],
        [1, -1, 0, []],
        [1, 0, -1, []],
        [1, 0, 2**63, []],
        [1, 2**64 - 1, 0, []],
        [1, 1.5, 0, []],
        [1, 0, None, []],
        [1, "0", 0, []],
        [1, 0, 0, {}],
        [1, 0, 0, None],
        [1, 0, 0, b""],
        [1, 0, 0, [[]]],
        [1, 0, 0, [5]],
        {"version": 1},
        1,
        None,
        [],
    ],
    ids=repr,
)
def test_a_frame_with_a_wrong_head_is_refused_with_its_first_bytes(head: object) -> None:
    body = msgpack.packb(head)
    with pytest.raises(BadFrame, match=f"not a frame of version 1, which begins {body[:8].hex()}: "):
        decode_frame(body)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (one_group(metrics=[]), "a group begins with its list of metric names"),
        (one_group(metrics="a.b"), "a group begins with its list of metric names"),
        (one_group(metrics=["a", 5]), "a group begins with its list of metric names"),
        (one_group(metrics=[b"a"]), "a group begins with its list of metric names"),
        (one_group(metrics=["a", ["b"]]), "a group begins with its list of metric names"),
        (one_group(metrics=["a b"]), "'a b' is not a metric name"),
        (one_group(metrics=[""]), "'' is not a metric name"),
        (one_group(metrics=["a", "b\nc"], values=bytes(16)), r"'b\\nc' is not a metric name"),
        (one_group(metrics=["x" * 256]), "'x{256}' is not a metric name"),
        (one_group(metrics=["a", "b", "a"], values=bytes(24)), "a is in one group 2 times"),
        (one_group(times=b"", values=b""), "0 bytes of times: 8 are needed for each"),
        (one_group(times=bytes(9)), "9 bytes of times: 8 are needed for each"),
        (one_group(values=bytes(7)), "1 metrics with 1 times need 8 bytes of values, not 7"),
        (one_group(metrics=["a", "b"]), "2 metrics with 1 times need 16 bytes of values, not 8"),
        (one_group(times=bytes(16), values=bytes(16)), "times of a.b do not strictly increase"),
        (one_group(times=b"\1" + bytes(15), values=bytes(16)), "times of a.b do not strictly increase"),
        (one_group(times="12345678"), "Expected `bytes`, got `str`"),
        (one_group(values=[0.0]), "Expected `bytes`, got `array`"),
        (one_group(values=None), "Expected `bytes`, got `None`"),
    ],
)
def test_a_frame_with_a_wrong_group_is_refused_with_the_broken_rule(body: bytes, message: str) -> None:
    with pytest.raises(BadFrame, match=message):
        decode_frame(body)
    with pytest.raises(BadFrame, match=message):  # the second time may take another way: names are remembered
        decode_frame(body)


def test_a_frame_may_be_empty_and_may_hold_the_extremes() -> None:
    assert decode_frame(msgpack.packb([1, 0, 0, []])).groups == ()
    group = Group(("a",), array("q", [-(2**63), 0, 2**63 - 1]), array("d", [-math.inf, 5e-324, 1.7976931348623157e308]))
    assert decode_frame(encode_frame(Frame(groups=(group,), sequence=0))).groups == (group,)


def test_the_limit_of_points_is_exact() -> None:
    times = array("q", range(MAX_FRAME_POINTS // 2))
    values = array("d", bytes(8 * len(times)))
    halves = (Group(("a",), times, values), Group(("b",), times, values))
    assert decode_frame(encode_frame(Frame(groups=halves, sequence=0))).points == MAX_FRAME_POINTS
    one_more = Group(("c",), times[:1], values[:1])
    with pytest.raises(BadFrame, match="1000001 points in one frame: at most 1000000 are allowed"):
        decode_frame(encode_frame(Frame(groups=(*halves, one_more), sequence=0)))


def test_the_limit_of_bytes_is_exact() -> None:
    with pytest.raises(BadFrame, match="a frame of 16777217 bytes: at most 16777216 are allowed"):
        decode_frame(bytes(MAX_FRAME_BYTES + 1))
    with pytest.raises(BadFrame, match="not a frame of version 1"):
        decode_frame(bytes(MAX_FRAME_BYTES))


def padded(head: bytes) -> bytes:
    return head.ljust(MAX_FRAME_BYTES, b"\x90")


BOMBS: dict[str, Callable[[], bytes]] = {
    "an array of 4 G": lambda: b"\xdd\xff\xff\xff\xff",
    "4 G groups": lambda: b"\x94\x01\x00\x00\xdd\xff\xff\xff\xff",
    "4 G names": lambda: b"\x94\x01\x00\x00\x91\x93\xdd\xff\xff\xff\xff",
    "a name of 4 GB": lambda: b"\x94\x01\x00\x00\x91\x93\x91\xdb\xff\xff\xff\xff",
    "times of 4 GB": lambda: b"\x94\x01\x00\x00\x91\x93\x91\xa1a\xc6\xff\xff\xff\xff",
    "a map of 4 G": lambda: b"\xdf\xff\xff\xff\xff",
    "an extension of 4 GB": lambda: b"\xc9\xff\xff\xff\xff\x00",
    "nested heads of huge arrays": lambda: b"\x94\x01\x00\x00" + b"\xdd\x00\xff\xff\xff" * 1000,
    "arrays nested 16 M deep": lambda: b"\x91" * MAX_FRAME_BYTES,
    "names nested 16 M deep": lambda: b"\x94\x01\x00\x00\x91\x93" + b"\x91" * (MAX_FRAME_BYTES - 6),
    "16 M empty arrays": lambda: padded(b"\xdd\x00\xff\xff\xfb"),
    "16 M empty arrays as groups": lambda: padded(b"\x94\x01\x00\x00\xdd\x00\xff\xff\xf7"),
    "empty arrays as names": lambda: padded(b"\x94\x01\x00\x00\x91\x93\xdd\x00\xff\xff\xf0"),
    "5 M short names": lambda: b"\x94\x01\x00\x00\x91\x93\xdd\x00\x50\x00\x00" + b"\xa2ab" * 0x500000 + b"\xc4\0\xc4\0",
    "a million names, five times": lambda: (
        b"\x94\x01\x00\x00\x95" + (b"\x93\xdd\x00\x0f\x42\x40" + b"\xa2ab" * 1_000_000 + b"\xc4\0\xc4\0") * 5
    ),
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_is_a_bad_frame_and_makes_no_wild_allocation(name: str) -> None:
    body = BOMBS[name]()
    assert len(body) <= MAX_FRAME_BYTES
    tracemalloc.start()
    try:
        with pytest.raises(BadFrame):
            decode_frame(body)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 256 * 1024 * 1024  # a million names, which a frame may hold, need most of that


def test_the_names_of_a_source_are_the_same_objects_in_every_frame() -> None:
    body = one_group(metrics=["a.b", "a.c"], values=bytes(16))
    first, second = decode_frame(body).groups[0], decode_frame(body).groups[0]
    assert first.metrics is second.metrics
    assert first.values is not second.values


def test_remembered_names_stay_within_their_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frame_module._NameLists, "LIMIT_BYTES", 1600)
    known = frame_module._NameLists()
    for number in range(1000):
        assert known[msgpack.packb([f"metric.{number:04}"])] == (f"metric.{number:04}",)
        assert sum(map(len, known._known)) == known._bytes <= 1600
    long = msgpack.packb(["x" * 101])
    assert known[long] == ("x" * 101,)
    assert long not in known._known


def test_a_group_gives_one_chunk_per_metric() -> None:
    group = Group(("a", "b"), array("q", [1, 2]), array("d", [1.0, 2.0, 3.0, 4.0]))
    assert group.points == 4
    chunks = [Chunk("a", group.times, array("d", [1.0, 2.0])), Chunk("b", group.times, array("d", [3.0, 4.0]))]
    assert list(group.chunks()) == chunks
    assert list(Frame(groups=(group,)).chunks()) == chunks


def test_a_selection_of_a_frame_drops_metrics_and_empty_groups() -> None:
    group = Group(("a", "b"), array("q", [1, 2]), array("d", [1.0, 2.0, 3.0, 4.0]))
    other = Group(("c",), array("q", [5]), array("d", [6.0]))
    frame = Frame(groups=(group, other), epoch=3, sequence=4, source="s", key="k")
    assert frame.select(lambda metric: True) is frame
    assert frame.select({"b"}.__contains__) == Frame(
        groups=(Group(("b",), group.times, array("d", [3.0, 4.0])),), epoch=3, sequence=4, source="s", key="k"
    )
    assert frame.select({"c"}.__contains__).groups == (other,)
    assert frame.select(lambda metric: False).groups == ()


COLUMNS = st.lists(
    st.sampled_from([[1], [2], [1, 2], [1, 3], [1, 2, 3], [1, 1000, 3000], [1, 2000, 3000]]), max_size=8
).map(
    lambda vectors: [
        (f"m.{index}", list(times), [float(index * 10 + point) for point in range(len(times))])
        for index, times in enumerate(vectors)
    ]
)


@given(COLUMNS)
def test_columns_with_equal_times_share_a_group_and_none_is_lost(
    columns: list[tuple[str, list[int], list[float]]],
) -> None:
    grouped = group_columns(columns)
    assert len(grouped) == len({tuple(times) for _, times, _ in columns})
    chunks = {chunk.metric: (list(chunk.times), list(chunk.values)) for group in grouped for chunk in group.chunks()}
    assert chunks == {metric: (times, values) for metric, times, values in columns}


def test_grouping_leaves_the_columns_as_they_were() -> None:
    columns = [("a", [1], [1.0]), ("b", [1], [2.0])]
    assert len(group_columns(columns)) == 1
    assert columns == [("a", [1], [1.0]), ("b", [1], [2.0])]


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 3))
def test_a_bad_frame_is_refused_the_same_after_good_ones(good: int) -> None:
    for _ in range(good):
        decode_frame(one_group())
    with pytest.raises(BadFrame, match="bytes of values"):
        decode_frame(one_group(values=bytes(16)))
