# SPDX-License-Identifier: MIT
"""MetricQ's messages as bytes: data chunks and the history protocol, to and from our own columns.

MetricQ writes protobuf. Its few messages are packed and read here by hand, at the cost of protobuf's own C
code for single points (2.3 µs) and three times that for long chunks (0.4 µs a point), without its runtime.
tests/bench/codec.py has the figures.

    DataChunk        1 time_delta, packed int64 · 2 value, packed double
    HistoryRequest   1 start_time · 2 end_time · 3 interval_max, int64 ns · 4 type, enum
    HistoryResponse  1 metric · 2 time_delta · 3 value_min · 4 value_max · 5 value_avg · 6 aggregate ·
                     7 value · 8 error; 3 to 5 come from old databases
    Aggregate        1 minimum · 2 maximum · 3 sum, double · 4 count, uint64 · 5 integral, double ·
                     6 active_time, int64 ns

Times travel as differences: the first from 1970, each later one from the time before it.
"""

from __future__ import annotations

import re
import struct
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from itertools import accumulate

from bus.chunk import Chunk, pack_column, unpack_floats
from bus.errors import BadFrame
from bus.frame import MAX_FRAME_BYTES, MAX_FRAME_POINTS, Frame, Group
from bus.names import is_metric

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_FIXED_BYTES = {_FIXED64: 8, _FIXED32: 4}
_MAX_VARINT_BITS = 70
_MAX_FIELDS = 400_000  # more than 16 MiB hold of aggregates, the only messages of many fields
_UINT64 = (1 << 64) - 1
_INT64_MAX = (1 << 63) - 1
_SMALL = [bytes((number,)) for number in range(128)]
_DOUBLE = struct.Struct("<d")

# A data chunk of one point, as all encoders write it: what sources without chunking send. Read 2 µs faster.
# Up to nine bytes of time hold 63 bits, so that it needs no sign.
_ONE_POINT = re.compile(rb"\x0a[\x01-\x09]([\x80-\xff]{0,8}[\x00-\x7f])\x12\x08(.{8})", re.DOTALL)

# The fields that are read, by number, and the wire types in which each may come: numbers that repeat may
# be packed into one byte string or stand one by one.
_Fields = Mapping[int, tuple[int, ...]]
_DATA_CHUNK: _Fields = {1: (_BYTES, _VARINT), 2: (_BYTES, _FIXED64)}
_HISTORY_REQUEST: _Fields = dict.fromkeys((1, 2, 3, 4), (_VARINT,))
_HISTORY_RESPONSE: _Fields = {
    **dict.fromkeys((1, 6, 8), (_BYTES,)),
    **dict.fromkeys((3, 4, 5, 7), (_BYTES, _FIXED64)),
    2: (_BYTES, _VARINT),
}
_AGGREGATE: _Fields = {**dict.fromkeys((1, 2, 3, 5), (_FIXED64,)), **dict.fromkeys((4, 6), (_VARINT,))}


def encode_data_chunk(times: Sequence[int], values: Iterable[float]) -> bytes:
    """The body of a data message: int64 ns, strictly increasing, and as many values."""
    return _bytes_field(1, _pack_times(times)) + _bytes_field(2, pack_column(array("d", values)))


def encode_group(group: Group) -> Iterator[tuple[str, bytes]]:
    """(metric, body) for each metric of a group. The times they share are packed once."""
    width = 8 * len(group.times)
    head = _bytes_field(1, _pack_times(group.times)) + _pack_varint(2 << 3 | _BYTES) + _pack_varint(width)
    values = pack_column(group.values)
    for start, metric in zip(range(0, len(values), width), group.metrics, strict=True):
        yield metric, head + values[start : start + width]


