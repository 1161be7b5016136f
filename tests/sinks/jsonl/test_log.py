# SPDX-License-Identifier: MIT
"""The file of lines: each batch wholly there or not at all, and known again when it comes again."""

import errno
import gzip
import itertools
import os
import random
from array import array

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bus.errors import StorageBusy, StorageError
from bus.frame import Frame, Group
from sinks.jsonl import log as log_module
from sinks.jsonl import seen
from sinks.jsonl.log import PointLog, Rotation, put_aside, tidy
from sinks.jsonl.seen import Knowledge, new_chunks


def frame(sequence, *times, epoch=1, source="s", key="k", metric="m"):
    return Frame(
        groups=(Group((metric,), array("q", times), array("d", times)),),
        epoch=epoch,
        sequence=sequence,
        source=source,
        key=key,
    )


def write(log, *frames):
    """What a sink does; the times that were written."""
    chunks, news, _ = new_chunks(log.known, frames)
    times = [time for chunk in chunks for time in chunk.times]
    if chunks:
        log.append(b"".join(b"%d\n" % time for time in times), news)
    return times


def numbers(path):
    """The lines of points in a file."""
    return [int(line) for line in path.read_bytes().split(b"\n") if line and not line.startswith(b"{")]


@given(st.lists(st.integers(0, 30), max_size=60))
def test_ranges_know_exactly_the_numbers_that_were_put_in(given_numbers):
    ranges, known = [], set()
    for number in given_numbers:
        assert seen.add(ranges, number) is (number not in known)
        known.add(number)
    assert [n for first, last in ranges for n in range(first, last + 1)] == sorted(known)
    assert all(after[0] > before[1] + 1 for before, after in itertools.pairwise(ranges))


def test_a_frame_counts_once_in_any_order_of_any_epoch(tmp_path):
    log = PointLog(tmp_path / "f")
    assert write(log, frame(0, 1), frame(2, 3), frame(2, 3)) == [1, 3]
    assert write(log, frame(2, 3), frame(1, 2), frame(0, 1)) == [2]
    assert write(log, frame(0, 11, epoch=2), frame(1, 2), frame(0, 5, source="other"), frame(0, 6, key="other")) == [
        11,
        5,
        6,
    ]
    log.close()
    again = PointLog(tmp_path / "f")
    assert write(again, frame(0, 1), frame(1, 2), frame(2, 3), frame(0, 11, epoch=2), frame(3, 4)) == [4]
    again.close()


def test_frames_without_numbers_are_known_by_their_times(tmp_path):
    log = PointLog(tmp_path / "f")
    assert write(log, frame(None, 1, 2), frame(None, 1, 2, 3), frame(None, 2, metric="other")) == [1, 2, 3, 2]
    log.close()
    again = PointLog(tmp_path / "f")
    assert write(again, frame(None, 1, 2, 3), frame(None, 3, 4)) == [4]
    again.close()


def test_wherever_a_crash_cuts_the_file_what_was_acknowledged_is_there_once(tmp_path, monkeypatch):
    monkeypatch.setattr(log_module, "FULL_EVERY_BYTES", 500)
    monkeypatch.setattr(log_module, "_READ_BYTES", 256)
    path = tmp_path / "f"
    log = PointLog(path)
    sizes = [log.size]
    for sequence in range(20):
        write(log, frame(2 * sequence, 2 * sequence), frame(2 * sequence + 1, 2 * sequence + 1))
        sizes.append(log.size)
    log.close()
    whole = path.read_bytes()
    assert whole.count(b'"full":true') > 3
    for cut in [*range(sizes[0], len(whole) + 1, 7), *sizes]:
        path.write_bytes(whole[:cut])
        log = PointLog(path)
        acknowledged = max(n for n, size in enumerate(sizes) if size <= cut)
        assert numbers(path) == list(range(2 * acknowledged))
        write(log, *(frame(sequence, sequence) for sequence in range(40)))
        log.close()
        assert numbers(path) == list(range(40))


