# SPDX-License-Identifier: MIT
from collections.abc import Callable
from pathlib import Path

import pytest

from agents.host import NothingFound
from agents.metric import MetricTable
from agents.process.groups import Identity, Known
from agents.process.procfs import PAGE_BYTES, Stat
from agents.process.source import ProcessSource, readable
from agents.process.sums import Gain, Member, gains_since, shares
from bus.timestamp import Timestamp
from tests.agents.process.process_tree import ProcessTree

GOLDEN = Path(__file__).parents[1] / "fixtures" / "names" / "process.txt"
WEB = {"name": "web", "names": ["nginx"]}


@pytest.fixture
def tree(host) -> ProcessTree:
    return ProcessTree(host)


@pytest.fixture
def read(tree) -> Callable[..., dict[str, float]]:
    return tree.host.read


def of(reading: dict[str, float], group: str) -> dict[str, float]:
    return {name.removeprefix(group + "."): value for name, value in reading.items() if name.startswith(group + ".")}


def stat(ticks: int, start: int, faults: int = 0) -> Stat:
    return Stat("x", 1, False, False, 1, faults, ticks, start, 0, 0)


# -- since the last look -------------------------------------------------------------------------------


def test_gains_of_processes_that_were_there_started_since_were_hidden_and_are_others() -> None:
    last = {1: stat(100, 5, 10), 2: stat(100, 5), 3: stat(100, 5), 4: stat(100, 5)}
    now = {1: stat(130, 5, 15), 2: last[2], 3: stat(7, 900, 3), 4: stat(99, 5), 5: stat(9, 800), 6: stat(9, 799)}
    assert gains_since(last, now, 800) == {1: Gain(30, 5), 2: Gain(0, 0), 3: Gain(7, 3), 4: Gain(0, 0), 5: Gain(9, 0)}


@pytest.mark.parametrize(
    ("name", "shown"), [("nginx", "nginx"), ("a\nb\x1b[0m", "a?b?[0m"), ("", "?"), ("x" * 99, "x" * 64), ("né", "né")]
)
def test_names_for_people(name: str, shown: str) -> None:
    assert readable(name) == shown


# -- groups --------------------------------------------------------------------------------------------


def test_the_amounts_of_a_group_are_there_at_the_first_look_its_rates_at_the_second(tree, read) -> None:
    tree.start(10, "nginx", threads=4, vms=1 << 30, rss=5 * PAGE_BYTES, fds=3, pss_kb=7)
    tree.start(11, "nginx", threads=1, vms=1 << 20, rss=2 * PAGE_BYTES, fds=4, pss_kb=8)
    tree.start(12, "other")
    source = tree.source({"groups": [WEB], "top": 0})
    amounts = {"count": 2, "threads": 5, "vms": (1 << 30) + (1 << 20), "rss": 7 * PAGE_BYTES, "fds": 7}
    assert read(source) == {f"web.{name}": value for name, value in {**amounts, "pss": 15 * 1024}.items()}
    assert of(read(source), "web") == amounts | dict.fromkeys(("cpu", "faults", "read_bytes", "written_bytes"), 0.0)


def test_rates_are_over_the_time_that_passed(tree, read) -> None:
    tree.start(10, "nginx", ticks=1000, minor=50, major=5, read=4096, written=100)
    source = tree.source({"groups": [WEB]})
    read(source)
    tree.set(10, ticks=1300, minor=56, major=7)
    tree.files(10, read=8192, written=1100)
    values = of(read(source, after_s=2.0), "web")
    assert (values["cpu"], values["faults"]) == (150.0, 4.0)
    assert (values["read_bytes"], values["written_bytes"]) == (2048.0, 500.0)


def test_a_process_that_began_since_the_last_look_counts_from_its_start(tree, read) -> None:
    source = tree.source({"groups": [WEB, "other"]})
    tree.start(1, "init")
    read(source)
    tree.start(10, "nginx", at_s=1001.5, ticks=20, minor=6, read=4096)
    tree.start(11, "other", at_s=900.0, ticks=5000, minor=600, read=1 << 30)  # it was hidden until now
    reading = read(source)
    assert [of(reading, "web")[name] for name in ("cpu", "faults", "read_bytes")] == [20.0, 6.0, 4096.0]
    assert [of(reading, "other")[name] for name in ("cpu", "faults")] == [0.0, 0.0]
    assert "read_bytes" not in of(reading, "other")
    tree.files(11, read=(1 << 30) + 512)
    assert of(read(source), "other")["read_bytes"] == 512.0


def test_a_pid_that_is_used_again_means_nothing(tree, read) -> None:
    tree.start(10, "nginx", ticks=100_000, read=1 << 40)
    source = tree.source({"groups": [WEB]})
    read(source)
    tree.start(10, "nginx", at_s=1001.9, ticks=3, read=512)
    values = of(read(source), "web")
    assert (values["cpu"], values["read_bytes"], values["count"]) == (3.0, 512.0, 1)


