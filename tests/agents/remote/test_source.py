# SPDX-License-Identifier: MIT
"""The source with real servers: dozens of hosts, some of them in trouble."""

import asyncio
import logging
import subprocess
import sys
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path

import pytest

from agents.metric import MetricTable
from agents.remote.config import RemoteConfig
from agents.remote.polling import Poller
from agents.remote.registry import register_host_parsers
from agents.remote.source import RemoteSource
from agents.remote.target import MonitorTarget
from bus.errors import ConfigError
from bus.timestamp import Timestamp
from tests.agents.remote.conftest import Echo, Points, polled, until
from tests.services.sshd import free_port, silent_listener

GOLDEN = Path(__file__).parents[1] / "fixtures" / "names" / "remote.txt"
TOY = {"toy": Echo("echo 42")}


def ticks(points: Points, name: str, value: float | None = None) -> set[int]:
    """The times of a metric's points, of a value or of any."""
    return {time for time, found in points.all.get(name, {}).items() if value in (None, found)}


async def test_a_host_is_polled_over_one_connection(ssh_home, memory_url) -> None:
    server = ssh_home.server("MaxSessions 1")
    target = MonitorTarget(server.address, {"toy": Echo("echo 42"), "b": Echo("echo 7", "b")}, name="db1")
    async with polled(memory_url, [target]) as (_, points):
        await until(lambda: len(ticks(points, "db1.toy.number")) >= 3)
    assert (points.last("db1.toy.number"), points.last("db1.toy.b")) == (42.0, 7.0)
    assert points.last("db1.remote.up") == 1.0
    assert server.log.count("Accepted publickey") == 1
    assert server.log.count("Starting session") == 1


async def test_dozens_of_hosts_share_their_ticks_and_those_in_trouble_delay_nobody(
    ssh_home, memory_url, tmp_path, monkeypatch
) -> None:
    """The test says when a tick is, and how long one may last, so that a busy machine makes no difference."""
    monkeypatch.setattr(RemoteSource, "deadline_s", 3600.0)
    monkeypatch.setattr(RemoteSource, "update", lambda _: asyncio.sleep(0))
    servers = [ssh_home.server() for _ in range(3)]
    frozen, dying, unknown = ssh_home.server(), ssh_home.server(), ssh_home.server(known=False)
    done = tmp_path / "done"
    with ExitStack() as stack:
        silent = stack.enter_context(silent_listener())
        good = [MonitorTarget(servers[n % 3].address, TOY, name=f"good{n}") for n in range(24)]
        frail = [
            *(MonitorTarget(frozen.address, TOY, name=f"frozen{n}") for n in range(3)),
            *(MonitorTarget(dying.address, TOY, name=f"dying{n}") for n in range(3)),
            MonitorTarget(servers[0].address, {"toy": Echo(f"until [ -e {done} ]; do sleep 0.1; done")}, name="slow"),
        ]
        absent = [
            *(MonitorTarget(f"127.0.0.1:{silent}", TOY, name=f"silent{n}") for n in range(3)),
            *(MonitorTarget(f"127.0.0.1:{free_port()}", TOY, name=f"refusing{n}") for n in range(3)),
            MonitorTarget(unknown.address, TOY, name="unknown"),
        ]
        async with polled(memory_url, [*frail, *absent, *good], period=3600.0) as (source, points):

            def begin(second: int) -> tuple[int, "asyncio.Task[None]"]:
                source.tick = Timestamp(second * 1_000_000_000)
                return source.tick.posix_ns, asyncio.create_task(source.measure())

            def at(tick: int, targets: Iterable[MonitorTarget], name: str) -> set[float | None]:
                return {points.all.get(f"{target.name}.{name}", {}).get(tick) for target in targets}

            async def all_good_have_answered(tick: int) -> None:
                await until(lambda: at(tick, good, "remote.up") == {1.0} and at(tick, good, "toy.number") == {42.0})

            def under_way() -> set[str]:
                return {word for word, poller in source._pollers.items() if poller._round is not None}

            await until(lambda: all(source._pollers[target.name].is_up for target in (*good, *frail)))
            first, measuring = begin(1000)
            await all_good_have_answered(first)
            await until(lambda: under_way() == {"slow"})
            assert not measuring.done()
            await until(lambda: at(first, absent, "remote.up") == {0.0})
            done.touch()
            await measuring

            frozen.freeze()
            dying.kill9()
            second, measuring = begin(1001)
            await all_good_have_answered(second)
            await until(lambda: under_way() == {"frozen0", "frozen1", "frozen2"})
            assert not measuring.done()
            await until(lambda: at(second, [*frail[3:6], *absent], "remote.up") == {0.0})
            frozen.thaw()
            await measuring
            await until(lambda: at(second, frail[:3], "remote.up") == {1.0})

            frozen.freeze()
            monkeypatch.setattr(RemoteSource, "deadline_s", 0.5)
            third, measuring = begin(1002)
            await measuring
            await until(lambda: at(third, [*frail[:3], *absent], "remote.up") == {0.0})
            frozen.thaw()
        for name in ("silent0", "refusing0", "unknown"):
            assert list(points.all[f"{name}.remote.up"].values()) == [0.0, 0.0, 0.0]
            assert points.last(f"{name}.remote.skipped") == 3
            assert f"{name}.toy.number" not in points.all