def test_a_batch_that_does_not_fit_the_disk_is_not_there_and_may_come_again(tmp_path, monkeypatch):
    path = tmp_path / "f"
    log = PointLog(path)
    write(log, frame(0, 1))
    before = path.read_bytes()
    pwrite = os.pwrite

    def full(descriptor, data, offset):
        if len(data) < 20:
            raise OSError(errno.ENOSPC, "No space left on device")
        return pwrite(descriptor, data[:10], offset)

    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(StorageBusy, match=f"{path} cannot be written: No space left"):
        write(log, frame(1, 2))
    assert path.read_bytes() == before
    monkeypatch.undo()
    assert write(log, frame(1, 2)) == [2]
    assert numbers(path) == [1, 2]
    log.close()


@pytest.mark.parametrize("full_every", [1, 10**9])
def test_a_last_batch_that_the_power_failed_in_is_cut_off_though_its_end_is_there(tmp_path, monkeypatch, full_every):
    monkeypatch.setattr(log_module, "FULL_EVERY_BYTES", full_every)
    path = tmp_path / "f"
    log = PointLog(path)
    for sequence in range(3):
        before = path.stat().st_size
        write(log, frame(sequence, 10 + sequence, 20 + sequence))
    log.close()
    with path.open("r+b") as file:
        file.seek(before)
        file.write(bytes(4))  # a block that did not come to the disk
    log = PointLog(path)
    assert path.stat().st_size == before
    assert write(log, *(frame(sequence, 10 + sequence, 20 + sequence) for sequence in range(3))) == [12, 22]
    log.close()
    assert numbers(path) == [10, 20, 11, 21, 12, 22]


@pytest.mark.parametrize("left", [b"", b'{"frames":{"full":true,', b'{"frames":{"full":true,"at":1,"bytes":0}}'])
def test_a_first_file_that_was_not_made_to_its_end_is_made_again(tmp_path, left):
    path = tmp_path / "f"
    (tmp_path / "f.new").write_bytes(left)
    log = PointLog(path)
    assert write(log, frame(0, 1)) == [1]
    log.close()
    assert [file.name for file in tmp_path.iterdir()] == ["f"]


def test_an_empty_file_is_begun_and_one_that_others_cut_is_opened_again(tmp_path):
    path = tmp_path / "f"
    path.touch()
    log = PointLog(path)
    write(log, frame(0, 1))
    assert log.is_in_place
    os.truncate(path, 0)
    assert not log.is_in_place
    log.close()
    log = PointLog(path, log.known)
    assert write(log, frame(0, 1), frame(1, 2)) == [2]
    log.close()
    assert b"\0" not in path.read_bytes()


def test_what_this_process_has_written_is_known_though_an_older_copy_lies_there(tmp_path):
    path = tmp_path / "f"
    log = PointLog(path)
    old = path.read_bytes()
    write(log, frame(0, 1))
    log.close()
    path.write_bytes(old)
    log = PointLog(path, log.known)
    assert write(log, frame(0, 1), frame(1, 2)) == [2]
    log.close()


def test_a_batch_is_on_the_disk_before_it_is_acknowledged_and_a_new_name_too(tmp_path, monkeypatch):
    steps = []
    for name in ("pwrite", "fdatasync", "rename", "fsync"):
        real = getattr(os, name)
        monkeypatch.setattr(os, name, lambda *words, name=name, real=real: (steps.append(name), real(*words))[1])
    log = PointLog(tmp_path / "f")
    assert steps == ["fsync", "rename", "fsync"]
    steps.clear()
    write(log, frame(0, 1))
    assert steps == ["pwrite", "fdatasync"]
    steps.clear()
    log.rotate()
    assert steps == ["fsync", "rename", "rename", "fsync"]
    log.close()


def test_who_may_read_the_file_is_the_same_after_it_was_put_aside(tmp_path):
    path = tmp_path / "points.jsonl"
    log = PointLog(path)
    path.chmod(0o640)
    write(log, frame(0, 1))
    log.rotate()
    log.close()
    tidy(path, Rotation(compress=True))
    assert [(file.suffix, file.stat().st_mode & 0o777) for file in (path, *put_aside(path))] == [
        (".jsonl", 0o640),
        (".gz", 0o640),
    ]


def test_nothing_stays_of_a_file_that_could_not_be_compressed(tmp_path, monkeypatch):
    path = tmp_path / "points.jsonl"
    plain = tmp_path / "points-20261120T100000Z.jsonl"
    plain.write_bytes(b"x")

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(log_module.shutil, "copyfileobj", full)
    with pytest.raises(OSError, match="No space left"):
        tidy(path, Rotation(compress=True))
    assert list(tmp_path.iterdir()) == [plain]


