# SPDX-License-Identifier: MIT
import os
from pathlib import Path

import pytest

from agents.base.files import OpenFiles, read_once
from tests.services.descriptors import open_descriptors


def test_a_file_is_read_anew_each_time_and_stays_open(tmp_path: Path) -> None:
    file = tmp_path / "stat"
    file.write_text("one")
    files = OpenFiles()
    before = open_descriptors()
    assert files.read(str(file)) == "one"
    file.write_text("two, and longer")
    assert files.read(str(file)) == "two, and longer"
    file.write_text("")
    assert files.read(str(file)) == ""
    assert open_descriptors() == before + 1
    files.close()
    files.close()
    assert open_descriptors() == before


def test_a_long_file_is_read_whole(tmp_path: Path) -> None:
    (tmp_path / "long").write_text("0123456789" * 50_000)
    assert len(read_once(str(tmp_path / "long"))) == 500_000


def test_a_file_of_the_kernel_that_comes_in_pages_is_read_whole() -> None:
    def names(text: str) -> list[str]:
        return [line.split()[0] for line in text.splitlines()]

    files = OpenFiles()
    for _ in range(2):
        assert names(files.read("/proc/vmstat")) == names(Path("/proc/vmstat").read_text())


def test_bytes_that_are_no_utf_8_are_kept(tmp_path: Path) -> None:
    (tmp_path / "mounts").write_bytes(b"/mnt/\xff")
    assert os.fsencode(read_once(str(tmp_path / "mounts"))) == b"/mnt/\xff"


def test_a_missing_file_is_an_error_until_it_is_there(tmp_path: Path) -> None:
    files = OpenFiles()
    with pytest.raises(FileNotFoundError):
        files.read(str(tmp_path / "late"))
    (tmp_path / "late").write_text("here")
    assert files.read(str(tmp_path / "late")) == "here"


def test_a_file_whose_device_went_is_opened_again(tmp_path: Path) -> None:
    file = tmp_path / "operstate"
    file.write_text("up")
    files = OpenFiles()
    files.read(str(file))
    os.close(files._fds[str(file)])  # reads fail now, as they do with ENODEV
    files._fds[str(file)] = os.open(tmp_path, os.O_RDONLY)
    assert files.read(str(file)) == "up"


def test_a_file_that_cannot_be_read_is_not_left_open(tmp_path: Path) -> None:
    before = open_descriptors()
    files = OpenFiles()
    with pytest.raises(IsADirectoryError):
        files.read(str(tmp_path))
    assert open_descriptors() == before


def test_no_more_than_the_limit_stay_open(tmp_path: Path) -> None:
    files = OpenFiles(limit=2)
    before = open_descriptors()
    for name in "abcd":
        (tmp_path / name).write_text(name)
        assert files.read(str(tmp_path / name)) == name
    assert open_descriptors() == before + 2
    files.forget(str(tmp_path / "a"))
    files.forget(str(tmp_path / "never opened"))
    assert open_descriptors() == before + 1


def test_files_that_nobody_needs_any_more_are_closed(tmp_path: Path) -> None:
    (tmp_path / "x").write_text("x")
    before = open_descriptors()
    files = OpenFiles()
    files.read(str(tmp_path / "x"))
    del files
    assert open_descriptors() == before
