# SPDX-License-Identifier: MIT
import contextlib
import math
import subprocess
import sys
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.foreign import exposition
from agents.foreign.exposition import MAX_LINE, ExpositionReader, parse_exposition
from agents.foreign.samples import Sample
from bus.timestamp import Timestamp

TEXT = """\
# HELP node_cpu_seconds_total Seconds the CPUs spent in each mode.
# TYPE node_cpu_seconds_total counter
node_cpu_seconds_total{cpu="0",mode="idle"} 1234.5
node_cpu_seconds_total{cpu="0",mode="user"} 17
# HELP node_load1 1m load average \\\\ # of tasks.
# TYPE node_load1 gauge
node_load1 0.25
"""

OPENMETRICS = """\
# TYPE requests counter
# HELP requests Requests answered.
requests_total{code="200"} 7 1790000000.5 # {trace="x"} 1 1790000000
requests_created{code="200"} 1789999999 1790000000.5
# TYPE power_watts gauge
# UNIT power_watts watts
power_watts 4.5
# TYPE build info
build_info{version="1.2"} 1
# TYPE door stateset
door{door="open"} 0
door{door="shut"} 1
# EOF
"""


def values(samples: list[Sample]) -> dict[str, float]:
    return {sample.name: sample.value for sample in samples}


def only(text: str, **options: bool) -> Sample:
    (sample,) = parse_exposition(text, **options)
    return sample


def test_samples_of_the_text_format() -> None:
    samples = parse_exposition(TEXT)
    assert samples[0] == Sample(
        name="node_cpu_seconds_total.cpu_0.mode_idle",
        value=1234.5,
        unit="s",
        description="Seconds the CPUs spent in each mode.",
        details={"name": "node_cpu_seconds_total", "labels": {"cpu": "0", "mode": "idle"}, "type": "counter"},
    )
    assert values(samples[1:]) == {"node_cpu_seconds_total.cpu_0.mode_user": 17.0, "node_load1": 0.25}
    assert samples[2].description == "1m load average \\ # of tasks."
    assert all(isinstance(sample.value, float) for sample in samples)


def test_samples_of_openmetrics() -> None:
    samples = parse_exposition(OPENMETRICS, openmetrics=True)
    assert values(samples) == {
        "requests_total.code_200": 7.0,
        "requests_created.code_200": 1789999999.0,
        "power_watts": 4.5,
        "build_info.version_1_2": 1.0,
        "door.door_open": 0.0,
        "door.door_shut": 1.0,
    }
    assert samples[0].time == Timestamp(1_790_000_000_500_000_000)
    assert (samples[0].details["type"], samples[0].unit, samples[0].description) == (
        "counter",
        "1",
        "Requests answered.",
    )
    assert [sample.unit for sample in samples[1:]] == ["s", "W", "1", "1", "1"]


def test_the_text_format_has_times_in_milliseconds() -> None:
    assert only("m 1 1790000000123\n").time == Timestamp(1_790_000_000_123_000_000)
    assert only("m 1\n").time is None


@pytest.mark.parametrize("time", ["1790000000.123456789", "1790000000.1"])
def test_times_of_openmetrics_are_exact(time: str) -> None:
    sample = only(f"m 1 {time}\n# EOF\n", openmetrics=True)
    assert sample.time is not None
    assert sample.time.posix_ns == int(time.replace(".", "").ljust(19, "0"))


def test_not_a_number_and_infinity_are_values() -> None:
    nan, above, below = parse_exposition('m{a="1"} NaN\nm{a="2"} +Inf\nm{a="3"} -Inf\n')
    assert math.isnan(nan.value)
    assert (above.value, below.value) == (math.inf, -math.inf)


@pytest.mark.parametrize(("declared", "name"), [("hits", "hits"), ("hits_total", "hits_total")])
def test_a_counter_keeps_the_name_that_it_has_in_the_text(declared: str, name: str) -> None:
    sample = only(f"# TYPE {declared} counter\n{declared} 3\n")
    assert (sample.name, sample.details["name"], sample.details["type"]) == (name, name, "counter")


def test_histograms_and_summaries_are_ordinary_samples() -> None:
    samples = parse_exposition(
        '# TYPE h_seconds histogram\nh_seconds_bucket{le="0.5"} 1\nh_seconds_bucket{le="+Inf"} 2\n'
        'h_seconds_sum 3.5\nh_seconds_count 2\n# TYPE s_bytes summary\ns_bytes{quantile="0.99"} 8\ns_bytes_sum 9\n'
    )
    assert values(samples) == {
        "h_seconds_bucket.le_0_5": 1.0,
        "h_seconds_bucket.le__Inf": 2.0,
        "h_seconds_sum": 3.5,
        "h_seconds_count": 2.0,
        "s_bytes.quantile_0_99": 8.0,
        "s_bytes_sum": 9.0,
    }
    assert [sample.unit for sample in samples] == ["1", "1", "s", "1", "B", "B"]


