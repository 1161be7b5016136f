# SPDX-License-Identifier: MIT
"""Metrics that programs leave in files."""

from typing import Annotated, ClassVar, Unpack

from msgspec import Meta, field

from agents.base.devices import DeviceWords
from agents.foreign.texts import Texts
from agents.host import HostConfig, HostOptions, HostSource, Metric, NothingFound
from agents.textfile.files import MAX_FILES, Library, Outcome, TextFile, files_of, stem
from bus.config import AgentConfig
from bus.timestamp import NS_PER_S
from bus.transport.base import Transport

OWN = ("up", "age")

MAX_PATHS = 10_000
"""Files that are given a word, as long as the source runs: names may be new for ever."""

PATIENCE_PARTS = 4
"""Reading takes at most twice its patience, which leaves time for the rest."""


class TextfileConfig(HostConfig, frozen=True):
    """What the family can be told."""

    local_only: ClassVar[frozenset[str]] = frozenset({"files"})

    files: Annotated[
        list[str | TextFile],
        Meta(
            max_length=100,
            description="files that hold metrics, as lines 'NAME VALUE [TIME]' or as Prometheus reads them: "
            "paths or patterns (/var/lib/metrics/*.prom), or tables",
        ),
    ] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Raises ValueError for files that are listed twice or called alike."""
        super().__post_init__()
        files = files_of(self.files)
        paths = [file.path for file in files]
        if doubles := sorted({path for path in paths if paths.count(path) > 1}):
            raise ValueError(f"files: {doubles[0]!r} is listed twice")
        named = [file.name for file in files if file.name]
        if doubles := sorted({name for name in named if named.count(name) > 1}):
            raise ValueError(f"files: two are called {doubles[0]!r}; give one of them another name")

    @property
    def missing(self) -> str:
        """Files."""
        return "" if self.files else 'no files; name them: [textfile-source] files = ["/var/lib/metrics/*.prom", ...]'


class TextfileSource(HostSource):
    """What files hold: lines ``name value [time]``, or what Prometheus reads.

    Values without a time hold until the file says otherwise, so they are sampled on every tick, those with a time once.
    Whoever writes a file should write another and rename it: a last line that lacks its newline does not count. A file
    that hangs is left alone until it answers, and so are those of its pattern; the others are read all the same.
    Measured: 0.3 ms of CPU a reading with one file of 100 lines that are as they were, 0.8 ms if they are others, and
    1.6 ms for as many series of Prometheus.
    """

    Config = TextfileConfig
    config: TextfileConfig
    family = "textfile"
    metrics = (
        Metric("{file}.up", "1", "1 if it could be read, made sense and was not too old, else 0", quantity="state"),
        Metric("{file}.age", "s", "time since it was written"),
        Metric("{file}.{name...}", "", "what the file holds"),
    )

    def __init__(self, token: str, url: str | Transport = "", **options: Unpack[HostOptions]) -> None:
        super().__init__(token, url, **options)
        self._texts = Texts(self, OWN)
        self._choose()

    def _choose(self) -> None:
        """What follows from the configuration, to be worked out anew."""
        files = files_of(self.config.files)
        named = {file.path: file.name for file in files if file.name}
        self._library = Library(files, name=f"{self.token}: files")
        self._words = DeviceWords(lambda path: named.get(path) or stem(path))
        self._paths: set[str] = set()
        for path in named:  # first, so that no other file takes one of their words
            self._word_of(path)

    async def reconfigure(self, config: AgentConfig) -> None:
        """Put a configuration in force at once."""
        await super().reconfigure(config)
        self._choose()

    def describe(self, name: str) -> Metric | None:
        """What the text says about a metric, or the table."""
        return self._texts.describe(name) or super().describe(name)

    async def measure(self) -> None:
        """Read all files, in the thread, and sample what they hold."""
        library = self._library
        found = await self.worker.call(lambda: library.read(self.deadline_s / PATIENCE_PARTS), self.deadline_s)
        if library is not self._library:  # another configuration came meanwhile
            return
        if not found:
            raise NothingFound(f"no file matches {', '.join(library.entries)}")
        self._say_crowded(library)
        for path, (file, outcome) in found.items():
            if library is not self._library:  # or while a long text was taken
                return
            word = self._word_of(path)
            if word:
                await self._take_file(word, f"file {path}", file, outcome)

    async def _take_file(self, word: str, part: str, file: TextFile, outcome: Outcome) -> None:
        own = {f"{word}.up": 0.0}
        if isinstance(outcome, Exception):
            self.parts.failed(part, outcome)
            self.take(self.tick, own)
            return
        age_s = max(0.0, (self.tick.posix_ns - outcome.modified_ns) / NS_PER_S)
        own[f"{word}.age"] = age_s
        parsed = outcome.parsed
        if outcome.failure is not None:
            self.parts.failed(part, outcome.failure)
        elif file.max_age is not None and age_s > file.max_age:
            self.parts.failed(part, ValueError(f"it was not written for more than {file.max_age:g} s (max_age)"))
        else:
            self.parts.well(part)
            own[f"{word}.up"] = float(bool(parsed.samples or not parsed.bad))
            await self._texts.take_text(word, part, parsed)
        self.take(self.tick, own)

    def _say_crowded(self, library: Library) -> None:
        for path, file in library.entries.items():
            if path in library.crowded:
                self.parts.failed(f"pattern {path}", ValueError(f"more than {MAX_FILES} files; the rest is left out"))
            elif file.is_pattern:
                self.parts.well(f"pattern {path}")

    def _word_of(self, path: str) -> str:
        """Its word in the names of metrics; empty if there were too many files."""
        if path not in self._paths:
            if len(self._paths) >= MAX_PATHS:
                too_many = ValueError(f"there were {MAX_PATHS} files since the start, others are left out")
                self.parts.failed("new files", too_many)
                return ""
            self._paths.add(path)
        return self._words[path]
