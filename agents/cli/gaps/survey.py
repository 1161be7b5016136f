# SPDX-License-Identifier: MIT
"""A look through an archive for what is missing: finds holes, asks for missing frames, and puts the two together."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

from agents.cli.gaps.causes import SKEW_NS, Cause, Lack, Series, Siblings, dropped, of_dropped, of_silence
from agents.cli.gaps.holes import Hole, Rhythm, holes
from agents.cli.gaps.intervals import interval_ns
from bus.aggregates import NS_PER_S, declared_interval_s
from bus.archive import Archive, MissingFrames, read_points

BEFORE_NS = 600 * NS_PER_S
"""So much before the range is looked at, too: missing frames may be noticed that late."""
SMALL_WITHIN_NS = 3600 * NS_PER_S
"""Holes of a point or two are looked for so long before missing frames were noticed."""
SMALL = 1.5
"""So many intervals without a point are a hole, if frames are known to be missing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Survey:
    """What was found.

    known: all metrics of the archive · judged: of those asked for · unjudged: those that come as they like, and
    nobody declared how often they should
    """

    lacks: list[Lack] = field(default_factory=list)
    known: Sequence[str] = ()
    judged: Sequence[str] = ()
    unjudged: Sequence[str] = ()


async def survey(archive: Archive, pattern: str, start_ns: int, end_ns: int) -> Survey:
    """Look for what is missing of the metrics that the pattern selects, in a range that ends about now."""
    about = await archive.metrics()
    newest = await archive.last(pattern)
    series: list[Series] = []
    found: dict[str, list[Hole]] = {}
    for name, (newest_ns, _) in newest.items():
        metadata = about.get(name, {})
        interval = await interval_ns(archive, name, metadata, newest_ns)
        if interval is None:
            continue
        series.append(Series(name=name, source=str(metadata.get("source", "")), interval_ns=interval))
        if newest_ns < start_ns - BEFORE_NS:
            found[name] = [Hole(metric=name, start=start_ns, end=end_ns, is_open=True)]
        else:
            rhythm = Rhythm(interval_ns=interval, is_declared=declared_interval_s(metadata) is not None)
            found[name] = await holes(archive, name, rhythm, start_ns - BEFORE_NS, end_ns)
    missing = await archive.missing(start_ns)
    lacks = await _explained(archive, series, found, missing, _by_source(about))
    judged = [one.name for one in series]
    return Survey(
        lacks=[_cut(lack, start_ns) for lack in lacks if lack.end > start_ns],
        known=list(about),
        judged=judged,
        unjudged=sorted(set(newest) - set(judged)),
    )


def _cut(lack: Lack, start_ns: int) -> Lack:
    return replace(lack, start=max(lack.start, start_ns))


def _by_source(about: Mapping[str, Mapping[str, Any]]) -> dict[str, list[str]]:
    found: defaultdict[str, list[str]] = defaultdict(list)
    for name, metadata in about.items():
        if source := metadata.get("source"):
            found[str(source)].append(name)
    return found


async def _explained(
    archive: Archive,
    series: Iterable[Series],
    found: Mapping[str, Sequence[Hole]],
    missing: Sequence[MissingFrames],
    by_source: Mapping[str, Sequence[str]],
) -> list[Lack]:
    """Why: of every hole, and of all missing frames."""

    async def covered_s(metric: str, start_ns: int, end_ns: int) -> float:
        return sum((await archive.aggregates(metric, start_ns, end_ns)).covered)

    siblings = Siblings(by_source, covered_s)
    lacks: list[Lack] = []
    explained: set[MissingFrames] = set()
    for one in series:
        due = dropped(one, found[one.name], missing)
        explained.update(due.values())
        for hole in found[one.name]:
            if hole in due:
                lacks += of_dropped(hole, due[hole])
            else:
                lacks.append(await of_silence(hole, one.source, siblings))
    by_key: defaultdict[tuple[str, str], list[MissingFrames]] = defaultdict(list)
    for frames in missing:
        if frames not in explained:
            by_key[frames.source, frames.key].append(frames)
    for of_key in by_key.values():
        coming = [one for one in series if one.comes_with(of_key[0])]
        if coming:
            lacks += await _small_or_late(archive, coming, of_key, found)
    return lacks


async def _small_or_late(
    archive: Archive, series: Sequence[Series], missing: Sequence[MissingFrames], found: Mapping[str, Sequence[Hole]]
) -> list[Lack]:
    """Missing frames of one key without a hole: one too small to be found by what is covered, or they came late.

    The metrics of a key travel together, so that one of them stands for all.
    """
    one = min(series, key=lambda one: one.interval_ns)
    due = {
        frames: hole for hole, frames in dropped(one, await _small_holes(archive, one, missing, found), missing).items()
    }
    lacks = []
    for frames in missing:
        count = frames.last - frames.first + 1
        hole = due.get(frames)
        for each in series:
            if hole is not None:
                lack = Lack(metric=each.name, start=hole.start, end=hole.end, cause=Cause.dropped, frames=count)
            else:
                lack = Lack(metric=each.name, start=frames.noticed, end=frames.noticed, cause=Cause.late, frames=count)
            lacks.append(lack)
    return lacks


async def _small_holes(
    archive: Archive, one: Series, missing: Sequence[MissingFrames], found: Mapping[str, Sequence[Hole]]
) -> list[Hole]:
    start_ns = max(min(frames.epoch for frames in missing), min(frames.noticed for frames in missing) - SMALL_WITHIN_NS)
    end_ns = max(frames.noticed for frames in missing) + SKEW_NS
    times = (await read_points(archive, one.name, start_ns, end_ns)).times
    large = {(hole.start, hole.end) for hole in found[one.name]}
    return [
        Hole(metric=one.name, start=earlier, end=later)
        for earlier, later in pairwise(times)
        if later - earlier > SMALL * one.interval_ns and (earlier, later) not in large
    ]
