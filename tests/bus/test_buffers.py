# SPDX-License-Identifier: MIT
"""The chunks of a source: what is accepted, when it is ready, and that nothing is lost or doubled."""

import math
import re
from array import array
from collections import defaultdict
from contextlib import nullcontext
from decimal import Decimal
from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from bus.buffers import Buffers, to_column
from bus.timestamp import Timestamp

S = 1_000_000_000
NOW = 1_790_000_000 * S


class Told:
    """Counts how often the buffers say that something is ready."""

    def __init__(self) -> None:
        self.times = 0

    def __call__(self) -> None:
        self.times += 1


def make(chunk_size: int | None = 1, limit: int = 1_000_000) -> tuple[Buffers, Told]:
    told = Told()
    return Buffers(chunk_size, limit, told), told


# -- chunk sizes -------------------------------------------------------------------------------------------


def test_a_chunk_is_ready_at_its_chunk_size_and_not_before():
    buffers, told = make(chunk_size=3)
    buffers.add("a.b", 1, 1.0)
    buffers.add("a.b", 2, 2.0)
    assert not told.times
    assert buffers.take_ready() == []
    buffers.add("a.b", 3, 3.0)
    assert told.times == 1
    assert buffers.take_ready() == [("a.b", [1, 2, 3], [1.0, 2.0, 3.0])]
    assert buffers.points == 0


@pytest.mark.parametrize("size", ["1", 1.0, True, [1]])
def test_a_chunk_size_that_is_no_integer_is_a_type_error(size):
    buffers, _ = make()
    with pytest.raises(TypeError, match="chunk_size must be None or a positive integer"):
        buffers.chunk_size = size
    with pytest.raises(TypeError, match="chunk_size must be None or a positive integer"):
        buffers["a.b"].chunk_size = size
    with pytest.raises(TypeError, match="chunk_size must be None or a positive integer"):
        Buffers(size, 10, Told())
    assert buffers.chunk_size == 1
    assert buffers["a.b"].chunk_size == 1


@pytest.mark.parametrize("size", [0, -1])
def test_a_chunk_size_below_one_is_a_value_error(size):
    buffers, _ = make()
    with pytest.raises(ValueError, match=f"at least 1, not {size}"):
        buffers.chunk_size = size
    with pytest.raises(ValueError, match=f"at least 1, not {size}"):
        buffers["a.b"].chunk_size = size
    with pytest.raises(ValueError, match=f"at least 1, not {size}"):
        Buffers(size, 10, Told())


def test_one_metric_may_have_a_chunk_size_of_its_own():
    buffers, _ = make(chunk_size=1)
    buffers["a.slow"].chunk_size = 2
    buffers.sample(1, {"a.slow": 1.0, "a.quick": 1.0})
    assert [column[0] for column in buffers.take_ready()] == ["a.quick"]
    buffers.sample(2, {"a.slow": 2.0, "a.quick": 2.0})
    assert buffers.take_ready() == [("a.slow", [1, 2], [1.0, 2.0]), ("a.quick", [2], [2.0])]


def test_the_chunk_size_of_the_source_holds_for_known_metrics_but_not_for_those_with_their_own():
    buffers, _ = make(chunk_size=1)
    buffers["a.own"].chunk_size = 1  # the same number, but said on purpose
    known = buffers["a.known"]
    buffers.chunk_size = 10
    assert known.chunk_size == 10
    assert buffers["a.new"].chunk_size == 10
    assert buffers["a.own"].chunk_size == 1


def test_without_a_chunk_size_only_taking_all_sends():
    buffers, told = make(chunk_size=None)
    for time in range(1, 1001):
        buffers.add("a.b", time, 0.0)
    assert not told.times
    assert buffers.take_ready() == []
    assert buffers.take_all(manual=False) == []
    ((_, times, _),) = buffers.take_all()
    assert times == list(range(1, 1001))


@pytest.mark.parametrize(("before", "after"), [(10, 2), (None, 1), (None, 3)])
def test_a_smaller_chunk_size_sends_what_is_buffered_with_the_next_point(before, after):
    buffers, told = make(chunk_size=before)
    for time in (1, 2, 3):
        buffers.add("a.b", time, 0.0)
    buffers.chunk_size = after
    assert not told.times
    buffers.add("a.b", 4, 0.0)
    assert told.times == 1
    assert buffers.take_ready() == [("a.b", [1, 2, 3, 4], [0.0] * 4)]


