# SPDX-License-Identifier: MIT
"""Points as a binary COPY."""

import struct
from array import array

from hypothesis import given
from hypothesis import strategies as st

from bus.frame import Group
from sinks.postgres.copying import encode, gather

INT64 = st.integers(-(2**63), 2**63 - 1)


@st.composite
def groups(draw: st.DrawFn) -> Group:
    names = draw(st.lists(st.sampled_from("abcdef"), min_size=1, max_size=4, unique=True))
    times = sorted(draw(st.sets(INT64, min_size=1, max_size=4)))
    values = draw(st.lists(st.floats(), min_size=len(names) * len(times), max_size=len(names) * len(times)))
    return Group(tuple(names), array("q", times), array("d", values))


def decode(data: bytes) -> list[tuple[int, int, bytes]]:
    """The rows, field by field, as the manual has it."""
    assert data[:11] == b"PGCOPY\n\xff\r\n\0"
    assert data[11:19] == bytes(8)
    assert data[-2:] == b"\xff\xff"
    rows = []
    for fields, four, metric, eight, time, size, value in struct.iter_unpack(">hiiiqi8s", data[19:-2]):
        assert (fields, four, eight, size) == (3, 4, 8, 8)
        rows.append((metric, time, value))
    return rows


@given(st.lists(groups(), max_size=6))
def test_every_point_is_a_row_and_those_of_a_family_are_sorted_by_metric(batch: list[Group]) -> None:
    ids = {name: 2**31 - 1 - number * 1000 for number, name in enumerate("abcdef")}
    rows = decode(bytes(encode(gather(batch), ids)))
    wanted = [
        (ids[chunk.metric], time, struct.pack(">d", value))
        for group in batch
        for chunk in group.chunks()
        for time, value in zip(chunk.times, chunk.values, strict=True)
    ]
    assert sorted(rows) == sorted(wanted)
    if len({group.metrics for group in batch}) == 1:
        assert [metric for metric, _, _ in rows] == sorted(metric for metric, _, _ in rows)
