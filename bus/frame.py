# SPDX-License-Identifier: MIT
"""Frames: one message with the chunks of many metrics.

The format (`CONTENT_TYPE`) is a msgpack array ``[1, epoch, sequence, [group, ...]]`` with
group = ``[[metric, ...], times, values]``: `times` is T little-endian int64 nanoseconds, `values` is
metrics x T little-endian float64, metric by metric. `epoch` is when the source started, in ns; `sequence`
counts its frames *of one routing key* from 0, because a sink that is bound to one key sees only those.
"""

from __future__ import annotations

import sys
from array import array
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from operator import lt

import msgpack

from bus.chunk import Chunk
from bus.errors import BadFrame
from bus.names import is_metric

CONTENT_TYPE = "application/vnd.hostbus.frame+msgpack"
VERSION = 1
MAX_FRAME_BYTES = 16 * 1024 * 1024
MAX_FRAME_POINTS = 1_000_000


@dataclass(frozen=True, slots=True)
class Group:
    """Chunks that share one vector of times: `values` holds len(times) numbers for each metric in turn."""

    metrics: tuple[str, ...]
    times: array[int]
    values: array[float]

    @property
    def points(self) -> int:
        """The number of points."""
        return len(self.values)

    def chunks(self) -> Iterator[Chunk]:
        """One chunk per metric, in order."""
        length = len(self.times)
        times, values = self.times, self.values
        start = 0
        for metric in self.metrics:
            end = start + length
            yield Chunk(metric, times, values[start:end])
            start = end

    def select(self, wanted: Callable[[str], bool]) -> Group:
        """The group with only the metrics that are wanted; itself if that is all of them."""
        keep = [wanted(metric) for metric in self.metrics]
        if all(keep):
            return self
        length = len(self.times)
        values = array("d")
        for index, kept in enumerate(keep):
            if kept:
                values += self.values[index * length : (index + 1) * length]
        return Group(tuple(metric for metric, kept in zip(self.metrics, keep, strict=True) if kept), self.times, values)


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """One message of data.

    `sequence` is None where the sender does not number its messages (MetricQ). `source` and `key`, the
    sender's token and the routing key, travel beside the body.
    """

    groups: tuple[Group, ...]
    epoch: int = 0
    sequence: int | None = None
    source: str = ""
    key: str = ""

    @property
    def points(self) -> int:
        """The number of points."""
        return sum(len(group.values) for group in self.groups)

    def chunks(self) -> Iterator[Chunk]:
        """One chunk per metric and group, in order."""
        for group in self.groups:
            yield from group.chunks()

    def select(self, wanted: Callable[[str], bool]) -> Frame:
        """The frame with only the metrics that are wanted; itself if that is all of them."""
        groups = tuple(group.select(wanted) for group in self.groups)
        if all(after is before for after, before in zip(groups, self.groups, strict=True)):
            return self
        return replace(self, groups=tuple(group for group in groups if group.metrics))


def group_columns(columns: Iterable[tuple[str, list[int], list[float]]]) -> list[Group]:
    """(metric, times, values) columns as few groups: those with equal times share one.

    Ticks of a sampling source all have the same times, so that 200 metrics become one group.
    """
    # Keyed by first time, last time and length, then compared in full: hashing every vector as a tuple
    # would cost more than the comparison, which mostly succeeds.
    by_times: dict[tuple[int, int, int], list[tuple[list[int], list[str], list[float]]]] = {}
    for metric, times, values in columns:
        alike = by_times.setdefault((times[0], times[-1], len(times)), [])
        for shared, metrics, gathered in alike:
            if shared == times:
                metrics.append(metric)
                gathered += values
                break
        else:
            alike.append((times, [metric], list(values)))
    return [
        Group(tuple(metrics), array("q", times), array("d", gathered))
        for alike in by_times.values()
        for times, metrics, gathered in alike
    ]


def encode_frame(frame: Frame) -> bytes:
    """The body of the message. The frame must keep the limits; `decode_frame` is the judge of them."""
    groups = [[group.metrics, _to_bytes(group.times), _to_bytes(group.values)] for group in frame.groups]
    body: bytes = msgpack.packb([VERSION, frame.epoch, frame.sequence, groups])
    return body


def decode_frame(body: bytes, *, source: str = "", key: str = "") -> Frame:
    """The frame in a message's body. Raises BadFrame, saying which rule is broken, and nothing else."""
    if len(body) > MAX_FRAME_BYTES:
        raise BadFrame(f"a frame of {len(body)} bytes: at most {MAX_FRAME_BYTES} are allowed")
    try:
        decoded = msgpack.unpackb(body, use_list=True)
    except (ValueError, msgpack.UnpackException, RecursionError) as error:
        raise BadFrame(f"not a msgpack value: {error}") from error
    if not isinstance(decoded, list) or not decoded or decoded[0] != VERSION:
        raise BadFrame(f"not a frame of version {VERSION}: it begins {body[:8].hex()}")
    if len(decoded) != 4:
        raise BadFrame(f"a frame has 4 parts, this one {len(decoded)}")
    _, epoch, sequence, groups = decoded
    if type(epoch) is not int or type(sequence) is not int or epoch < 0 or sequence < 0:
        raise BadFrame("epoch and sequence must be integers of at least 0")
    if not isinstance(groups, list):
        raise BadFrame("the fourth part of a frame is its list of groups")
    read = tuple(map(_decode_group, groups))
    if sum(len(group.values) for group in read) > MAX_FRAME_POINTS:
        raise BadFrame(f"more than {MAX_FRAME_POINTS} points in one frame")
    return Frame(groups=read, epoch=epoch, sequence=sequence, source=source, key=key)


def _decode_group(group: object) -> Group:
    if not isinstance(group, list) or len(group) != 3:
        raise BadFrame("a group is [metrics, times, values]")
    metrics, time_bytes, value_bytes = group
    if not isinstance(metrics, list) or not metrics:
        raise BadFrame("a group begins with a list of metric names")
    for metric in metrics:
        if type(metric) is not str or not is_metric(metric):
            raise BadFrame(f"{str(metric)[:300]!r} is not a metric name")
    if type(time_bytes) is not bytes or type(value_bytes) is not bytes or not time_bytes or len(time_bytes) % 8:
        raise BadFrame("times and values are byte strings of 8 bytes a number, at least one")
    if len(value_bytes) != len(time_bytes) * len(metrics):
        raise BadFrame(
            f"{len(metrics)} metrics with {len(time_bytes) // 8} times need {len(time_bytes) * len(metrics)} "
            f"bytes of values, not {len(value_bytes)}"
        )
    times = array("q", time_bytes)
    values = array("d", value_bytes)
    if sys.byteorder == "big":
        times.byteswap()
        values.byteswap()
    if len(times) > 1 and not all(map(lt, times, times[1:])):
        raise BadFrame(f"times of {metrics[0]} do not strictly increase")
    return Group(tuple(metrics), times, values)


def _to_bytes(column: array[int] | array[float]) -> bytes:
    if sys.byteorder == "big":
        column = column[:]
        column.byteswap()
    return column.tobytes()
