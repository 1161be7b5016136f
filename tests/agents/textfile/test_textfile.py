# SPDX-License-Identifier: MIT
import asyncio
import logging
import os
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from agents.foreign.samples import PORTION
from agents.metric import MetricTable
from agents.textfile import files as textfiles
from agents.textfile import source as textfile
from agents.textfile.source import TextfileConfig, TextfileSource
from bus.errors import ConfigError
from bus.timestamp import NS_PER_S
from tests.agents.sampled import Sampled, until

GOLDEN = Path(__file__).parents[1] / "fixtures" / "names" / "textfile.txt"
NOW_S = 1_700_000_000


class Folder:
    """A folder with metrics that somebody writes."""

    def __init__(self, path: Path) -> None:
        path.mkdir()
        self.path = path

    def __call__(self, name: str) -> str:
        return str(self.path / name)

    def write(self, name: str, text: str, second: float = NOW_S) -> None:
        (self.path / name).write_text(text)
        os.utime(self.path / name, ns=(0, int(second * NS_PER_S)))


@pytest.fixture
def folder(tmp_path) -> Folder:
    return Folder(tmp_path / "metrics")


@pytest.fixture
async def textfile_source(host, monkeypatch) -> AsyncIterator[Callable[..., tuple[TextfileSource, Sampled]]]:
    made: list[TextfileSource] = []

    def textfile_source(*files: Any, **config: Any) -> tuple[TextfileSource, Sampled]:
        source = host.source(TextfileSource, {"files": list(files), **config})
        made.append(source)
        return source, Sampled(source, monkeypatch)

    yield textfile_source
    for source in made:
        await source.teardown()


async def test_the_names_are_as_ever_and_all_described(textfile_source, folder) -> None:
    folder.write("job.prom", '# TYPE jobs gauge\njobs{queue="a"} 3\n')
    folder.write("backup.txt", "size 12\nlast.duration 3\n")
    _, sampled = textfile_source(folder("*"))
    names = sorted(await sampled.tick(NOW_S))
    assert names == GOLDEN.read_text().split()
    table = MetricTable(TextfileSource.metrics)
    assert {table.find(name) for name in names} == set(TextfileSource.metrics)


async def test_values_without_a_time_hold_and_those_with_one_count_once(textfile_source, folder) -> None:
    folder.write("job", f"a 1\nb 2 {NOW_S - 60}\n")
    _, sampled = textfile_source(folder("job"))
    for second in (NOW_S, NOW_S + 1):
        reading = await sampled.tick(second)
        assert (reading["job.a"], reading["job.up"]) == (1.0, 1.0)
    assert sampled.of("job.a") == [(NOW_S, 1.0), (NOW_S + 1, 1.0)]
    assert sampled.of("job.b") == [(NOW_S - 60, 2.0)]
    folder.write("job", f"a 5\nb 6 {NOW_S + 1}\n")
    await sampled.tick(NOW_S + 2)
    assert sampled.of("job.a")[-1] == (NOW_S + 2, 5.0)
    assert sampled.of("job.b")[-1] == (NOW_S + 1, 6.0)


async def test_how_old_a_file_is(textfile_source, folder) -> None:
    folder.write("old", "a 1\n", NOW_S - 90.5)
    folder.write("future", "a 1\n", NOW_S + 100)
    _, sampled = textfile_source(folder("*"))
    reading = await sampled.tick(NOW_S)
    assert (reading["old.age"], reading["future.age"]) == (90.5, 0.0)


async def test_a_file_that_is_too_old_has_no_points_until_it_is_written_again(textfile_source, folder, caplog) -> None:
    caplog.set_level(logging.INFO)
    folder.write("job", "a 1\n", NOW_S - 10)
    _, sampled = textfile_source({"path": folder("job"), "max_age": 10.0})
    assert (await sampled.tick(NOW_S))["job.a"] == 1.0
    for second in (NOW_S + 1, NOW_S + 2):
        assert await sampled.tick(second) == {"job.up": 0.0, "job.age": second - NOW_S + 10}
    folder.write("job", "a 1\n", NOW_S + 3)
    assert await sampled.tick(NOW_S + 3) == {"job.up": 1.0, "job.age": 0.0, "job.a": 1.0}
    assert len(caplog.messages) == 2
    assert "not written for more than 10 s" in caplog.messages[0]
    assert "works again" in caplog.messages[1]