async def test_a_host_that_dies_is_back_when_it_is_back(ssh_home, memory_url, caplog) -> None:
    server, other = ssh_home.server(), ssh_home.server()
    targets = [MonitorTarget(server.address, TOY, name="db1"), MonitorTarget(other.address, TOY, name="db2")]
    async with polled(memory_url, targets) as (_, points):
        await until(lambda: points.last("db1.remote.up") == points.last("db2.remote.up") == 1.0)
        server.kill9()
        await until(lambda: points.last("db1.remote.up") == 0.0)
        server.start()
        await until(lambda: points.last("db1.remote.up") == 1.0)
        assert (points.last("db1.remote.connects"), points.last("db2.remote.connects")) == (2.0, 1.0)
    assert set(points.all["db2.remote.up"].values()) <= {0.0, 1.0}
    assert "db1: " in caplog.text


async def test_a_command_that_hangs_costs_its_own_values_and_comes_back(ssh_home, memory_url, caplog) -> None:
    server = ssh_home.server()
    parsers = {"a": Echo("echo 1", "a"), "df": Echo("sleep 30", "df"), "c": Echo("echo 3", "c")}
    async with polled(memory_url, [MonitorTarget(server.address, parsers, name="db1")]) as (source, points):
        await until(lambda: points.last("db1.toy.c") == 3.0 and points.last("db1.remote.up") == 1.0)
        assert source._pollers["db1"].commands.aside == ["df"]
    assert caplog.text.count("left out for 60 s: df (sleep 30)") == 1


async def test_with_a_short_period_a_slow_host_is_skipped_and_the_others_are_not(ssh_home, memory_url) -> None:
    server = ssh_home.server()
    targets = [
        MonitorTarget(server.address, {"toy": Echo("sleep 0.3; echo 1")}, name="slow"),
        MonitorTarget(server.address, TOY, name="quick"),
    ]
    async with polled(memory_url, targets, period=0.1) as (source, points):
        await until(lambda: len(ticks(points, "slow.toy.number")) >= 3)
        between = ticks(points, "quick.toy.number")
        slow = sorted(ticks(points, "slow.toy.number"))
        assert len([time for time in between if slow[0] < time < slow[-1]]) > 2
        assert source._pollers["slow"].skipped > source._pollers["quick"].skipped
    assert ticks(points, "slow.toy.number") <= ticks(points, "slow.remote.up", 1.0)


