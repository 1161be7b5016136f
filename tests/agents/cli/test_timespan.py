# SPDX-License-Identifier: MIT
"""Times as people type them."""

import time

import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st

from agents.cli.timespan import moment, span, step
from bus.chunk import MAX_NS
from bus.timestamp import Timedelta, Timestamp

NOW = Timestamp.from_iso8601("2026-11-21T12:00:00.000000001Z")


@pytest.fixture
def berlin(monkeypatch):
    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.parametrize(
    ("text", "means"),
    [
        ("now", "2026-11-21T12:00:00.000000001Z"),
        ("-1h", "2026-11-21T11:00:00.000000001Z"),
        (" -1.5h ", "2026-11-21T10:30:00.000000001Z"),
        ("now-1d", "2026-11-20T12:00:00.000000001Z"),
        ("now - 1d", "2026-11-20T12:00:00.000000001Z"),
        ("+1ns", "2026-11-21T12:00:00.000000002Z"),
        ("2026-11-21T10:00:00Z", "2026-11-21T10:00:00Z"),
        ("2026-11-21T10:00:00.123456789+01:00", "2026-11-21T09:00:00.123456789Z"),
        ("2026-11-21", "2026-11-20T23:00:00Z"),
        ("2026-07-21", "2026-07-20T22:00:00Z"),
        ("2026-11-21 10:00", "2026-11-21T09:00:00Z"),
        ("2026-07-21T10:00:00.000000007", "2026-07-21T08:00:00.000000007Z"),
        ("@1763719200", "2025-11-21T10:00:00Z"),
        ("@-0.000000001", "1969-12-31T23:59:59.999999999Z"),
        ("1763719200000000001", "2025-11-21T10:00:00.000000001Z"),
        ("0", "1970-01-01T00:00:00Z"),
    ],
)
def test_a_time_without_a_zone_is_local_and_all_nine_digits_count(berlin, text, means):
    assert moment(text, "--from", NOW) == Timestamp.from_iso8601(means)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("-30", "'-30' has no unit: -30s"),
        ("1h", "'1h' is not a time: -1h, now"),
        ("", "'' is not a time"),
        ("yesterday", "'yesterday' is not a time"),
        ("-1y", "'y' in '-1y' is not a unit"),
        ("--", "'--' is not a duration"),
        ("2026-13-01", "'2026-13-01' is not a time"),
        ("1763719200", "looks like seconds"),
        ("20261121", "looks like a date"),
        ("9999-01-01", "out of range"),
        ("0001-01-01", "--from: "),
        ("-300000d", "out of range"),
        ("99999999999999999999", "out of range"),
        ("@1e9", "is not a time"),
        ("²", "is not a time"),
        ("2026-11-21T10:00:00\0", "is not a time"),
    ],
)
def test_what_is_no_time_is_refused_with_what_would_be_right(text, says):
    with pytest.raises(typer.BadParameter) as caught:
        moment(text, "--from", NOW)
    assert says in str(caught.value)
    assert str(caught.value).startswith("--from: ")


@given(st.integers(-MAX_NS, MAX_NS))
def test_what_a_timestamp_prints_is_read_back_exactly(ns):
    assert moment(Timestamp(ns).isoformat(), "--to", NOW).posix_ns == ns


@given(st.text(max_size=30))
def test_any_text_is_a_time_or_refused(text):
    try:
        found = moment(text, "--from", NOW)
    except typer.BadParameter:
        return
    assert abs(found.posix_ns) <= MAX_NS


def test_a_range_that_is_empty_is_refused():
    assert span("-1h", "now", NOW) == (NOW - Timedelta.from_s(3600), NOW)
    with pytest.raises(typer.BadParameter, match=r"--from: now \(2026-11-21T12.*\) is not before --to -1h"):
        span("now", "-1h", NOW)


def test_a_step_is_longer_than_nothing():
    assert step("1m") == Timedelta.from_s(60)
    for text in ("0s", "-1m", "1y", "x", "999999999d"):
        with pytest.raises(typer.BadParameter, match=r"^--every: "):
            step(text)
