# SPDX-License-Identifier: MIT
import pytest

from agents.exec.commands import Command, commands_of, split_line
from bus.errors import ConfigError


def test_a_line_is_split_into_words_as_a_shell_does_it() -> None:
    assert split_line("""df -h '/mnt/a b' "c d" e\\ f""").argv == ["df", "-h", "/mnt/a b", "c d", "e f"]


@pytest.mark.parametrize(
    ("line", "sign"),
    [
        ("who | wc -l", "|"),
        ("ls > /tmp/x", ">"),
        ("ls 2>&1", "2>&1"),
        ("ls 2> /dev/null", "2>"),
        ("a >> b", ">>"),
        ("a < b", "<"),
        ("a && b", "&&"),
        ("a || b", "||"),
        ("a ; b", ";"),
        ("a &", "&"),
        ("ls $HOME", "$HOME"),
        ("ls ${HOME}", "${HOME}"),
        ("echo $(date)", "$(date)"),
        ("echo `date`", "`date`"),
    ],
)
def test_what_only_a_shell_understands_is_refused_with_a_hint(line: str, sign: str) -> None:
    with pytest.raises(ValueError, match="there is no shell") as caught:
        split_line(line)
    assert repr(sign) in str(caught.value)
    assert 'argv = ["sh", "-c", "..."]' in str(caught.value)


@pytest.mark.parametrize("line", ["awk '{print $1}' x", "grep a|b x", "echo price:$5", "echo a>b", "tar --x=$y"])
def test_such_signs_within_words_are_taken_as_they_are(line: str) -> None:
    assert split_line(line)


@pytest.mark.parametrize(
    ("line", "cause"), [("", "no program"), ("''", "no program"), ("a 'b", "No closing quotation")]
)
def test_a_line_that_is_no_command_is_refused(line: str, cause: str) -> None:
    with pytest.raises(ValueError, match=cause):
        split_line(line)


@pytest.mark.parametrize(
    ("command", "word"),
    [
        ({"argv": ["/usr/bin/df", "-h"]}, "df"),
        ({"argv": ["check.sh"]}, "check_sh"),
        ({"argv": ["df"], "name": "disk-1"}, "disk-1"),
        ({"argv": ["/"]}, "_"),
    ],
)
def test_a_command_is_called_after_its_program_unless_it_has_a_name(command, word: str) -> None:
    assert Command.load(command).word == word


@pytest.mark.parametrize(
    ("command", "cause"),
    [
        ({}, "argv"),
        ({"argv": []}, "argv: expected `array` of length >= 1"),
        ({"argv": [""]}, "program's name is empty"),
        ({"argv": ["a\0b"]}, "NUL"),
        ({"argv": ["a"], "cwd": "\0"}, "NUL"),
        ({"argv": ["a"], "env": {"A": "\0"}}, "NUL"),
        ({"argv": ["a"], "env": {"A=B": "x"}}, "env: 'A=B'"),
        ({"argv": ["a"], "env": {"": "x"}}, "env: ''"),
        ({"argv": ["a"], "name": "a.b"}, "name: 'a.b' is not a word .*, like 'a_b'"),
        ({"argv": ["a"], "timeout": 0}, "timeout"),
        ({"argv": ["a"], "every": -1}, "every"),
        ({"argv": ["a"], "max_output": 2**30}, "max_output"),
        ({"argv": ["a"], "units": {"a b": "s"}}, "units"),
        ({"argv": ["a"], "shell": True}, "shell"),
    ],
)
def test_a_command_that_cannot_be_run_is_refused(command, cause: str) -> None:
    with pytest.raises(ConfigError, match=cause):
        Command.load(command)


def test_commands_have_different_words() -> None:
    assert list(commands_of(["df", Command(argv=["df"], name="df2"), "/bin/true"])) == ["df", "df2", "true"]
    with pytest.raises(ValueError, match="two are called 'df'; give one another name"):
        commands_of(["df /", "/bin/df /home"])


def test_the_values_of_variables_are_not_shown() -> None:
    command = Command(argv=["a"], env={"TOKEN": "sekrit", "LONG": "sekrit-and-more", "SHORT": "abc"})
    assert "sekrit" not in repr(command)
    assert "TOKEN" in repr(command)
    assert command.censored("bad sekrit-and-more, sekrit, abc") == "bad ***, ***, abc"
    with pytest.raises(ConfigError) as caught:
        Command.load({"argv": ["a"], "env": {"TOKEN": "sekrit\0"}})
    assert "sekrit" not in str(caught.value)