def decode_data_chunk(body: bytes, metric: str) -> Chunk:
    """The points in a data message's body, at least one. Raises BadFrame, and nothing else."""
    if not is_metric(metric):
        raise BadFrame(f"{metric[:300]!r} is not a metric name")
    one = _ONE_POINT.fullmatch(body)
    if one is not None and len(one[1]) == body[1]:
        return Chunk(metric, array("q", (_read_varint(one[1], 0)[0],)), unpack_floats(one[2]))
    found = _read_message(body, _DATA_CHUNK)
    values = _floats(found[2])
    times = _times(found[1], len(values))
    if not times:
        raise BadFrame(f"{metric}: a data chunk without points")
    return Chunk(metric, times, values)


def decode_metricq(body: bytes, key: str, source: str) -> Frame:
    """A data message as a frame of one group: its routing key is the metric, and nothing numbers it.

    Raises BadFrame as `decode_data_chunk` does.
    """
    chunk = decode_data_chunk(body, key)
    return Frame(groups=(Group((key,), chunk.times, chunk.values),), source=source, key=key)


class RequestType(IntEnum):
    """What a history request asks for, over the times from `start_time` to before `end_time`."""

    AGGREGATE_TIMELINE = 0
    """Aggregates, each over at most `interval_max`."""
    AGGREGATE = 1
    """One aggregate over everything."""
    LAST_VALUE = 2
    """The newest point, whatever its time."""
    FLEX_TIMELINE = 3
    """Points, or aggregates if points would lie closer together than `interval_max`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HistoryRequest:
    """A question to a database. Times are ns since 1970, the interval is in ns."""

    start_time: int = 0
    end_time: int = 0
    interval_max: int = 0
    type: RequestType = RequestType.AGGREGATE_TIMELINE


@dataclass(frozen=True, slots=True, kw_only=True)
class Aggregate:
    """What the points of an interval come to. `integral` is in value x ns, `active_time` in ns."""

    minimum: float = 0.0
    maximum: float = 0.0
    sum: float = 0.0
    count: int = 0
    integral: float = 0.0
    active_time: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class HistoryResponse:
    """A database's answer: `times` (ns, strictly increasing) with as many `values` or `aggregates`.

    Old databases send `value_min`, `value_max` and `value_avg` instead. `error` is empty, or says why there
    is no answer.
    """

    metric: str = ""
    times: array[int] = field(default_factory=lambda: array("q"))
    values: array[float] = field(default_factory=lambda: array("d"))
    aggregates: tuple[Aggregate, ...] = ()
    value_min: array[float] = field(default_factory=lambda: array("d"))
    value_max: array[float] = field(default_factory=lambda: array("d"))
    value_avg: array[float] = field(default_factory=lambda: array("d"))
    error: str = ""


def encode_history_request(request: HistoryRequest) -> bytes:
    """The body of a history request."""
    return b"".join(
        _int_field(number, value)
        for number, value in enumerate((request.start_time, request.end_time, request.interval_max, request.type), 1)
    )


def decode_history_request(body: bytes) -> HistoryRequest:
    """The request in a message's body. Raises BadFrame, and nothing else."""
    found = _read_message(body, _HISTORY_REQUEST)
    kind = _int64(found[4])
    if kind not in RequestType.__members__.values():
        raise BadFrame(f"{kind} is not a type of history request; 0 to {max(RequestType)} are")
    start_time, end_time, interval_max = (_int64(found[number]) for number in (1, 2, 3))
    return HistoryRequest(start_time=start_time, end_time=end_time, interval_max=interval_max, type=RequestType(kind))


def encode_history_response(response: HistoryResponse) -> bytes:
    """The body of a history response."""
    parts = [
        _bytes_field(1, response.metric.encode()),
        _bytes_field(2, _pack_times(response.times)),
        _bytes_field(3, pack_column(response.value_min)),
        _bytes_field(4, pack_column(response.value_max)),
        _bytes_field(5, pack_column(response.value_avg)),
        *(_bytes_field(6, _encode_aggregate(aggregate), always=True) for aggregate in response.aggregates),
        _bytes_field(7, pack_column(response.values)),
        _bytes_field(8, response.error.encode()),
    ]
    return b"".join(parts)


