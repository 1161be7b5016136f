# SPDX-License-Identifier: MIT
from typing import Any

import pytest

from agents.remote.config import RemoteConfig
from agents.remote.target import MonitorTarget
from bus.config import options
from bus.errors import ConfigError


def targets(**values: Any) -> list[MonitorTarget]:
    return RemoteConfig.load(values).targets()


def test_hosts_are_texts_or_tables() -> None:
    text, table = targets(
        hosts=[
            "root@db1:2222",
            {
                "host": "10.0.0.5",
                "name": "db2",
                "user": "metrics",
                "port": 2200,
                "key": "~/k",
                "jump": "bastion",
                "core_count": 8,
                "known_hosts": ["/k"],
                "connect_timeout": 3,
            },
        ]
    )
    assert text == MonitorTarget("root@db1:2222")
    assert table == MonitorTarget(
        "metrics@10.0.0.5:2200",
        None,
        8,
        name="db2",
        keys=("~/k",),
        jump=("bastion",),
        known_hosts=("/k",),
        connect_timeout_s=3.0,
    )


def test_what_is_said_for_all_hosts_counts_where_a_host_says_nothing() -> None:
    everywhere = {
        "user": "metrics",
        "keys": ["a", "b"],
        "jump": ["j1", "j2"],
        "known_hosts": ["k"],
        "ssh_config": "c",
        "connect_timeout": 5.0,
    }
    plain, own = targets(
        hosts=["db1", {"host": "root@db2", "key": "x", "jump": [], "known_hosts": ["y"], "connect_timeout": 1.0}],
        **everywhere,
    )
    assert plain == MonitorTarget(
        "metrics@db1",
        keys=("a", "b"),
        jump=("j1", "j2"),
        known_hosts=("k",),
        ssh_config="c",
        connect_timeout_s=5.0,
    )
    assert own == MonitorTarget(
        "root@db2", keys=("x",), jump=(), known_hosts=("y",), ssh_config="c", connect_timeout_s=1.0
    )


def test_parsers_are_chosen_for_all_hosts_or_for_one() -> None:
    hosts = ["a", {"host": "b"}, {"host": "c", "parsers": ["load"]}]
    assert RemoteConfig.load({"hosts": hosts}).parsers_of() == [None, None, ["load"]]
    assert RemoteConfig.load({"hosts": hosts, "parsers": ["cpu"]}).parsers_of() == [["cpu"], ["cpu"], ["load"]]


@pytest.mark.parametrize(
    ("values", "complaint"),
    [
        ({"hosts": ["a b"]}, "hosts: 'a b' is not a host name"),
        ({"hosts": ["db1", "db1"]}, "db1 is listed twice"),
        ({"hosts": [{"host": "a", "name": "x"}, {"host": "b", "name": "x"}]}, "x is listed twice"),
        ({"hosts": [{"host": "a", "name": "x.y"}]}, "one word"),
        ({"hosts": [{"host": "a", "jump": ["-x"]}]}, "'-x' is not"),
        ({"hosts": [{"host": "a", "port": 0}]}, r"hosts\[0\].*port"),
        ({"hosts": [{"host": "a", "core_count": 0}]}, r"hosts\[0\].*core_count"),
        ({"hosts": [{"host": "a", "password": "x"}]}, "password"),
        ({"hosts": [{"name": "a"}]}, "host"),
        ({"hosts": [7]}, "hosts"),
        ({"connect_timeout": 0}, "connect_timeout"),
        ({"password": "x"}, "password"),
    ],
)
def test_what_is_wrong_is_named(values: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        RemoteConfig.load(values)


def test_without_hosts_something_is_missing() -> None:
    assert "[remote-source] hosts = [" in RemoteConfig().missing
    assert RemoteConfig.load({"hosts": ["db1"]}).missing == ""


def test_nothing_that_names_hosts_keys_or_code_comes_over_the_bus() -> None:
    harmless = {"period", "chunk_size", "max_delay", "prefix", "max_metrics"}
    assert set(RemoteConfig.__struct_fields__) - RemoteConfig.local_only == harmless


def test_every_option_is_described_and_there_are_no_passwords() -> None:
    described = options(RemoteConfig)
    inner = [option for one in described for option in one.fields]
    assert inner
    assert [option.name for option in (*described, *inner) if not option.description] == []
    assert not [option.name for option in (*described, *inner) if "pass" in option.name]
    keys = next(option for option in described if option.name == "keys")
    assert "no passwords" in keys.description
