# SPDX-License-Identifier: MIT
import os
from pathlib import Path

import pytest

from agents.process.procfs import (
    PAGE_BYTES,
    Looker,
    Stat,
    count_fds,
    knows_fd_counts,
    parse_cgroups,
    parse_io,
    parse_pss,
    parse_stat,
    read_arguments,
    read_cgroups,
    read_program,
    unit_of,
)

LINE = (
    b"812 (nginx) S 1 812 812 0 -1 4194560 500 90 7 3 250 50 11 12 20 0 4 0 6000 55000000 300 18446744073709551615 "
    b"1 1 0 0 0 0 0 16781312 85675 0 0 0 17 3 0 0 0 0 0 0 0 0 0 0 0 0 0\n"
)
STAT = Stat("nginx", 1, False, False, 4, 507, 300, 6000, 55_000_000, 300 * PAGE_BYTES)

IO = b"rchar: 1\nwchar: 2\nsyscr: 3\nsyscw: 4\nread_bytes: 4096\nwrite_bytes: 8192\ncancelled_write_bytes: 6\n"
SMAPS = b"5600-7fff ---p 00000000 00:00 0    [rollup]\nRss:    1752 kB\nPss:     242 kB\nPss_Dirty:    112 kB\n"


def test_a_line_of_a_process() -> None:
    assert parse_stat(LINE) == STAT


@pytest.mark.parametrize(
    ("raw", "name"),
    [(b"a) S 1 (b", "a) S 1 (b"), (b"a\nb c", "a\nb c"), (b"caf\xe9", "caf\ufffd"), (b"", ""), (b"((x))", "((x))")],
)
def test_a_process_may_call_itself_anything(raw: bytes, name: str) -> None:
    assert parse_stat(LINE.replace(b"(nginx)", b"(" + raw + b")")) == STAT._replace(name=name)


def test_a_zombie_has_ended_but_one_whose_first_thread_ended_has_not() -> None:
    assert not parse_stat(LINE.replace(b" S 1", b" Z 1")).ended
    assert parse_stat(LINE.replace(b" S 1", b" Z 1").replace(b" 20 0 4 ", b" 20 0 1 ")).ended
    assert parse_stat(LINE.replace(b" S 1", b" X 1").replace(b" 20 0 4 ", b" 20 0 0 ")).ended


def test_a_thread_of_the_kernel_is_known_by_its_flags() -> None:
    assert parse_stat(LINE.replace(b"4194560", str(0x00200000 | 64).encode())).kernel


@pytest.mark.parametrize("line", [b"", b"garbage", b"1 (a) S 1 2", LINE.replace(b" 250 ", b" x ")])
def test_a_line_that_makes_no_sense_is_an_error(line: bytes) -> None:
    with pytest.raises((ValueError, IndexError)):
        parse_stat(line)


def test_bytes_read_and_written_to_devices() -> None:
    assert parse_io(IO) == (4096, 8192)


def test_memory_with_what_is_shared_split() -> None:
    assert parse_pss(SMAPS) == 242 * 1024


