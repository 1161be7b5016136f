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


# -- tables in configurations ------------------------------------------------------------------------------


class Auth(AgentConfig, frozen=True):
    user: Annotated[str, Meta(description="who")]
    password: str = ""


class Target(AgentConfig, frozen=True):
    host: Annotated[str, Meta(min_length=1, description="which host")]
    port: Annotated[int, Meta(ge=1, le=65535, description="where it listens")] = 22
    auth: Annotated[Auth | None, Meta(description="who we are there")] = None
    families: Annotated[list[str], Meta(description="what to read")] = msgspec.field(default_factory=lambda: ["cpu"])

    def __post_init__(self) -> None:
        if "/" in self.host:
            raise ValueError(f"host must be a name, not {self.host!r}")


class RemoteConfig(AgentConfig, frozen=True):
    hosts: Annotated[list[str | Target], Meta(max_length=3, description="hosts to read")] = msgspec.field(
        default_factory=list
    )
    proxy: Target | None = None
    labels: dict[str, str] = msgspec.field(default_factory=dict)


def test_a_list_takes_tables_and_their_shorthands() -> None:
    config = RemoteConfig.load({"hosts": ["a", {"host": "b", "auth": {"user": "me"}}], "proxy": {"host": "p"}})
    assert config.hosts == ["a", Target(host="b", auth=Auth(user="me"))]
    assert config.proxy == Target(host="p")
    assert RemoteConfig.load(config.to_dict()) == config
    loose = RemoteConfig.load({"hosts": [{"host": "b", "port": "23"}]}, strict=False)
    assert loose.hosts == [Target(host="b", port=23)]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"hosts": ["a", {"host": "b", "hots": 1}]}, "hosts[1]: unknown key 'hots'; did you mean 'host'?"),
        (
            {"hosts": [{"host": "b", "auth": {"usr": "me"}}]},
            "hosts[0].auth: unknown key 'usr'; did you mean 'user'?",
        ),
        ({"proxy": {"host": "b", "xyzzy": 1}}, "proxy: unknown key 'xyzzy'; known: auth, families, host, port"),
        ({"hosts": [{"host": "b", "port": 0}]}, "hosts[0].port: expected `int` >= 1"),
        ({"hosts": [{"host": "b", "families": ["a", 5]}]}, "hosts[0].families[1]: expected `str`, got `int`"),
        ({"hosts": [{"port": 5}]}, "hosts[0]: object missing required field `host`"),
        ({"hosts": [{"host": "a/b"}]}, "hosts[0]: host must be a name, not 'a/b'"),
        ({"hosts": ["a", 5]}, "hosts[1]: expected `str | table`, got `int`"),
        ({"hosts": [{"host": "b", "auth": "me"}]}, "hosts[0].auth: expected `table | null`, got `str`"),
        ({"hosts": "a"}, "hosts: expected `array`, got `str`"),
        ({"hosts": ["a", "b", "c", "d"]}, "hosts: expected `array` of length <= 3"),
        ({"labels": {"a": 5}}, "labels[...]: expected `str`, got `int`"),
    ],
)
def test_a_mistake_in_a_table_is_named_with_its_place(values: dict[str, Any], message: str) -> None:
    for strict in (True, False):
        with pytest.raises(ConfigError) as refused:
            RemoteConfig.load(values, where="h.toml: [remote]", strict=strict)
        assert str(refused.value) == f"h.toml: [remote]: {message}"
        assert RemoteConfig.problems(values, where="h.toml: [remote]", strict=strict) == [
            f"h.toml: [remote]: {message}"
        ]


def test_all_problems_in_tables_are_told_at_once() -> None:
    values = {
        "hosts": [{"hots": "a", "port": "x"}, {"host": "a/b"}, "c"],
        "proxy": {"host": "", "auth": {"usr": 1, "password": 2}},
        "lables": {},
    }
    assert RemoteConfig.problems(values, where="f") == [
        "f: hosts[0]: unknown key 'hots'; did you mean 'host'?",
        "f: hosts[0].port: expected `int`, got `str`",
        "f: hosts[1]: host must be a name, not 'a/b'",
        "f: proxy.host: expected `str` of length >= 1",
        "f: proxy.auth: unknown key 'usr'; did you mean 'user'?",
        "f: proxy.auth.password: expected `str`, got `int`",
        "f: unknown key 'lables'; did you mean 'labels'?",
    ]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["host", "port", "auth", "x"]), inner),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from(["hosts", "proxy", "labels", "x"]), JSON), st.booleans())
def test_any_tables_are_a_configuration_or_a_config_error(values: dict[str, Any], strict: bool) -> None:
    problems = RemoteConfig.problems(values, strict=strict)
    with pytest.raises(ConfigError) if problems else contextlib.nullcontext() as refused:
        RemoteConfig.load(values, strict=strict)
    assert problems == [] or str(refused.value) == problems[0]


def test_options_describe_what_is_in_a_table() -> None:
    hosts, proxy, labels = options(RemoteConfig)
    assert (hosts.type, hosts.description, hosts.default) == ("list[str | table]", "hosts to read", [])
    assert (proxy.type, labels.type, labels.fields) == ("table | None", "dict[str, str]", ())
    assert [field.name for field in hosts.fields] == ["host", "port", "auth", "families"]
    assert hosts.fields == proxy.fields
    assert hosts.fields[0].required
    assert hosts.fields[1] == Option(
        name="port", type="int", default=22, required=False, description="where it listens"
    )
    assert hosts.fields[2].type == "table | None"
    assert [field.name for field in hosts.fields[2].fields] == ["user", "password"]


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


def test_a_type_that_brings_limits_may_be_described_by_each_field() -> None:
    class Aliased(AgentConfig, frozen=True):
        name: Annotated[Name, Meta(description="whose")] = "x"
        count: Annotated[Annotated[int, Meta(ge=1, description="some number")], Meta(description="how many")] = 1
        other: Annotated[int, Meta(description="some number"), Meta(le=5)] = 1

    assert [option.description for option in options(Aliased)] == ["whose", "how many", "some number"]


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
    assert unknown_key("perod", ["period"]) == "unknown key 'perod'; did you mean 'period'?"


def test_other_names_may_be_meant_without_being_listed() -> None:
    assert nearest("remte", ["disk-source"], also=["remote"]) == "did you mean 'remote'?"
    assert nearest("zzz", ["b", "a"], also=["c"]) == "known: a, b"
