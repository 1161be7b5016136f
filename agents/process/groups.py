# SPDX-License-Identifier: MIT
"""Which process belongs to which group: what a configuration says of groups, and who is who."""

import os
import pwd
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import translate
from functools import partial
from typing import Annotated, NamedTuple

from msgspec import Meta, field

from agents.base.isolate import Isolator
from agents.base.parts import Parts
from agents.process.procfs import Stat, read_arguments, read_cgroups, read_program, unit_of
from agents.process.visits import isolator
from bus.config import AgentConfig
from bus.names import clean_word

CHECK_AGAIN_S = 30.0
"""A process may change its user and control group: who is who is asked again after 30 to 60 s, and when its name
changes."""

USERS_AGAIN_S = 60.0
TAKEN_NAMES = frozenset({"top"})

Glob = Annotated[str, Meta(min_length=1, max_length=256)]


class ProcessGroup(AgentConfig, frozen=True, kw_only=True):
    """The processes that fit all that is given. Globs are shell patterns, in which ``*`` takes ``/``, too."""

    name: Annotated[str, Meta(min_length=1, max_length=64, description="what it is called in the metrics' names")]
    names: Annotated[
        list[Glob],
        Meta(max_length=64, description="names of the processes, of their programs or first arguments, globs"),
    ] = field(default_factory=list)
    cmdline: Annotated[
        str, Meta(max_length=1024, description="regular expression, found anywhere in the command line's first 4 KiB")
    ] = ""
    user: Annotated[str, Meta(max_length=256, description="effective user, by name or number")] = ""
    unit: Annotated[str, Meta(max_length=256, description="systemd service or scope, a glob, like nginx.service")] = ""
    cgroup: Annotated[str, Meta(max_length=1024, description="path of a control group, a glob")] = ""

    def __post_init__(self) -> None:
        """Checks that msgspec's limits cannot express. Raises ValueError."""
        if clean_word(self.name) != self.name or self.name in TAKEN_NAMES:
            raise ValueError(
                f"name: {self.name!r} cannot name a group; take a word of A-Z a-z 0-9 _ -, but not "
                + " or ".join(map(repr, sorted(TAKEN_NAMES)))
            )
        if not (self.names or self.cmdline or self.user or self.unit or self.cgroup):
            raise ValueError(f"group {self.name!r} fits every process; give it names, cmdline, user, unit or cgroup")
        try:
            re.compile(self.cmdline)
        except (re.error, OverflowError, RecursionError) as error:
            raise ValueError(f"cmdline of group {self.name!r} is no regular expression: {error}") from None


def group_of(group: str | ProcessGroup) -> ProcessGroup:
    """A glob on names stands for a group that is called by it: ``nginx``, ``postgres*``. Raises ValueError."""
    if isinstance(group, ProcessGroup):
        return group
    word = clean_word(re.sub(r"[*?\[\]!]", "", group))
    if word.strip("_") == "" or word in TAKEN_NAMES or len(word) > 64:
        raise ValueError(
            f'groups: {group!r} gives no name for a group; write a table: name = "...", names = [{group!r}]'
        )
    return ProcessGroup(name=word, names=[group])


class Identity(NamedTuple):
    """Who a process is; what no group asks for is empty."""

    names: Sequence[str]
    cmdline: str = ""
    user: int = -1
    unit: str = ""
    cgroups: Sequence[str] = ()


class Group:
    """One group, ready to say who belongs to it. word: its name in metric names."""

    def __init__(self, config: ProcessGroup) -> None:
        self.word = config.name
        self.user = config.user
        self._names = _compile(config.names)
        self._cmdline = re.compile(config.cmdline) if config.cmdline else None
        self._unit = _compile([config.unit]) if config.unit else None
        self._cgroup = _compile([config.cgroup]) if config.cgroup else None
        self.asks_arguments = bool(config.names or config.cmdline)
        self.asks_cgroups = bool(config.unit or config.cgroup)

    def takes(self, who: Identity, users: Mapping[str, int]) -> bool:
        """True if a process fits all that is asked. users: numbers by name; one that is not there fits nobody."""
        if self.user and users.get(self.user) != who.user:
            return False
        if self._names and not any(map(self._names, who.names)):
            return False
        if self._cmdline and not self._cmdline.search(who.cmdline):
            return False
        if self._unit and not (who.unit and (self._unit(who.unit) or self._unit(who.unit.removesuffix(".service")))):
            return False
        return not self._cgroup or any(map(self._cgroup, who.cgroups))


def _compile(globs: Iterable[str]) -> Callable[[str], re.Match[str] | None] | None:
    # fnmatch forgets its compiled patterns when there are many; 0.3 µs a name.
    joined = "|".join(map(translate, globs))
    return re.compile(joined).match if joined else None