async def test_what_was_found_on_a_host_travels_together_under_its_words(ssh_home, memory_url) -> None:
    server = ssh_home.server()
    parsers = {"toy": Echo("echo 42"), "deep": Echo("echo 1", "a.b.c")}
    async with polled(memory_url, [MonitorTarget(server.address, parsers, name="db1")], prefix="site.rack1") as (
        source,
        points,
    ):
        async with Points("sink-one", memory_url) as one:
            await one.subscribe(["site.rack1.db1.toy.number"])
            await until(lambda: one.last("site.rack1.db1.toy.number") == 42.0)
        await until(lambda: points.last("site.rack1.db1.toy.a.b.c") == 1.0)
        assert source.routing_key("site.rack1.db1.toy.a.b.c") == "site.rack1.db1"
    assert RemoteSource("source-remote", memory_url, targets=[]).routing_key("db1.toy.a.b.c") == "db1"


async def test_a_new_configuration_touches_only_the_hosts_that_it_changes(ssh_home, memory_url) -> None:
    servers = {name: ssh_home.server() for name in ("stays", "goes", "moves", "comes")}

    def hosts(**changes: object) -> list[dict[str, object]]:
        register = {name: {"host": server.address, "name": name} for name, server in servers.items()}
        return [{**register[name], **(change or {})} for name, change in changes.items()]  # type: ignore[dict-item]

    register_host_parsers("127.0.0.1", {"toy": Echo("echo 42"), "toy2": Echo("echo 7", "second")})
    config = {"hosts": hosts(stays=None, goes=None, moves=None), "parsers": ["toy"]}
    async with polled(memory_url, None, **config) as (source, points):
        await until(lambda: all(points.last(f"{name}.remote.up") == 1.0 for name in ("stays", "goes", "moves")))
        changed = {"hosts": hosts(stays=None, moves={"parsers": ["toy", "toy2"]}, comes=None), "parsers": ["toy"]}
        await source.reconfigure(RemoteConfig.load({"period": 0.2, **changed}))
        await until(lambda: not servers["goes"].sessions())
        await until(lambda: points.last("comes.toy.number") == 42.0 and points.last("moves.toy.second") == 7.0)
        last = max(points.all["goes.remote.up"])
        await until(lambda: len([time for time in ticks(points, "stays.remote.up") if time > last]) >= 2)
        assert max(points.all["goes.remote.up"]) == last
        with pytest.raises(ConfigError, match="nosuch"):
            await source.reconfigure(
                RemoteConfig.load({"period": 0.2, "hosts": hosts(stays=None), "parsers": ["nosuch"]})
            )
        assert set(source._pollers) == {"stays", "moves", "comes"}
    counts = {name: server.log.count("Accepted publickey") for name, server in servers.items()}
    assert counts == {"stays": 1, "goes": 1, "moves": 2, "comes": 1}


async def test_a_tick_while_all_hosts_are_replaced_finds_the_new_ones(ssh_home, memory_url, monkeypatch) -> None:
    server = ssh_home.server()
    hosts = [{"host": server.address, "name": name} for name in ("old", "new")]
    async with polled(memory_url, None, hosts=hosts[:1], period=60.0) as (source, _):
        close = source._close

        async def close_after_a_tick(pollers: Iterable[Poller]) -> None:
            await source.measure()
            await close(pollers)

        monkeypatch.setattr(source, "_close", close_after_a_tick)
        await source.reconfigure(RemoteConfig.load({"period": 60.0, "hosts": hosts[1:]}))
        assert set(source._pollers) == {"new"}
        monkeypatch.undo()


async def test_a_metric_that_means_something_else_by_now_is_declared_anew(ssh_home, memory_url) -> None:
    class Other(Echo):
        description = "another number"

    server = ssh_home.server()
    (ssh_home.ssh / "config").write_text(f"Host twofold\n  Hostname 127.0.0.1\n  Port {server.port}\n")
    register_host_parsers("twofold", {"one": Echo("echo 1"), "other": Other("echo 2")})
    config = {"period": 0.2, "hosts": ["twofold"]}
    async with polled(memory_url, None, **config, parsers=["one"]) as (source, points):
        await until(lambda: points.last("twofold.toy.number") == 1.0)
        await source.reconfigure(RemoteConfig.load({**config, "parsers": ["other"]}))
        await until(lambda: points.last("twofold.toy.number") == 2.0)
        async with asyncio.timeout(20):
            while (await points.get_metrics())["twofold.toy.number"]["description"] != "another number":
                await asyncio.sleep(0.02)