def decode_history_response(body: bytes) -> HistoryResponse:
    """The response in a message's body. Raises BadFrame, and nothing else: if counts differ, too."""
    found = _read_message(body, _HISTORY_RESPONSE)
    values, value_min, value_max, value_avg = (_floats(found[number]) for number in (7, 3, 4, 5))
    aggregates = found[6]
    counts = {len(column) for column in (values, aggregates, value_min, value_max, value_avg) if len(column)}
    if len(counts) > 1:
        raise BadFrame(f"a history response with columns of different lengths: {sorted(counts)}")
    return HistoryResponse(
        metric=_text(found[1]),
        times=_times(found[2], counts.pop() if counts else 0),
        values=values,
        aggregates=tuple(map(_decode_aggregate, aggregates)),
        value_min=value_min,
        value_max=value_max,
        value_avg=value_avg,
        error=_text(found[8]),
    )


def _encode_aggregate(aggregate: Aggregate) -> bytes:
    return (
        _float_field(1, aggregate.minimum)
        + _float_field(2, aggregate.maximum)
        + _float_field(3, aggregate.sum)
        + _int_field(4, aggregate.count)
        + _float_field(5, aggregate.integral)
        + _int_field(6, aggregate.active_time)
    )


def _decode_aggregate(body: bytes) -> Aggregate:
    found = _read_message(body, _AGGREGATE)
    return Aggregate(
        minimum=_float(found[1]),
        maximum=_float(found[2]),
        sum=_float(found[3]),
        count=_int64(found[4]) & _UINT64,
        integral=_float(found[5]),
        active_time=_int64(found[6]),
    )


def _pack_varint(number: int) -> bytes:
    """7 bits a byte, lowest first, bit 7 set on all but the last byte; a negative number as 2^64 more."""
    if 0 <= number < 128:
        return _SMALL[number]
    number &= _UINT64
    packed = bytearray()
    while number > 127:
        packed.append(number & 127 | 128)
        number >>= 7
    packed.append(number)
    return bytes(packed)


def _pack_times(times: Iterable[int]) -> bytes:
    """The differences of `times` as varints. 1 µs for the first, 0.3 µs for each that is 1 s later."""
    packed = bytearray()
    append = packed.append
    last = 0
    for time in times:
        delta = (time - last) & _UINT64
        last = time
        while delta > 127:
            append(delta & 127 | 128)
            delta >>= 7
        append(delta)
    return bytes(packed)


def _bytes_field(number: int, payload: bytes, *, always: bool = False) -> bytes:
    if not payload and not always:
        return b""
    return _pack_varint(number << 3 | _BYTES) + _pack_varint(len(payload)) + payload


def _int_field(number: int, value: int) -> bytes:
    return _pack_varint(number << 3 | _VARINT) + _pack_varint(value) if value else b""


def _float_field(number: int, value: float) -> bytes:
    packed = _DOUBLE.pack(value)
    return _pack_varint(number << 3 | _FIXED64) + packed if any(packed) else b""


def _read_message(body: bytes, fields: _Fields) -> dict[int, list[bytes]]:
    """The payloads of each of `fields`, in order; what else the message holds is skipped."""
    size = len(body)
    if size > MAX_FRAME_BYTES:
        raise BadFrame(f"a message of {size} bytes: at most {MAX_FRAME_BYTES} are allowed")
    found: dict[int, list[bytes]] = {number: [] for number in fields}
    position = 0
    # Bounded, because 16 MiB of tiny fields would hold up the event loop for seconds.
    for _ in range(_MAX_FIELDS + 1):
        if position == size:
            return found
        tag, position = _read_varint(body, position)
        number, kind = tag >> 3, tag & 7
        start, position = _payload(body, position, kind)
        if position > size:
            raise BadFrame(f"field {number} is cut off: {position - size} bytes are missing")
        if number in fields:
            if kind not in fields[number]:
                raise BadFrame(f"field {number} has wire type {kind}, not {fields[number][0]}")
            found[number].append(body[start:position])
        elif not 0 < number < 1 << 29:
            raise BadFrame(f"{number} is not the number of a field")
    raise BadFrame(f"a message of more than {_MAX_FIELDS} fields")