@pytest.mark.parametrize("data", [b"", b"nonsense", b"\nread_bytes: x\nPss: x kB\n", b"\nread_bytes: 1\n\nPss:\n"])
def test_files_that_make_no_sense_are_errors(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse_io(data)
    with pytest.raises(ValueError, match=r"."):
        parse_pss(data)


@pytest.mark.parametrize(
    ("text", "paths"),
    [
        ("0::/system.slice/ssh.service\n", ["/system.slice/ssh.service"]),
        ("4:memory:/m\n0::/v2\n1:name=systemd:/s\n9:cpu,cpuacct:/m\n", ["/s", "/v2", "/m"]),
        ("1:name=systemd:/s\n2:cpu:/s\n0::/v2\n", ["/s", "/v2"]),
        ("0::/a.scope (deleted)\n", ["/a.scope"]),
        ("0::/with:colon\nnonsense\n\n", ["/with:colon"]),
        ("", []),
    ],
)
def test_control_groups(text: str, paths: list[str]) -> None:
    assert parse_cgroups(text) == paths


@pytest.mark.parametrize(
    ("cgroups", "unit"),
    [
        (["/system.slice/ssh.service"], "ssh.service"),
        (["/user.slice/user-1000.slice/user@1000.service/app.slice/app-x.scope"], "app-x.scope"),
        (["/system.slice/foo.service/payload"], "foo.service"),
        (["/system.slice/dev-disk\\x2dby.service"], "dev-disk\\x2dby.service"),
        (["/system.slice/_cpu.service"], "cpu.service"),
        (["/", "/init.scope"], "init.scope"),
        (["/user.slice"], ""),
        ([], ""),
    ],
)
def test_the_innermost_unit_is_meant(cgroups: list[str], unit: str) -> None:
    assert unit_of(cgroups) == unit


def test_arguments_are_bounded_and_without_the_zeros_at_their_end(tmp_path: Path) -> None:
    (tmp_path / "cmdline").write_bytes(b"nginx: worker\0\0\0\0")
    assert read_arguments(str(tmp_path)) == ["nginx: worker"]
    (tmp_path / "cmdline").write_bytes(b"a\0\0b\xff\0")
    assert read_arguments(str(tmp_path)) == ["a", "", "b\ufffd"]
    (tmp_path / "cmdline").write_bytes(b"x" * 100_000)
    assert len(read_arguments(str(tmp_path))[0]) == 4096
    (tmp_path / "cmdline").write_bytes(b"")
    assert read_arguments(str(tmp_path)) == []


def test_the_program_may_be_deleted_or_not_shown(tmp_path: Path) -> None:
    assert read_program(str(tmp_path)) == ""
    (tmp_path / "exe").symlink_to("/usr/bin/old (deleted)")
    assert read_program(str(tmp_path)) == "/usr/bin/old"


def test_what_is_denied_is_as_if_it_were_empty_but_who_is_gone_is_an_error(tmp_path: Path, monkeypatch) -> None:
    with pytest.raises(FileNotFoundError):
        read_arguments(str(tmp_path))

    def deny(*_: object, **__: object) -> int:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "open", deny)
    monkeypatch.setattr(os, "readlink", deny)
    assert read_arguments(str(tmp_path)) == []
    assert read_cgroups(str(tmp_path)) == []
    assert read_program(str(tmp_path)) == ""


def test_open_files_are_counted_by_entries_where_the_size_does_not_tell(tmp_path: Path) -> None:
    assert not knows_fd_counts(str(tmp_path))
    (tmp_path / "self/fd").mkdir(parents=True)
    assert not knows_fd_counts(str(tmp_path))
    for number in range(3):
        (tmp_path / f"self/fd/{number}").touch()
    assert count_fds(str(tmp_path / "self"), by_size=False) == 3


@pytest.mark.parametrize("by_size", [False, True])
def test_open_files_of_this_process(by_size: bool) -> None:
    before = count_fds("/proc/self", by_size=by_size)
    files = [os.open("/dev/null", os.O_RDONLY) for _ in range(5)]
    try:
        assert count_fds("/proc/self", by_size=by_size) == before + 5
    finally:
        for file in files:
            os.close(file)


def test_a_look_leaves_out_what_is_no_process_or_is_gone_or_garbled(tmp_path: Path) -> None:
    for entry in ("1", "2", "3", "self", "12x"):
        (tmp_path / entry).mkdir()
    (tmp_path / "1/stat").write_bytes(LINE)
    (tmp_path / "2/stat").write_bytes(b"nonsense")
    found = Looker(str(tmp_path)).look()
    assert found.processes == {1: STAT}
    assert "nonsense" in found.garbled
    assert found.denied == 0


def test_a_process_that_did_nothing_is_not_parsed_again(tmp_path: Path) -> None:
    (tmp_path / "1").mkdir()
    (tmp_path / "1/stat").write_bytes(LINE)
    looker = Looker(str(tmp_path))
    first = looker.look().processes[1]
    assert looker.look().processes[1] is first
    (tmp_path / "1/stat").write_bytes(LINE.replace(b" 250 ", b" 251 "))
    assert looker.look().processes[1] == STAT._replace(ticks=301)


def test_without_a_file_to_spare_nothing_is_said_of_any_process(tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "1").mkdir()
    (tmp_path / "1/stat").write_bytes(LINE)
    looker = Looker(str(tmp_path))
    code = 13

    def refuse(*_: object, **__: object) -> int:
        raise OSError(code, "refused")

    monkeypatch.setattr(os, "open", refuse)
    assert looker.look() == ({}, 1, "")
    code = 24
    with pytest.raises(OSError, match="refused"):
        looker.look()