async def test_the_end_does_not_wait_for_hosts_that_hang(ssh_home, memory_url, caplog) -> None:
    frozen, jump = ssh_home.server(), ssh_home.server()
    with silent_listener() as port:
        targets = [
            MonitorTarget(frozen.address, TOY, name="frozen"),
            MonitorTarget(frozen.address, {"toy": Echo("sleep 30")}, name="hanging"),
            MonitorTarget(f"127.0.0.1:{port}", TOY, name="silent"),
            MonitorTarget("db1", TOY, name="behind", jump=(jump.address, f"127.0.0.1:{port}")),
        ]
        async with polled(memory_url, targets, period=60.0) as (source, _):
            await until(lambda: source._pollers["frozen"].is_up and source._pollers["hanging"].is_up)
            source.period = 1.0
            await until(lambda: source._pollers["hanging"]._round is not None)
            frozen.freeze()
            assert source._sessions is not None
            await until(lambda: len(source._sessions._connector._jumps) == 2)  # type: ignore[union-attr]
        frozen.thaw()
    assert "within" not in caplog.text
    names = [task.get_name() for task in asyncio.all_tasks() if task is not asyncio.current_task()]
    assert [name for name in names if "loop" not in name] == []


async def test_pending_until_each_host_was_asked_twice_or_cannot_be_reached(ssh_home, memory_url) -> None:
    server = ssh_home.server()
    targets = [
        MonitorTarget(server.address, TOY, name="db1"),
        MonitorTarget(f"127.0.0.1:{free_port()}", TOY, name="db2"),
    ]
    assert RemoteSource("source-remote", memory_url, targets=targets).pending
    async with polled(memory_url, targets, period=0.5) as (source, points):
        await until(lambda: not source.pending)
        await source.drain()
        await until(lambda: points.last("db1.remote.up") == 1.0)
        assert len(ticks(points, "db1.toy.number")) == 2
        assert points.last("db2.remote.up") == 0.0


async def test_the_vital_signs_tell_what_is_wrong_with_which_host(ssh_home, memory_url, monkeypatch) -> None:
    monkeypatch.setattr("agents.remote.source.SHOWN_DOWN", 2)
    server = ssh_home.server(known=False)
    good = ssh_home.server()
    targets = [
        MonitorTarget(server.address, TOY, name="strange"),
        *(MonitorTarget(f"127.0.0.1:{free_port()}", TOY, name=f"dead{n}") for n in range(2)),
        MonitorTarget(good.address, TOY, name="good"),
    ]
    async with polled(memory_url, targets) as (source, _):
        await until(lambda: not source.pending)
        signs = source.vital_signs()
    assert (signs["hosts"], signs["hostsUp"]) == (4, 1)
    assert list(signs["hostsDown"]) == ["strange", "dead0"]
    assert server.fingerprint in signs["hostsDown"]["strange"]


async def test_the_names_of_the_sources_own_metrics_are_as_ever(ssh_home, memory_url) -> None:
    server = ssh_home.server()
    async with polled(memory_url, [MonitorTarget(server.address, TOY, name="db1")]) as (_, points):
        await until(lambda: points.last("db1.remote.up") == 1.0 and points.last("db1.toy.number") is not None)
        metrics = await points.get_metrics(["db1.toy.number", "db1.remote.duration"], metadata=True)
        assert metrics["db1.toy.number"]["description"] == "a number"
        assert metrics["db1.remote.duration"]["unit"] == "s"
    names = sorted(name.removeprefix("db1.") for name in points.all if ".remote." in name)
    assert names == GOLDEN.read_text().split()
    table = MetricTable(RemoteSource.metrics)
    assert all(table.find(f"db1.{name}") for name in names)


