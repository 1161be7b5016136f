# SPDX-License-Identifier: MIT
import logging
import subprocess
import sys

import pytest

from agents.foreign.lines import Parsed, parse_lines
from agents.foreign.texts import TextConfig, Texts, decoded, is_exposition, parse_text
from agents.host import HostSource
from bus.errors import ConfigError
from bus.timestamp import NS_PER_S, Timestamp
from tests.agents.sampled import Sampled

EXPOSITION = """\
# HELP jobs_total Jobs that were done.
# TYPE jobs_total counter
jobs_total{queue="a"} 3
jobs_total{queue="b"} 4
"""


class TextSource(HostSource):
    """Says what the test gives it."""

    family = "text"
    metrics = ()

    def __init__(self, *arguments, **options) -> None:
        super().__init__(*arguments, **options)
        self.texts = Texts(self, ("up",))
        self.parsed = Parsed()

    def describe(self, name):
        return self.texts.describe(name)

    async def measure(self) -> None:
        await self.texts.take_text("job", "command job", self.parsed)


@pytest.fixture
def source(host) -> TextSource:
    return host.source(TextSource)


@pytest.fixture
def sampled(source, monkeypatch) -> Sampled:
    return Sampled(source, monkeypatch)


def values(parsed: Parsed) -> dict[str, float]:
    return {sample.name: sample.value for sample in parsed.samples}


@pytest.mark.parametrize(
    "text",
    [
        "# TYPE a gauge\na 1\n",
        "a 1\n# HELP a what it is\n",
        "  #  TYPE\ta gauge\n",
        'a{b="c"} 1\n',
        'x 1\n a_b:c {d="e"} 1\n',
    ],
)
def test_a_text_is_prometheus_if_it_has_types_helps_or_labels(text: str) -> None:
    assert is_exposition(text)


@pytest.mark.parametrize(
    "text", ["", "a 1\n", "# TYPEWRITER 1\n", "# the {thing}\n", "a.b{c} 1\n", "1{a} 2\n", "a # TYPE b\n", "a 1 {\n"]
)
def test_all_others_are_lines(text: str) -> None:
    assert not is_exposition(text)


def test_the_format_is_found_out() -> None:
    config = TextConfig()
    assert values(parse_text(EXPOSITION, config)) == {"jobs_total.queue_a": 3.0, "jobs_total.queue_b": 4.0}
    assert values(parse_text("a.b 1\n", config)) == {"a.b": 1.0}
    assert values(parse_text("\ufeffa.b 1\n", config)) == {"a.b": 1.0}


def test_the_format_may_be_said() -> None:
    assert list(values(parse_text(EXPOSITION, TextConfig(format="lines")))) == [
        f"jobs_total_queue__{q}__" for q in "ab"
    ]
    sample = parse_text("a_seconds 1 1700000000000\n", TextConfig(format="prometheus")).samples[0]
    assert (sample.name, sample.time) == ("a_seconds", Timestamp(1_700_000_000 * NS_PER_S))


def test_a_text_that_ends_with_eof_is_openmetrics_whose_times_are_seconds() -> None:
    text = "# TYPE a gauge\na 1 1700000000\n"
    config = TextConfig()
    assert parse_text(text, config).samples[0].time == Timestamp(1_700_000_000 * 1_000_000)
    assert parse_text(text + "# EOF\n", config).samples[0].time == Timestamp(1_700_000_000 * NS_PER_S)


def test_an_exposition_with_a_line_that_makes_no_sense_is_an_error_as_a_whole() -> None:
    with pytest.raises(ValueError, match="nonsense"):
        parse_text(EXPOSITION + "nonsense here\n", TextConfig())


@pytest.mark.parametrize("text", [EXPOSITION.rstrip("\n"), EXPOSITION + "jobs_to"])
def test_a_file_that_may_be_half_written_is_no_exposition(text: str) -> None:
    with pytest.raises(ValueError, match="without a newline"):
        parse_text(text, TextConfig(), may_be_cut=True)
    assert parse_text(EXPOSITION, TextConfig(), may_be_cut=True).samples
    assert parse_text("", TextConfig(format="prometheus"), may_be_cut=True) == Parsed()
    assert parse_lines("a 1\nb 2", may_be_cut=True) == parse_text("a 1\nb 2", TextConfig(), may_be_cut=True)


def test_units_and_descriptions_are_given_where_the_text_has_none() -> None:
    config = TextConfig(unit="B", units={"age": "s"}, description="what the queue says")
    found = {sample.name: (sample.unit, sample.description) for sample in parse_text("size 1\nage 2\n", config).samples}
    assert found == {"size": ("B", "what the queue says"), "age": ("s", "what the queue says")}
    sample = parse_text("# HELP a_bytes its size\n# TYPE a_bytes gauge\na_bytes 1\n", TextConfig(unit="W")).samples[0]
    assert (sample.unit, sample.description) == ("B", "its size")
    sample = parse_text("# TYPE a_bytes gauge\na_bytes 1\n", TextConfig(units={"a_bytes": "kB"})).samples[0]
    assert sample.unit == "kB"


def test_units_belong_to_names() -> None:
    with pytest.raises(ConfigError, match=r"units: 'a b' is not the name of a metric"):
        TextConfig.load({"units": {"a b": "s"}})


def test_bytes_that_are_no_text_become_bad_lines_or_underscores() -> None:
    parsed = parse_lines(decoded(b"a\xff 1\n\xfe\x00\n"))
    assert (values(parsed), parsed.bad) == ({"a___": 1.0}, 1)


async def test_names_that_the_source_has_itself_are_left_out_and_said_once(source, sampled, caplog) -> None:
    caplog.set_level(logging.INFO)
    source.parsed = parse_lines("up 5\na 1\nup.down 3\n")
    for second in (1, 2):
        assert await sampled.tick(second) == {"job.a": 1.0, "job.up.down": 3.0}
    assert len([message for message in caplog.messages if "up: the source has" in message]) == 1
    source.parsed = parse_lines("a 1\n")
    await sampled.tick(3)
    assert "command job, names, works again" in caplog.messages[-1]


async def test_bad_lines_are_logged_once_though_they_differ_and_counted(source, sampled, caplog) -> None:
    for second in range(3):
        source.parsed = parse_lines(f"a 1\nbad {second} x y\n")
        assert await sampled.tick(second) == {"job.a": 1.0}
    assert len(caplog.messages) == 1
    assert "'bad 0 x y': a line is NAME VALUE" in caplog.messages[0]
    assert source.parts.errors == 3
    source.parsed = parse_lines("a 1\n")
    await sampled.tick(4)
    source.parsed = parse_lines("worse\n")
    await sampled.tick(5)
    assert "'worse'" in caplog.messages[-1]


def test_what_parses_prometheus_is_loaded_when_it_is_needed() -> None:
    code = (
        "import sys, agents.exec.source, agents.textfile.source; "
        "print([name for name in ('prometheus_client', 'aiohttp', 'asyncssh', 'pynvml') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"