def test_a_group_without_processes_has_all_its_values(tree, read) -> None:
    tree.start(1, "init")
    source = tree.source({"groups": [WEB], "top": 0})
    read(source)
    assert set(read(source, after_s=10).values()) == {0.0}
    assert len(read(source, after_s=10)) == 10


def test_one_that_ends_takes_nothing_from_the_others(tree, read) -> None:
    for pid in (10, 11):
        tree.start(pid, "nginx", ticks=100)
    source = tree.source({"groups": [WEB]})
    read(source)
    tree.end(10)
    tree.set(11, ticks=110)
    assert (of(read(source), "web")["count"], of(read(source), "web")["cpu"]) == (1, 0.0)


def test_a_zombie_is_not_counted_but_what_it_did_before_is(tree, read) -> None:
    tree.start(10, "nginx", ticks=100)
    source = tree.source({"groups": [WEB]})
    read(source)
    tree.set(10, state="Z", ticks=140, rss=0, vms=0)
    tree.files(10, read=1 << 30)
    values = of(read(source), "web")
    assert (values["count"], values["threads"], values["cpu"], values["fds"]) == (0, 0, 40.0, 0)
    assert values["read_bytes"] == 0.0


def test_bytes_of_a_child_that_ended_do_not_count_again_for_its_parent(tree, read) -> None:
    tree.start(10, "nginx", read=100)
    tree.start(11, "nginx", parent=10, read=1 << 30)
    source = tree.source({"groups": [WEB]})
    read(source)
    tree.end(11)
    tree.files(10, read=100 + (1 << 30) + 512)
    assert of(read(source), "web")["read_bytes"] == 512.0
    tree.files(10, read=100 + (1 << 30) + 1024)
    assert of(read(source), "web")["read_bytes"] == 512.0


def test_bytes_are_left_out_at_a_look_when_the_parent_got_them_from_a_stranger(tree, read) -> None:
    tree.start(10, "nginx")
    tree.start(11, "child", parent=10)
    source = tree.source({"groups": [WEB]})
    read(source)
    tree.end(11)
    tree.files(10, read=1 << 30)
    assert "read_bytes" not in of(read(source), "web")
    assert of(read(source), "web")["read_bytes"] == 0.0


def test_what_may_not_be_read_is_left_out_and_said_once(tree, read, monkeypatch, caplog) -> None:
    caplog.set_level("INFO")
    for pid in (10, 11):
        tree.start(pid, "nginx", read=0, pss_kb=5)
    secret = {"10"}
    from agents.process import details as process_details

    honest = process_details.read_bytes

    def guarded(path: str) -> bytes:
        if path.split("/")[-2] in secret:
            raise PermissionError(13, "Permission denied")
        return honest(path)

    monkeypatch.setattr(process_details, "read_bytes", guarded)
    source = tree.source({"groups": [WEB]})
    assert of(read(source, after_s=10), "web")["pss"] == 5 * 1024
    tree.files(11, read=1000)
    values = of(read(source, after_s=10), "web")
    assert (values["read_bytes"], values["pss"], values["count"]) == (100.0, 5 * 1024, 2)
    secret.add("11")
    monkeypatch.setattr(process_details, "count_fds", lambda path, *, by_size: len(guarded(path + "/io")))
    for _ in range(2):
        values = of(read(source, after_s=10), "web")
        assert {"read_bytes", "written_bytes", "pss", "fds"} & values.keys() == set()
        assert values["count"] == 2
    said = [record for record in caplog.records if "may not be read" in record.message]
    assert [record.levelname for record in said] == ["INFO"] * 3
    assert "read_bytes and written_bytes of 1 of 2 processes of group web" in said[0].message
    assert "pss of 1 of 2 processes of group web" in said[1].message
    assert "fds of 2 of 2 processes of group web" in said[2].message


def test_shares_of_memory_come_every_10_s(tree, read) -> None:
    tree.start(10, "nginx", pss_kb=3)
    source = tree.source({"groups": [WEB], "period": 5.0})
    found = [of(read(source), "web").get("pss") for _ in range(20)]
    assert [value for value in found if value is not None] == [3072, 3072, 3072]
    assert source.describe("web.pss").every_s == 10.0


