# SPDX-License-Identifier: MIT
"""Names on the bus: metrics, routing keys and the topic patterns that select them.

A metric name is words of ``[A-Za-z0-9_-]`` joined by dots. A pattern is the same with ``*`` for exactly one
word and ``#`` for any number of words, as in an AMQP topic exchange (AMQP 0-9-1, section 3.1.3.3).
"""

import re
import socket
from collections.abc import Iterable, Sequence
from functools import lru_cache

MAX_NAME_BYTES = 255
"""AMQP carries routing keys as short strings: at most 255 bytes."""

_METRIC = re.compile(r"[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+)*")
_METRICS = re.compile(r"[A-Za-z0-9_-]+(?:[.\n][A-Za-z0-9_-]+)*")
_PATTERN = re.compile(r"(?:[A-Za-z0-9_-]+|\*|#)(?:\.(?:[A-Za-z0-9_-]+|\*|#))*")
_TOKEN = re.compile(r"[A-Za-z0-9_.-]{1,200}")
_ANY_WORDS = r"(?:[^.]*\.)*"
_FORBIDDEN_BYTE = re.compile(rb"[^A-Za-z0-9_-]")


@lru_cache(maxsize=65536)
def is_metric(name: str) -> bool:
    """True if `name` may name a metric."""
    return len(name) <= MAX_NAME_BYTES and _METRIC.fullmatch(name) is not None


def are_metrics(names: Sequence[str]) -> bool:
    """True if there are names, and all may name metrics. 0.15 µs each, and nothing is remembered."""
    if not names or max(map(len, names)) > MAX_NAME_BYTES:
        return False
    lines = "\n".join(names)
    return lines.count("\n") == len(names) - 1 and _METRICS.fullmatch(lines) is not None


def check_metric(name: str) -> str:
    """`name`, or a ValueError that says what a metric name looks like."""
    if not is_metric(name):
        raise ValueError(
            f"{name[:300]!r} is not a metric name: words of A-Z a-z 0-9 _ - joined by dots, "
            f"at most {MAX_NAME_BYTES} bytes, like 'web1.cpu.usage'"
        )
    return name


def check_pattern(pattern: str) -> str:
    """`pattern`, or a ValueError that says what a pattern looks like."""
    if len(pattern) > MAX_NAME_BYTES or not _PATTERN.fullmatch(pattern):
        raise ValueError(
            f"{pattern[:300]!r} is not a metric name or pattern: words of A-Z a-z 0-9 _ - joined by dots, "
            "'*' for one word, '#' for any number of words, like 'web1.cpu.*' or 'web1.#'"
        )
    return pattern


def check_token(token: str) -> str:
    """`token`, or a ValueError that says what an agent's token looks like."""
    if not _TOKEN.fullmatch(token):
        raise ValueError(
            f"{token[:300]!r} is not an agent token: 1 to 200 of A-Z a-z 0-9 _ - and '.', like 'source-cpu-web1'"
        )
    return token


def clean_word(text: str) -> str:
    """One word of a metric name from any text (a device, a mount point): every other byte becomes ``_``."""
    return _FORBIDDEN_BYTE.sub(b"_", text.encode("utf-8", "surrogateescape")).decode("ascii") or "_"


def short_host_name() -> str:
    """This machine's host name up to its first dot, as a word of a metric name."""
    return clean_word(socket.gethostname().split(".", 1)[0])


def is_pattern(name: str) -> bool:
    """True if `name` selects by wildcard rather than naming one metric."""
    return "*" in name or "#" in name


def routing_key(metric: str, prefix: str) -> str:
    """The key under which a point of `metric` is published by a source with `prefix`.

    The prefix if it is a proper word-prefix of the metric, else the metric's parent (``a.b.c`` → ``a.b``);
    a name without a dot is its own key.
    """
    if prefix and metric.startswith(prefix + "."):
        return prefix
    return metric.rpartition(".")[0] or metric


def binding_keys(pattern: str) -> list[str]:
    """What to bind so that no frame with a metric of `pattern` is missed.

    A frame travels under a word-prefix of its metrics, so the pattern and each of its word-prefixes are
    bound, stopping at the first ``#``, which already takes all that is below it.
    """
    keys: list[str] = []
    words: list[str] = []
    for word in pattern.split("."):
        words.append(word)
        keys.append(".".join(words))
        if word == "#":
            break
    return keys


@lru_cache(maxsize=4096)
def compile_pattern(pattern: str) -> re.Pattern[str]:
    """A regular expression for ``name + "."``: every word is followed by a dot, so that ``#`` may be empty.

    What stands between two ``#`` is taken where it first occurs and never tried elsewhere (an atomic group):
    nothing can be gained there, and a pattern such as ``#.a.#.a.#.a.#.b`` would take seconds.
    """
    segments = [""]
    for word in pattern.split("."):
        if word == "#":
            segments.append("")
        else:
            segments[-1] += r"[^.]*\." if word == "*" else re.escape(word) + r"\."
    first, *others = segments
    if not others:
        return re.compile(first)
    *between, last = others
    inner = "".join(f"(?>{_ANY_WORDS}?{segment})" for segment in between if segment)
    return re.compile(first + inner + _ANY_WORDS + last)


def matches(pattern: str, name: str) -> bool:
    """True if the topic `pattern` selects `name`."""
    return compile_pattern(pattern).fullmatch(name + ".") is not None


class Selection:
    """A set of names and patterns, asked once per metric: ``"web1.cpu.usage" in selection``.

    Answers are remembered, at most `CACHE` of them, because a sink asks the same few hundred names for ever.
    """

    CACHE = 100_000

    def __init__(self, patterns: Iterable[str] = ()) -> None:
        self._patterns: set[str] = set()
        self._known: dict[str, bool] = {}
        self.update(patterns)

    def update(self, patterns: Iterable[str]) -> None:
        """Add names and patterns."""
        self._patterns.update([check_pattern(pattern) for pattern in patterns])
        self._known.clear()

    def discard(self, patterns: Iterable[str]) -> None:
        """Remove names and patterns; those that are not there are ignored."""
        self._patterns.difference_update(patterns)
        self._known.clear()

    @property
    def patterns(self) -> list[str]:
        """The names and patterns, sorted."""
        return sorted(self._patterns)

    @property
    def takes_all(self) -> bool:
        """True if every metric is selected."""
        return "#" in self._patterns

    def __contains__(self, metric: str) -> bool:
        known = self._known.get(metric)
        if known is None:
            if len(self._known) >= self.CACHE:
                self._known.clear()
            known = metric in self._patterns or any(matches(pattern, metric) for pattern in self._patterns)
            self._known[metric] = known
        return known
