# SPDX-License-Identifier: MIT
"""Configuration structs: what they accept, what they say, and how they describe themselves."""

import contextlib
from typing import Annotated, Any, Literal

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Meta

from bus.config import AgentConfig, Option, nearest, options, type_in_words, unknown_key
from bus.errors import ConfigError

Name = Annotated[str, Meta(min_length=1)]


class LoadConfig(AgentConfig, frozen=True):
    host: Annotated[str, Meta(description="whose load")]
    period: Annotated[float, Meta(gt=0, description="seconds between samples")] = 10.0
    mode: Annotated[Literal["fast", "exact"], Meta(description="how to count")] = "fast"
    include: Annotated[list[Name], Meta(description="devices to read")] = msgspec.field(default_factory=lambda: ["*"])
    chunk_size: Annotated[int, Meta(ge=1)] | None = None
    debug: bool = False


def test_good_values_make_a_configuration_with_the_defaults_for_the_rest() -> None:
    config = LoadConfig.load({"host": "web1", "period": 5})
    assert config == LoadConfig(host="web1", period=5.0)
    assert config.to_dict() == {
        "host": "web1",
        "period": 5.0,
        "mode": "fast",
        "include": ["*"],
        "chunk_size": None,
        "debug": False,
    }
    assert LoadConfig.load(config.to_dict()) == config


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({}, "load.toml: object missing required field `host`"),
        ({"host": 5}, "load.toml: host: expected `str`, got `int`"),
        ({"host": "w", "period": 0}, "load.toml: period: expected `float` > 0.0"),
        ({"host": "w", "period": "fast"}, "load.toml: period: expected `float`, got `str`"),
        ({"host": "w", "period": "5"}, "load.toml: period: expected `float`, got `str`"),
        ({"host": "w", "mode": "slow"}, "load.toml: mode: invalid enum value 'slow'"),
        ({"host": "w", "include": ["a", ""]}, "load.toml: include[1]: expected `str` of length >= 1"),
        ({"host": "w", "chunk_size": 0}, "load.toml: chunk_size: expected `int` >= 1"),
        ({"host": "w", "perod": 5}, "load.toml: unknown key 'perod'; did you mean 'period'?"),
        (
            {"host": "w", "xyzzy": 5},
            "load.toml: unknown key 'xyzzy'; known: chunk_size, debug, host, include, mode, period",
        ),
    ],
)
def test_a_bad_value_is_refused_by_its_name_with_what_is_right(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as refused:
        LoadConfig.load(values, where="load.toml")
    assert str(refused.value) == message
    assert LoadConfig.problems(values, where="load.toml") == [message]


def test_all_problems_are_told_at_once() -> None:
    assert LoadConfig.problems({"hots": "w", "period": -1, "debug": 1}) == [
        "configuration: unknown key 'hots'; did you mean 'host'?",
        "configuration: period: expected `float` > 0.0",
        "configuration: debug: expected `bool`, got `int`",
    ]
    assert LoadConfig.problems({"host": "w"}) == []


def test_text_from_the_command_line_becomes_numbers_and_booleans_where_they_are_due() -> None:
    config = LoadConfig.load({"host": "5", "period": "0.5", "chunk_size": "10", "debug": "true"}, strict=False)
    assert config == LoadConfig(host="5", period=0.5, chunk_size=10, debug=True)
    with pytest.raises(ConfigError, match="configuration: period: expected `float`, got `str`"):
        LoadConfig.load({"host": "w", "period": "soon"}, strict=False)


def test_a_configuration_cannot_be_changed() -> None:
    config = LoadConfig(host="w")
    with pytest.raises(AttributeError):
        config.period = 5.0  # type: ignore[misc]


@given(
    st.dictionaries(
        st.sampled_from(LoadConfig.__struct_fields__) | st.text(max_size=5),
        st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.lists(st.text(max_size=2), max_size=2),
    ),
    st.booleans(),
)
def test_any_values_are_a_configuration_or_a_config_error(values: dict[str, Any], strict: bool) -> None:
    problems = LoadConfig.problems(values, strict=strict)
    with contextlib.suppress(ConfigError):
        LoadConfig.load(values, strict=strict)
        assert problems == []
        return
    assert problems
    assert all("\n" not in repr(problem) for problem in problems)


def test_options_describe_every_field_in_order() -> None:
    described = options(LoadConfig)
    assert described[:2] == [
        Option(name="host", type="str", default=None, required=True, description="whose load"),
        Option(name="period", type="float", default=10.0, required=False, description="seconds between samples"),
    ]
    assert [(option.name, option.type, option.default, option.description) for option in described[2:]] == [
        ("mode", "'fast' | 'exact'", "fast", "how to count"),
        ("include", "list[str]", ["*"], "devices to read"),
        ("chunk_size", "int | None", None, ""),
        ("debug", "bool", False, ""),
    ]


def test_a_configuration_without_fields_takes_nothing() -> None:
    assert options(AgentConfig) == []
    assert AgentConfig.load({}) == AgentConfig()
    with pytest.raises(ConfigError, match="unknown key 'a'"):
        AgentConfig.load({"a": 1})


@pytest.mark.parametrize(
    ("hint", "words"),
    [
        (str, "str"),
        (float | None, "float | None"),
        (list[str], "list[str]"),
        (dict[str, int], "dict[str, int]"),
        (Literal["a", "b"], "'a' | 'b'"),
        (Annotated[int, Meta(ge=1)], "int"),
        (list[Annotated[str, Meta(min_length=1)]], "list[str]"),
        (tuple[float, ...], "tuple[float, ...]"),
        (Annotated[float, Meta(gt=0)] | None, "float | None"),
    ],
)
def test_a_type_is_written_as_a_person_writes_it(hint: object, words: str) -> None:
    assert type_in_words(hint) == words


def test_the_nearest_known_name_is_offered_or_all_of_them() -> None:
    assert nearest("perod", ["period", "prefix"]) == "did you mean 'period'?"
    assert nearest("zzz", ["b", "a"]) == "known: a, b"
    assert unknown_key("perod", ["period"], "[agent]") == "[agent]: unknown key 'perod'; did you mean 'period'?"
