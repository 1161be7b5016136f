# SPDX-License-Identifier: MIT
"""Which sink stores a metric."""

from collections import Counter

import pytest

from bus.errors import ConfigError
from sinks.postgres.config import PostgresConfig
from sinks.postgres.shards import Shard, shard_of

NAMES = [f"web{host}.cpu.core{core}.usage" for host in range(200) for core in range(50)]


def test_every_metric_has_one_shard_and_all_shards_have_about_as_many() -> None:
    for count in (1, 2, 3, 7):
        shards = [Shard(number, count) for number in range(1, count + 1)]
        assert all([name in shard for shard in shards].count(True) == 1 for name in NAMES[:500])
        sizes = Counter(shard_of(name, count) for name in NAMES)
        assert min(sizes.values()) > 0.9 * len(NAMES) / count


def test_one_shard_more_takes_only_its_own_part_from_the_others() -> None:
    moved = [(shard_of(name, 4), shard_of(name, 5)) for name in NAMES if shard_of(name, 4) != shard_of(name, 5)]
    assert {to for _, to in moved} == {5}
    assert 0.17 < len(moved) / len(NAMES) < 0.23


def test_the_hash_is_the_same_on_every_machine_and_for_ever() -> None:
    names = ("web1.cpu.usage", "web1.memory.used", "a", "web2.cpu.usage")
    assert [shard_of(name, 10) for name in names] == [8, 4, 7, 8]


@pytest.mark.parametrize("text", ["0/2", "3/2", "1/0", "1", "1/2/3", "a/b", "1/1001", "-1/2", "01/2"])
def test_what_is_no_shard_is_said(text: str) -> None:
    with pytest.raises(ConfigError, match=r"shard: expected NUMBER/COUNT .* like '1/2'"):
        PostgresConfig.load({"shard": text})


def test_a_shared_queue_and_shards_do_not_go_together() -> None:
    with pytest.raises(ConfigError, match="queue and shard do not go together"):
        PostgresConfig.load({"shard": "1/2", "queue": "archive"})


def test_a_configuration_has_no_password_and_does_not_choose_the_server_from_afar() -> None:
    assert "password" not in PostgresConfig.__struct_fields__
    assert PostgresConfig.local_only == {"host", "port", "user", "database"}
    with pytest.raises(ConfigError, match="unknown key 'password'"):
        PostgresConfig.load({"password": "hush-hush"})
    with pytest.raises(ConfigError, match="not a metric name or pattern"):
        PostgresConfig.load({"metrics": ["web1..#"]})