def test_the_table_has_the_metrics_of_the_parsers_that_are_built_in() -> None:
    table = MetricTable(RemoteSource.metrics)
    assert table.find("db1.load.1m") is not None
    assert table.find("db1.nosuch.1m") is None
    names = [metric.name for metric in RemoteSource.metrics]
    assert len(names) == len(set(names))


async def test_hosts_are_called_by_their_names_and_nothing_is_polled_twice(ssh_home, memory_url) -> None:
    server = ssh_home.server()
    async with polled(memory_url, [MonitorTarget(server.address, TOY)]) as (_, points):
        await until(lambda: points.last("127_0_0_1.toy.number") == 42.0)
    with pytest.raises(ConfigError, match="listed twice"):
        async with polled(memory_url, [MonitorTarget(server.address, TOY), MonitorTarget(server.address, TOY)]):
            pass


async def test_an_empty_list_of_hosts_that_was_given_is_nothing_to_measure(memory_url) -> None:
    async with polled(memory_url, []) as (source, _):
        await until(lambda: source.absence.reason == "no hosts are configured")


async def test_without_hosts_it_does_not_start_and_says_how_to_list_them(memory_url) -> None:
    with pytest.raises(ConfigError, match=r"\[remote-source\] hosts"):
        async with polled(memory_url, None):
            pass


async def test_modules_may_bring_parsers(ssh_home, memory_url, tmp_path, monkeypatch) -> None:
    server = ssh_home.server()
    (ssh_home.ssh / "config").write_text(f"Host withmodule\n  Hostname 127.0.0.1\n  Port {server.port}\n")
    (tmp_path / "our_parsers.py").write_text(
        "from agents.remote import MetricParser, register_host_parsers\n"
        "class Logins(MetricParser):\n"
        "    family = 'logins'\n"
        "    command = 'echo 3'\n"
        "    def parse(self, output, context):\n"
        "        return {'sessions': float(output)}\n"
        "register_host_parsers('withmodule', {'logins': Logins()})\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    config = {"hosts": ["withmodule"], "modules": ["our_parsers"], "parsers": ["logins"]}
    async with polled(memory_url, None, **config) as (_, points):
        await until(lambda: points.last("withmodule.logins.sessions") == 3.0)


@pytest.mark.parametrize(
    ("text", "complaint"), [(None, "ModuleNotFoundError"), ("1/0", "ZeroDivisionError"), ("(", "SyntaxError")]
)
async def test_a_module_that_cannot_be_imported_is_named(memory_url, tmp_path, monkeypatch, text, complaint) -> None:
    if text is not None:
        (tmp_path / f"broken_{complaint}.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ConfigError, match=f"modules: 'broken_{complaint}' cannot be imported: {complaint}"):
        async with polled(memory_url, None, hosts=["db1"], modules=[f"broken_{complaint}"]):
            pass


async def test_a_parser_that_does_not_exist_is_named(memory_url) -> None:
    with pytest.raises(ConfigError, match="nosuch"):
        async with polled(memory_url, None, hosts=["db1"], parsers=["nosuch"]):
            pass


async def test_the_log_tells_what_a_library_would_shout(ssh_home, memory_url, caplog) -> None:
    caplog.set_level(logging.INFO)
    server = ssh_home.server()
    async with polled(memory_url, [MonitorTarget(server.address, TOY, name="db1")]) as (_, points):
        await until(lambda: points.last("db1.remote.up") == 1.0)
    assert "db1: connected" in caplog.text
    assert [record for record in caplog.records if record.name.startswith("asyncssh")] == []


def test_importing_the_source_loads_no_ssh() -> None:
    code = "import sys, agents.remote.source; sys.exit(bool({'asyncssh', 'cryptography'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0
