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
