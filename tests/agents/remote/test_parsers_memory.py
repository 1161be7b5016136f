# SPDX-License-Identifier: MIT
import pytest

from agents.remote.parsers.memory import MemoryParser, page_bytes
from tests.agents.remote.shell import FixtureShell

KIB = 1024


def process(size: int, pages: int, name: str = "cat") -> str:
    """/proc/self/stat and statm of a process of so many bytes and pages."""
    return f"7 ({name}) R 1 7 7{' 0' * 16} {size} 80 1844\n{pages} 50 40 5 0 30 0\n"


@pytest.fixture
def shell(host) -> FixtureShell:
    made = FixtureShell(host)
    stat, statm = process(100 * 65536, 100).splitlines()
    (host.proc / "self/stat").write_text(stat + "\n")
    (host.proc / "self/statm").write_text(statm + "\n")
    return made


def test_amounts_are_in_bytes(shell) -> None:
    reading = shell.ask(MemoryParser())
    assert (reading["total"], reading["available"], reading["percent"]) == (16e6 * KIB, 10e6 * KIB, 37.5)
    assert (reading["swap.used"], reading["cached"]) == (2e6 * KIB, 5.6e6 * KIB)


def test_what_is_swapped_is_counted_in_pages_of_the_remote_host(shell) -> None:
    parser = MemoryParser()
    assert "swap.in" not in shell.ask(parser)
    shell.host.replace("vmstat", "pswpin 1000", "pswpin 1004")
    reading = shell.ask(parser, after_s=2.0)
    assert (reading["swap.in"], reading["swap.out"]) == (4 * 65536 / 2, 0.0)


@pytest.mark.parametrize("size", [4096, 16384, 65536, 262144])
def test_the_size_of_a_page_is_that_of_a_process_divided_by_its_pages(size: int) -> None:
    assert page_bytes(process(777 * size, 777, "a (b) R 1 2")) == size


@pytest.mark.parametrize(
    "text",
    ["", process(0, 0), process(100 * 4096 + 1, 100), process(100 * 512, 100), process(100 * 5000, 100), "1 2 3\n"],
)
def test_what_cannot_be_the_size_of_a_page_is_an_error(text: str) -> None:
    with pytest.raises(ValueError, match="page"):
        page_bytes(text)


@pytest.mark.parametrize("file", ["vmstat", "self/stat", "self/statm"])
def test_without_what_swap_rates_take_there_are_amounts(file: str, shell, caplog) -> None:
    (shell.host.proc / file).unlink()
    parser = MemoryParser()
    for _ in range(3):
        reading = shell.ask(parser)
    assert reading["total"] == 16e6 * KIB
    assert "swap.in" not in reading
    assert len([record for record in caplog.records if "web1: memory: swap rates failed" in record.message]) == 1


def test_memory_without_its_total_is_an_error(shell) -> None:
    shell.host.replace("meminfo", "MemTotal:", "MemSum:")
    with pytest.raises(ValueError, match="no /proc/meminfo"):
        shell.ask(MemoryParser())
