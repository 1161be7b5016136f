# SPDX-License-Identifier: MIT
import errno

import pytest

from agents.base import parts as module
from agents.base.parts import Parts


@pytest.fixture
def parts(caplog) -> Parts:
    caplog.set_level("INFO")
    return Parts("web1.disk")


def fail(parts: Parts, error: Exception) -> None:
    with parts("sda"):
        raise error


def test_a_cause_is_logged_once_and_counted_each_time(parts, caplog) -> None:
    for _ in range(5):
        fail(parts, ValueError("garbled"))
    assert caplog.messages == ["web1.disk: sda failed: ValueError: garbled"]
    assert parts.errors == 5
    assert parts.causes == {"sda": "ValueError: garbled"}


def test_another_cause_is_logged_again(parts, caplog) -> None:
    fail(parts, ValueError("garbled"))
    fail(parts, OSError(errno.EIO, "I/O error"))
    assert len(caplog.messages) == 2


def test_the_end_of_a_failure_is_logged(parts, caplog) -> None:
    fail(parts, ValueError("garbled"))
    for _ in range(3):
        with parts("sda"):
            pass
    assert caplog.messages[1:] == ["web1.disk: sda works again"]
    assert parts.causes == {}


def test_parts_are_told_apart(parts) -> None:
    fail(parts, ValueError("garbled"))
    with parts("sdb"):
        pass
    assert list(parts.causes) == ["sda"]


@pytest.mark.parametrize(
    ("error", "level"),
    [
        (FileNotFoundError(errno.ENOENT, "no such file"), "INFO"),
        (OSError(errno.EOPNOTSUPP, "pressure is off"), "INFO"),
        (PermissionError(errno.EACCES, "no"), "WARNING"),
        (KeyError("MemTotal"), "WARNING"),
        (ZeroDivisionError(), "WARNING"),
    ],
)
def test_what_the_kernel_does_not_have_is_no_warning(parts, caplog, error: Exception, level: str) -> None:
    fail(parts, error)
    assert [record.levelname for record in caplog.records] == [level]


def test_a_mistake_in_the_program_is_not_hidden(parts) -> None:
    with pytest.raises(TypeError):
        fail(parts, TypeError("our own fault"))


def test_lines_that_make_sense_are_kept_and_the_first_bad_one_is_named(parts, caplog) -> None:
    assert parts.each("number", ["1", "x", "2", "y"], int) == [1, 2]
    assert len(caplog.messages) == 1
    assert "the line 'x'" in caplog.messages[0]
    assert parts.errors == 1
    assert parts.each("number", ["3"], int) == [3]
    assert parts.causes == {}


def test_a_bad_line_whose_counters_go_on_is_no_new_cause(parts, caplog) -> None:
    for count in range(3):
        assert parts.each("number", [f"{count} x"], int) == []
    assert (len(caplog.messages), parts.errors) == (1, 3)
    parts.each("number", ["5 y"], int)
    assert len(caplog.messages) == 2


def test_who_says_what_kind_of_failure_it_is_decides_what_is_new(parts, caplog) -> None:
    for reason in ("refused", "refused", "late"):
        parts.failed("door", OSError(f"{reason}, try {len(caplog.messages)}"), kind=reason)
    assert caplog.messages == [
        "web1.disk: door failed: OSError: refused, try 0",
        "web1.disk: door failed: OSError: late, try 1",
    ]
    assert parts.causes == {"door": "OSError: late, try 1"}


def test_parts_that_failed_and_never_came_back_are_forgotten_some_day(parts, monkeypatch) -> None:
    monkeypatch.setattr(module, "MAX_FAILING", 3)
    for number in range(5):
        parts.failed(f"veth{number}", ValueError("gone"))
    assert list(parts.causes) == ["veth2", "veth3", "veth4"]
