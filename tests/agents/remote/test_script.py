# SPDX-License-Identifier: MIT
"""Scripts run in a real shell."""

import shutil
import subprocess

import pytest

from agents.remote.script import MAX_OUTPUT_BYTES, Answer, Answers, SessionLost, TooLong, compose, in_sh

MARK = "f00dcafe"


def answer(*commands: str, piece: int = 1 << 20, shell: str = "sh") -> list[tuple[str, int]]:
    """What a shell answers, taken apart in pieces of some bytes."""
    raw = subprocess.run([shell], input=compose(commands, MARK), capture_output=True, timeout=20).stdout
    answers = take_apart(raw, len(commands), piece)
    return [(one.output, one.exit_code) for one in answers]


def take_apart(raw: bytes, count: int, piece: int = 1 << 20) -> list[Answer]:
    answers: list[Answer] = []
    feeder = Answers(count, MARK, lambda: 7.0, answers)
    for start in range(0, len(raw), piece):
        assert not feeder.complete
        feeder.feed(raw[start : start + piece])
    assert feeder.complete
    return answers


@pytest.mark.parametrize("piece", [1, 2, 3, 7, 1 << 20])
def test_each_command_has_its_output_unchanged_and_its_exit_code(piece: int) -> None:
    found = answer("echo one", "printf 'no newline'", "true", "printf '\\n\\n'; exit 3", "false", piece=piece)
    assert found == [("one\n", 0), ("no newline", 0), ("", 0), ("\n\n", 3), ("", 1)]


def test_without_commands_there_is_a_beginning() -> None:
    assert answer() == []


def test_what_the_host_greets_with_is_no_output() -> None:
    raw = b"Welcome!\nnothing to see\n\n" + f"\n{MARK} begin 0\nhello\n{MARK} 0 0\n".encode()
    assert take_apart(raw, 1) == [Answer("hello", 0, 7.0)]


@pytest.mark.parametrize(
    "bad",
    [
        "exit 7",
        "kill -9 $$ & exec false",
        "cat",
        "read line; echo got $line",
        "exec 1>&-",
        "cd /nowhere; set -e; false; unset PATH",
        "echo 'open",
        "fi",
        ") ; echo out",
        "echo x; }",
        "set -u; echo $nothing",
        "trap '' EXIT; exit",
        "echo loud >&2",
        "nosuchcommand",
        "alias echo=false; printf() { :; }",
    ],
)
def test_a_command_can_neither_read_the_script_nor_end_the_shell(bad: str) -> None:
    found = answer("echo before", bad.replace("kill -9 $$ & ", ""), "echo after; cat")
    assert [found[0], found[2]] == [("before\n", 0), ("after\n", 0)]
    assert "loud" not in found[1][0]


def test_a_command_that_is_not_found_is_exit_code_127() -> None:
    assert answer("nosuchcommand-at-all") == [("", 127)]


def test_quotes_and_dollars_reach_the_command_as_they_are() -> None:
    assert answer("""printf '%s|' "a 'b'" $((6*7)) 'c"d' \\$x `echo e` ü""") == [("a 'b'|42|c\"d|$x|e|ü|", 0)]


def test_bytes_that_are_no_text_survive() -> None:
    found = answer("printf '\\377\\001x'")
    assert found[0][0].encode("utf-8", "surrogateescape") == b"\xff\x01x"


def test_a_host_that_repeats_what_it_is_told_has_not_answered() -> None:
    answers: list[Answer] = []
    feeder = Answers(2, MARK, lambda: 0.0, answers)
    feeder.feed(compose(("echo 1", "echo 2"), MARK))
    assert not feeder.begun
    assert answers == []


@pytest.mark.parametrize(
    "lines",
    [
        f"\n{MARK} 0 0\n",
        f"\n{MARK} begin 0\n\n{MARK} 1 0\n",
        f"\n{MARK} begin 0\n\n{MARK} begin 0\n",
        f"\n{MARK} begin 0\n\n{MARK} 0 0\n\n{MARK} 0 0\n",
        f"\n{MARK} begin 0\n\n{MARK} 0 0\n\n{MARK} 1 0\n\n{MARK} 2 0\n",
    ],
)
def test_marks_out_of_turn_end_the_session(lines: str) -> None:
    with pytest.raises(SessionLost, match="out of turn"):
        Answers(2, MARK, lambda: 0.0, []).feed(lines.encode())


def test_another_mark_is_output() -> None:
    raw = f"\n{MARK} begin 0\n\nf00dcafd 0 0\n{MARK}\n{MARK} 0\n\n{MARK} 0 5\n".encode()
    assert take_apart(raw, 1) == [Answer(f"\nf00dcafd 0 0\n{MARK}\n{MARK} 0\n", 5, 7.0)]


def test_too_much_output_ends_the_session_and_keeps_what_was_complete() -> None:
    answers: list[Answer] = []
    feeder = Answers(2, MARK, lambda: 0.0, answers)
    feeder.feed(f"\n{MARK} begin 0\nfine\n{MARK} 0 0\n".encode())
    for _ in range(MAX_OUTPUT_BYTES // 32768 - 1):
        feeder.feed(b"x" * 32768)
    with pytest.raises(TooLong, match="1 MiB"):
        feeder.feed(b"x" * 32768)
    assert answers == [Answer("fine", 0, 0.0)]


def test_an_answer_keeps_the_time_when_it_came() -> None:
    times = iter([1.0, 2.0])
    answers: list[Answer] = []
    feeder = Answers(2, MARK, lambda: next(times), answers)
    feeder.feed(f"\n{MARK} begin 0\n\n{MARK} 0 0\n".encode())
    feeder.feed(f"\n{MARK} 1 0\n".encode())
    assert [one.at_s for one in answers] == [1.0, 2.0]


@pytest.mark.parametrize("shell", ["sh", "bash", "dash", "zsh", "fish", "tcsh"])
def test_a_command_for_one_channel_is_the_same_to_every_login_shell(shell: str) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"no {shell} here")
    command = (
        r"""x='a b'; printf '%s|' $x "a 'b'" '\\x' 'c!d !!' $((6*7)) `echo e` '*' ü {a,b} ~x ^ % \' "\\"; ! false"""
    )
    done = subprocess.run([shell, "-c", in_sh(command)], capture_output=True, timeout=20)
    assert (done.stdout.decode(), done.returncode) == ("a|b|a 'b'|\\\\x|c!d !!|42|e|*|ü|{a,b}|~x|^|%|'|\\|", 0)