def test_shares_of_memory_are_left_out_until_everybody_was_asked() -> None:
    def member(pss: int | None, read_s: float, **changes: bool) -> Member:
        known = Known(0, Identity(names=["x"]), (), 0.0, pss=pss, pss_read_s=read_s)
        return Member(stat(0, 0)._replace(**changes), known, None, None, None)

    never = float("-inf")
    assert shares([member(5, 1.0), member(6, 1.0)]) == {"pss": 11}
    assert shares([member(5, 1.0), member(None, never)]) == {}
    assert shares([member(5, 1.0), member(None, 1.0)]) == {"pss": 5}
    assert shares([member(None, 1.0)]) == {}
    assert shares([member(5, 1.0), member(None, never, ended=True), member(None, never, kernel=True)]) == {"pss": 5}
    assert shares([]) == {"pss": 0}


def test_threads_of_the_kernel_are_ordinary(tree, read) -> None:
    tree.start(2, "kthreadd", flags=0x200000, arguments=[], rss=0, vms=0, fds=0)
    for file in ("cmdline", "exe", "smaps_rollup"):
        (tree.proc / "2" / file).unlink()
    source = tree.source({"groups": ["kthreadd"]})
    values = of(read(source), "kthreadd")
    assert (values["count"], values["rss"], values["fds"], values["pss"]) == (1, 0, 0, 0)
    assert source._members.known[2].pss_read_s == float("-inf")


# -- ranks ---------------------------------------------------------------------------------------------


def test_ranks_are_the_greatest_values_in_order(tree, read) -> None:
    for pid, rss, ticks in ((10, 3, 5), (11, 9, 300), (12, 6, 20)):
        tree.start(pid, f"p{pid}", rss=rss * PAGE_BYTES)
        tree.stats[pid]["later"] = ticks
    source = tree.source({"top": 2})
    assert read(source) == {"top.memory.1": 9 * PAGE_BYTES, "top.memory.2": 6 * PAGE_BYTES}
    for pid in (10, 11, 12):
        tree.set(pid, ticks=tree.stats[pid].pop("later"))
    assert of(read(source), "top.cpu") == {"1": 300.0, "2": 20.0}
    assert source.describe("top.cpu.1").details == {"process": "p11"}
    assert source.describe("top.memory.2").details == {"process": "p12"}


def test_ranks_without_a_process_are_0(tree, read) -> None:
    tree.start(10, ticks=5)
    source = tree.source({"top": 3})
    read(source)
    assert of(read(source), "top.cpu") == {"1": 0.0, "2": 0.0, "3": 0.0}
    assert source.describe("top.cpu.1").details == {}


def test_who_holds_a_rank_is_said_at_most_every_10_s_and_of_all_ranks_at_once(tree, read, monkeypatch) -> None:
    source = tree.source({"top": 2, "period": 1.0})
    said: list[tuple[float, str]] = []
    monkeypatch.setattr(source, "redescribe", lambda names: said.extend((tree.host.now_s, name) for name in names))
    for pid, name in ((10, "a"), (11, "b"), (12, "c")):
        tree.start(pid, name, rss=(20 - pid) * PAGE_BYTES)
    read(source)
    assert said == [(1001.0, "top.memory.1"), (1001.0, "top.memory.2")]
    tree.set(12, rss=9 * PAGE_BYTES)  # second from 1002 on
    while tree.host.now_s < 1009:
        tree.set(11, rss=(11 if tree.host.now_s % 2 else 1) * PAGE_BYTES)  # first at times
        read(source)
    assert source.describe("top.memory.1").details == {"process": "a"}
    tree.set(11, rss=11 * PAGE_BYTES)
    read(source)
    assert said[2:] == [(1010.0, "top.memory.1"), (1010.0, "top.memory.2")]
    assert source.describe("top.memory.1").details == {"process": "b"}
    assert source.describe("top.memory.2").details == {"process": "a"}


def test_no_pid_is_in_a_name_or_in_what_is_said_of_it(tree, read) -> None:
    tree.start(987654, "nginx", ticks=1)
    source = tree.source({"groups": [WEB]})
    names = {*read(source), *read(source)}
    assert not any("987654" in f"{name} {source.describe(name).metadata(1.0)}" for name in names)


# -- the whole -----------------------------------------------------------------------------------------


def test_the_names_are_as_ever_and_all_described(tree, read) -> None:
    tree.start(10, "nginx")
    tree.start(11, "postgres", cgroup="0::/system.slice/db.service\n")
    source = tree.source({"groups": ["nginx", {"name": "db", "unit": "db"}], "top": 2, "max_metrics": 20})
    names = {*read(source), *read(source)}
    assert sorted(names) == GOLDEN.read_text().split()
    table = MetricTable(ProcessSource.metrics)
    assert [name for name in names if table.find(name) is None] == []
    used = {table.find(name) for name in names}
    assert [metric.name for metric in ProcessSource.metrics if metric not in used] == []


