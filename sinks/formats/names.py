# SPDX-License-Identifier: MIT
"""Metric names and the (host, label) of otto's files, there and back.

``web1.cpu.usage`` is host ``web1``, label ``cpu.usage``; a name of one word has no host. From other people's
files, host ``router1`` and label ``CPU %`` become ``router1.CPU__``: each byte that a word may not have becomes
``_``, dots part words, and an empty word is ``_``. Where that cannot be undone by cutting at the first dot, the
metric's metadata remember ``host`` and ``label``, so that an export gives back what the import was given.
"""

from collections.abc import Mapping, MutableMapping
from typing import Any

from bus.names import clean_word


def join(host: str, label: str) -> str:
    """The metric's name; it may be too long, which is for others to see."""
    return ".".join(clean_word(word) for text in ([host, label] if host else [label]) for word in text.split("."))


def split(metric: str, metadata: Mapping[str, Any]) -> tuple[str, str]:
    """Host ("" if there is none) and label of a metric."""
    host, label = metadata.get("host", ""), metadata.get("label")
    if isinstance(host, str) and isinstance(label, str) and join(host, label) == metric:
        return host, label
    first, _, rest = metric.partition(".")
    return (first, rest) if rest else ("", first)


def memory(metric: str, host: str, label: str) -> dict[str, str]:
    """The metadata that a metric needs, so that `split` finds these again."""
    return {} if split(metric, {}) == (host, label) else {"host": host, "label": label} if host else {"label": label}


class Names:
    """The metrics of one file: each name is made once, and no two hosts and labels may become one metric."""

    def __init__(self) -> None:
        self._metrics: dict[tuple[str, str], str] = {}
        self._origins: dict[str, tuple[str, str]] = {}

    def metric(self, host: str, label: str, metadata: MutableMapping[str, Mapping[str, Any]]) -> str:
        """The name of a metric; what has to be remembered of a new one goes to `metadata`. Raises ValueError."""
        known = self._metrics.get((host, label))
        if known is not None:
            return known
        metric = join(host, label)
        other = self._origins.setdefault(metric, (host, label))
        if other != (host, label):
            raise ValueError(f"{'/'.join(other)!r} and {f'{host}/{label}'!r} would both become the metric {metric}")
        self._metrics[host, label] = metric
        if remembered := memory(metric, host, label):
            metadata[metric] = remembered
        return metric

    def memory(self, metric: str) -> dict[str, str]:
        """What has to be remembered of a metric that has come up."""
        origin = self._origins.get(metric)
        return memory(metric, *origin) if origin else {}