def test_a_larger_chunk_size_lets_what_is_buffered_wait():
    buffers, told = make(chunk_size=2)
    buffers.add("a.b", 1, 0.0)
    buffers["a.b"].chunk_size = 3
    buffers.add("a.b", 2, 0.0)
    assert not told.times
    buffers.add("a.b", 3, 0.0)
    assert told.times == 1


def test_points_that_arrive_between_ready_and_taken_go_with_the_chunk_once():
    buffers, _ = make(chunk_size=1)
    buffers.add("a.b", 1, 1.0)
    buffers.add("a.b", 2, 2.0)
    assert buffers.take_ready() == [("a.b", [1, 2], [1.0, 2.0])]
    assert buffers.take_ready() == []
    assert buffers.take_all() == []


def test_what_was_taken_is_not_touched_by_later_points():
    buffers, _ = make(chunk_size=1)
    buffers.add("a.b", 1, 1.0)
    taken = buffers.take_ready()
    buffers.add("a.b", 2, 2.0)
    assert taken == [("a.b", [1], [1.0])]
    assert buffers.take_ready() == [("a.b", [2], [2.0])]


# -- times -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", [0, -1, -S])
def test_an_equal_or_earlier_time_is_refused_by_metric_and_both_times(step):
    buffers, _ = make(chunk_size=10)
    buffers.add("a.b", NOW, 1.0)
    with pytest.raises(ValueError) as refused:
        buffers.add("a.b", NOW + step, 2.0)
    for word in ("a.b", str(Timestamp(NOW)), str(Timestamp(NOW + step)), "strictly increase"):
        assert word in str(refused.value)
    buffers.add("a.b", NOW + 1, 3.0)
    assert buffers.take_all() == [("a.b", [NOW, NOW + 1], [1.0, 3.0])]


def test_the_last_time_is_remembered_when_its_chunk_has_gone():
    buffers, _ = make()
    buffers.add("a.b", NOW, 1.0)
    buffers.take_all()
    with pytest.raises(ValueError, match=r"a\.b"):
        buffers.add("a.b", NOW, 2.0)
    with pytest.raises(ValueError, match=r"a\.b"):
        buffers.add_many("a.b", [NOW, NOW + 1], [1.0, 2.0])
    assert buffers.points == 0


def test_a_sample_that_is_refused_for_one_metric_is_taken_for_all_others():
    buffers, told = make()
    buffers.add("a.late", NOW, 1.0)
    buffers.take_all()
    told.times = 0
    with pytest.raises(ValueError, match=r"a\.late"):
        buffers.sample(NOW, {"a.x": 1.0, "a.late": 2.0, "no metric!": 3.0, "a.y": "text", "a.z": 4.0})  # type: ignore[dict-item]
    assert buffers.take_ready() == [("a.x", [NOW], [1.0]), ("a.z", [NOW], [4.0])]
    assert buffers.points == 0
    assert told.times == 1


@pytest.mark.parametrize("times", [[1, 1], [2, 1], [1, 3, 2], [1, 2, 3, 3]])
def test_columns_whose_times_do_not_increase_are_refused_whole(times):
    buffers, _ = make()
    with pytest.raises(ValueError, match=r"a\.b: .*must strictly increase") as refused:
        buffers.add_many("a.b", times, [0.0] * len(times))
    before, after = next(pair for pair in pairwise(times) if pair[0] >= pair[1])
    assert str(Timestamp(before)) in str(refused.value)
    assert str(Timestamp(after)) in str(refused.value)
    assert buffers.points == 0
    buffers.add_many("a.b", [1], [0.0])
    assert buffers.points == 1


def test_columns_that_begin_too_early_are_refused_by_metric_and_both_times():
    buffers, _ = make(chunk_size=None)
    buffers.add("a.b", NOW, 0.0)
    with pytest.raises(ValueError) as refused:
        buffers.add_many("a.b", [NOW - 1, NOW + 1], [1.0, 2.0])
    for word in ("a.b", str(Timestamp(NOW)), str(Timestamp(NOW - 1))):
        assert word in str(refused.value)
    assert buffers.points == 1


@pytest.mark.parametrize("time", [2**63, 2**200, -(2**63) - 1])
def test_a_time_that_64_bits_cannot_hold_is_refused_when_it_is_sent(time):
    buffers, _ = make()
    with pytest.raises(ValueError, match=r"a\.b"):
        buffers.add("a.b", time, 1.0)
    with pytest.raises(ValueError, match=r"a\.b"):
        buffers.sample(time, {"a.b": 1.0})
    with pytest.raises(ValueError, match=r"a\.b: the times"):
        buffers.add_many("a.b", [time], [1.0])
    assert buffers.take_all() == []