async def test_metrics_beyond_the_limit_are_counted_in_a_metric(tree, monkeypatch) -> None:
    tree.start(10, "nginx")
    source = tree.source({"groups": [WEB, "other"], "top": 0, "max_metrics": 9})
    points: list[dict[str, float]] = []
    monkeypatch.setattr(source, "sample", lambda _, values: points.append(dict(values)))
    monkeypatch.setattr(source, "declare_metrics_nowait", lambda _: None)
    for _ in range(3):
        tree.host.now_s += 10
        await source.update()
    assert points[-1]["web1.process.metrics_refused"] > 0
    assert "metrics_refused" not in tree.host.read(tree.source({"groups": [WEB], "top": 0}))


def test_a_garbled_process_costs_only_itself_and_one_line(tree, read, caplog) -> None:
    tree.start(10, "nginx")
    tree.start(11, "nginx")
    (tree.proc / "11/stat").write_text("11 (nginx) what")
    source = tree.source({"groups": [WEB]})
    for _ in range(3):
        assert of(read(source), "web")["count"] == 1
    assert len([message for message in caplog.messages if "processes failed" in message]) == 1


@pytest.mark.parametrize(("hide", "says"), [(False, "shows no processes"), (True, "there is no")])
def test_without_processes_there_is_nothing(tree, read, hide: bool, says: str) -> None:
    if hide:
        tree.proc.rename(tree.proc.with_name("away"))
    with pytest.raises(NothingFound, match=says):
        read(tree.source())


def test_a_look_at_the_same_moment_as_the_last_has_no_rates(tree, read) -> None:
    tree.start(10)
    source = tree.source()
    assert read(source)
    assert not of(read(source, after_s=0.0), "top.cpu")
    assert read(source)


# -- how often -----------------------------------------------------------------------------------------


def test_looks_are_as_far_apart_as_somebody_says(tree, read) -> None:
    tree.start(10, ticks=0)
    source = tree.source({"period": 1.0, "scan_every": 3.0, "top": 1})
    readings = []
    for second in range(9):
        tree.set(10, ticks=10 * second)
        readings.append(read(source))
    assert len([reading for reading in readings if reading]) == 4
    assert [reading["top.cpu.1"] for reading in readings[1:] if reading] == [10.0, 10.0, 10.0]
    assert source.describe("top.cpu.1").metadata(1.0)["interval"] == 3.0


def test_dear_looks_are_made_less_often_and_that_is_said_once(tree, read, monkeypatch, caplog) -> None:
    caplog.set_level("INFO")
    monkeypatch.setattr("agents.process.source.time.thread_time", iter(range(1000)).__next__)
    tree.start(10)
    source = tree.source({"period": 1.0})
    again: list[str] = []
    readings = [read(source)]
    assert source.describe("top.cpu.1").every_s == 1.0  # the first look gets to know everybody
    readings.append(read(source))
    monkeypatch.setattr(source, "redescribe", again.extend)
    assert all(readings)
    assert source.describe("top.cpu.1").every_s == 30.0
    readings = [read(source) for _ in range(60)]
    assert len([reading for reading in readings if reading]) in (2, 3)
    assert len([message for message in caplog.messages if "one every 30 s" in message]) == 1


async def test_another_configuration_takes_effect_at_once(tree, read) -> None:
    tree.start(10, "nginx", read=1 << 30)
    tree.start(11, "other", read=1 << 30)
    source = tree.source({"groups": [WEB], "period": 10.0})
    read(source)
    read(source)
    await source.reconfigure(
        ProcessSource.Config.load({"prefix": "web1", "groups": ["other"], "top": 1, "period": 1.0, "scan_every": 2.0})
    )
    reading = read(source, after_s=10)
    assert {name.split(".")[0] for name in reading} == {"other", "top"}
    assert "top.cpu.2" not in reading
    assert "other.read_bytes" not in reading
    assert read(source, after_s=2)["other.read_bytes"] == 0.0
    assert source.describe("other.count").every_s == 2.0


async def test_metrics_are_declared_anew_when_the_time_between_them_changes(tree, monkeypatch) -> None:
    tree.start(10, "nginx")
    source = tree.source({"groups": [WEB], "period": 1.0, "scan_every": 5.0})
    intervals: list[float] = []
    monkeypatch.setattr(source, "sample", lambda *_: None)
    monkeypatch.setattr(
        source,
        "declare_metrics_nowait",
        lambda metrics: intervals.extend(metrics[name]["interval"] for name in metrics if name.endswith("web.count")),
    )
    for scan_every in (5.0, 2.0):
        await source.reconfigure(
            source.config.load({"prefix": "web1", "groups": [WEB], "period": 1.0, "scan_every": scan_every})
        )
        tree.host.now_s += 10
        source.tick = Timestamp(round(tree.host.now_s * 1e9))
        await source.update()
    assert (intervals[0], intervals[-1]) == (5.0, 2.0)
