# SPDX-License-Identifier: MIT
"""Shards: which of several sinks stores a metric, by a consistent hash of its name.

Jump hash (Lamping and Veach 2014, arXiv:1406.2294) of the first 8 bytes of BLAKE2b of the name: even, the same on
every machine, and of a network that grows from n to n + 1 sinks only 1 / (n + 1) of the metrics change theirs.
"""

import re
from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b
from typing import Self

MOST = 1000
_FORM = re.compile(r"([1-9][0-9]{0,3})/([1-9][0-9]{0,3})")


@dataclass(frozen=True, slots=True)
class Shard:
    """Number `number` of `count` shards, from 1; asked once per metric: ``"web1.cpu.usage" in shard``."""

    number: int
    count: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """From ``1/2``: the first of two. Raises ValueError."""
        match = _FORM.fullmatch(text)
        if match:
            number, count = int(match[1]), int(match[2])
            if number <= count <= MOST:
                return cls(number, count)
        raise ValueError(f"shard: expected NUMBER/COUNT with 1 <= NUMBER <= COUNT <= {MOST}, like '1/2', not {text!r}")

    def __contains__(self, metric: str) -> bool:
        return shard_of(metric, self.count) == self.number


@lru_cache(maxsize=100_000)
def shard_of(metric: str, count: int) -> int:
    """The number of the shard, 1 to `count`, that stores a metric."""
    key = int.from_bytes(blake2b(metric.encode(), digest_size=8).digest(), "big")
    at, ahead = -1, 0
    while ahead < count:
        at = ahead
        key = (key * 2862933555777941757 + 1) & 0xFFFF_FFFF_FFFF_FFFF
        ahead = int((at + 1) * ((1 << 31) / ((key >> 33) + 1)))
    return at + 1