def test_a_time_in_floating_point_is_a_type_error_for_each_way_to_send():
    buffers, _ = make()
    with pytest.raises(TypeError, match="whole number of nanoseconds"):
        buffers.add("a.b", 1.5e18, 1.0)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="whole number of nanoseconds"):
        buffers.sample(1.5e18, {"a.b": 1.0})  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"a\.b: the times .*astype\('int64'\)"):
        buffers.add_many("a.b", np.array([1.5e18]), [1.0])
    assert buffers.take_all() == []


def test_numpy_integers_are_times():
    buffers, _ = make()
    buffers.add("a.b", np.int64(NOW), 1.0)
    buffers.sample(np.int64(NOW + 1), {"a.b": 1.0})
    ((_, times, _),) = buffers.take_all()
    assert times == [NOW, NOW + 1]
    assert {type(time) for time in times} == {int}


# -- values ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (1, 1.0),
        (True, 1.0),
        (-0.0, -0.0),
        (math.inf, math.inf),
        (-math.inf, -math.inf),
        (2**53 + 1, float(2**53)),
        (np.float32(0.5), 0.5),
        (np.float64(0.1), 0.1),
        (np.int16(-3), -3.0),
        (np.bool_(True), 1.0),
        (Decimal("0.25"), 0.25),
        (Fraction(1, 4), 0.25),
        (5e-324, 5e-324),
    ],
)
def test_every_kind_of_number_becomes_a_float(value, expected):
    buffers, _ = make()
    buffers.add("a.b", 1, value)
    buffers.sample(2, {"a.b": value})
    ((_, _, values),) = buffers.take_all()
    assert values == [expected, expected]
    assert {type(taken) for taken in values} == {float}


def test_nan_is_a_value():
    buffers, _ = make()
    buffers.add("a.b", 1, math.nan)
    buffers.sample(2, {"a.b": math.nan})
    buffers.add_many("a.b", [3], [math.nan])
    ((_, times, values),) = buffers.take_all()
    assert times == [1, 2, 3]
    assert all(map(math.isnan, values))


@pytest.mark.parametrize("value", ["1.5", "nan", b"1.5", None, [1.0], {}, 1j])
def test_what_is_no_number_is_a_type_error_that_names_the_metric_and_leaves_no_trace(value):
    buffers, _ = make(chunk_size=None)
    buffers.add("a.b", 1, 1.0)
    with pytest.raises(TypeError, match=rf"a\.b: a value must be a number, not {type(value).__name__}"):
        buffers.add("a.b", 2, value)
    with pytest.raises(TypeError, match=r"a\.b: a value must be a number"):
        buffers.sample(3, {"a.b": value})
    buffers.add("a.b", 2, 2.0)
    assert buffers.take_all() == [("a.b", [1, 2], [1.0, 2.0])]
    assert buffers.points == 0


def test_an_integer_beyond_floating_point_is_a_value_error():
    buffers, _ = make()
    with pytest.raises(ValueError, match=r"a\.b: a value of that size"):
        buffers.add("a.b", 1, 10**400)
    with pytest.raises(ValueError, match=r"a\.b: a value of that size"):
        buffers.sample(1, {"a.b": 10**400})
    with pytest.raises(ValueError, match=r"a\.b: the values"):
        buffers.add_many("a.b", [1], [10**400])
    assert buffers.take_all() == []


@pytest.mark.parametrize("metric", ["", "a..b", "a b", "a.#", "ä.b", "a." + 255 * "x"])
def test_what_is_no_metric_name_is_refused(metric):
    buffers, _ = make()
    for send in (
        lambda: buffers[metric],
        lambda: buffers.add(metric, 1, 1.0),
        lambda: buffers.sample(1, {metric: 1.0}),
        lambda: buffers.add_many(metric, [1], [1.0]),
    ):
        with pytest.raises(ValueError, match="is not a metric name"):
            send()
    assert buffers.take_all() == []


# -- columns -----------------------------------------------------------------------------------------------

DTYPES = ["f2", "f4", "f8", ">f4", ">f8", "i1", "i2", "i4", "i8", ">i8", "u1", "u2", "u4", "u8", "?", "g", "O"]


