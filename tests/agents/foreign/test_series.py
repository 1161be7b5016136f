# SPDX-License-Identifier: MIT
import re
import subprocess
import sys
from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.foreign import series
from agents.foreign.series import LONGEST_NAME, hashed, series_name, unit_of
from bus.names import is_metric


def test_a_series_is_called_by_its_name_and_its_labels_by_the_labels_names() -> None:
    name = series_name("node_cpu_seconds_total", {"mode": "idle", "cpu": "0"})
    assert name == "node_cpu_seconds_total.cpu_0.mode_idle"


@pytest.mark.parametrize(
    ("value", "word"),
    [
        ("eth0", "eth0"),
        ("x86_64", "x86_64"),
        ("web-1", "web-1"),
        ("/", "_"),
        ("/dev/sda1", "_dev_sda1"),
        ("0.5", "0_5"),
        ("127.0.0.1", "127_0_0_1"),
        ("+Inf", "_Inf"),
    ],
)
def test_a_word_shows_what_it_stands_for(value: str, word: str) -> None:
    assert series_name("m", {"l": value}) == f"m.l_{word}"


@pytest.mark.parametrize(
    "value", ["eth0:1", "_dev_sda1", "0_5", "_Inf", "/Inf", "a b", "12.5 %", "/var/log_old", "é", 'a"b', "\n"]
)
def test_a_word_that_could_stand_for_another_value_ends_in_a_hash(value: str) -> None:
    assert re.fullmatch(r"m\.l_[A-Za-z0-9_-]+-[0-9a-f]{6}", series_name("m", {"l": value}))


def test_values_that_are_cleaned_to_one_word_have_different_names() -> None:
    values = ["a b", "a_b", "a:b", "a.b", "a/b", "/a/b", "_a_b", " a b", "/a_b", "a\tb"]
    names = {value: series_name("m", {"l": value}) for value in values}
    assert [pair for pair in combinations(values, 2) if names[pair[0]] == names[pair[1]]] == []


def test_names_that_are_cleaned_to_one_word_have_different_names() -> None:
    assert series_name("job_rate", {}) == "job_rate"
    assert re.fullmatch(r"job_rate-[0-9a-f]{6}", series_name("job:rate", {}))
    assert re.fullmatch(r"job_rate-[0-9a-f]{6}", series_name("job.rate", {}))


@given(st.dictionaries(st.from_regex(r"[a-z_]{1,8}", fullmatch=True), st.text(min_size=1, max_size=60), max_size=6))
def test_whatever_the_labels_are_the_name_is_one_on_the_bus_and_not_too_long(labels: dict[str, str]) -> None:
    name = series_name("node_thing", labels)
    assert is_metric(name)
    assert len(name) <= LONGEST_NAME
    assert name == series_name("node_thing", dict(reversed(labels.items())))


def test_a_name_that_is_too_long_is_cut_and_stays_distinct() -> None:
    names = {series_name("m", {"path": "x" * 300, "n": str(number)}, 50) for number in range(100)}
    assert len(names) == 100
    assert {len(name) for name in names} == {50}
    assert {len(series_name("m", {"a": "x" * 300, "b": str(number)}, 50)) for number in range(9)} == {50}
    assert len({series_name("m", {"a": "x" * 300, "b": str(number)}, 50) for number in range(9)}) == 9


def test_a_name_of_just_the_length_is_not_cut() -> None:
    assert series_name("m", {"a": "x" * 46}, 50) == "m.a_" + "x" * 46
    assert series_name("m", {"a": "x" * 47}, 50) != "m.a_" + "x" * 47


def test_a_cut_leaves_no_empty_word() -> None:
    assert re.fullmatch(r"abc-[0-9a-f]{10}", hashed("abc.defghijkl", "identity", 15))


def test_words_of_what_is_long_are_not_kept() -> None:
    """An exporter may have a new id of 8,000 characters in each sample, for ever."""
    kept = [series._kept_name_word, series._kept_label_word]
    for function in kept:
        function.cache_clear()
    series_name("n" * 201, {"l": "v" * 200})
    assert [function.cache_info().currsize for function in kept] == [0, 0]
    series_name("n" * 200, {"l": "v" * 199})
    assert [function.cache_info().currsize for function in kept] == [1, 1]


def test_a_name_is_the_same_in_every_process() -> None:
    program = "from agents.foreign.series import series_name as s; print(s('a:b', {'x': 'é', 'y': 'z' * 300}))"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == series_name("a:b", {"x": "é", "y": "z" * 300})


@pytest.mark.parametrize(
    ("name", "type_", "stated", "unit"),
    [
        ("node_memory_MemFree_bytes", "gauge", "", "B"),
        ("node_network_receive_bytes_total", "counter", "", "B"),
        ("node_cpu_seconds_total", "counter", "", "s"),
        ("node_hwmon_temp_celsius", "gauge", "", "Cel"),
        ("cache_hit_ratio", "gauge", "", "1"),
        ("battery_percent", "gauge", "", "%"),
        ("psu_volts", "gauge", "", "V"),
        ("psu_amperes", "gauge", "", "A"),
        ("energy_joules_total", "counter", "", "J"),
        ("node_cpu_frequency_hertz", "gauge", "", "Hz"),
        ("fan_rpm", "gauge", "", "1/min"),
        ("disk_read_bytes_per_second", "gauge", "", "B/s"),
        ("requests_per_second", "gauge", "", "1/s"),
        ("requests_per_minute", "gauge", "", "1/min"),
        ("events_total", "counter", "", "1"),
        ("events_total", "unknown", "", "1"),
        ("events", "counter", "", "1"),
        ("latency_seconds_bucket", "histogram", "", "1"),
        ("latency_seconds_count", "histogram", "", "1"),
        ("latency_seconds_sum", "histogram", "", "s"),
        ("latency_seconds", "summary", "", "s"),
        ("size_bytes_gsum", "gaugehistogram", "", "B"),
        ("size_bytes_gcount", "gaugehistogram", "", "1"),
        ("events_created", "counter", "", "s"),
        ("build_info", "gauge", "", "1"),
        ("build_seconds_info", "info", "", "1"),
        ("power_state", "stateset", "", "1"),
        ("node_load1", "gauge", "", ""),
        ("bytes", "gauge", "", "B"),
        ("node_sum", "gauge", "", ""),
        ("power", "gauge", "watts", "W"),
        ("jobs_widgets", "gauge", "widgets", ""),
    ],
)
def test_the_unit_is_what_is_stated_or_what_the_name_ends_in(name: str, type_: str, stated: str, unit: str) -> None:
    assert unit_of(name, type_, stated) == unit
