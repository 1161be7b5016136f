# SPDX-License-Identifier: MIT
"""What a person can have done with an archive: look at its inside, check it, make it smaller, ask it in SQL.

The entry points of the group ``hostbus.maintenance`` name a module or object like `Maintenance` for each URL
scheme that `hostbus.archives` has, as far as there is one.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol


@dataclass(frozen=True, slots=True)
class Progress:
    """How far something long has got, from 0 to 1, and what it has come to: a count of `what`."""

    share: float
    count: int
    what: str


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that is wrong with an archive: where, and what."""

    where: str
    what: str


@dataclass(frozen=True, slots=True)
class Migrated:
    """An archive was brought from one version of its schema to another; equal if there was nothing to do."""

    path: str
    before: int
    after: int
    backup: str | None


Row = Sequence[Any]


class Maintenance(Protocol):
    """What can be done with one kind of archive. All raise StorageError."""

    async def info(self, where: str) -> dict[str, Any]:
        """What is in an archive and what it costs, as JSON values; times in ns."""

    def verify(self, where: str, *, thorough: bool) -> AsyncGenerator[Finding | Progress, None]:
        """Check an archive, which somebody else may be writing."""

    def compact(self, where: str, *, hot: str, keep: Mapping[str, str]) -> AsyncGenerator[Progress, None]:
        """Pack what is older than `hot`, remove what is older than `keep` says, and give the space back."""

    def migrate(self, where: str, *, backup: bool) -> AsyncGenerator[Progress | Migrated, None]:
        """Bring an archive of an older version up to date, wholly or not at all, and leave a copy of the old one."""

    def select(self, where: str, statement: str, start_ns: int, end_ns: int) -> AsyncGenerator[Sequence[Row], None]:
        """The rows of an SQL statement that changes nothing, in portions; the first portion is the columns' names.

        The views of points and of the finest aggregates need not show what is outside of the range.
        """
