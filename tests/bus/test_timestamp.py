# SPDX-License-Identifier: MIT
"""Times and spans of time."""

import contextlib
import datetime as dt
import time

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from bus.timestamp import Timedelta, Timestamp

INT64 = st.integers(-(2**63), 2**63 - 1)
SPANS = INT64.map(Timedelta)
TIMES = INT64.map(Timestamp)
NAIVE = dt.datetime(2026, 11, 21, 10)  # noqa: DTZ001 - that is what it is for
STANDARD_SPANS = st.timedeltas()
OFFSETS = st.integers(-1439, 1439).map(lambda minutes: dt.timezone(dt.timedelta(minutes=minutes)))


@pytest.mark.parametrize(
    ("text", "ns"),
    [
        ("10s", 10 * 10**9),
        ("10", 10 * 10**9),
        ("1.5 min", 90 * 10**9),
        ("1,5min", 90 * 10**9),
        ("2 m", 120 * 10**9),
        ("200ms", 200 * 10**6),
        ("250 us", 250_000),
        ("250µs", 250_000),
        ("250 μs", 250_000),
        ("3 nanoseconds", 3),
        ("7 days", 7 * 86400 * 10**9),
        ("1 h", 3600 * 10**9),
        ("-1h", -3600 * 10**9),
        ("+1 Hour", 3600 * 10**9),
        (".5 sec", 500 * 10**6),
        ("5.", 5 * 10**9),
        (" 1 second ", 10**9),
        ("0.1234567891s", 123_456_789),
        ("9007199254740993ns", 2**53 + 1),
    ],
)
def test_a_span_is_read_from_a_number_and_a_unit(text: str, ns: int) -> None:
    assert Timedelta.from_string(text).ns == ns


@pytest.mark.parametrize("text", ["", "s", ".", "ten seconds", "1s2", "1 1 s", "--1s", "1e3s", "nan", "inf s", "0x10s"])
def test_what_is_no_span_is_refused_with_an_example_of_one(text: str) -> None:
    with pytest.raises(ValueError, match=r"is not a duration: a number and a unit, like '10s'"):
        Timedelta.from_string(text)


@pytest.mark.parametrize("text", ["1 year", "5 w", "3 sms"])
def test_an_unknown_unit_is_refused_with_the_known_ones(text: str) -> None:
    with pytest.raises(ValueError, match="is not a unit of time: ns, us, ms, s, min, h or d"):
        Timedelta.from_string(text)


@given(st.text())
def test_any_text_is_a_span_or_a_value_error(text: str) -> None:
    with contextlib.suppress(ValueError):
        Timedelta.from_string(text)


@given(SPANS)
def test_a_span_comes_back_from_its_precise_string(span: Timedelta) -> None:
    assert Timedelta.from_string(span.precise_string) == span


@pytest.mark.parametrize(
    ("ns", "text"),
    [(0, "0ns"), (90 * 10**9, "90s"), (-86400 * 10**9, "-1d"), (1_500_000, "1500us"), (7, "7ns"), (3600 * 10**9, "1h")],
)
def test_the_precise_string_uses_the_largest_unit_that_is_exact(ns: int, text: str) -> None:
    assert Timedelta(ns).precise_string == text


@given(STANDARD_SPANS)
def test_a_standard_span_and_ours_are_equal_and_hash_alike(span: dt.timedelta) -> None:
    ours = Timedelta.from_timedelta(span)
    assert ours == span
    assert span == ours
    assert hash(ours) == hash(span)
    assert ours.timedelta == span
    assert {span: "found"}[ours] == "found"  # type: ignore[index]  # the point is that it works


@given(SPANS)
@example(Timedelta(2**63 * 1000))
@example(Timedelta(10**24 * 1000))
def test_every_span_has_a_hash_and_equal_spans_the_same(span: Timedelta) -> None:
    assert hash(span) == hash(Timedelta(span.ns))
    assert span == Timedelta(span.ns)