@pytest.mark.parametrize("dtype", DTYPES)
def test_numpy_values_of_every_type_arrive_as_float64(dtype):
    numbers = np.array([0, 1, 1, 0, 1]).astype(dtype)
    column = to_column("d", numbers, "values")
    assert column.typecode == "d"
    assert list(column) == [0.0, 1.0, 1.0, 0.0, 1.0]


@pytest.mark.parametrize("dtype", ["i1", "i2", "i4", "i8", ">i4", ">i8", "u1", "u2", "u4", "u8", ">u8", "O"])
def test_numpy_times_of_every_integer_type_arrive_as_int64(dtype):
    column = to_column("q", np.array([1, 2, 100]).astype(dtype), "times")
    assert column.typecode == "q"
    assert list(column) == [1, 2, 100]


@pytest.mark.parametrize("part", [np.s_[::2], np.s_[::-1], np.s_[5:2:-1], np.s_[3:3], np.s_[1:]])
def test_views_that_are_not_contiguous_are_read_in_their_own_order(part):
    values = np.linspace(0, 1, 9)
    times = np.arange(9, dtype="i8") * 10
    assert list(to_column("d", values[part], "values")) == values[part].tolist()
    assert list(to_column("q", times[part], "times")) == times[part].tolist()
    table = np.arange(12.0).reshape(4, 3)
    assert list(to_column("d", table[:, 1], "values")) == [1.0, 4.0, 7.0, 10.0]


@pytest.mark.parametrize(
    "numbers",
    [
        [1, 2, 3],
        (1, 2, 3),
        range(1, 4),
        array("q", [1, 2, 3]),
        array("i", [1, 2, 3]),
        memoryview(array("l", [1, 2, 3])),
        bytearray((1, 2, 3)),
        np.array([1, 2, 3]),
        {1: "", 2: "", 3: ""}.keys(),
    ],
    ids=lambda numbers: type(numbers).__name__,
)
def test_any_buffer_or_sequence_of_integers_makes_either_column(numbers):
    assert to_column("q", numbers, "times") == array("q", [1, 2, 3])
    assert to_column("d", numbers, "values") == array("d", [1, 2, 3])


@pytest.mark.parametrize(
    "numbers",
    [
        "123",
        ["1", "2"],
        [None],
        [[1.0], [2.0]],
        5,
        None,
        np.array(["1", "2"]),
        np.array([b"1"]),
        np.array(["x", None], dtype=object),
        np.array(["2026-11-21T10:00:00"], dtype="M8[ns]"),
        np.array([1], dtype="m8[ns]"),
    ],
    ids=repr,
)
def test_columns_of_what_is_no_number_are_type_errors_that_say_which(numbers):
    with pytest.raises(TypeError, match="the times must be numbers"):
        to_column("q", numbers, "the times")
    if not (isinstance(numbers, np.ndarray) and numbers.dtype.kind in "Mm"):
        with pytest.raises(TypeError, match="the values must be numbers"):
            to_column("d", numbers, "the values")


def test_datetime64_times_are_told_what_to_do():
    times = np.array(["2026-11-21T10:00:00"], dtype="M8[ns]")
    with pytest.raises(TypeError, match=re.escape(".astype('int64')")):
        to_column("q", times, "the times")
    (noon,) = to_column("q", times.astype("int64"), "the times")
    assert noon == Timestamp.from_iso8601("2026-11-21T10:00:00Z").posix_ns


@pytest.mark.parametrize("shape", [(), (2, 2), (4, 1)])
def test_columns_have_one_dimension(shape):
    with pytest.raises(ValueError, match=f"values must have one dimension, not {len(shape)}"):
        to_column("d", np.zeros(shape), "values")


def test_times_beyond_64_bits_are_value_errors():
    with pytest.raises(ValueError, match="times: a number does not fit"):
        to_column("q", np.array([2**63], dtype="u8"), "times")
    with pytest.raises(ValueError, match="times: a number does not fit"):
        to_column("q", [2**63], "times")


def test_columns_of_different_lengths_are_refused():
    buffers, _ = make()
    with pytest.raises(ValueError, match=r"a\.b: 2 times but 3 values"):
        buffers.add_many("a.b", [1, 2], [1.0, 2.0, 3.0])
    assert buffers.points == 0


