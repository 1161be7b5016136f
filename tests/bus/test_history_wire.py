# SPDX-License-Identifier: MIT
"""MetricQ's history messages, judged by the protobuf library."""

import contextlib
import math
from array import array
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from bus.aggregates import NS_PER_S, Aggregate
from bus.errors import BadFrame
from bus.history_wire import (
    HistoryRequest,
    HistoryResponse,
    RequestType,
    decode_history_request,
    decode_history_response,
    encode_history_request,
    encode_history_response,
)
from bus.protobuf import pack_varint
from tests.bus.protobuf_oracle import ORACLE, deltas, field

INT64 = st.integers(-(2**63), 2**63 - 1)
TIMES = st.lists(INT64, min_size=1, max_size=6, unique=True).map(sorted)
NOW = 1_795_251_600_000_000_000
MINUTE = Aggregate(NOW, 60, 1234.5, 20.0, 21.0, 20.25, 20.5, 1230.0, 59.5)

REQUESTS = st.builds(
    HistoryRequest,
    start_time=INT64,
    end_time=INT64,
    interval_max=INT64,
    type=st.sampled_from(RequestType),
    limit=st.integers(0, 2**63 - 1),
)
FLOATS = st.one_of(st.just(0.0), st.floats())


def aggregates_at(times: Sequence[int]) -> st.SearchStrategy[list[Aggregate]]:
    """One for each time; those of MetricQ's own databases know neither the first nor the last value."""

    def at(time: int) -> st.SearchStrategy[Aggregate]:
        seconds = st.integers(0, 10**15).map(lambda ns: ns / NS_PER_S)
        return st.builds(
            Aggregate,
            st.just(time),
            st.integers(0, 2**63 - 1),
            *[FLOATS] * 6,
            seconds,
        )

    return st.tuples(*map(at, times)).map(list)


@st.composite
def responses(draw: st.DrawFn) -> HistoryResponse:
    """Answers of both kinds, and none."""
    times = array("q", draw(TIMES))
    metric, error = draw(st.text(max_size=5)), draw(st.text(max_size=5))
    next_time = draw(st.none() | INT64)
    match draw(st.sampled_from(["values", "aggregates", "nothing"])):
        case "values":
            values = array("d", draw(st.lists(st.floats(), min_size=len(times), max_size=len(times))))
            return HistoryResponse(metric=metric, error=error, times=times, values=values, next_time=next_time)
        case "aggregates":
            some = draw(aggregates_at(times))
            return HistoryResponse(metric=metric, error=error, times=times, aggregates=some, next_time=next_time)
        case _:
            return HistoryResponse(metric=metric, error=error, next_time=next_time)


def as_metricq_has_it(aggregate: Aggregate) -> Any:
    return ORACLE["Aggregate"](
        minimum=aggregate.minimum,
        maximum=aggregate.maximum,
        sum=aggregate.sum,
        count=aggregate.count,
        integral=aggregate.integral * NS_PER_S,
        active_time=round(aggregate.covered * NS_PER_S),
    )


def stripped(message: Any) -> bytes:
    """As MetricQ's programs understand it: without the fields that they do not know."""
    message.DiscardUnknownFields()
    serialized: bytes = message.SerializeToString()
    return serialized


def same(a: Aggregate, b: Aggregate) -> bool:
    # The integral travels as value x ns, which rounds.
    if a[:-2] != pytest.approx(b[:-2], nan_ok=True, rel=0, abs=0):
        return False
    return a.integral == pytest.approx(b.integral, nan_ok=True, rel=1e-15) or not math.isfinite(b.integral * NS_PER_S)


@given(REQUESTS)
@example(HistoryRequest())
def test_metricq_reads_a_history_request_without_what_is_ours(request: HistoryRequest) -> None:
    body = encode_history_request(request)
    plain = ORACLE["HistoryRequest"](
        start_time=request.start_time,
        end_time=request.end_time,
        interval_max=request.interval_max,
        type=request.type,
    )
    assert stripped(ORACLE["HistoryRequest"].FromString(body)) == plain.SerializeToString()
    assert decode_history_request(body) == request
    if not request.limit:
        assert body == plain.SerializeToString()


@given(responses())
def test_metricq_reads_a_history_response_without_what_is_ours(response: HistoryResponse) -> None:
    expected = ORACLE["HistoryResponse"](
        metric=response.metric,
        time_delta=deltas(response.times),
        aggregate=[as_metricq_has_it(aggregate) for aggregate in response.aggregates],
        value=response.values,
        error=response.error,
    )
    body = encode_history_response(response)
    assert stripped(ORACLE["HistoryResponse"].FromString(body)) == expected.SerializeToString()
    again = decode_history_response(body)
    assert again.values.tobytes() == response.values.tobytes()
    assert (again.metric, again.times, again.error) == (response.metric, response.times, response.error)
    assert again.next_time == response.next_time
    assert len(again.aggregates) == len(response.aggregates)
    assert all(same(ours, sent) for ours, sent in zip(again.aggregates, response.aggregates, strict=True))


@given(responses())
def test_aggregates_in_columns_come_back_to_the_last_bit_and_metricq_skips_them(response: HistoryResponse) -> None:
    body = encode_history_response(response, in_columns=True)
    again = decode_history_response(body)
    assert repr(list(again.aggregates)) == repr(list(response.aggregates))
    assert (again.times, again.values.tobytes()) == (response.times, response.values.tobytes())
    plain = ORACLE["HistoryResponse"](
        metric=response.metric, time_delta=deltas(response.times), value=response.values, error=response.error
    )
    assert stripped(ORACLE["HistoryResponse"].FromString(body)) == plain.SerializeToString()


