# SPDX-License-Identifier: MIT
"""How much GPU memory the programs of a host hold, by groups of their names: never by process, which come and go."""

from collections.abc import Callable, Iterable, Sequence
from fnmatch import fnmatchcase
from typing import Annotated

from msgspec import Meta

from agents.gpu.readings import GpuProcess
from bus.config import AgentConfig
from bus.names import clean_word

OTHER = "other"
"""The group of processes whose name is not known, or in no group."""

MOST_GROUPS = 100
"""Groups that come up by themselves: programs may be called anything."""


class ProcessGroup(AgentConfig, frozen=True, kw_only=True):
    """Some programs whose GPU memory is summed."""

    name: Annotated[str, Meta(min_length=1, description="the group's word in the names of its metrics")]
    names: Annotated[list[str], Meta(min_length=1, description="names of processes, as ps -o comm says, globs")]


def groups_of(configured: Iterable[str | ProcessGroup]) -> list[ProcessGroup]:
    """The groups of a configuration, in which a program's name stands for a group of its own. Raises ValueError."""
    groups = [
        ProcessGroup(name=clean_word(group), names=[group]) if isinstance(group, str) else group for group in configured
    ]
    for group in groups:
        if clean_word(group.name) != group.name:
            raise ValueError(f"a group's name is one word of letters, digits, _ and -, not {group.name!r}")
    names = [group.name for group in groups]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"two groups of processes are called {name!r}")
    return groups


class Grouping:
    """Which group a process belongs to, by its name, and which groups each GPU has had.

    Args:
        groups: the first that has the name counts; without any, each name is a group
    """

    def __init__(self, groups: Sequence[ProcessGroup]) -> None:
        self._groups = groups
        self._own: set[str] = set()
        self._seen: dict[str, set[str]] = {}

    def memory(self, gpu: str, processes: Iterable[GpuProcess], name_of: Callable[[int], str]) -> dict[str, int]:
        """Bytes of each group on a GPU: 0 without a process, nothing where nobody tells.

        Groups that are configured are always there; others from their first process on.
        """
        sums: dict[str, int] = {}
        untold: set[str] = set()
        for process in processes:
            group = self.group(name_of(process.pid))
            if process.memory is None:
                untold.add(group)
            else:
                sums[group] = sums.get(group, 0) + process.memory
        seen = self._seen.setdefault(gpu, {group.name for group in self._groups})
        seen.update(sums)
        return dict.fromkeys(seen - untold, 0) | sums

    def group(self, name: str) -> str:
        """The group's word. name: empty if it is not known."""
        if self._groups:
            return next((g.name for g in self._groups if any(fnmatchcase(name, glob) for glob in g.names)), OTHER)
        word = clean_word(name) if name else OTHER
        if word not in self._own:
            if len(self._own) >= MOST_GROUPS:
                return OTHER
            self._own.add(word)
        return word
