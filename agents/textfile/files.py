# SPDX-License-Identifier: MIT
"""Files that hold metrics: which there are, and reading them, where any of them may hang. Runs in threads."""

import glob
import hashlib
import os
import stat
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from msgspec import Meta

from agents.base.isolate import Isolator
from agents.foreign.lines import Parsed
from agents.foreign.texts import TextConfig, decoded, parse_text
from bus.names import clean_word

MAX_BYTES = 1024 * 1024
"""Of a file; a larger one is not read."""

MAX_FILES = 1000
"""Of one pattern; those that come after, by name, are left out."""

_BLOCK = 65536
_TOO_LARGE = f"it is larger than {MAX_BYTES} bytes"


class TextFile(TextConfig, frozen=True, kw_only=True):
    """A file, or all that a pattern matches."""

    path: Annotated[
        str, Meta(min_length=1, max_length=4096, description="a file, or a pattern (* ? [...]) for many; ~ is the home")
    ]
    name: Annotated[
        str, Meta(description="its word in the names of metrics; default: the file's name without its ending")
    ] = ""
    max_age: Annotated[
        Annotated[float, Meta(gt=0)] | None,
        Meta(description="seconds after which a file that is not written again has no points; default: never"),
    ] = None

    def __post_init__(self) -> None:
        """Checks that msgspec's limits cannot express. Raises ValueError."""
        super().__post_init__()
        if not self.path:
            raise ValueError("path: it is empty, so it names no file")
        if "\0" in self.path:
            raise ValueError("path cannot contain NUL characters")
        if self.name and self.name != clean_word(self.name):
            raise ValueError(f"name: {self.name!r} is not a word of A-Z a-z 0-9 _ -, like {clean_word(self.name)!r}")
        if self.name and self.is_pattern:
            raise ValueError(
                f"name: {self.path!r} is a pattern, whose files are called by their own names; leave it out"
            )

    @property
    def is_pattern(self) -> bool:
        """True if it stands for all files that it matches, and it is no failure if there is none."""
        return any(sign in self.path for sign in "*?[")


def files_of(listed: Iterable[str | TextFile]) -> list[TextFile]:
    """The files of a configuration, those written as a path too. Raises ValueError."""
    return [TextFile(path=entry) if isinstance(entry, str) else entry for entry in listed]


@dataclass(frozen=True, slots=True, kw_only=True)
class Content:
    """A file as it was read. failure: why its text makes no sense, if it does not."""

    modified_ns: int
    digest: bytes
    parsed: Parsed = field(default_factory=Parsed)
    failure: ValueError | None = None


Outcome = Content | Exception


class Library:
    """The files of a configuration, read again and again; one that is as it was is not parsed again.

    A file that hangs is left alone until it answers, and with it those of its pattern.

    Args:
        files: what to read; if a file belongs to more than one entry, its own counts, else the first pattern
        name: of the threads
    """

    def __init__(self, files: Iterable[TextFile], *, name: str) -> None:
        self.entries = {file.path: file for file in sorted(files, key=lambda file: file.is_pattern)}
        self.crowded: frozenset[str] = frozenset()
        """The patterns that match more files than are read."""
        self._isolator: Isolator[str, tuple[dict[str, Outcome], bool]] = Isolator(name=name)
        self._known: dict[str, dict[str, Outcome]] = {}

    def read(self, patience_s: float) -> dict[str, tuple[TextFile, Outcome]]:
        """What is in each file now, in at most twice `patience_s`. A file that is not there is an OSError."""
        answers = self._isolator.call_each(self._look, self.entries, patience_s)
        found: dict[str, tuple[TextFile, Outcome]] = {}
        crowded = set()
        for path, file in self.entries.items():
            answer = answers.get(path) or TimeoutError("it hangs")
            if isinstance(answer, Exception):
                known = self._known.get(path, {}) if file.is_pattern else {path: answer}
                outcomes: Mapping[str, Outcome] = dict.fromkeys(known, answer)
            else:
                self._known[path], is_crowded = answer
                outcomes = self._known[path]
                if is_crowded:
                    crowded.add(path)
            for one, outcome in outcomes.items():
                found.setdefault(one, (file, outcome))
        self.crowded = frozenset(crowded)
        return found

    def _look(self, path: str) -> tuple[dict[str, Outcome], bool]:
        """The files of one entry, and whether there are too many."""
        file = self.entries[path]
        before = self._known.get(path, {})
        whole = os.path.expanduser(path)
        if not file.is_pattern:
            return {path: _outcome(whole, file, before.get(path))}, False
        matching = sorted(glob.iglob(whole))
        outcomes = {one: _outcome(one, file, before.get(one)) for one in matching[:MAX_FILES]}
        # A folder was not meant, and what vanishes while we look is no failure.
        found = {one: it for one, it in outcomes.items() if not isinstance(it, IsADirectoryError | FileNotFoundError)}
        return found, len(matching) > MAX_FILES


def _outcome(path: str, file: TextFile, before: Outcome | None) -> Outcome:
    try:
        data, modified_ns = read_regular(path)
    except OSError as error:
        return type(error)(error.strerror or str(error))
    digest = hashlib.blake2b(data, digest_size=16).digest()
    if isinstance(before, Content) and before.digest == digest:
        return Content(modified_ns=modified_ns, digest=digest, parsed=before.parsed, failure=before.failure)
    try:
        parsed = parse_text(decoded(data), file, may_be_cut=True)
    except ValueError as error:
        return Content(modified_ns=modified_ns, digest=digest, failure=error)
    return Content(modified_ns=modified_ns, digest=digest, parsed=parsed)


def read_regular(path: str) -> tuple[bytes, int]:
    """A file's bytes, and when it was written, in ns since 1970.

    Raises OSError, also for one that is too large, and for what is no file: a pipe or a device may block for ever, and
    to open it may have effects.
    """
    _check(os.stat(path))
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    try:
        status = os.fstat(fd)
        _check(status)  # it may be another file by now
        data = bytearray()
        while len(data) <= MAX_BYTES and (block := os.read(fd, _BLOCK)):
            data += block
    finally:
        os.close(fd)
    if len(data) > MAX_BYTES:
        raise OSError(_TOO_LARGE)
    return bytes(data), status.st_mtime_ns


def _check(status: os.stat_result) -> None:
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError("it is a directory, not a file")
    if not stat.S_ISREG(status.st_mode):
        raise OSError("it is not a regular file")
    if status.st_size > MAX_BYTES:
        raise OSError(_TOO_LARGE)


def stem(path: str) -> str:
    """A file's word in the names of metrics, unless it is given one: ``/a/b.prom`` → ``b``."""
    return clean_word(Path(path).stem)
