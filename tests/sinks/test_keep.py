# SPDX-License-Identifier: MIT
"""What people may say about how long to keep what, and what it comes to."""

import pytest

from sinks.retention import FOREVER, Retention

D = 86400 * 10**9


def test_points_are_kept_for_a_week_and_fine_aggregates_for_a_month() -> None:
    assert Retention.load().of("web1.cpu.usage") == (7 * D, 30 * D, FOREVER, FOREVER, FOREVER, FOREVER)


def test_tiers_that_are_not_mentioned_give_way() -> None:
    assert Retention.load({"raw": "90d"}).default[:3] == (90 * D, 90 * D, FOREVER)
    assert Retention.load({"1m": "1d"}).default == (D, D, D, FOREVER, FOREVER, FOREVER)
    assert Retention.load({"1d": "5d"}).default == (5 * D,) * 6
    assert Retention.load({"raw": "forever"}).default == (FOREVER,) * 6
    assert Retention.load({}).default == Retention.load().default


def test_some_metrics_are_kept_otherwise() -> None:
    kept = Retention.load({"raw": "3d"}, {"web1.cpu.#": {"raw": "1d"}, "*.cpu.usage": {"10s": "2d"}})
    assert kept.of("web1.load.1m")[:3] == (3 * D, 30 * D, FOREVER)
    assert kept.of("web1.cpu.user")[:3] == (D, 30 * D, FOREVER)
    assert kept.of("web2.cpu.usage")[:3] == (2 * D, 2 * D, FOREVER)
    assert kept.of("web1.cpu.usage")[:3] == (2 * D, 30 * D, FOREVER), "the longest of what the patterns say"


@pytest.mark.parametrize(
    ("keep", "keep_for", "said"),
    [
        ({"rwa": "1d"}, {}, r"keep: 'rwa' is no tier; did you mean 'raw'\?"),
        ({"raw": "soon"}, {}, r"keep: raw: 'soon' is not a duration.*, or 'forever'"),
        ({"raw": "7"}, {}, r"keep: raw: '7' has no unit: '7d' for days, or s, min, h"),
        ({"raw": "0d"}, {}, r"keep: raw: '0d' is not more than 0 s"),
        ({"raw": "-1d"}, {}, "is not more than 0 s"),
        ({"raw": "90d", "10s": "30d"}, {}, r"10s is kept for 30d, less than the finer raw \(90d\): keep it at least"),
        ({"raw": "forever", "1d": "30d"}, {}, "1d is kept for 30d, less than the finer raw"),
        ({}, {"web1..cpu": {"raw": "1d"}}, "not a metric name or pattern"),
        ({}, {"web1.#": {"2m": "1d"}}, r"keep_for\['web1.#'\]: '2m' is no tier"),
    ],
)
def test_what_cannot_be_is_refused_and_said(
    keep: dict[str, str], keep_for: dict[str, dict[str, str]], said: str
) -> None:
    with pytest.raises(ValueError, match=said):
        Retention.load(keep, keep_for)