def test_a_native_histogram_is_left_out() -> None:
    text = (
        "# TYPE h histogram\nh {count:1,sum:2,schema:0,zero_threshold:0.1,zero_count:0,"
        "positive_spans:[0:1],positive_deltas:[1]}\n# TYPE g gauge\ng 5\n# EOF\n"
    )
    assert values(parse_exposition(text, openmetrics=True)) == {"g": 5.0}


def test_names_in_quotes_are_cleaned_and_kept_in_the_details() -> None:
    sample = only('{"my.metric",a="b"} 3\n')
    assert sample.name.startswith("my_metric-")
    assert sample.name.endswith(".a_b")
    assert (sample.details["name"], sample.details["labels"]) == ("my.metric", {"a": "b"})


def test_a_label_without_a_value_says_nothing() -> None:
    assert only('m{a="",b="c"} 1\n').name == "m.b_c"


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0)])
def test_two_series_whose_names_meet_all_the_same_stay_apart_in_any_order(order: tuple[int, ...]) -> None:
    lines = ['m{a="b_c"} 1\n', 'm{a_b="c"} 2\n', 'm{x="y"} 3\n']
    samples = parse_exposition("".join(lines[index] for index in order))
    names = {sample.value: sample.name for sample in samples}
    assert names[3.0] == "m.x_y"
    assert len(set(names.values())) == 3
    assert names == {sample.value: sample.name for sample in parse_exposition("".join(lines))}


VALUES = ["b", "b_b", "b/b", "b.b", "_b", "/b", "b_b_b"]
SERIES = st.tuples(
    st.sampled_from(["m", "m:a"]), st.dictionaries(st.sampled_from(["a", "a_b"]), st.sampled_from(VALUES), max_size=2)
)


@given(st.lists(SERIES, unique_by=repr, max_size=30), st.sampled_from([40, 160]))
def test_two_series_never_have_one_name(wanted: list[tuple[str, dict[str, str]]], longest: int) -> None:
    series = {(name, *sorted(labels.items())): None for name, labels in wanted}
    lines = [(name, ",".join(f'{label}="{value}"' for label, value in labels)) for name, *labels in series]
    text = "".join(f"{name}{{{labels}}} 1\n" for name, labels in lines)
    names = [sample.name for sample in parse_exposition(text, longest=longest)]
    assert len(set(names)) == len(names) == len(series)
    assert max(map(len, names), default=0) <= longest


def test_one_series_that_is_said_twice_keeps_its_name() -> None:
    assert {sample.name for sample in parse_exposition('m{a="b"} 1\nm{a="b"} 2\n')} == {"m.a_b"}


def test_long_labels_and_descriptions_are_cut_in_the_metadata() -> None:
    sample = only(f'# HELP m {"d" * 1000}\n# TYPE m gauge\nm{{a="{"v" * 1000}"}} 1\n')
    assert sample.description == "d" * 499 + "…"
    assert sample.details["labels"] == {"a": "v" * 199 + "…"}