def _payload(body: bytes, position: int, kind: int) -> tuple[int, int]:
    """Where the payload of a field of that wire type begins and ends."""
    if kind == _BYTES:
        length, position = _read_varint(body, position)
        return position, position + length
    if kind == _VARINT:
        return position, _read_varint(body, position)[1]
    if kind in _FIXED_BYTES:
        return position, position + _FIXED_BYTES[kind]
    raise BadFrame(f"unknown wire type {kind} before byte {position}")


def _read_varint(body: bytes, position: int) -> tuple[int, int]:
    """The number that begins at `position`, and where the next one begins."""
    if position < len(body) and body[position] < 128:
        return body[position], position + 1
    number = shift = 0
    for byte in body[position : position + 10]:
        position += 1
        if byte < 128:
            return number | byte << shift, position
        number |= (byte & 127) << shift
        shift += 7
    raise BadFrame(f"the message ends, or runs wild, within the number before byte {position}")


def _floats(payloads: list[bytes]) -> array[float]:
    raw = b"".join(payloads)
    if len(raw) % 8:
        raise BadFrame(f"{len(raw)} bytes of values: 8 are needed for each")
    if len(raw) > 8 * MAX_FRAME_POINTS:
        raise BadFrame(f"{len(raw) // 8} points: at most {MAX_FRAME_POINTS} are allowed in one message")
    return unpack_floats(raw)


def _times(payloads: list[bytes], count: int) -> array[int]:
    """The times whose differences are packed in `payloads`: `count`, strictly increasing.

    A difference may need the full 64 bits, so that only the first is read as a signed number. A negative
    one then leaves int64, which is how it is found.
    """
    deltas = _unpack_varints(b"".join(payloads))
    if len(deltas) != count:
        raise BadFrame(f"{len(deltas)} times for {count} values")
    if not deltas:
        return array("q")
    if deltas[0] > _INT64_MAX:
        deltas[0] -= 1 << 64
    try:
        times = array("q", accumulate(deltas))
    except OverflowError:
        raise BadFrame("times do not strictly increase, or leave the range of 64 bits") from None
    if 0 in deltas[1:]:
        raise BadFrame("times do not strictly increase")
    return times


def _unpack_varints(raw: bytes) -> list[int]:
    """Every number in `raw`, unsigned. Costs 0.08 µs a byte; a difference of 1 s has five."""
    numbers: list[int] = []
    append = numbers.append
    number = shift = 0
    for byte in raw:
        if byte < 128:
            append(number | byte << shift)
            number = shift = 0
        else:
            number |= (byte & 127) << shift
            shift += 7
            if shift == _MAX_VARINT_BITS:
                raise BadFrame("a time of more than 64 bits")
    if shift:
        raise BadFrame("the times are cut off within a number")
    return numbers


def _int64(payloads: list[bytes]) -> int:
    """The last of the numbers, as a signed one; 0 if there is none, as protobuf has it."""
    if not payloads:
        return 0
    number = _read_varint(payloads[-1], 0)[0] & _UINT64
    return number - (1 << 64) if number > _INT64_MAX else number


def _float(payloads: list[bytes]) -> float:
    if not payloads:
        return 0.0
    value: float = _DOUBLE.unpack(payloads[-1])[0]
    return value


def _text(payloads: list[bytes]) -> str:
    try:
        return payloads[-1].decode() if payloads else ""
    except UnicodeDecodeError as error:
        raise BadFrame(f"a text that is not UTF-8: {error}") from None
