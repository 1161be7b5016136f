# SPDX-License-Identifier: MIT
"""What a point costs to encode and to decode, in CPU ns, as a frame and as MetricQ's protobuf chunks.

Run it with ``python -m tests.bench.codec``. The figures beside it were measured on another machine before
this code was written, with plain msgpack and with the protobuf library: the ratios are what counts.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass

from bus.chunk import Chunk
from bus.frame import Frame, Group, decode_frame, encode_frame, group_columns
from bus.metricq_wire import decode_metricq, encode_group

START_NS = 1_790_000_000 * 10**9


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """So many ticks of so many metrics in one frame, and what they cost elsewhere, in ns per point."""

    ticks: int
    metrics: int
    msgpack_encode: float
    msgpack_decode: float

    @property
    def points(self) -> int:
        return self.ticks * self.metrics


SHAPES = (
    Shape(ticks=1, metrics=200, msgpack_encode=50, msgpack_decode=48),
    Shape(ticks=60, metrics=200, msgpack_encode=21, msgpack_decode=1.1),
    Shape(ticks=1000, metrics=1, msgpack_encode=52, msgpack_decode=1.8),
)
PROTOBUF_ENCODE, PROTOBUF_DECODE = 1330, 1600


def sample(shape: Shape) -> list[tuple[str, list[int], list[float]]]:
    """The chunks of a host's metrics at 1 Hz."""
    times = [START_NS + tick * 10**9 for tick in range(shape.ticks)]
    return [
        (f"web1.cpu.core{metric}.usage_percent", list(times), [metric + tick / 8 for tick in range(shape.ticks)])
        for metric in range(shape.metrics)
    ]


def cpu_ns(function: Callable[[], object]) -> float:
    """The CPU time of one call: the least of five runs of 0.1 s."""
    calls = 1
    runs: list[float] = []
    while len(runs) < 5:
        start = time.process_time_ns()
        for _ in range(calls):
            function()
        spent = time.process_time_ns() - start
        if spent < 100_000_000:
            calls *= 2
        else:
            runs.append(spent / calls)
    return min(runs)


def protobuf_frames(bodies: list[tuple[str, bytes]]) -> list[Chunk]:
    """The chunks in a tick's MetricQ messages."""
    return [chunk for metric, body in bodies for chunk in decode_metricq(body, metric, "source").chunks()]


def main() -> None:
    """Print a table."""
    print(f"{'ns per point':<22}{'columns → frame':>16}{'encode':>9}{'decode':>9}{'noted before':>16}")
    for shape in SHAPES:
        columns = sample(shape)
        frame = Frame(groups=tuple(group_columns(columns)), epoch=START_NS, sequence=7)
        body = encode_frame(frame)
        costs = [
            cpu_ns(lambda columns=columns: group_columns(columns)),  # type: ignore[misc]
            cpu_ns(lambda frame=frame: encode_frame(frame)),  # type: ignore[misc]
            cpu_ns(lambda body=body: decode_frame(body)),  # type: ignore[misc]
        ]
        texts = "".join(f"{cost / shape.points:>{width}.1f}" for cost, width in zip(costs, (16, 9, 9), strict=True))
        before = f"{shape.msgpack_encode:g} / {shape.msgpack_decode:g}"
        print(f"{f'{shape.ticks} × {shape.metrics} frame':<22}{texts}{before:>16}   {len(body) / shape.points:.1f} B")
    for shape in SHAPES:
        group: Group = group_columns(sample(shape))[0]
        bodies = list(encode_group(group))
        encode = cpu_ns(lambda group=group: list(encode_group(group))) / shape.points  # type: ignore[misc]
        decode = cpu_ns(lambda bodies=bodies: protobuf_frames(bodies)) / shape.points  # type: ignore[misc]
        size = sum(len(body) for _, body in bodies) / shape.points
        before = f"{PROTOBUF_ENCODE} / {PROTOBUF_DECODE}" if shape.ticks == 1 else ""
        name = f"{shape.ticks} × {shape.metrics} DataChunk"
        print(f"{name:<22}{'':>16}{encode:>9.1f}{decode:>9.1f}{before:>16}   {size:.1f} B")


if __name__ == "__main__":
    main()
