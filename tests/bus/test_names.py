# SPDX-License-Identifier: MIT
"""Names, routing keys and topic patterns."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from bus.names import (
    Selection,
    are_metrics,
    binding_keys,
    check_metric,
    check_pattern,
    check_token,
    clean_word,
    is_metric,
    is_pattern,
    matches,
    routing_key,
    short_host_name,
)

# Few words and short names, so that patterns and names meet often.
WORD = st.sampled_from(["a", "b", "cpu", "a-b", "_"])
NAME = st.lists(WORD, min_size=1, max_size=6).map(".".join)
PATTERN = st.lists(WORD | st.sampled_from(["*", "#"]), min_size=1, max_size=7).map(".".join)

GOOD_METRICS = ["a", "web1.cpu.usage", "A-Z_0.9", "-._", "x" * 255, "1"]
BAD_METRICS = ["", ".", ".a", "a.", "a..b", "a b", "ä", "a/b", "a.*", "#", "a\n", "\na", "a\nb", "x" * 256, "a.\u0661"]


def matches_by_definition(pattern: list[str], words: list[str]) -> bool:
    """AMQP's rule as it is written down: * is one word, # is zero or more."""
    if not pattern:
        return not words
    if pattern[0] == "#":
        return any(matches_by_definition(pattern[1:], words[start:]) for start in range(len(words) + 1))
    return bool(words) and pattern[0] in ("*", words[0]) and matches_by_definition(pattern[1:], words[1:])


@pytest.mark.parametrize("name", GOOD_METRICS)
def test_words_joined_by_dots_are_a_metric_name(name: str) -> None:
    assert is_metric(name)
    assert are_metrics([name])
    assert check_metric(name) == name


@pytest.mark.parametrize("name", BAD_METRICS)
def test_anything_else_is_none_and_the_error_says_what_is(name: str) -> None:
    assert not is_metric(name)
    assert not are_metrics([name])
    with pytest.raises(ValueError, match="is not a metric name: words of A-Z a-z 0-9 _ - joined by dots"):
        check_metric(name)


@given(st.lists(NAME | st.text(alphabet="a.\n -", max_size=4), max_size=5))
@example([])
def test_a_list_is_judged_as_its_names_are_one_by_one(names: list[str]) -> None:
    assert are_metrics(names) == (bool(names) and all(map(is_metric, names)))


@given(PATTERN, NAME)
def test_patterns_match_as_amqp_defines_it(pattern: str, name: str) -> None:
    assert matches(pattern, name) == matches_by_definition(pattern.split("."), name.split("."))


@pytest.mark.parametrize(
    ("pattern", "name", "expected"),
    [
        ("a.#", "a", True),
        ("#", "a.b.c", True),
        ("#.c", "c", True),
        ("#.#", "a", True),
        ("a.#.b", "a.b", True),
        ("a.*.b", "a.b", False),
        ("*", "a.b", False),
        ("a.#.b.#.c", "a.b.b.c.c", True),
        ("#.b.*", "b.b.a", True),
        ("a", "ab", False),
        ("a.b", "a-b", False),
    ],
)
def test_known_answers_of_topic_matching(pattern: str, name: str, expected: bool) -> None:
    assert matches(pattern, name) is expected


def test_no_pattern_takes_long_to_match() -> None:
    # Backtracking over every # would take longer than the age of the universe for this one.
    hostile = "#." + "a.#." * 60 + "b"
    assert check_pattern(hostile) == hostile
    assert not matches(hostile, ".".join(["a"] * 128))


@given(PATTERN, NAME)
@example("#", "a.b")
@example("*.b", "a.b")
def test_a_subscription_misses_no_frame_whatever_the_prefix_of_its_source(pattern: str, metric: str) -> None:
    if not matches(pattern, metric):
        return
    words = metric.split(".")
    prefixes = [".".join(words[:length]) for length in range(len(words) + 1)]
    for prefix in [*prefixes, "other", "a.other"]:
        key = routing_key(metric, prefix)
        assert any(matches(bound, key) for bound in binding_keys(pattern)), (prefix, key)
    # MetricQ's own chunks travel under the name of the metric.
    assert any(matches(bound, metric) for bound in binding_keys(pattern))


