# SPDX-License-Identifier: MIT
"""Which devices of a host are sampled, and what they are called in metric names."""

from collections.abc import Callable, Iterable
from fnmatch import fnmatchcase
from functools import lru_cache

from bus.names import clean_word


class Globs:
    """Chooses names by shell patterns: those that an include matches (all, if there is none) and no exclude does."""

    def __init__(self, include: Iterable[str] = (), exclude: Iterable[str] = ()) -> None:
        self.include = tuple(include)
        self.exclude = tuple(exclude)

    def __contains__(self, name: str) -> bool:
        if self.include and not self.named(name):
            return False
        return not any(fnmatchcase(name, glob) for glob in self.exclude)

    def named(self, name: str) -> bool:
        """True if an include matches `name`: somebody asked for it."""
        return any(fnmatchcase(name, glob) for glob in self.include)


class DeviceWords:
    """One word per device, and never one word for two: ``a b`` and ``a_b`` become ``a_b`` and ``a_b-2``.

    Words are kept for ever, so that a device that comes back is called what it was called before.
    """

    def __init__(self, word: Callable[[str], str] = clean_word) -> None:
        self._word = word
        self._words: dict[str, str] = {}
        self._taken: set[str] = set()

    def __getitem__(self, device: str) -> str:
        word = self._words.get(device)
        if word is None:
            base = word = self._word(device)
            number = 1
            while word in self._taken:
                number += 1
                word = f"{base}-{number}"
            self._words[device] = word
            self._taken.add(word)
        return word


@lru_cache(maxsize=8192)
def names_of(device: str, names: tuple[str, ...]) -> tuple[str, ...]:
    """The names of a device's metrics, made once: ``("sda.reads", "sda.writes")``. Without a device, as they are."""
    return tuple(f"{device}.{name}" for name in names) if device else names