def test_what_is_no_unicode_does_not_get_into_the_metadata() -> None:
    sample = only('m{a="\udcff"} 1\n')
    assert sample.details["labels"] == {"a": "?"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("good 1\nbad one\n", r"line 2, 'bad one': could not convert"),
        ('m{a="b" 1\n', r"line 1, 'm\{a=\"b\" 1'"),
        ('m{a="b",a="c"} 1\n', "line 1, .*Invalid labels"),
        ("# TYPE m\n", "line 1, '# TYPE m': it makes no sense"),
        ("m 1_0\n", "line 1, .*Invalid value"),
        ("<html>\n", "line 1, '<html>'"),
        ("\0\n", "line 1"),
        ("m 1 1e30\nn 2\n", r"m: a time of 1e\+27 s since 1970 is out of all reason"),
        ("m 1 NaN\n", "m: a time of nan s"),
        (f"m {'1' * 400}\n", "m: int too large to convert to float"),
        ('m{a="\x1b[2J"\n', r"line 1, 'm\{a=\"\\x1b\[2J\"': could not convert"),
        ('m{a="\x1b[2J"x} 1\n', r"^line 1, [ -~]*Invalid labels[ -~]*$"),
        ('{"\x1b[2J"} 1 1e30\n', r"^[ -~]*: a time of 1e\+27 s[ -~]*$"),
        (f'm{{a="{"b" * MAX_LINE}"}} 1\n', f"line 1 has {MAX_LINE + 10} characters, more than {MAX_LINE}"),
    ],
)
def test_a_line_that_makes_no_sense_is_named(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_exposition(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("m 1\n", "Missing # EOF"),
        ("m 1\n\n# EOF\n", "line 2, '': Received blank line"),
        ("m 1\n# EOF\nm 2\n", "line 3, 'm 2': Received line after # EOF"),
        ("# TYPE c counter\nc_total -1\n# EOF\n", "line 2, 'c_total -1'"),
    ],
)
def test_openmetrics_is_taken_at_its_word(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_exposition(text, openmetrics=True)


def test_the_number_of_samples_is_bounded() -> None:
    text = "".join(f"m{number} 1\n" for number in range(11))
    assert len(parse_exposition(text, max_samples=11)) == 11
    with pytest.raises(ValueError, match="more than 10 samples"):
        parse_exposition(text, max_samples=10)


@given(st.text(alphabet=st.sampled_from('am{}="\\,#1.e+-\n\t _NaTYPEHL'), max_size=80), st.booleans())
def test_any_text_is_parsed_or_refused_with_a_value_error(text: str, openmetrics: bool) -> None:
    with contextlib.suppress(ValueError):
        assert all(isinstance(sample, Sample) for sample in parse_exposition(text, openmetrics=openmetrics))


# -- the same exporter again and again -----------------------------------------------------------------


@pytest.fixture
def parsed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the library was asked to parse."""
    texts: list[str] = []
    real: Callable[..., list[Sample]] = exposition.parse_exposition
    monkeypatch.setattr(
        exposition, "parse_exposition", lambda text, **options: texts.append(text) or real(text, **options)
    )
    return texts


def test_a_reader_parses_again_only_when_more_than_values_has_changed(parsed: list[str]) -> None:
    reader = ExpositionReader()
    for text in (TEXT, TEXT.replace("1234.5", "1240.0").replace("0.25", "NaN"), TEXT.replace("17", "+Inf")):
        assert repr(reader.read(text)) == repr(parse_exposition(text))
    assert len(parsed) == 1
    more = TEXT + "node_load5 1\n"
    assert reader.read(more) == parse_exposition(more)
    assert reader.read(more.replace("gauge", "counter"))[2].details["type"] == "counter"
    assert len(parsed) == 3


def test_a_reader_gives_the_same_object_again_for_what_has_not_changed() -> None:
    reader = ExpositionReader()
    first = reader.read("m 1\nn 2\n")
    second = reader.read("m 1.0\nn 3\n")
    assert (second[0] is first[0], second[1] is first[1]) == (True, False)


@pytest.mark.parametrize(
    ("first", "then"),
    [
        ("m 5 5\n", "m 5 6\n"),
        ("m 1\nn 2\n", "m 1\nn 2 3\n"),
        ("m 1\n", "m one\n"),
        ("m 1\n", "m 1_0\n"),
        ("m 1\n", "m \n"),
        ("m 1\n", "n 1\n"),
        ("m 1\nn 1\n", "n 2\nm 2\n"),
        ("m 1\nm 1\n", "m 2\nm 3\n"),
        ('m{a="b c"}3\n', 'm{a="b d"}3\n'),
        ("m\t1\n", "m\t2\n"),
        (" # TYPE m gauge\nm 1\n", " # TYPE m counter\nm 2\n"),
        ('m{a=" # "} 1\n', 'm{a=" # "} 2\n'),
    ],
)
def test_a_reader_says_what_the_parser_says(first: str, then: str) -> None:
    reader = ExpositionReader()

    def outcome(read: Callable[[str], list[Sample]], text: str) -> str:
        try:
            return repr(read(text))
        except ValueError as error:
            return repr(error)

    for text in (first, then, first, then):
        assert outcome(reader.read, text) == outcome(parse_exposition, text)


def test_a_reader_takes_exemplars_for_no_values() -> None:
    text = '# TYPE c counter\nc_total 1 # {a="b"} 1\n# EOF\n'
    reader = ExpositionReader()
    reader.read(text, openmetrics=True)
    assert reader.read(text.replace("} 1", "} 2"), openmetrics=True)[0].value == 1.0


def test_a_reader_tells_the_formats_apart() -> None:
    reader = ExpositionReader()
    reader.read("m 1\n")
    with pytest.raises(ValueError, match="Missing # EOF"):
        reader.read("m 1\n", openmetrics=True)


def test_a_reader_leaves_out_what_is_not_wanted() -> None:
    reader = ExpositionReader(wanted=lambda name: name.startswith("node_load"))
    assert values(reader.read(TEXT)) == {"node_load1": 0.25}
    assert values(reader.read(TEXT.replace("0.25", "0.5"))) == {"node_load1": 0.5}


def test_a_reader_has_the_limits_that_it_is_given() -> None:
    with pytest.raises(ValueError, match="more than 2 samples"):
        ExpositionReader(max_samples=2).read(TEXT)
    assert max(len(sample.name) for sample in ExpositionReader(longest=30).read(TEXT)) == 30


def test_the_library_is_not_loaded_before_it_is_needed() -> None:
    program = "import sys, agents.prometheus.source; print(sorted({'aiohttp', 'prometheus_client'} & set(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