@pytest.mark.parametrize(
    ("pattern", "keys"),
    [
        ("web1.cpu.usage", ["web1", "web1.cpu", "web1.cpu.usage"]),
        ("web1.#", ["web1", "web1.#"]),
        ("*.cpu.*", ["*", "*.cpu", "*.cpu.*"]),
        ("#.usage", ["#"]),
    ],
)
def test_a_subscription_binds_each_word_prefix_up_to_the_first_hash(pattern: str, keys: list[str]) -> None:
    assert binding_keys(pattern) == keys


@pytest.mark.parametrize(
    ("metric", "prefix", "key"),
    [
        ("web1.cpu.usage", "web1.cpu", "web1.cpu"),
        ("web1.cpu.usage", "web1", "web1"),
        ("web1.cpu.usage", "", "web1.cpu"),
        ("web1.cpu.usage", "web2", "web1.cpu"),
        ("web1.cpus.usage", "web1.cpu", "web1.cpus"),
        ("web1.cpu", "web1.cpu", "web1"),
        ("web1", "web1", "web1"),
    ],
)
def test_a_point_travels_under_the_prefix_or_its_parent(metric: str, prefix: str, key: str) -> None:
    assert routing_key(metric, prefix) == key


@pytest.mark.parametrize("pattern", ["a", "a.*", "#", "*.#.*", "web1.cpu.#"])
def test_good_patterns_pass(pattern: str) -> None:
    assert check_pattern(pattern) == pattern


@pytest.mark.parametrize("pattern", ["", "a*", "a.#b", "**", "a..b", ".#", "a b", "#\n", "x" * 256])
def test_bad_patterns_are_refused_with_an_example(pattern: str) -> None:
    with pytest.raises(ValueError, match=r"'\*' for one word, '#' for any number of words, like"):
        check_pattern(pattern)


@pytest.mark.parametrize("token", ["source-cpu-web1", "a.b_c-d", "x" * 200])
def test_good_tokens_pass(token: str) -> None:
    assert check_token(token) == token


@pytest.mark.parametrize("token", ["", "a b", "x" * 201, "a/b", "a\n", "ü", "#"])
def test_bad_tokens_are_refused_with_an_example(token: str) -> None:
    with pytest.raises(ValueError, match="like 'source-cpu-web1'"):
        check_token(token)


@pytest.mark.parametrize(
    ("text", "word"),
    [("sda1", "sda1"), ("/mnt/data", "_mnt_data"), ("a.b", "a_b"), ("", "_"), ("ü", "__"), ("eth0:1", "eth0_1")],
)
def test_a_device_becomes_one_word_with_an_underscore_for_each_other_byte(text: str, word: str) -> None:
    assert clean_word(text) == word


@given(st.text())
@example("\udcff")
def test_any_text_becomes_a_word(text: str) -> None:
    assert is_metric(clean_word(text)) or len(clean_word(text)) > 255
    assert "." not in clean_word(text)


def test_the_host_name_is_one_word_without_the_domain(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("socket.gethostname", lambda: "web1.example.org")
    assert short_host_name() == "web1"
    monkeypatch.setattr("socket.gethostname", lambda: "my host")
    assert short_host_name() == "my_host"


def test_a_pattern_is_a_name_with_wildcards() -> None:
    assert is_pattern("a.*")
    assert is_pattern("#")
    assert not is_pattern("a.b")


@given(st.lists(PATTERN, max_size=4), st.lists(NAME, min_size=1, max_size=4))
def test_a_selection_contains_what_any_of_its_patterns_matches(patterns: list[str], names: list[str]) -> None:
    selection = Selection(patterns)
    for _ in range(2):  # the second time from memory
        for name in names:
            assert (name in selection) == any(matches(pattern, name) for pattern in patterns)


def test_a_selection_forgets_its_answers_when_it_changes() -> None:
    selection = Selection(["a.#"])
    assert "b.c" not in selection
    selection.update(["b.*"])
    assert "b.c" in selection
    assert not selection.takes_all
    selection.discard(["a.#", "never.there"])
    assert "a.b" not in selection
    assert selection.patterns == ["b.*"]
    selection.update(["#"])
    assert selection.takes_all


def test_a_selection_refuses_a_bad_pattern_and_stays_as_it_was() -> None:
    selection = Selection(["a"])
    with pytest.raises(ValueError, match="is not a metric name or pattern"):
        selection.update(["b", "b c"])
    assert selection.patterns == ["a"]


def test_a_selection_remembers_a_bounded_number_of_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Selection, "CACHE", 10)
    selection = Selection(["a.#"])
    assert all(f"a.{number}" in selection for number in range(100))
    assert len(selection._known) <= 10
