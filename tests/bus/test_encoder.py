# SPDX-License-Identifier: MIT
"""From chunks to messages: how many, under which keys, numbered how, and never too large."""

from collections import defaultdict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bus.encoder import MAX_COLUMN_POINTS, MAX_MESSAGE_BYTES, Column, FrameEncoder, MetricqEncoder
from bus.frame import CONTENT_TYPE, MAX_FRAME_BYTES, Frame, decode_frame
from bus.metricq_wire import decode_data_chunk
from bus.names import routing_key
from bus.outbox import Parcel

S = 1_000_000_000
NOW = 1_790_000_000 * S
EPOCH = 1_780_000_000 * S


def frames(prefix: str = "") -> FrameEncoder:
    return FrameEncoder("hostbus.data", "source-test", EPOCH, lambda metric: routing_key(metric, prefix))


def decode(parcel: Parcel) -> Frame:
    return decode_frame(parcel.message.body, source=parcel.message.app_id, key=parcel.message.routing_key)


def columns_of(parcels: list[Parcel]) -> dict[str, tuple[list[int], list[float]]]:
    """All points of the messages, put together by metric in the order of the messages."""
    found: dict[str, tuple[list[int], list[float]]] = defaultdict(lambda: ([], []))
    for parcel in parcels:
        for chunk in decode(parcel).chunks():
            found[chunk.metric][0].extend(chunk.times)
            found[chunk.metric][1].extend(chunk.values)
    return dict(found)


def column(metric: str, points: int, first_ns: int = NOW) -> Column:
    return metric, list(range(first_ns, first_ns + points)), [float(number) for number in range(points)]


# -- frames ------------------------------------------------------------------------------------------------


def test_a_tick_of_200_metrics_is_one_message_with_one_group():
    names = [f"web1.cpu.core{core}.usage" for core in range(200)]
    (parcel,) = frames("web1.cpu").encode((name, [NOW], [1.0]) for name in names)
    assert parcel.points == 200
    assert parcel.message.routing_key == "web1.cpu"
    frame = decode(parcel)
    (group,) = frame.groups
    assert group.metrics == tuple(names)
    assert list(group.times) == [NOW]
    assert list(group.values) == [1.0] * 200


def test_a_frame_says_who_sent_it_since_when_and_to_where():
    (parcel,) = frames().encode([("a.b.c", [NOW], [1.0])])
    message = parcel.message
    assert message.exchange == "hostbus.data"
    assert message.app_id == "source-test"
    assert message.content_type == CONTENT_TYPE
    assert message.persistent
    assert not message.mandatory  # nobody need listen
    assert decode(parcel).epoch == EPOCH


def test_metrics_outside_the_prefix_travel_under_their_parents():
    parcels = list(
        frames("web1.cpu").encode(
            (name, [NOW], [1.0])
            for name in ("web1.cpu.usage", "web1.cpus.usage", "web1.cpu", "lab.voltage", "lone", "web1.cpu.core0.usage")
        )
    )
    by_key = {parcel.message.routing_key: [chunk.metric for chunk in decode(parcel).chunks()] for parcel in parcels}
    assert by_key == {
        "web1.cpu": ["web1.cpu.usage", "web1.cpu.core0.usage"],
        "web1.cpus": ["web1.cpus.usage"],
        "web1": ["web1.cpu"],
        "lab": ["lab.voltage"],
        "lone": ["lone"],
    }


def test_frames_are_numbered_from_0_for_each_key_apart():
    encoder = frames()
    numbers = defaultdict(list)
    for tick in range(5):
        columns = [("a.x", [NOW + tick], [1.0])]
        if tick % 2:
            columns.append(("b.x", [NOW + tick], [1.0]))
        for parcel in encoder.encode(columns):
            numbers[parcel.message.routing_key].append(decode(parcel).sequence)
    assert numbers == {"a": [0, 1, 2, 3, 4], "b": [0, 1]}


