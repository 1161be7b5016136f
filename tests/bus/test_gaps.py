# SPDX-License-Identifier: MIT
"""Which jumps in the numbers of frames are gaps."""

import pytest

from bus import gaps
from bus.frame import Frame
from bus.gaps import Gap, GapWatch


def frame(sequence: int | None, *, epoch: int = 100, source: str = "s", key: str = "web1.cpu") -> Frame:
    return Frame(groups=(), epoch=epoch, sequence=sequence, source=source, key=key)


def ranges(watch: GapWatch, *frames: Frame) -> list[tuple[int, int] | None]:
    found = [watch.check(one) for one in frames]
    return [None if gap is None else (gap.first, gap.last) for gap in found]


def test_frames_in_their_turn_have_no_gap() -> None:
    assert ranges(GapWatch(), frame(0), frame(1), frame(2)) == [None, None, None]


def test_the_first_frame_that_is_seen_of_a_key_tells_nothing() -> None:
    assert ranges(GapWatch(), frame(7), frame(8)) == [None, None]


def test_a_jump_is_a_gap_from_the_first_to_the_last_missing_frame() -> None:
    watch = GapWatch()
    assert ranges(watch, frame(3), frame(5), frame(6), frame(10)) == [None, (4, 4), None, (7, 9)]
    gap = watch.check(frame(12))
    assert gap is not None
    assert gap == Gap(source="s", key="web1.cpu", epoch=100, first=11, last=11, noticed=gap.noticed)


def test_a_frame_that_comes_again_or_late_is_no_gap_and_changes_nothing() -> None:
    assert ranges(GapWatch(), frame(0), frame(2), frame(1), frame(2), frame(3)) == [None, (1, 1), None, None, None]


def test_keys_and_sources_are_numbered_apart() -> None:
    watch = GapWatch()
    frames = [frame(0), frame(5, key="web1.mem"), frame(9, source="t"), frame(1), frame(6, key="web1.mem")]
    assert ranges(watch, *frames) == [None] * 5


def test_a_restarted_source_counts_anew() -> None:
    assert ranges(GapWatch(), frame(41), frame(0, epoch=200), frame(1, epoch=200)) == [None, None, None]


def test_the_first_frames_of_a_restarted_source_may_be_missing_too() -> None:
    assert ranges(GapWatch(), frame(41), frame(3, epoch=200), frame(4, epoch=200)) == [None, (0, 2), None]


def test_a_late_frame_of_the_run_before_hides_no_gap_of_this_one() -> None:
    frames = [frame(41), frame(0, epoch=200), frame(40), frame(2, epoch=200)]
    assert ranges(GapWatch(), *frames) == [None, None, None, (1, 1)]


def test_messages_without_numbers_have_no_gaps() -> None:
    assert ranges(GapWatch(), frame(None), frame(None)) == [None, None]


def test_what_was_forgotten_is_no_gap() -> None:
    watch = GapWatch()
    watch.check(frame(0))
    watch.forget()
    assert ranges(watch, frame(9), frame(11)) == [None, (10, 10)]


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gaps, "MAX_TRACKED_KEYS", 10)
    watch = GapWatch()
    for number in range(1000):
        watch.check(frame(0, key=f"k{number}"))
    assert len(watch._expected) <= 10