@dataclass(slots=True)
class Known:
    """What is remembered of a process while it lives. io, pss: as they were last read, bytes."""

    start: int
    who: Identity
    groups: tuple[Group, ...]
    check_s: float
    io: tuple[int, int] | None = None
    pss: int | None = None
    pss_denied: bool = False
    pss_read_s: float = float("-inf")


class Members:
    """Remembers who is who, so that little is read anew at each look.

    Args:
        groups: as configured
        parts: where users that do not exist are noted
        name: for threads
    """

    def __init__(self, groups: Iterable[ProcessGroup], parts: Parts, name: str) -> None:
        self.groups = [Group(group) for group in groups]
        self.known: dict[int, Known] = {}
        self._parts = parts
        self._users: dict[str, int] = {}
        self._users_at_s = float("-inf")
        self._arguments = any(group.asks_arguments for group in self.groups)
        self._cgroups = any(group.asks_cgroups for group in self.groups)
        self._wanted_users = {group.user for group in self.groups if group.user}
        self._identities: Isolator[int, Identity] = isolator(f"{name}: who is who")
        self._names: Isolator[str, int] = isolator(f"{name}: users")

    @property
    def spent_s(self) -> float:
        """CPU time of the threads that read for it."""
        return self._identities.spent_s + self._names.spent_s

    def update(self, proc: str, processes: Mapping[int, Stat], now_s: float, patience_s: float) -> dict[int, Known]:
        """Everybody who is known now: who is new is asked, who is gone is forgotten."""
        if not self.groups:
            return self.known
        self._look_up_users(now_s, patience_s)
        last, known = self.known, {}
        unknown: list[int] = []
        for pid, stat in processes.items():
            old = last.get(pid)
            if old is None or old.start != stat.start:
                unknown.append(pid)
                continue
            known[pid] = old
            if stat.name != old.who.names[0]:
                if stat.kernel:  # renamed with each piece of work
                    old.who = old.who._replace(names=(stat.name,))
                    old.groups = self._groups_of(old.who)
                else:
                    unknown.append(pid)
            elif now_s >= old.check_s and not stat.ended:
                unknown.append(pid)
        visit = partial(self._identify, proc, processes)
        for pid, who in self._identities.call_each(visit, unknown, patience_s / 2).items():
            if isinstance(who, Exception):  # it ended meanwhile
                continue
            check_s = now_s + CHECK_AGAIN_S * (1 + pid % 16 / 16)  # not all at once
            if pid in known:
                known[pid].who, known[pid].groups, known[pid].check_s = who, self._groups_of(who), check_s
            else:
                known[pid] = Known(processes[pid].start, who, self._groups_of(who), check_s)
        self.known = known
        return known

    def _groups_of(self, who: Identity) -> tuple[Group, ...]:
        return tuple(group for group in self.groups if group.takes(who, self._users))

    def _identify(self, proc: str, processes: Mapping[int, Stat], pid: int) -> Identity:
        """In a thread: reads what the groups ask for. Raises OSError if the process is gone."""
        directory = f"{proc}/{pid}"
        stat = processes[pid]
        names, cmdline = [stat.name], ""
        if self._arguments and not stat.kernel:
            arguments = read_arguments(directory)
            cmdline = " ".join(arguments)
            names += [_base(path) for path in (*arguments[:1], read_program(directory)) if path]
        cgroups = read_cgroups(directory) if self._cgroups else []
        # The directory belongs to the effective user, even where the files in it do not.
        user = os.stat(directory).st_uid if self._wanted_users else -1
        return Identity(names, cmdline, user, unit_of(cgroups), cgroups)

    def _look_up_users(self, now_s: float, patience_s: float) -> None:
        """Numbers of users; asked apart, because a directory server may be slow or away."""
        missing = sorted(self._wanted_users - self._users.keys())
        if not missing or now_s < self._users_at_s + USERS_AGAIN_S:
            return
        self._users_at_s = now_s
        found = self._names.call_each(user_number, missing, patience_s / 2)
        for name in missing:
            with self._parts(f"user {name}"):
                number = found.get(name, TimeoutError("the list of users does not answer"))
                if isinstance(number, Exception):
                    raise number
                self._users[name] = number
        for old in self.known.values():
            old.groups = self._groups_of(old.who)


def _base(path: str) -> str:
    return path.rpartition("/")[2] or path


def user_number(name: str) -> int:
    """The number of a user, by name or number. Raises LookupError if this host does not know him."""
    if name.isascii() and name.isdecimal():
        return int(name)
    try:
        return pwd.getpwnam(name).pw_uid
    except KeyError:
        raise LookupError(f"this host has no user {name!r}; group by another, or by the user's number") from None
