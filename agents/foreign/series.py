# SPDX-License-Identifier: MIT
"""A series of Prometheus (a name and labels) → a name on the bus, and its unit.

``node_cpu_seconds_total{mode="idle",cpu="0"}`` is called ``node_cpu_seconds_total.cpu_0.mode_idle``: a word for
the name, then one per label, by the labels' names. A name depends on its series alone, so it is the same after a
restart and whatever else there is (but for two of one exposition that would be called alike, like ``a="b_c"`` and
``a_b="c"``: see there). A word shows what it stands for where that can be told (``device__dev_sda1`` is
``/dev/sda1``, ``le_0_5`` is ``0.5``); where it cannot (``eth0:1``), it ends in a short hash of the label's value.
"""

import hashlib
import re
from collections.abc import Mapping
from functools import lru_cache

from bus.names import clean_word

LONGEST_NAME = 160
"""Characters of a name. On the bus there are 255, and the host and the endpoint come before it."""

_NUMBERS = re.compile(r"\d+(?:_\d+)+")

UNITS = {
    "seconds": "s",
    "milliseconds": "ms",
    "microseconds": "us",
    "nanoseconds": "ns",
    "minutes": "min",
    "hours": "h",
    "days": "d",
    "bytes": "B",
    "bits": "bit",
    "hertz": "Hz",
    "celsius": "Cel",
    "kelvin": "K",
    "watts": "W",
    "joules": "J",
    "volts": "V",
    "amperes": "A",
    "amps": "A",
    "ohms": "Ohm",
    "meters": "m",
    "metres": "m",
    "grams": "g",
    "kilograms": "kg",
    "pascals": "Pa",
    "lux": "lx",
    "decibels": "dB",
    "rpm": "1/min",
    "ratio": "1",
    "percent": "%",
}
"""UCUM for the words with which Prometheus' names end, and for OpenMetrics' UNIT."""

LONGEST_KEPT = 200
"""Characters of names and labels whose words are kept: those of others may be long, and new for ever."""

COUNTS = ("_total", "_count", "_gcount", "_bucket", "_info")
"""What is counted, whatever unit the name has."""


def series_name(name: str, labels: Mapping[str, str], longest: int = LONGEST_NAME) -> str:
    """What a series is called. One that would be too long is cut, and ends in a hash of the whole."""
    words = [_name_word(name), *(_label_word(label, labels[label]) for label in sorted(labels))]
    made = ".".join(words)
    return made if len(made) <= longest else hashed(made, repr((name, sorted(labels.items()))), longest)


def hashed(made: str, identity: str, longest: int = LONGEST_NAME) -> str:
    """A name that its series shares with no other."""
    digest = _digest(identity, 5)
    return f"{made[: longest - len(digest) - 1].rstrip('.')}-{digest}"


def unit_of(name: str, type_: str, stated: str = "") -> str:
    """The UCUM unit of a sample, by OpenMetrics' UNIT or the conventions of names; empty if it cannot be told.

    Args:
        name: of the sample, like ``node_disk_io_time_seconds_total``
        type_: of its family, like ``counter``
        stated: OpenMetrics' UNIT
    """
    if type_ in ("info", "stateset"):
        return "1"
    if name.endswith("_created"):
        return "s"
    base = name
    for suffix in COUNTS:
        if name.endswith(suffix):
            if suffix != "_total":
                return "1"
            base = name.removesuffix(suffix)
    if type_ in ("histogram", "summary", "gaugehistogram"):
        base = base.removesuffix("_sum").removesuffix("_gsum")
    unit = UNITS.get(stated) or _by_suffix(base)
    return unit or ("1" if type_ == "counter" or base != name else "")


def _by_suffix(name: str) -> str:
    rest, _, last = name.rpartition("_")
    if rest.endswith("_per") and last in ("second", "minute"):
        above = UNITS.get(rest.removesuffix("_per").rpartition("_")[2], "1")
        return f"{above}/{'s' if last == 'second' else 'min'}"
    return UNITS.get(last, "")


def _name_word(name: str) -> str:
    return _kept_name_word(name) if len(name) <= LONGEST_KEPT else _make_name_word(name)


def _label_word(label: str, value: str) -> str:
    make = _kept_label_word if len(label) + len(value) <= LONGEST_KEPT else _make_label_word
    return make(label, value)


def _make_name_word(name: str) -> str:
    word = clean_word(name)
    return word if word == name else f"{word}-{_digest(name, 3)}"


def _make_label_word(label: str, value: str) -> str:
    word = clean_word(value)
    if _stands_for(word) != value:
        word = f"{word}-{_digest(value, 3)}"
    return f"{clean_word(label)}_{word}"


_kept_name_word = lru_cache(maxsize=8192)(_make_name_word)
_kept_label_word = lru_cache(maxsize=32768)(_make_label_word)


def _stands_for(word: str) -> str:
    """The one value that is called so without a hash: a path, a number, infinity, or the word itself."""
    if word == "_Inf":
        return "+Inf"
    if word.startswith("_"):
        return word.replace("_", "/")
    if _NUMBERS.fullmatch(word):
        return word.replace("_", ".")
    return word


def _digest(text: str, size: int) -> str:
    return hashlib.blake2b(text.encode("utf-8", "surrogateescape"), digest_size=size).hexdigest()
