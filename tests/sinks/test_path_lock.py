# SPDX-License-Identifier: MIT
"""One writer per file, whatever the file is called."""

import pytest

from bus.errors import StorageError
from sinks.path_lock import PathLock, holder_of


def test_a_file_has_one_writer_until_that_lets_go(tmp_path):
    path = tmp_path / "f"
    assert holder_of(path) is None
    lock = PathLock(path)
    assert holder_of(path) == "this process already"
    with pytest.raises(StorageError, match=f"^{path} is being written by this process already: stop that one"):
        PathLock(path)
    lock.release()
    lock.release()
    assert holder_of(path) is None
    PathLock(path).release()


def test_a_link_is_no_second_file(tmp_path):
    path, link = tmp_path / "f", tmp_path / "link"
    link.symlink_to(path)
    lock = PathLock(path)
    assert holder_of(link) == "this process already"
    with pytest.raises(StorageError, match=f"^{link} is being written"):
        PathLock(link)
    lock.release()


def test_a_side_file_that_is_a_link_is_not_written_through(tmp_path):
    mine = tmp_path / "mine"
    mine.write_text("x")
    (tmp_path / "f.lock").symlink_to(mine)
    with pytest.raises(StorageError, match="cannot be written"):
        PathLock(tmp_path / "f")
    assert mine.read_text() == "x"


def test_a_folder_that_is_not_there_is_said(tmp_path):
    with pytest.raises(StorageError, match="make its directory writable"):
        PathLock(tmp_path / "none" / "f")
