# SPDX-License-Identifier: MIT
"""Frames: one message with the chunks of many metrics.

The format (`CONTENT_TYPE`) is a msgpack array ``[1, epoch, sequence, [group, ...]]`` with
group = ``[[metric, ...], times, values]``: `times` is T little-endian int64 nanoseconds, `values` is
metrics x T little-endian float64, metric by metric. `epoch` is when the source started, in ns; `sequence`
counts its frames *of one routing key* from 0, because a sink that is bound to one key sees only those.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from operator import lt
from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Raw

from bus.chunk import Chunk, pack_column, unpack_floats, unpack_ints
from bus.errors import BadFrame
from bus.names import are_metrics, is_metric

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
    """(metric, times, values) columns, none of them empty, as few groups: those with equal times share one.

    Ticks of a sampling source all have the same times, so that 200 metrics become one group. Costs 60 ns a
    column and 10 ns a point.
    """
    # Mostly a column has the times of the one before it. Else those with the same first time, last time and
    # length are compared in full: hashing every vector as a tuple would cost more.
    by_times: dict[tuple[int, int, int], list[tuple[list[int], list[str], list[float]]]] = {}
    shared: list[int] = []
    metrics: list[str] = []
    gathered: list[float] = []
    for metric, times, values in columns:
        if times != shared:
            alike = by_times.setdefault((times[0], times[-1], len(times)), [])
            for shared, metrics, gathered in alike:  # noqa: B007 - the loop ends at the group that is wanted
                if shared == times:
                    break
            else:
                shared, metrics, gathered = times, [], []
                alike.append((shared, metrics, gathered))
        metrics.append(metric)
        gathered += values
    return [
        Group(tuple(metrics), array("q", times), array("d", gathered))
        for alike in by_times.values()
        for times, metrics, gathered in alike
    ]


def encode_frame(frame: Frame) -> bytes:
    """The body of the message. The frame must keep the limits; `decode_frame` is the judge of them."""
    groups = [(group.metrics, pack_column(group.times), pack_column(group.values)) for group in frame.groups]
    return _ENCODER.encode((VERSION, frame.epoch, frame.sequence, groups))


def decode_frame(body: bytes, *, source: str = "", key: str = "") -> Frame:
    """The frame in a message's body. Raises BadFrame, saying which rule is broken, and nothing else."""
    if len(body) > MAX_FRAME_BYTES:
        raise BadFrame(f"a frame of {len(body)} bytes: at most {MAX_FRAME_BYTES} are allowed")
    try:
        _, epoch, sequence, groups = _FRAME.decode(body)
    except _UNREADABLE as error:
        raise BadFrame(
            f"not a frame of version {VERSION}, which begins {body[:8].hex() or 'with nothing'}: {error}"
        ) from None
    read = tuple(_decode_group(*group) for group in groups)
    points = sum(len(group.values) for group in read)
    if points > MAX_FRAME_POINTS:
        raise BadFrame(f"{points} points in one frame: at most {MAX_FRAME_POINTS} are allowed")
    return Frame(groups=read, epoch=epoch, sequence=sequence, source=source, key=key)


# The decoders know the types, so that a wrong one is refused where it stands: no list is made larger than a
# frame may be, and nothing nests. The names stay packed until `_NameLists` has looked at them.
_Natural = Annotated[int, Meta(ge=0, le=2**63 - 1)]
_Groups = Annotated[list[tuple[Raw, bytes, bytes]], Meta(max_length=MAX_FRAME_POINTS)]
_Names = Annotated[list[str], Meta(min_length=1, max_length=MAX_FRAME_POINTS)]
_ENCODER = msgspec.msgpack.Encoder()
_FRAME = msgspec.msgpack.Decoder(tuple[Literal[1], _Natural, _Natural, _Groups])
_NAMES = msgspec.msgpack.Decoder(_Names)
_UNREADABLE = (msgspec.MsgspecError, UnicodeError, RecursionError)


class _NameLists:
    """The lists of names that came lately, by their packed form.

    A source sends the same names with every tick: looking 200 of them up at once costs 2 µs, decoding and
    checking them 35. It also gives the same str objects every time, which makes a sink's dicts faster.
    Bounded: forgotten as a whole when it is full, which takes many sources, or one whose names never last.
    """

    LIMIT_BYTES = 8 * 1024 * 1024

    def __init__(self) -> None:
        self._known: dict[bytes, tuple[str, ...]] = {}
        self._bytes = 0

    def __getitem__(self, packed: bytes) -> tuple[str, ...]:
        names = self._known.get(packed)
        if names is None:
            names = self._decode(packed)
            if len(packed) + self._bytes > self.LIMIT_BYTES:
                self._known.clear()
                self._bytes = 0
            if len(packed) <= self.LIMIT_BYTES // 16:
                self._known[packed] = names
                self._bytes += len(packed)
        return names

    @staticmethod
    def _decode(packed: bytes) -> tuple[str, ...]:
        try:
            names = tuple(_NAMES.decode(packed))
        except _UNREADABLE as error:
            raise BadFrame(f"a group begins with its list of metric names: {error}") from None
        if not are_metrics(names):
            wrong = next(name for name in names if not is_metric(name))
            raise BadFrame(f"{wrong[:300]!r} is not a metric name")
        if len(set(names)) < len(names):
            name, times = Counter(names).most_common(1)[0]
            raise BadFrame(f"{name} is in one group {times} times")
        return names


_name_lists = _NameLists()


def _decode_group(packed_names: Raw, packed_times: bytes, packed_values: bytes) -> Group:
    metrics = _name_lists[bytes(packed_names)]
    if not packed_times or len(packed_times) % 8:
        raise BadFrame(f"{len(packed_times)} bytes of times: 8 are needed for each, of which there is at least one")
    if len(packed_values) != len(packed_times) * len(metrics):
        raise BadFrame(
            f"{len(metrics)} metrics with {len(packed_times) // 8} times need {len(packed_times) * len(metrics)} "
            f"bytes of values, not {len(packed_values)}"
        )
    times = unpack_ints(packed_times)
    if len(times) > 1 and not all(map(lt, times, times[1:])):
        raise BadFrame(f"times of {metrics[0]} do not strictly increase")
    return Group(metrics, times, unpack_floats(packed_values))
