# SPDX-License-Identifier: MIT
import pytest

from agents.cpu import CpuSource
from agents.disk import DiskSource
from agents.load import LoadSource
from agents.memory import MemorySource
from agents.metric import QUANTITIES, Metric, MetricTable
from agents.network import NetworkSource

FAMILIES = [CpuSource, MemorySource, DiskSource, NetworkSource, LoadSource]


def test_a_template_describes_the_metric_of_every_device() -> None:
    reads = Metric("{device}.reads", "1/s", "reads")
    total = Metric("total", "B", "all")
    table = MetricTable([reads, total])
    assert table.find("sda.reads") is reads
    assert table.find("total") is total
    assert table.find("sda.part.reads") is None
    assert table.find("xreads") is None
    assert table.find("sda.total") is None


def test_a_plain_name_goes_before_a_template() -> None:
    plain = Metric("all.reads", "1/s", "of all devices")
    assert MetricTable([Metric("{device}.reads", "1/s", "of one"), plain]).find("all.reads") is plain


@pytest.mark.parametrize(
    ("name", "is_found"),
    [
        ("web.requests", True),
        ("web.requests.code-200.method-GET", True),
        ("web", False),
        (".requests", False),
        ("web.", False),
        ("web..requests", False),
        ("web.requests.", False),
        ("a.b.c.total", True),
        ("total", False),
    ],
)
def test_a_template_may_stand_for_any_number_of_words(name: str, is_found: bool) -> None:
    table = MetricTable([Metric("{target}.{labels...}", "", "a series"), Metric("{path...}.total", "1", "a sum")])
    assert (table.find(name) is not None) == is_found


def test_of_two_templates_the_first_describes() -> None:
    first, second = Metric("{a}.{b...}", "1", "first"), Metric("{a}.up", "1", "second")
    assert MetricTable([first, second]).find("x.up") is first
    assert MetricTable([second, first]).find("x.up") is second
    assert MetricTable([second, first]).find("x.y.up") is first


def test_the_dots_of_a_template_are_dots() -> None:
    table = MetricTable([Metric("{device}.io.reads", "1", "reads")])
    assert table.find("sda.io.reads") is not None
    assert table.find("sdaxioxreads") is None


def test_details_are_metadata_too_but_replace_none() -> None:
    metric = Metric("x", "Cel", "heat", details={"high": 80.0, "sensor": {"chip": "k10"}, "unit": "K", "interval": 0})
    assert metric.metadata(2.5) == {
        "high": 80.0,
        "sensor": {"chip": "k10"},
        "unit": "Cel",
        "description": "heat",
        "interval": 2.5,
        "quantity": "temperature",
        "scope": "point",
    }


def test_metrics_with_details_can_be_compared_and_kept_in_sets() -> None:
    plain, detailed = Metric("x", "1", "a"), Metric("x", "1", "a", details={"high": 1.0})
    assert len({plain, detailed}) == 1


def test_metadata_says_what_a_metric_is() -> None:
    assert Metric("x", "B/s", "bytes", scope="last").metadata(2.5) == {
        "unit": "B/s",
        "description": "bytes",
        "interval": 2.5,
        "quantity": "data rate",
        "scope": "last",
    }


def test_a_metric_that_comes_less_often_says_so() -> None:
    metric = Metric("x", "1", "dear", every_s=10.0)
    assert (metric.metadata(1.0)["interval"], metric.metadata(60.0)["interval"]) == (10.0, 60.0)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_metric_of_a_family_is_described_once_with_a_known_unit(family) -> None:
    names = [metric.name for metric in family.metrics]
    assert len(names) == len(set(names))
    for metric in family.metrics:
        assert metric.unit in QUANTITIES, metric
        assert metric.description, metric
        assert not metric.description.endswith("."), metric
        assert metric.unit not in ("B/s", "1/s") or metric.scope == "last", metric
