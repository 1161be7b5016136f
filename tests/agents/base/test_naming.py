# SPDX-License-Identifier: MIT
"""Which metrics of a reading get onto the bus, under which names, declared when, and how many at most."""

import dataclasses
import logging

import pytest

from agents.base.naming import LEAST_REFUSED, MetricNames
from agents.base.parts import Parts
from agents.host import HostConfig, Metric
from bus.names import MAX_NAME_BYTES
from tests.agents.toy import Sampled, ToySource, second

TABLE = {name: Metric(name, "1", f"what {name} is") for name in ("a", "b", "c", "d")}


@pytest.fixture
def names() -> MetricNames:
    return MetricNames("source-x", "web1.x", Parts("web1.x"))


def take_in(names: MetricNames, *wanted: str, limit: int = 10, period_s: float = 1.0) -> list[str]:
    """The full names that are to be declared."""
    return list(names.take_in(wanted, TABLE.get, limit=limit, period_s=period_s))


# -- names -----------------------------------------------------------------------------------------------


def test_a_name_is_known_by_its_full_name_once_it_was_taken_in(names: MetricNames) -> None:
    assert names.unknown({"a": 1.0, "b": 2.0}) == ["a", "b"]
    with pytest.raises(KeyError):
        names.label({"a": 1.0})
    assert names.take_in(["a"], TABLE.get, limit=10, period_s=2.0) == {"web1.x.a": TABLE["a"].metadata(2.0)}
    assert names.label({"a": 1.0}) == {"web1.x.a": 1.0}
    assert names.label_known({"b": 2.0, "a": 1.0}) == {"web1.x.a": 1.0}
    assert (names.unknown({"a": 1.0, "b": 2.0}), names.known) == (["b"], ["a"])


def test_without_a_prefix_the_name_is_the_full_name() -> None:
    names = MetricNames("source-x", "", Parts("x"))
    take_in(names, "a")
    assert names.label({"a": 1.0}) == {"a": 1.0}


def test_a_name_that_is_too_long_with_its_prefix_is_left_out(names: MetricNames, caplog) -> None:
    fits = "x" * (MAX_NAME_BYTES - len("web1.x."))
    described = names.take_in([fits, fits + "x"], lambda _: TABLE["a"], limit=10, period_s=1.0)
    assert list(described) == [f"web1.x.{fits}"]
    assert len(caplog.messages) == 1


async def test_new_metrics_are_declared_once_with_their_metadata(host, monkeypatch) -> None:
    source = host.source(ToySource, {"period": 2.0})
    sampled = Sampled(source, monkeypatch)
    source.says = {"plain": 1.0}
    await source.update()
    await source.update()
    source.says = {"plain": 1.0, "b.level": 2.0}
    await source.update()
    assert [list(metrics) for metrics in sampled.declared] == [["web1.toy.plain"], ["web1.toy.b.level"]]
    assert sampled.declared[1]["web1.toy.b.level"] == {
        "unit": "%",
        "description": "a value of each device",
        "interval": 2.0,
        "quantity": "ratio",
        "scope": "point",
    }


async def test_a_metric_that_vanishes_and_returns_needs_no_second_declaration(host, monkeypatch) -> None:
    source = host.source(ToySource)
    sampled = Sampled(source, monkeypatch)
    for says in ({"a.level": 1.0}, {}, {"a.level": 2.0}):
        source.says = says
        await source.update()
    assert [values for _, values in sampled.points] == [{"web1.toy.a.level": 1.0}, {}, {"web1.toy.a.level": 2.0}]
    assert len(sampled.declared) == 1


@pytest.mark.parametrize("bad", ["not in the table", "a b.level", "..level", ".level"])
async def test_a_name_that_cannot_be_sampled_costs_only_itself_and_one_line_in_the_log(
    host, monkeypatch, caplog, bad: str
) -> None:
    source = host.source(ToySource)
    sampled = Sampled(source, monkeypatch)
    source.says = {"plain": 1.0, bad: 2.0}
    for _ in range(3):
        await source.update()
    assert [values for _, values in sampled.points] == [{"web1.toy.plain": 1.0}] * 3
    assert sampled.names == ["web1.toy.plain"]
    assert len([message for message in caplog.messages if bad in message]) == 1


# -- how many --------------------------------------------------------------------------------------------


def test_past_the_limit_names_are_refused_and_counted_once_each_and_that_is_said_once(
    names: MetricNames, caplog
) -> None:
    assert take_in(names, "a", "b", "c", limit=2) == ["web1.x.a", "web1.x.b"]
    assert take_in(names, *names.unknown("abcd"), limit=2) == []
    assert take_in(names, *names.unknown("abcd"), limit=2) == []
    assert (names.refused, names.known) == (2, ["a", "b"])
    assert names.unknown("abcd") == []  # nobody asks again
    (message,) = caplog.messages
    assert message.startswith("source-x has as many metrics as it may have (max_metrics, 2): c ")


def test_names_that_are_new_for_ever_do_not_fill_the_memory(names: MetricNames) -> None:
    for number in range(LEAST_REFUSED + 500):
        take_in(names, f"new{number}", limit=0)
    assert names.refused == LEAST_REFUSED
    names.reopen()
    for number in range(LEAST_REFUSED * 2 + 500):
        names.take_in([f"new{number}"], lambda _: TABLE["a"], limit=LEAST_REFUSED, period_s=1.0)
    assert (len(names.known), names.refused) == (LEAST_REFUSED, LEAST_REFUSED)