@given(SPANS, SPANS, st.integers(-1000, 1000).filter(bool))
def test_spans_add_scale_and_divide_as_their_nanoseconds_do(a: Timedelta, b: Timedelta, n: int) -> None:
    assert (a + b).ns == a.ns + b.ns
    assert (a - b).ns == a.ns - b.ns
    assert (-a).ns == -a.ns
    assert a * n == n * a == Timedelta(a.ns * n)
    assert (a // n).ns == a.ns // n
    if b:
        assert a // b == a.ns // b.ns
        assert (a % b).ns == a.ns % b.ns
        assert a / b == a.ns / b.ns


@given(SPANS, st.integers(-1000, 1000).filter(bool))
def test_a_span_divided_by_a_number_is_rounded_to_the_nearest_nanosecond(span: Timedelta, n: int) -> None:
    assert abs(2 * ((span / n).ns * n - span.ns)) <= abs(n)


def test_a_span_scales_by_a_float() -> None:
    assert Timedelta.from_s(10) * 0.25 == 2.5 * Timedelta.from_s(1) == Timedelta.from_ms(2500)
    assert Timedelta.from_s(10) / 2.5 == Timedelta.from_s(4)


def test_standard_spans_may_stand_on_the_right_of_ours() -> None:
    second = dt.timedelta(seconds=1)
    assert Timedelta.from_s(2) + second == Timedelta.from_s(3)
    assert Timedelta.from_s(2) - second == second
    assert Timedelta.from_s(2) / second == 2.0
    assert Timedelta.from_s(2) // second == 2
    assert Timedelta.from_ms(2500) % second == Timedelta.from_ms(500)
    assert second < Timedelta.from_s(2) <= dt.timedelta(seconds=2)
    assert Timestamp(0) + second - dt.timedelta(seconds=3) == Timestamp(-2 * 10**9)


@pytest.mark.parametrize(
    "operation",
    [  # what mypy would refuse, too
        lambda span: span + 1,
        lambda span: span - 1.0,
        lambda span: 1 - span,
        lambda span: span * "2",
        lambda span: span * span,
        lambda span: span / "2",
        lambda span: span // 2.0,
        lambda span: span % 2,
        lambda span: span < 1,
        lambda span: span >= "1s",
        lambda span: span - Timestamp(0),
        lambda span: Timestamp(0) + Timestamp(0),  # type: ignore[operator]
        lambda span: Timestamp(0) - 1,  # type: ignore[operator]
        lambda span: Timestamp(0) < span,
        lambda span: Timestamp(0) > 5,  # type: ignore[operator]
    ],
)
def test_spans_and_times_do_not_mix_with_bare_numbers(operation: object) -> None:
    with pytest.raises(TypeError):
        operation(Timedelta.from_s(1))  # type: ignore[operator]


def test_a_span_is_never_equal_to_a_number_or_a_time() -> None:
    assert Timedelta(1) != 1
    assert Timestamp(1) != 1
    assert Timestamp(1) != Timedelta(1)


@pytest.mark.parametrize("kind", [Timedelta, Timestamp])
@pytest.mark.parametrize("number", [1.0, "1", None])
def test_nanoseconds_are_whole(kind: type, number: object) -> None:
    with pytest.raises(TypeError):
        kind(number)


@given(SPANS, SPANS)
def test_spans_are_ordered_by_their_length(a: Timedelta, b: Timedelta) -> None:
    assert (a < b, a <= b, a > b, a >= b, a == b) == (
        a.ns < b.ns,
        a.ns <= b.ns,
        a.ns > b.ns,
        a.ns >= b.ns,
        a.ns == b.ns,
    )
    assert bool(a) == (a.ns != 0)


@given(TIMES, TIMES)
def test_times_are_ordered_and_hashed_by_their_nanoseconds(a: Timestamp, b: Timestamp) -> None:
    assert (a < b, a <= b, a == b) == (a.posix_ns < b.posix_ns, a.posix_ns <= b.posix_ns, a.posix_ns == b.posix_ns)
    assert a + (b - a) == b
    assert (b - a) + a == b
    assert len({a, Timestamp(a.posix_ns)}) == 1


def test_the_units_of_a_span_and_a_time_agree() -> None:
    span = Timedelta(1_500_000_000)
    assert (span.s, span.ms, span.us, span.ns) == (1.5, 1500.0, 1.5e6, 1_500_000_000)
    assert Timedelta.from_s(1.5) == Timedelta.from_ms(1500) == Timedelta.from_us(1.5e6) == span
    when = Timestamp(1_500_000_000)
    assert (when.posix, when.posix_ms, when.posix_us, when.posix_ns) == (1.5, 1500.0, 1.5e6, 1_500_000_000)
    assert Timestamp.from_posix_seconds(1.5) == when
    assert when % Timedelta.from_s(1) == Timedelta.from_ms(500)
    assert str(span) == "1.5s"
    assert repr(span) == "Timedelta(1500000000)"
    assert repr(when) == "Timestamp(1500000000)"


@pytest.mark.parametrize(
    ("text", "ns"),
    [
        ("1970-01-01T00:00:00Z", 0),
        ("1970-01-01T00:00:00.000000001Z", 1),
        ("1969-12-31T23:59:59.999999999Z", -1),
        ("2026-11-21T10:00:00.123456789+01:00", 1795251600_123456789),
        ("2026-11-21 09:00:00,5Z", 1795251600_500000000),
        ("20261121T090000.25Z", 1795251600_250000000),
        ("2026-11-21T09:00Z", 1795251600_000000000),
        ("2026-11-21T09:00:00.1234567899Z", 1795251600_123456789),
        (" 2026-11-21T09:00:00Z ", 1795251600_000000000),
    ],
)
def test_a_time_is_read_from_iso_8601_to_the_nanosecond(text: str, ns: int) -> None:
    assert Timestamp.from_iso8601(text).posix_ns == ns


@given(TIMES)
def test_a_time_comes_back_from_its_iso_text(when: Timestamp) -> None:
    text = when.isoformat()
    assert len(text) == len("2026-11-21T10:00:00.123456789Z")
    assert Timestamp.from_iso8601(text) == when
    assert str(when) == text


@given(st.datetimes(timezones=OFFSETS).filter(lambda when: 1 < when.year < 9999))
def test_a_datetime_of_any_zone_comes_back_as_the_same_time(when: dt.datetime) -> None:
    assert Timestamp.from_datetime(when).datetime == when.astimezone(dt.UTC)


@pytest.mark.parametrize("text", ["", "yesterday", "2026-13-01T00:00:00Z", "2026-11-21T25:00:00.5Z", "12:00:00.5"])
def test_what_is_no_iso_time_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(ValueError, match="is not an ISO 8601 time, like"):
        Timestamp.from_iso8601(text)


@pytest.mark.parametrize("text", ["2026-11-21T10:00:00", "2026-11-21T10:00:00.5", "2026-11-21"])
def test_an_iso_time_without_a_zone_is_refused_with_the_remedy(text: str) -> None:
    with pytest.raises(TypeError, match=r"has no time zone: add 'Z'") as refused:
        Timestamp.from_iso8601(text)
    assert repr(text) in str(refused.value)


@given(st.text() | st.from_regex(r"[0-9T:.,+-]{1,40}Z?", fullmatch=True))
def test_any_text_is_a_time_or_our_error(text: str) -> None:
    with contextlib.suppress(ValueError, TypeError):
        Timestamp.from_iso8601(text)


def test_naive_and_aware_datetimes_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "CET-1")
    time.tzset()
    try:
        assert Timestamp.from_local_datetime(NAIVE) == Timestamp(1795251600 * 10**9)
    finally:
        monkeypatch.undo()
        time.tzset()
    with pytest.raises(TypeError, match="use from_local_datetime"):
        Timestamp.from_datetime(NAIVE)
    with pytest.raises(TypeError, match="use from_datetime"):
        Timestamp.from_local_datetime(dt.datetime(2026, 11, 21, 10, tzinfo=dt.UTC))


def test_now_ago_and_from_now_stand_in_order() -> None:
    before = Timestamp(time.time_ns())
    now = Timestamp.now()
    hour = Timedelta.from_s(3600)
    assert before <= now <= Timestamp(time.time_ns())
    assert Timestamp.ago(hour) < now < Timestamp.from_now(hour)
    assert Timedelta(0) <= Timestamp.from_now(hour) - now - hour < hour