@pytest.mark.parametrize(
    ("text", "up"), [("", 1.0), ("a 1\nbad\n", 1.0), ("bad\n", 0.0), ("# TYPE a gauge\nnonsense here\n", 0.0)]
)
async def test_a_file_is_up_unless_nothing_in_it_makes_sense(textfile_source, folder, text: str, up: float) -> None:
    folder.write("job", text, NOW_S - 1)
    _, sampled = textfile_source(folder("job"))
    reading = await sampled.tick(NOW_S)
    assert (reading["job.up"], reading["job.age"]) == (up, 1.0)


async def test_a_file_that_fails_costs_only_itself_and_one_line_in_the_log(textfile_source, folder, caplog) -> None:
    folder.write("b", "b 1\n")
    source, sampled = textfile_source(folder("a"), folder("b"))
    for second in (NOW_S, NOW_S + 1):
        assert await sampled.tick(second) == {"a.up": 0.0, "b.up": 1.0, "b.age": second - NOW_S, "b.b": 1.0}
    assert [message for message in caplog.messages if "failed" in message] == [
        f"web1.textfile: file {folder('a')} failed: FileNotFoundError: No such file or directory"
    ]
    assert source.parts.errors == 2


async def test_files_come_and_go(textfile_source, folder) -> None:
    folder.write("a.prom", "x 1\n")
    _, sampled = textfile_source(folder("*.prom"))
    await sampled.tick(NOW_S)
    folder.write("b.prom", "x 2\n")
    os.unlink(folder("a.prom"))
    assert set(await sampled.tick(NOW_S + 1)) == {"b.up", "b.age", "b.x"}


async def test_when_no_file_matches_there_is_nothing_to_measure(textfile_source, folder, caplog) -> None:
    caplog.set_level(logging.INFO)
    source, sampled = textfile_source(folder("*.prom"))
    assert await sampled.tick(NOW_S) == {}
    assert source.vital_signs()["nothingFound"] == f"no file matches {folder('*.prom')}"
    folder.write("a.prom", "x 1\n")
    assert await sampled.tick(NOW_S + 1) == {}
    assert "a.x" in await sampled.tick(NOW_S + 60)


async def test_two_files_of_one_name_have_different_words_and_names_that_are_given_come_first(
    textfile_source, folder, tmp_path
) -> None:
    other = Folder(tmp_path / "other")
    other.write("job.prom", "a 1\n")
    folder.write("job.prom", "b 1\n")
    other.write("second", "c 1\n")
    folder.write("job", "d 1\n")
    _, sampled = textfile_source(folder("job"), folder("*"), other("*"), {"path": other("second"), "name": "job"})
    reading = await sampled.tick(NOW_S)
    assert {name for name in reading if name[-2:] in (".a", ".b", ".c", ".d")} == {
        "job.c",
        "job-2.d",
        "job-3.b",
        "job-4.a",
    }


async def test_names_may_be_new_for_ever_but_not_all_are_taken(textfile_source, folder, monkeypatch, caplog) -> None:
    monkeypatch.setattr(textfile, "MAX_PATHS", 2)
    _, sampled = textfile_source(folder("*"))
    for number in range(4):
        folder.write(f"f{number}", "a 1\n")
        await sampled.tick(NOW_S + number)
    assert {name for _, name, _ in sampled.points if name.endswith(".a")} == {"f0.a", "f1.a"}
    assert len([message for message in caplog.messages if "there were 2 files since the start" in message]) == 1


async def test_a_pattern_with_too_many_files_is_said_once(textfile_source, folder, monkeypatch, caplog) -> None:
    caplog.set_level(logging.INFO)
    for module in (textfile, textfiles):
        monkeypatch.setattr(module, "MAX_FILES", 1)
    for name in "ab":
        folder.write(name, "x 1\n")
    _, sampled = textfile_source(folder("*"))
    for second in (NOW_S, NOW_S + 1):
        assert set(await sampled.tick(second)) == {"a.up", "a.age", "a.x"}
    assert len(caplog.messages) == 1
    assert "more than 1 files; the rest is left out" in caplog.messages[0]
    os.unlink(folder("a"))
    await sampled.tick(NOW_S + 2)
    assert "works again" in caplog.messages[-1]


