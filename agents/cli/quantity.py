# SPDX-License-Identifier: MIT
"""Values, integrals and lengths of time as people read them: few digits, and a unit that fits."""

from math import isfinite

PREFIXED = frozenset({"B", "B/s", "bit", "bit/s", "W", "J", "Wh", "Hz", "V", "A"})
"""Units that take k, M, G, T."""

JOULE_PER_WH = 3600.0
MANY_WH = 10.0
"""From here on energy is told in Wh."""

_PREFIXES = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))
_LENGTHS = ((86400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s"))


def scale(unit: str, magnitude: float) -> tuple[float, str]:
    """What to divide by so that a value of that magnitude reads well, and the unit that it then has."""
    if unit.removesuffix("·s") in PREFIXED and isfinite(magnitude):
        for factor, prefix in _PREFIXES:
            if abs(magnitude) >= factor:
                return factor, prefix + unit
    return 1.0, unit


def digits(value: float) -> str:
    """Four digits that count, whole numbers up to seven digits whole; at most 10 characters."""
    if abs(value) >= 1e7 or 0 < abs(value) < 1e-4:
        return f"{value:.3g}"
    if abs(value) >= 1000:
        return f"{value:.0f}"
    # In '.4g' 5.000 is 5, but 0.1 + 0.2 is 0.3.
    return f"{value:.4g}"


def amount(value: float, unit: str) -> str:
    """A value with its unit, ``12.3 MB/s``; a count has none."""
    factor, scaled = scale("" if unit == "1" else unit, value)
    return f"{digits(value / factor)} {scaled}".rstrip()


def integral(value: float, unit: str) -> tuple[float, str]:
    """A time-weighted integral (value x s of a metric of that unit) in the unit that it has: energy of W is J."""
    if unit == "W":
        return value, "J"
    if unit.endswith("/s"):
        return value, unit.removesuffix("/s")
    if unit.endswith("/min"):
        return value / 60, unit.removesuffix("/min")
    if unit == "1":
        return value, "s"
    return value, f"{unit}·s" if unit else ""


def integral_amount(value: float, unit: str) -> str:
    """The integral for people: ``12.3 kJ``, ``1.2 kWh``, ``34 GB``, ``625 %·s``; counts have no unit."""
    number, of = integral(value, unit)
    if of == "J" and abs(number) >= MANY_WH * JOULE_PER_WH:
        number, of = number / JOULE_PER_WH, "Wh"
    return amount(number, of)


def human_bytes(count: float) -> str:
    """``1.5 MB``: decimal units, two or three digits, for what changes under one's eyes."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" or count >= 100 else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def counted(count: int, what: str) -> str:
    """``1 metric``, ``35 metrics``, ``41,606 points``."""
    return f"{count:,} {what}" if count == 1 else f"{count:,} {what}s"


def percent(part: float) -> str:
    """A part of a whole: ``98 %``."""
    return f"{part * 100:.0f} %"


def change(old: float, new: float) -> str:
    """How much more or less, in %: ``+12.5 %``; "-" if there is nothing to compare with."""
    if not (isfinite(old) and isfinite(new)) or old == 0:
        return "0 %" if old == new else "-"
    more = (new - old) / abs(old) * 100
    return f"{more:+.1f} %" if abs(more) < 1000 else f"{more:+.3g} %"


def length(seconds: float) -> str:
    """A length of time: ``850 ms``, ``12.35 s``, ``3 min 20 s``, ``2 h 5 min``, ``3 d 4 h``."""
    if abs(seconds) < 1:
        return f"{seconds * 1000:.3g} ms"
    if abs(seconds) < 60:
        return f"{seconds:.4g} s"
    for big_s, big, small_s, small in _LENGTHS:
        whole = round(abs(seconds) / small_s) * small_s  # 59 min 59.7 s is an hour
        if whole >= big_s:
            rest = int(whole % big_s // small_s)
            return f"{'-' if seconds < 0 else ''}{int(whole // big_s)} {big}" + (f" {rest} {small}" if rest else "")
    return f"{seconds:.4g} s"