def test_empty_columns_add_nothing():
    buffers, told = make()
    buffers.add_many("a.b", [], [])
    buffers.add_many("a.b", np.array([], dtype="i8"), np.array([]))
    buffers.sample(1, {})
    assert not told.times
    assert buffers.take_all() == []


def test_the_columns_of_the_caller_stay_his():
    times, values = array("q", [1, 2]), array("d", [1.0, 2.0])
    buffers, _ = make(chunk_size=None)
    buffers.add_many("a.b", times, values)
    buffers.add("a.b", 3, 3.0)
    times[0], values[0] = 9, 9.0
    assert buffers.take_all() == [("a.b", [1, 2, 3], [1.0, 2.0, 3.0])]
    assert len(times) == len(values) == 2


def test_many_points_at_once_make_one_chunk_however_many():
    buffers, told = make(chunk_size=10)
    buffers.add_many("a.b", np.arange(1000), np.zeros(1000))
    assert told.times == 1
    ((_, times, values),) = buffers.take_ready()
    assert len(times) == len(values) == 1000


# -- the limit ---------------------------------------------------------------------------------------------


def test_past_the_limit_every_chunk_must_go_even_those_that_only_a_flush_sends():
    buffers, told = make(chunk_size=None, limit=10)
    for time in range(1, 6):
        buffers.sample(time, {"a.x": 1.0, "a.y": 1.0})
    assert not told.times
    assert not buffers.is_full
    buffers.add("a.x", 6, 1.0)
    assert buffers.is_full
    assert told.times == 1
    assert sum(len(times) for _, times, _ in buffers.take_ready()) == 11
    assert not buffers.is_full
    assert buffers.points == 0


# -- all together ------------------------------------------------------------------------------------------

METRICS = st.sampled_from(["a.x", "a.y", "b.z"])
TIMES = st.integers(0, 60)
SIZES = st.sampled_from([None, 1, 2, 5])


class AnySource(RuleBasedStateMachine):
    """Whatever is done in whatever order: each accepted point is taken once, in order, and counted."""

    @initialize(limit=st.integers(1, 30))
    def begin(self, limit):
        self.buffers = Buffers(1, limit, lambda: None)
        self.accepted = defaultdict(list)
        self.taken = defaultdict(list)

    def may_follow(self, metric, time):
        return not self.accepted[metric] or time > self.accepted[metric][-1]

    @rule(metric=METRICS, time=TIMES)
    def add(self, metric, time):
        if self.may_follow(metric, time):
            self.buffers.add(metric, time, time)
            self.accepted[metric].append(time)
        else:
            with pytest.raises(ValueError):
                self.buffers.add(metric, time, time)

    @rule(metrics=st.sets(METRICS), time=TIMES)
    def sample(self, metrics, time):
        good = [metric for metric in metrics if self.may_follow(metric, time)]
        with nullcontext() if len(good) == len(metrics) else pytest.raises(ValueError):
            self.buffers.sample(time, dict.fromkeys(metrics, time))
        for metric in good:
            self.accepted[metric].append(time)

    @rule(metric=METRICS, times=st.one_of(st.sets(TIMES).map(sorted), st.lists(TIMES)))
    def add_many(self, metric, times):
        is_good = not times or (times == sorted(set(times)) and self.may_follow(metric, times[0]))
        with nullcontext() if is_good else pytest.raises(ValueError):
            self.buffers.add_many(metric, times, times)
        if is_good:
            self.accepted[metric] += times

    @rule(metric=METRICS, size=SIZES)
    def resize(self, metric, size):
        self.buffers[metric].chunk_size = size

    @rule(size=SIZES)
    def resize_all(self, size):
        self.buffers.chunk_size = size

    @rule()
    def take_ready(self):
        self.take(self.buffers.take_ready())

    @rule(manual=st.booleans())
    def take_all(self, manual):
        self.take(self.buffers.take_all(manual=manual))

    def take(self, columns):
        for metric, times, values in columns:
            assert times
            assert values == [float(time) for time in times]
            self.taken[metric] += times

    @invariant()
    def counted(self):
        if hasattr(self, "buffers"):
            points = sum(map(len, self.accepted.values())) - sum(map(len, self.taken.values()))
            assert self.buffers.points == points

    def teardown(self):
        if hasattr(self, "buffers"):
            self.take(self.buffers.take_all())
            assert {metric: times for metric, times in self.taken.items() if times} == {
                metric: times for metric, times in self.accepted.items() if times
            }


TestAnySource = AnySource.TestCase