def test_the_next_file_knows_what_was_written_to_the_last(tmp_path):
    path = tmp_path / "points.jsonl"
    for number in range(4):
        log = PointLog(path)
        assert not log.is_due(Rotation(size_bytes=1, age_s=0.001))
        write(log, *(frame(sequence, sequence) for sequence in range(number + 1)))
        assert log.is_due(Rotation(size_bytes=1))
        assert log.is_due(Rotation(age_s=1e-9))
        assert not log.is_due(Rotation(size_bytes=10**9, age_s=3600))
        log.rotate()
        log.close()
    assert [numbers(file) for file in put_aside(path)] == [[0], [1], [2], [3]]
    assert numbers(path) == []


@pytest.mark.parametrize("step", range(1, 3))
def test_a_crash_in_a_rotation_loses_nothing(tmp_path, monkeypatch, step):
    path = tmp_path / "points.jsonl"
    log = PointLog(path)
    write(log, frame(0, 0))
    rename, left = os.rename, step

    def crash(source, target):
        nonlocal left
        left -= 1
        if left == 0:
            raise KeyboardInterrupt
        rename(source, target)

    monkeypatch.setattr(os, "rename", crash)
    with pytest.raises(KeyboardInterrupt):
        log.rotate()
    monkeypatch.undo()
    log.close()
    log = PointLog(path)
    assert write(log, frame(0, 0), frame(1, 1)) == [1]
    log.close()
    assert sorted(n for file in [path, *put_aside(path)] for n in numbers(file)) == [0, 1]
    assert not (tmp_path / "points.jsonl.new").exists()


def test_files_put_aside_are_compressed_and_the_oldest_removed_others_never(tmp_path):
    path = tmp_path / "points.jsonl"
    names = [f"points-2026112{day}T100000Z{extra}.jsonl" for day in range(4) for extra in ("", "-2", "-10")]
    for name in random.Random(1).sample(names, len(names)):
        (tmp_path / name).write_text(name)
    others = ["points-mine.jsonl", "points-20261120T100000Z.csv", "other-20261120T100000Z.jsonl"]
    for name in others:
        (tmp_path / name).write_text(name)
    (tmp_path / f"{names[-2]}.gz").write_bytes(gzip.compress(names[-2].encode()))  # a crash came before the removal
    (tmp_path / f"{names[-1]}.gz.part").write_bytes(b"x")
    tidy(path, Rotation(keep=5, compress=True))
    kept = put_aside(path)
    assert [file.name for file in kept] == [f"{name}.gz" for name in names[-5:]]
    assert [gzip.decompress(file.read_bytes()).decode() for file in kept] == names[-5:]
    assert sorted(file.name for file in tmp_path.iterdir()) == sorted([*others, *(file.name for file in kept)])


@pytest.mark.parametrize("content", [b"x", b'{"metric":"a","time":1,"value":1}\n', b'{"frames":{"full":true,\n'])
def test_what_is_not_such_a_file_is_left_as_it_is(tmp_path, content):
    path = tmp_path / "f"
    path.write_bytes(content)
    with pytest.raises(StorageError, match=r"is not a file of json-sink|its first line is damaged"):
        PointLog(path)
    assert path.read_bytes() == content


def test_knowledge_is_bounded(monkeypatch):
    monkeypatch.setattr(seen, "MAX_KEYS", 3)
    monkeypatch.setattr(seen, "MAX_RANGES", 4)
    known = Knowledge()
    for source in ("a", "b", "c", "a", "d"):
        _, news, _ = new_chunks(
            known, [frame(0, 1, source=source)] + [frame(2 * n, n, source=source) for n in range(9)]
        )
        known.learn(news)
    assert [source for source, _ in known.frames] == ["c", "a", "d"]
    for epoch in range(2, 10):
        _, news, _ = new_chunks(known, [frame(0, 1, source="d", epoch=epoch)])
        known.learn(news)
    assert sorted(known.frames["d", "k"]) == [6, 7, 8, 9]
    assert known.frames["c", "k"] == {1: [[10, 10], [12, 12], [14, 14], [16, 16]]}