def test_a_chunk_of_more_than_4_mib_is_split_without_loss():
    big = column("a.big", 1_000_000)
    parcels = list(frames().encode([big, column("a.small", 3)]))
    assert len(parcels) > 2
    assert [decode(parcel).sequence for parcel in parcels] == list(range(len(parcels)))
    assert max(len(parcel.message.body) for parcel in parcels) <= MAX_MESSAGE_BYTES + 1024
    assert sum(parcel.points for parcel in parcels) == 1_000_003
    assert columns_of(parcels) == {"a.big": big[1:], "a.small": column("a.small", 3)[1:]}


def test_many_chunks_that_are_too_much_together_are_split_between_metrics():
    columns = [column(f"a.m{number}", 10_000) for number in range(100)]
    parcels = list(frames().encode(columns))
    assert 1 < len(parcels) < 10
    assert max(len(parcel.message.body) for parcel in parcels) <= MAX_MESSAGE_BYTES
    assert columns_of(parcels) == {metric: (times, values) for metric, times, values in columns}


@pytest.mark.parametrize("points", [MAX_COLUMN_POINTS - 1, MAX_COLUMN_POINTS, MAX_COLUMN_POINTS + 1])
def test_a_chunk_about_as_large_as_a_message_may_be_arrives(points):
    parcels = list(frames().encode([column("a.b", points)]))
    assert all(parcel.points for parcel in parcels)
    assert max(len(parcel.message.body) for parcel in parcels) <= MAX_MESSAGE_BYTES + 1024
    times, values = columns_of(parcels)["a.b"]
    assert (len(times), len(values)) == (points, points)


def test_nothing_makes_no_message():
    assert list(frames().encode([])) == []
    assert list(MetricqEncoder("metricq.data", "source-test").encode([])) == []


WORDS = st.sampled_from(["a", "b", "a.c", "a.c.d", "b.d"])
NUMBERS = st.floats(allow_nan=False)
COLUMNS = st.dictionaries(
    WORDS,
    st.lists(st.tuples(st.integers(-(2**63), 2**63 - 1), NUMBERS), min_size=1, unique_by=lambda point: point[0]).map(
        sorted
    ),
)


@given(COLUMNS, st.sampled_from(["", "a", "a.c"]))
def test_every_point_of_every_chunk_is_in_the_frames_once(points, prefix):
    columns = [(metric, [time for time, _ in of], [value for _, value in of]) for metric, of in points.items()]
    expected = {metric: (times, values) for metric, times, values in columns}
    parcels = list(frames(prefix).encode(columns))
    assert columns_of(parcels) == expected
    assert sum(parcel.points for parcel in parcels) == sum(map(len, points.values()))
    keys = [parcel.message.routing_key for parcel in parcels]
    assert len(keys) == len(set(keys))
    for parcel in parcels:
        key = parcel.message.routing_key
        assert all(chunk.metric == key or chunk.metric.startswith(key + ".") for chunk in decode(parcel).chunks())


# -- MetricQ's chunks --------------------------------------------------------------------------------------


def test_on_metricqs_wire_each_metric_is_a_message_under_its_own_name():
    columns = [("a.x", [NOW, NOW + S], [1.0, 2.0]), ("a.y", [NOW, NOW + S], [3.0, 4.0]), ("lone", [NOW], [5.0])]
    parcels = list(MetricqEncoder("metricq.data", "source-test").encode(columns))
    assert [parcel.message.routing_key for parcel in parcels] == ["a.x", "a.y", "lone"]
    assert [parcel.points for parcel in parcels] == [2, 2, 1]
    for parcel, (metric, times, values) in zip(parcels, columns, strict=True):
        assert parcel.message.exchange == "metricq.data"
        assert parcel.message.app_id == "source-test"
        chunk = decode_data_chunk(parcel.message.body, metric)
        assert (list(chunk.times), list(chunk.values)) == (times, values)


def test_on_metricqs_wire_a_chunk_that_is_too_large_is_split_in_order():
    metric, times, values = column("a.big", 600_000)
    parcels = list(MetricqEncoder("metricq.data", "source-test").encode([(metric, times, values)]))
    assert len(parcels) == 3
    chunks = [decode_data_chunk(parcel.message.body, metric) for parcel in parcels]
    assert [time for chunk in chunks for time in chunk.times] == times
    assert [value for chunk in chunks for value in chunk.values] == values
    assert max(len(parcel.message.body) for parcel in parcels) < MAX_FRAME_BYTES