async def test_units_are_declared_and_the_sources_own_names_win(textfile_source, folder) -> None:
    folder.write("job", "size 1\nage 77\nup 0\n", NOW_S - 2)
    _, sampled = textfile_source({"path": folder("job"), "unit": "B", "description": "of the job"})
    assert await sampled.tick(NOW_S) == {"job.size": 1.0, "job.up": 1.0, "job.age": 2.0}
    assert (sampled.about("job.size")["unit"], sampled.about("job.age")["unit"]) == ("B", "s")
    assert sampled.about("job.size")["description"] == "of the job"


async def test_another_configuration_takes_effect_at_once(textfile_source, folder) -> None:
    for name in "ab":
        folder.write(name, "x 1\n")
    source, sampled = textfile_source(folder("a"))
    await sampled.tick(NOW_S)
    files = [{"path": folder("b"), "name": "other", "unit": "s"}]
    await source.reconfigure(TextfileConfig.load({"prefix": "web1", "files": files}))
    assert set(await sampled.tick(NOW_S + 1)) == {"other.up", "other.age", "other.x"}
    files = [{"path": folder("b"), "name": "other", "unit": "B"}]
    await source.reconfigure(TextfileConfig.load({"prefix": "web1", "files": files}))
    await sampled.tick(NOW_S + 2)
    assert sampled.about("other.x")["unit"] == "B"


async def test_a_reading_under_a_configuration_that_is_no_longer_in_force_is_not_sampled(
    textfile_source, folder, monkeypatch
) -> None:
    gate, began = threading.Event(), threading.Event()
    really = textfiles.read_regular

    def wait(path: str) -> tuple[bytes, int]:
        began.set()
        gate.wait(20)
        return really(path)

    monkeypatch.setattr(textfiles, "read_regular", wait)
    for name in "ab":
        folder.write(name, "x 1\n")
    source, sampled = textfile_source(folder("a"), period=60.0)
    update = asyncio.create_task(sampled.tick(NOW_S))
    await until(began.is_set)
    await source.reconfigure(TextfileConfig.load({"prefix": "web1", "files": [folder("b")]}))
    gate.set()
    assert await update == {}
    assert set(await sampled.tick(NOW_S + 1)) == {"b.up", "b.age", "b.x"}


async def test_a_configuration_that_comes_while_a_long_text_is_taken_ends_the_reading(
    textfile_source, folder, monkeypatch
) -> None:
    folder.write("a", "".join(f"x{number} 1\n" for number in range(PORTION + 1)))
    folder.write("b", "x 1\n")
    source, sampled = textfile_source(folder("a"), {"path": folder("b"), "name": "other"})
    new = TextfileConfig.load({"prefix": "web1", "files": [folder("b")]})
    took, tasks = source.take, []

    def take(*reading: Any) -> None:
        took(*reading)
        tasks.append(asyncio.create_task(source.reconfigure(new)))
        monkeypatch.setattr(source, "take", took)

    monkeypatch.setattr(source, "take", take)
    reading = await sampled.tick(NOW_S)
    assert (len(reading), {name.partition(".")[0] for name in reading}) == (PORTION + 3, {"a"})
    await asyncio.gather(*tasks)
    assert set(await sampled.tick(NOW_S + 1)) == {"b.up", "b.age", "b.x"}


def test_without_files_it_says_what_to_do(host) -> None:
    missing = host.source(TextfileSource).missing
    assert missing == 'no files; name them: [textfile-source] files = ["/var/lib/metrics/*.prom", ...]'
    assert host.source(TextfileSource, {"files": ["/a"]}).missing == ""


def test_files_do_not_come_over_the_bus() -> None:
    assert TextfileConfig.local_only == {"files"}


@pytest.mark.parametrize(
    ("files", "cause"),
    [
        (["/a", {"path": "/a", "name": "b"}], "'/a' is listed twice"),
        ([{"path": "/a", "name": "c"}, {"path": "/b", "name": "c"}], "two are called 'c'"),
        ([""], "names no file"),
        (["a\0"], "NUL"),
        ([5], "files"),
        ([f"/{number}" for number in range(101)], "files"),
    ],
)
def test_files_that_cannot_be_read_are_refused(files, cause: str) -> None:
    with pytest.raises(ConfigError, match=cause):
        TextfileConfig.load({"files": files})
    with pytest.raises(ConfigError, match="max_delay"):
        TextfileConfig.load({"max_delay": -1})