def test_what_was_refused_comes_in_after_a_reopening_with_a_higher_limit(names: MetricNames, caplog) -> None:
    take_in(names, "a", "b", "c", limit=1)
    names.reopen()
    assert names.refused == 0
    assert take_in(names, *names.unknown("abc"), limit=2) == ["web1.x.b"]
    assert names.refused == 1
    assert len(caplog.messages) == 2  # said anew: it is another limit


def test_a_lower_limit_takes_nothing_away(names: MetricNames) -> None:
    take_in(names, "a", "b")
    assert take_in(names, "a", "b", "c", limit=1) == ["web1.x.a", "web1.x.b"]


def test_a_name_that_is_not_described_takes_no_place(names: MetricNames) -> None:
    assert take_in(names, "nobody knows", "a", "b", limit=1) == ["web1.x.a"]


def test_an_outdated_name_keeps_its_place(names: MetricNames) -> None:
    take_in(names, "a", "b", limit=2)
    names.outdate(["b", "b", "not there"])
    assert names.unknown("cba") == ["c", "b"]
    assert take_in(names, "c", "b", limit=2) == ["web1.x.b"]
    assert names.refused == 1
    names.reopen()
    assert take_in(names, "c", limit=3) == ["web1.x.c"]  # and holds it no longer than it must


async def test_a_source_has_max_metrics_at_most_and_says_how_many_were_refused(host, monkeypatch) -> None:
    source = host.source(ToySource, {"max_metrics": 2})
    sampled = Sampled(source, monkeypatch)
    source.says = {"a.level": 1.0, "b.level": 2.0, "c.level": 3.0, "d.level": 4.0}
    for _ in range(3):
        await source.update()
    assert [list(values) for _, values in sampled.points] == [["web1.toy.a.level", "web1.toy.b.level"]] * 3
    assert (source.metrics_refused, source.vital_signs()["metricsRefused"]) == (2, 2)
    await source.reconfigure(HostConfig.load({"prefix": "web1", "max_metrics": 3}))
    assert source.metrics_refused == 0
    await source.update()
    assert list(sampled.points[-1][1]) == ["web1.toy.a.level", "web1.toy.b.level", "web1.toy.c.level"]
    assert source.metrics_refused == 1
    await source.teardown()


# -- metadata that are known at run time -------------------------------------------------------------------


class LearningSource(ToySource):
    """Learns at run time what the limit of a device is."""

    limits: dict[str, float]

    def describe(self, name: str) -> Metric | None:
        metric = super().describe(name)
        if metric is None or name not in self.limits:
            return metric
        return dataclasses.replace(metric, details={"high": self.limits[name], "unit": "nonsense"})


async def test_details_are_declared_beside_what_the_table_says(host, monkeypatch) -> None:
    source = host.source(LearningSource)
    sampled = Sampled(source, monkeypatch)
    source.limits = {"a.level": 80.0}
    source.take(second(0), {"a.level": 1.0, "b.level": 2.0})
    (declared,) = sampled.declared
    assert declared["web1.toy.a.level"] == {**declared["web1.toy.b.level"], "high": 80.0}
    assert declared["web1.toy.a.level"]["unit"] == "%"


async def test_a_redescribed_metric_is_declared_anew_with_its_next_point(host, monkeypatch) -> None:
    source = host.source(LearningSource)
    sampled = Sampled(source, monkeypatch)
    source.limits = {}
    source.take(second(0), {"a.level": 1.0, "b.level": 1.0})
    source.limits = {"a.level": 70.0}
    source.redescribe(["a.level", "never seen"])
    assert len(sampled.declared) == 1
    source.take(second(1), {"b.level": 2.0})
    assert len(sampled.declared) == 1
    source.take(second(2), {"a.level": 3.0, "b.level": 3.0})
    assert list(sampled.declared[1]) == ["web1.toy.a.level"]
    assert sampled.declared[1]["web1.toy.a.level"]["high"] == 70.0
    assert [len(values) for _, values in sampled.points] == [2, 1, 2]


async def test_a_new_period_declares_what_is_known_anew(host, monkeypatch) -> None:
    source = host.source(ToySource)
    sampled = Sampled(source, monkeypatch)
    source.take(second(0), {"a.level": 1.0, "plain": 1.0})
    await source.reconfigure(HostConfig.load({"prefix": "web1", "period": 3.0}))
    assert {name: about["interval"] for name, about in sampled.declared[-1].items()} == {
        "web1.toy.a.level": 3.0,
        "web1.toy.plain": 3.0,
    }


async def test_a_source_without_a_prefix_logs_under_its_token(memory_url: str, monkeypatch, caplog) -> None:
    class Everywhere(ToySource):
        @classmethod
        def prefix_of(cls, config: HostConfig) -> str:
            return ""

    caplog.set_level(logging.INFO)
    source = Everywhere("source-everywhere", memory_url)
    sampled = Sampled(source, monkeypatch)
    source.take(second(0), {"db1.level": 1.0, "no name.level": 2.0})
    assert [list(values) for _, values in sampled.points] == [["db1.level"]]
    (message,) = caplog.messages
    assert message.startswith("source-everywhere: metric no name.level failed: ")
