# SPDX-License-Identifier: MIT
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.foreign import lines
from agents.foreign.lines import Parsed, clean_name, parse_line, parse_lines, parse_time, parse_value
from bus.names import is_metric
from bus.timestamp import NS_PER_S, Timestamp


def values(parsed: Parsed) -> dict[str, float]:
    return {sample.name: sample.value for sample in parsed.samples}


def test_a_line_is_a_name_a_value_and_perhaps_a_time() -> None:
    first, second = parse_line("queue.length 12.5"), parse_line("queue.length -3e2 1700000000")
    assert (first.name, first.value, first.time) == ("queue.length", 12.5, None)
    assert (second.name, second.value, second.time) == ("queue.length", -300.0, Timestamp(1_700_000_000 * NS_PER_S))


def test_a_number_alone_is_called_value() -> None:
    assert values(parse_lines("42\n")) == {"value": 42.0}


def test_comments_blank_lines_and_carriage_returns_are_no_lines() -> None:
    parsed = parse_lines("# a comment\r\n\r\n  #another\n \t \na 1\r\n\tb\t2  \n")
    assert (values(parsed), parsed.bad) == ({"a": 1.0, "b": 2.0}, 0)


@pytest.mark.parametrize(
    ("written", "name"),
    [("a.b-c_D9", "a.b-c_D9"), ("disk/sda", "disk_sda"), ("a..b", "a._.b"), (".a.", "_.a._"), ("é", "__")],
)
def test_a_name_is_words_and_every_other_byte_becomes_an_underscore(written: str, name: str) -> None:
    assert clean_name(written) == name


@pytest.mark.parametrize(
    ("word", "value"), [("1", 1.0), ("+1.", 1.0), ("-.5", -0.5), ("1E-3", 0.001), ("007", 7.0), ("1e-999", 0.0)]
)
def test_values_are_decimal_numbers(word: str, value: float) -> None:
    assert parse_value(word) == value


@pytest.mark.parametrize("word", ["nan", "NaN", "-NAN"])
def test_not_a_number_is_a_value(word: str) -> None:
    assert math.isnan(parse_value(word))


@pytest.mark.parametrize(
    "word", ["inf", "-Infinity", "1e999", "1_000", "0x10", "1,5", "５", "true", "", "e5", ".", "+"]
)
def test_what_is_no_finite_decimal_number_is_refused(word: str) -> None:
    with pytest.raises(ValueError, match=r"number"):
        parse_value(word)


@pytest.mark.parametrize(
    ("word", "ns"),
    [
        ("0", 0),
        ("1700000000.25", 1_700_000_000_250_000_000),
        ("1700000000.123456789123", 1_700_000_000_123_456_789),
        ("1700000000.", 1_700_000_000 * NS_PER_S),
        ("2023-11-14T22:13:20Z", 1_700_000_000 * NS_PER_S),
        ("2023-11-14T23:13:20.5+01:00", 1_700_000_000_500_000_000),
    ],
)
def test_times_are_seconds_or_iso_8601(word: str, ns: int) -> None:
    assert parse_time(word).posix_ns == ns


@pytest.mark.parametrize(
    ("word", "cause"),
    [
        ("1700000000000", "in seconds since 1970, not milliseconds"),
        ("100000000000", "in seconds"),
        ("2023-11-14T22:13:20", "with a time zone"),
        ("1969-12-31T23:59:59Z", "before 1970"),
        ("yesterday", "is no time"),
        ("-1", "is no time"),
        ("1e9", "is no time"),
        ("9" * 50, "is no time"),
    ],
)
def test_other_times_are_refused(word: str, cause: str) -> None:
    with pytest.raises(ValueError, match=cause):
        parse_time(word)


@pytest.mark.parametrize(
    ("line", "cause"),
    [
        ("a", "'a' is not a number"),
        ("a b", "'b' is not a number"),
        ("a 1 2 3", "not 4 words"),
        ("a" * 161 + " 1", "name is longer than 160"),
        ("a 1" + " " * 990 + "12345678", "longer than 1000"),
    ],
)
def test_a_line_that_makes_no_sense_costs_itself_only(line: str, cause: str) -> None:
    parsed = parse_lines(f"x 1\n{line}\ny 2\nworse\n")
    assert values(parsed) == {"x": 1.0, "y": 2.0}
    assert parsed.bad == 2
    assert cause in parsed.cause
    assert len(parsed.cause) < 300


def test_a_last_line_without_a_newline_counts_unless_it_may_be_half_written() -> None:
    assert values(parse_lines("a 1\nb 22")) == {"a": 1.0, "b": 22.0}
    cut = parse_lines("a 1\nb 22", may_be_cut=True)
    assert (values(cut), cut.bad) == ({"a": 1.0}, 1)
    assert "without a newline" in cut.cause
    assert parse_lines("a 1\nb 22\n", may_be_cut=True).bad == 0
    assert parse_lines("a 1\n  ", may_be_cut=True).bad == 0


def test_there_may_be_so_many_lines_and_no_more(monkeypatch) -> None:
    monkeypatch.setattr(lines, "MAX_LINES", 3)
    assert len(parse_lines("a 1\nb 2\nc 3\n").samples) == 3
    assert len(parse_lines("a 1\nb 2\nc 3").samples) == 3
    for text in ("a 1\nb 2\nc 3\nd 4\n", "a 1\nb 2\nc 3\nd 4", "\n" * 100):
        with pytest.raises(ValueError, match="more than 3 lines"):
            parse_lines(text)


def test_no_text_has_no_samples() -> None:
    assert parse_lines("") == Parsed()


@given(st.text())
def test_any_text_is_samples_with_names_or_bad_lines(text: str) -> None:
    parsed = parse_lines(text)
    assert all(is_metric(sample.name) and not math.isinf(sample.value) for sample in parsed.samples)
    assert bool(parsed.cause) == bool(parsed.bad)


@given(st.binary(max_size=200))
def test_any_bytes_do_too(data: bytes) -> None:
    parsed = parse_lines(data.decode("utf-8", "replace"), may_be_cut=True)
    assert all(is_metric(sample.name) for sample in parsed.samples)
