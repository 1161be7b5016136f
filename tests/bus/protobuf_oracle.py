# SPDX-License-Identifier: MIT
"""MetricQ's messages in the protobuf library, which is used nowhere else: what ours are judged by."""

from collections.abc import Sequence
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

Field = descriptor_pb2.FieldDescriptorProto


def oracle() -> dict[str, Any]:
    """The messages as protobuf's own classes, made from their description without generated code."""
    file = descriptor_pb2.FileDescriptorProto(name="oracle.proto", package="oracle", syntax="proto3")

    def message(name: str, **fields: tuple[int, int, bool]) -> None:
        described = file.message_type.add(name=name)
        for field, (number, kind, repeated) in fields.items():
            label = Field.LABEL_REPEATED if repeated else Field.LABEL_OPTIONAL
            of_message = ".oracle.Aggregate" if kind == Field.TYPE_MESSAGE else None
            described.field.add(name=field, number=number, type=kind, label=label, type_name=of_message)

    integer, double, text = Field.TYPE_INT64, Field.TYPE_DOUBLE, Field.TYPE_STRING
    message("DataChunk", time_delta=(1, integer, True), value=(2, double, True))
    # An enum is an int32 on the wire; int64 here keeps the description short.
    message(
        "HistoryRequest",
        start_time=(1, integer, False),
        end_time=(2, integer, False),
        interval_max=(3, integer, False),
        type=(4, integer, False),
    )
    message(
        "Aggregate",
        minimum=(1, double, False),
        maximum=(2, double, False),
        sum=(3, double, False),
        count=(4, Field.TYPE_UINT64, False),
        integral=(5, double, False),
        active_time=(6, integer, False),
    )
    message(
        "HistoryResponse",
        metric=(1, text, False),
        time_delta=(2, integer, True),
        value_min=(3, double, True),
        value_max=(4, double, True),
        value_avg=(5, double, True),
        aggregate=(6, Field.TYPE_MESSAGE, True),
        value=(7, double, True),
        error=(8, text, False),
    )
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    names = [described.name for described in file.message_type]
    return {name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"oracle.{name}")) for name in names}


ORACLE = oracle()


def deltas(times: Sequence[int]) -> list[int]:
    """As MetricQ's clients compute them, in the arithmetic of int64."""
    return [(b - a + 2**63) % 2**64 - 2**63 for a, b in zip([0, *times], times, strict=False)]


def varint(number: int) -> bytes:
    packed = b""
    while number > 127:
        packed += bytes([number & 127 | 128])
        number >>= 7
    return packed + bytes([number])


def field(number: int, kind: int, payload: bytes) -> bytes:
    length = varint(len(payload)) if kind == 2 else b""
    return varint(number << 3 | kind) + length + payload
