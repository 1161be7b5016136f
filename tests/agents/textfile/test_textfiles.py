# SPDX-License-Identifier: MIT
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from agents.textfile import files as textfiles
from agents.textfile.files import Content, Library, Outcome, TextFile, files_of, read_regular, stem
from bus.errors import ConfigError

PROMETHEUS = '# TYPE jobs gauge\njobs{queue="a"} 3\n'


@pytest.fixture
def folder(tmp_path) -> Path:
    made = tmp_path / "metrics"
    made.mkdir()
    return made


def library(*files: str | Path | TextFile) -> Library:
    return Library(files_of(str(file) if isinstance(file, Path) else file for file in files), name="test: files")


def read(made: Library, patience_s: float = 20.0) -> dict[str, Outcome]:
    return {os.path.basename(path): outcome for path, (_, outcome) in made.read(patience_s).items()}


def samples(outcome: Outcome) -> dict[str, float]:
    assert isinstance(outcome, Content)
    return {sample.name: sample.value for sample in outcome.parsed.samples}


def test_the_bytes_of_a_file_and_when_it_was_written(folder) -> None:
    (folder / "a").write_bytes(b"x" * 200_000)
    os.utime(folder / "a", ns=(5, 7))
    assert read_regular(str(folder / "a")) == (b"x" * 200_000, 7)


def test_a_file_of_the_kernel_has_a_size_that_says_nothing() -> None:
    assert read_regular("/proc/self/stat")[0].startswith(str(os.getpid()).encode())


def test_a_file_may_be_so_large_and_no_larger(folder, monkeypatch) -> None:
    monkeypatch.setattr(textfiles, "MAX_BYTES", 10)
    (folder / "a").write_bytes(b"0123456789")
    assert read_regular(str(folder / "a"))[0] == b"0123456789"
    (folder / "a").write_bytes(b"0123456789+")
    with pytest.raises(OSError, match="larger than"):
        read_regular(str(folder / "a"))
    with pytest.raises(OSError, match="larger than"):  # its size is 0
        read_regular("/proc/self/status")


def test_what_is_no_regular_file_is_not_even_opened(folder, monkeypatch) -> None:
    os.mkfifo(folder / "pipe")
    (folder / "link").symlink_to(folder / "pipe")
    monkeypatch.setattr(textfiles.os, "open", None)
    for path in (folder / "pipe", folder / "link", "/dev/null"):
        with pytest.raises(OSError, match="not a regular file"):
            read_regular(str(path))
    with pytest.raises(IsADirectoryError):
        read_regular(str(folder))


def test_a_file_that_becomes_a_pipe_before_it_is_opened_is_not_read(folder, monkeypatch) -> None:
    (folder / "a").write_text("a 1\n")
    os.mkfifo(folder / "pipe")
    really = os.open
    monkeypatch.setattr(textfiles.os, "open", lambda path, flags: really(folder / "pipe", flags))
    with pytest.raises(OSError, match="not a regular file"):
        read_regular(str(folder / "a"))


def test_all_files_of_a_pattern_are_read_and_those_that_fail_cost_only_themselves(folder) -> None:
    (folder / "a.prom").write_text(PROMETHEUS)
    (folder / "b.prom").write_text("x.y 1\nbad\n")
    (folder / "c.prom").write_text("# TYPE a gauge\nnonsense here\n")
    (folder / "d.prom").symlink_to(folder / "d.prom")
    (folder / "e.prom").symlink_to(folder / "nothing")
    (folder / "f.prom").mkdir()
    os.mkfifo(folder / "g.prom")
    (folder / ".h.prom").write_text("a 1\n")
    (folder / "i.txt").write_text("a 1\n")
    (folder / "j.prom").write_bytes(bytes(range(256)))
    found = read(library(folder / "*.prom"))
    assert list(found) == ["a.prom", "b.prom", "c.prom", "d.prom", "g.prom", "j.prom"]
    assert samples(found["a.prom"]) == {"jobs.queue_a": 3.0}
    assert samples(found["b.prom"]) == {"x.y": 1.0}
    assert "nonsense" in str(found["c.prom"].failure)
    assert str(found["d.prom"]) == "Too many levels of symbolic links"
    assert str(found["g.prom"]) == "it is not a regular file"
    assert samples(found["j.prom"]) == {}


@pytest.mark.parametrize(
    ("make", "cause"),
    [
        (lambda path: None, "No such file or directory"),
        (lambda path: path.mkdir(), "it is a directory, not a file"),
    ],
)
def test_a_file_that_is_named_and_not_there_is_a_failure(folder, make: Callable[[Path], None], cause: str) -> None:
    make(folder / "a")
    assert str(read(library(folder / "a"))["a"]) == cause


