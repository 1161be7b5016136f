# SPDX-License-Identifier: MIT
"""Many names in few words: ``web1.cpu.#`` for all 35 metrics of an agent."""

from collections.abc import Collection

MOST = 3
"""More bundles than that are told as one, with how many of all there are."""


def bundles(chosen: Collection[str], known: Collection[str]) -> list[str]:
    """Names and patterns that select just the chosen of the known names, if they are few; else what has them in common.

    >>> bundles({"a.b.x", "a.b.y", "a.c"}, ["a.b.x", "a.b.y", "a.c", "a.d"])
    ['a.b.# (2 metrics)', 'a.c']
    """
    wanted = set(chosen)
    found = _cover([name.split(".") for name in sorted(known)], wanted, 0)
    if len(found) <= MOST:
        return found
    common = _common_words(sorted(wanted))
    pattern = ".".join([*common, "#"])
    below = [name for name in known if name.split(".")[: len(common)] == common]
    return [f"{pattern} ({len(wanted)} of {len(below)} metrics)"]


def _cover(names: list[list[str]], wanted: set[str], depth: int) -> list[str]:
    """The bundles of names that agree in their first `depth` words."""
    inside = [".".join(words) in wanted for words in names]
    if not any(inside):
        return []
    if len(names) == 1:
        return [".".join(names[0])]
    if all(inside) and depth:
        common = _common_words([".".join(words) for words in names])
        return [f"{'.'.join(common)}.# ({len(names)} metrics)"]
    branches: dict[str, list[list[str]]] = {}
    for words in names:
        branches.setdefault(words[depth] if len(words) > depth else "", []).append(words)
    if all(inside) and len(branches) > 1:
        return [f"# ({len(names)} metrics)"]
    return [bundle for branch in branches.values() for bundle in _cover(branch, wanted, depth + 1)]


def _common_words(names: list[str]) -> list[str]:
    """The words that all names begin with."""
    first, last = names[0].split("."), names[-1].split(".")
    for number, (one, other) in enumerate(zip(first, last, strict=False)):
        if one != other:
            return first[:number]
    return first[: min(len(first), len(last))]
