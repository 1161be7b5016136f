# SPDX-License-Identifier: MIT
"""From chunks to messages: the two ways in which points travel.

`FrameEncoder` packs many metrics into one frame on ``hostbus.data``; `MetricqEncoder` makes one protobuf
chunk per metric on ``metricq.data``, which stock MetricQ sinks read.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Protocol

from bus.frame import CONTENT_TYPE, Frame, encode_frame, group_columns
from bus.metricq_wire import encode_group
from bus.outbox import Parcel
from bus.transport.base import Message

Column = tuple[str, list[int], list[float]]
"""A metric, its times in ns, and as many values."""

MAX_MESSAGE_BYTES = 4 * 1024 * 1024
"""Well below what a frame may hold (16 MiB), so that one message never stalls a connection."""

MAX_COLUMN_POINTS = MAX_MESSAGE_BYTES // 16


class Encoder(Protocol):
    """Makes messages from columns."""

    def encode(self, columns: Iterable[Column]) -> Iterator[Parcel]:
        """Messages with all points of the columns, each at most `MAX_MESSAGE_BYTES` or a little more."""


class FrameEncoder:
    """Frames, numbered from 0 for each routing key.

    Args:
        exchange: where data goes
        token: the source's
        epoch_ns: when the source started
        key_of: the routing key of a metric, asked once for each
    """

    def __init__(self, exchange: str, token: str, epoch_ns: int, key_of: Callable[[str], str]) -> None:
        self._exchange = exchange
        self._token = token
        self._epoch_ns = epoch_ns
        self._key_of = key_of
        self._keys: dict[str, str] = {}
        self._sequences: dict[str, int] = {}

    def encode(self, columns: Iterable[Column]) -> Iterator[Parcel]:
        """One frame per routing key, more only where one would be too large."""
        by_key: dict[str, list[Column]] = {}
        keys = self._keys
        for column in columns:
            metric = column[0]
            key = keys.get(metric)
            if key is None:
                key = keys[metric] = self._key_of(metric)
            by_key.setdefault(key, []).append(column)
        for key, of_key in by_key.items():
            for portion in _portions(of_key):
                yield self._frame(key, portion)

    def _frame(self, key: str, columns: Sequence[Column]) -> Parcel:
        sequence = self._sequences.get(key, 0)
        self._sequences[key] = sequence + 1
        frame = Frame(groups=tuple(group_columns(columns)), epoch=self._epoch_ns, sequence=sequence)
        message = Message(
            body=encode_frame(frame),
            exchange=self._exchange,
            routing_key=key,
            content_type=CONTENT_TYPE,
            app_id=self._token,
            persistent=True,
        )
        return Parcel(message, frame.points)


class MetricqEncoder:
    """MetricQ's protobuf chunks: one metric per message, its name the routing key."""

    def __init__(self, exchange: str, token: str) -> None:
        self._exchange = exchange
        self._token = token

    def encode(self, columns: Iterable[Column]) -> Iterator[Parcel]:
        """One message per metric, more where one would be too large."""
        for portion in _portions(list(columns)):
            for group in group_columns(portion):
                for metric, body in encode_group(group):
                    message = Message(
                        body=body,
                        exchange=self._exchange,
                        routing_key=metric,
                        app_id=self._token,
                        persistent=True,
                    )
                    yield Parcel(message, len(group.times))


def _portions(columns: Sequence[Column]) -> Iterator[Sequence[Column]]:
    """The columns in portions that each fit a message. Mostly that is one, and nothing is copied."""
    if sum(_size(column) for column in columns) <= MAX_MESSAGE_BYTES:
        yield columns
        return
    portion: list[Column] = []
    size = 0
    for metric, times, values in columns:
        for start in range(0, len(times), MAX_COLUMN_POINTS):
            end = start + MAX_COLUMN_POINTS
            part = (metric, times[start:end], values[start:end])
            if portion and size + _size(part) > MAX_MESSAGE_BYTES:
                yield portion
                portion, size = [], 0
            portion.append(part)
            size += _size(part)
    yield portion


def _size(column: Column) -> int:
    return len(column[0]) + 16 + 16 * len(column[1])