@pytest.mark.parametrize(
    "aggregate",
    [
        MINUTE,
        MINUTE._replace(first=0.0, last=0.0),
        MINUTE._replace(first=-0.0),
        MINUTE._replace(sum=0.0, minimum=0.0, maximum=0.0, integral=0.0, first=0.0, last=0.0),
        MINUTE._replace(count=1, integral=0.0, covered=0.0),
        MINUTE._replace(count=2**63 - 1, covered=2.0**31),
    ],
)
def test_an_aggregate_comes_back_as_it_was(aggregate: Aggregate) -> None:
    body = encode_history_response(HistoryResponse(aggregates=[aggregate]))
    (again,) = decode_history_response(body).aggregates
    assert again == aggregate
    assert math.copysign(1, again.first) == math.copysign(1, aggregate.first)


def test_what_a_metricq_database_sends_has_no_first_and_no_last_value() -> None:
    body = ORACLE["HistoryResponse"](time_delta=[NOW], aggregate=[as_metricq_has_it(MINUTE)]).SerializeToString()
    (again,) = decode_history_response(body).aggregates
    assert again._replace(first=0, last=0) == MINUTE._replace(first=0, last=0)
    assert math.isnan(again.first)
    assert math.isnan(again.last)


def test_what_old_databases_send_is_read_as_metricqs_client_reads_it() -> None:
    both = {"time_delta": [NOW, 1], "value_avg": [1.5, 2.5]}
    raw = decode_history_response(ORACLE["HistoryResponse"](**both).SerializeToString())
    assert (raw.values, raw.aggregates) == (array("d", [1.5, 2.5]), [])
    body = ORACLE["HistoryResponse"](**both, value_min=[1, 2], value_max=[2, 3]).SerializeToString()
    old = decode_history_response(body)
    assert not old.values
    assert [(one.time, one.count, one.minimum, one.mean, one.maximum) for one in old.aggregates] == [
        (NOW, 1, 1.0, 1.5, 2.0),
        (NOW + 1, 1, 2.0, 2.5, 3.0),
    ]


@given(st.binary())
def test_any_bytes_are_a_history_message_or_a_bad_frame(body: bytes) -> None:
    with contextlib.suppress(BadFrame):
        decode_history_request(body)
    with contextlib.suppress(BadFrame):
        decode_history_response(body)


@given(responses(), st.data())
def test_a_damaged_history_response_is_read_as_protobuf_reads_it_or_refused(
    response: HistoryResponse, data: st.DataObject
) -> None:
    body = bytearray(encode_history_response(response) or b"\0")
    body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(BadFrame):
        again = decode_history_response(bytes(body))
        expected = ORACLE["HistoryResponse"].FromString(bytes(body))
        assert (again.metric, again.error) == (expected.metric, expected.error)
        if not expected.value_avg:
            assert again.values.tobytes() == array("d", expected.value).tobytes()
            assert [(one.count, round(one.covered)) for one in again.aggregates] == [
                (one.count, round(one.active_time / NS_PER_S)) for one in expected.aggregate
            ]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (field(4, 0, b"\4"), "4 is not a type of history request; 0 to 3 are"),
        (field(4, 0, b"\xff" * 9 + b"\1"), "-1 is not a type of history request"),
        (field(1, 2, b"\1"), "field 1 has wire type 2, not 0"),
        (field(1, 0, b"\x81"), "within the number before byte 2"),
        (field(1000, 0, pack_varint(-1)), "a limit of -1"),
    ],
)
def test_a_bad_history_request_is_refused(body: bytes, message: str) -> None:
    with pytest.raises(BadFrame, match=message):
        decode_history_request(body)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (field(1, 2, b"\xff"), "a text that is not UTF-8"),
        (field(2, 2, b"\5"), "1 times for 0 values"),
        (field(2, 2, b"\5") + field(7, 2, bytes(16)), "1 times for 2 values"),
        (field(7, 2, bytes(8)), "0 times for 1 values"),
        (field(2, 2, b"\5") + field(7, 2, bytes(8)) + field(6, 2, b"") * 2, r"do not belong together, .* \[1, 2\]"),
        (field(2, 2, b"\5") + field(7, 2, bytes(8)) + field(6, 2, b""), "do not belong together"),
        (field(2, 2, b"\5") + field(6, 2, b"\x09" + bytes(7)), "field 1 is cut off: 1 bytes are missing"),
        (field(2, 2, b"\5") + field(6, 2, b"\x20" + pack_varint(-1)), "an aggregate of more than"),
        (field(2, 2, b"\5\0") + field(6, 2, b"") * 2, "times do not strictly increase"),
        (field(2, 2, b"\5") + field(1002, 2, bytes(63)), "63 bytes of aggregates: 64 are needed"),
        (field(2, 2, b"\5") + field(1002, 2, bytes(128)), "1 times for 2"),
        (field(2, 2, b"\5") + field(1002, 2, bytes(64)) + field(6, 2, b""), "do not belong together"),
        (field(2, 2, b"\5") + field(1002, 2, b"\xff" * 64), "an aggregate of less than no values"),
    ],
)
def test_a_bad_history_response_is_refused(body: bytes, message: str) -> None:
    with pytest.raises(BadFrame, match=message):
        decode_history_response(body)


def test_an_error_needs_no_points() -> None:
    response = HistoryResponse(metric="a.b", error="no such metric", aggregates=[])
    assert decode_history_response(encode_history_response(response)) == response


def test_an_error_may_name_a_file_with_foreign_bytes() -> None:
    assert decode_history_response(encode_history_response(HistoryResponse(error="\udcff"))).error == "\\udcff"