def test_a_file_that_is_as_it_was_is_not_parsed_again(folder, monkeypatch) -> None:
    parsed: list[str] = []
    really = textfiles.parse_text
    monkeypatch.setattr(
        textfiles, "parse_text", lambda text, *rest, **options: parsed.append(text) or really(text, *rest, **options)
    )
    made = library(folder / "*")
    (folder / "a").write_text("a 1\n")
    (folder / "b").write_text("# TYPE a gauge\nnonsense here\n")
    first, second = read(made), read(made)
    assert len(parsed) == 2
    assert first["a"].parsed is second["a"].parsed
    assert first["b"].failure is second["b"].failure is not None
    os.utime(folder / "a", ns=(5, 7))
    assert read(made)["a"].modified_ns == 7
    (folder / "a").write_text("a 2\n")  # of the same size
    os.utime(folder / "a", ns=(5, 7))
    assert samples(read(made)["a"]) == {"a": 2.0}
    assert len(parsed) == 3


def test_a_last_line_without_a_newline_may_be_half_written(folder) -> None:
    (folder / "a").write_text("a 1\nb 12")
    (folder / "b").write_text(PROMETHEUS + "jobs 12")
    found = read(library(folder / "*"))
    assert samples(found["a"]) == {"a": 1.0}
    assert "without a newline" in str(found["b"].failure)


def test_of_the_entries_that_a_file_belongs_to_its_own_counts_or_the_first(folder) -> None:
    for name in "ab":
        (folder / name).write_text("a 1\n")
    one, two, own = (TextFile(path=str(folder / path)) for path in ("*", "[ab]", "a"))
    found = Library([one, two, own], name="test: files").read(20.0)
    assert {os.path.basename(path): file for path, (file, _) in found.items()} == {"a": own, "b": one}


def test_a_pattern_stands_for_so_many_files_and_no_more(folder, monkeypatch) -> None:
    monkeypatch.setattr(textfiles, "MAX_FILES", 2)
    made = library(folder / "*")
    for name in ("c", "a"):
        (folder / name).write_text("a 1\n")
    assert (list(read(made)), made.crowded) == (["a", "c"], frozenset())
    (folder / "b").write_text("a 1\n")
    assert (list(read(made)), made.crowded) == (["a", "b"], {str(folder / "*")})


def test_a_file_that_vanishes_while_we_look_is_no_failure_of_its_pattern(folder, monkeypatch) -> None:
    (folder / "a").write_text("a 1\n")
    monkeypatch.setattr(textfiles.glob, "iglob", lambda pattern: iter([str(folder / "a"), str(folder / "gone")]))
    assert list(read(library(folder / "*"))) == ["a"]


def test_the_home_is_a_tilde(folder, monkeypatch) -> None:
    monkeypatch.setenv("HOME", str(folder))
    (folder / "a").write_text("a 1\n")
    assert samples(read(library("~/a"))["a"]) == {"a": 1.0}
    assert samples(read(library("~/*"))["a"]) == {"a": 1.0}


def test_an_entry_that_hangs_is_left_alone_while_the_others_go_on(folder, monkeypatch, gate) -> None:
    for name in ("a", "b", "c1"):
        (folder / name).write_text(f"{name} 1\n")
    made = library(folder / "a", folder / "b", folder / "c*")
    assert list(read(made)) == ["a", "b", "c1"]
    really = textfiles.read_regular
    hanging = {str(folder / "a"), str(folder / "c1")}

    def hang(path: str) -> tuple[bytes, int]:
        if path in hanging:
            gate.wait()
        return really(path)

    monkeypatch.setattr(textfiles, "read_regular", hang)
    for _ in range(2):
        found = read(made, patience_s=0.1)
        assert [str(found[name]) for name in ("a", "c1")] == ["it hangs"] * 2
        assert samples(found["b"]) == {"b": 1.0}
    hanging.clear()
    gate.set()
    deadline_s = time.monotonic() + 20
    while any(isinstance(outcome, OSError) for outcome in read(made).values()):
        assert time.monotonic() < deadline_s
    assert samples(read(made)["a"]) == {"a": 1.0}


@pytest.mark.parametrize(
    ("path", "word"), [("/a/b.prom", "b"), ("/a/b c.d.txt", "b_c_d"), ("/a/temp", "temp"), ("/a/.prom", "_prom")]
)
def test_a_file_is_called_by_its_name_without_the_ending(path: str, word: str) -> None:
    assert stem(path) == word


@pytest.mark.parametrize(
    ("file", "cause"),
    [
        ({}, "path"),
        ({"path": ""}, "path"),
        ({"path": "a\0"}, "NUL"),
        ({"path": "/a", "name": "a.b"}, "name: 'a.b' is not a word .*, like 'a_b'"),
        ({"path": "/a/*", "name": "b"}, "'/a/\\*' is a pattern, whose files are called by their own names"),
        ({"path": "/a", "max_age": 0}, "max_age"),
        ({"path": "/a", "format": "json"}, "format"),
        ({"path": "/a", "units": {"": "B"}}, "units"),
    ],
)
def test_a_file_that_cannot_be_read_is_refused(file, cause: str) -> None:
    with pytest.raises(ConfigError, match=cause):
        TextFile.load(file)
