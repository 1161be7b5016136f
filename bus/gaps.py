# SPDX-License-Identifier: MIT
"""Gaps: frames that a sink should have seen and has not."""

from dataclasses import dataclass

from bus.archive import MissingFrames
from bus.frame import Frame
from bus.timestamp import Timestamp

MAX_TRACKED_KEYS = 100_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Gap:
    """Frames `first` to `last` (inclusive) of a source's routing key that did not arrive in their turn."""

    source: str
    key: str
    epoch: int
    first: int
    last: int
    noticed: Timestamp

    @property
    def frames(self) -> MissingFrames:
        """What an archive notes of it."""
        return MissingFrames(
            source=self.source,
            key=self.key,
            epoch=self.epoch,
            first=self.first,
            last=self.last,
            noticed=self.noticed.posix_ns,
        )


class GapWatch:
    """Notices jumps in the sequence numbers of frames, per source and routing key."""

    def __init__(self) -> None:
        self._expected: dict[tuple[str, str], tuple[int, int]] = {}

    def forget(self) -> None:
        """What comes next is the first of its key: a subscription has changed."""
        self._expected.clear()

    def check(self, frame: Frame) -> Gap | None:
        """The gap before this frame, if there is one. A frame that comes again or late is none."""
        if frame.sequence is None:
            return None
        name = (frame.source, frame.key)
        epoch, expected = known = self._expected.get(name, (-1, 0))
        if (frame.epoch, frame.sequence) < known:
            return None
        if len(self._expected) >= MAX_TRACKED_KEYS:
            self._expected.clear()
        self._expected[name] = (frame.epoch, frame.sequence + 1)
        if epoch < 0:
            return None  # the first frame ever: nobody knows what was before
        if frame.epoch > epoch:
            expected = 0  # the source was started again, and counts anew
        if frame.sequence == expected:
            return None
        return Gap(
            source=frame.source,
            key=frame.key,
            epoch=frame.epoch,
            first=expected,
            last=frame.sequence - 1,
            noticed=Timestamp.now(),
        )
