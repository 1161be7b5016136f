# SPDX-License-Identifier: MIT
import pytest

from agents.memory import PAGE_BYTES, MemorySource, amounts, parse_meminfo, parse_swapped

KIB = 1024


def test_amounts_of_the_fixture_host(host) -> None:
    assert host.read(host.source(MemorySource)) == {
        "total": 16_000_000 * KIB,
        "available": 10_000_000 * KIB,
        "used": 6_000_000 * KIB,
        "percent": 37.5,
        "free": 4_000_000 * KIB,
        "active": 6_000_000 * KIB,
        "inactive": 3_000_000 * KIB,
        "buffers": 500_000 * KIB,
        "cached": 5_600_000 * KIB,
        "shared": 300_000 * KIB,
        "slab": 800_000 * KIB,
        "swap.total": 8_000_000 * KIB,
        "swap.used": 2_000_000 * KIB,
        "swap.free": 6_000_000 * KIB,
        "swap.percent": 25.0,
    }


def test_swap_rates_since_the_last_reading(host) -> None:
    source = host.source(MemorySource)
    host.read(source)
    host.replace("vmstat", "pswpin 1000", "pswpin 1010")
    host.replace("vmstat", "pswpout 2000", "pswpout 2004")
    reading = host.read(source, after_s=2.0)
    assert (reading["swap.in"], reading["swap.out"]) == (5.0 * PAGE_BYTES, 2.0 * PAGE_BYTES)


def test_without_swap_nothing_of_it_is_used() -> None:
    found = amounts({"MemTotal": 100, "MemFree": 50, "SwapTotal": 0, "SwapFree": 0})
    assert (found["swap.used"], found["swap.percent"]) == (0, 0.0)


@pytest.mark.parametrize("info", [{}, {"MemAvailable": 500}])
def test_an_estimate_that_is_missing_or_impossible_is_replaced_by_what_is_free(info: dict[str, int]) -> None:
    found = amounts({"MemTotal": 100, "MemFree": 40, **info})
    assert (found["available"], found["used"], found["percent"]) == (40, 60, 60.0)


def test_what_the_kernel_does_not_say_is_left_out() -> None:
    assert amounts({"MemTotal": 100, "MemFree": 40}).keys() == {"total", "available", "used", "percent", "free"}


def test_lines_that_are_no_amounts_are_left_out() -> None:
    text = "MemTotal:  5 kB\ngarbage\nMemFree: x kB\nHugePages_Total:    7\n: 3 kB\n\nSlab: -1 kB\n"
    assert parse_meminfo(text) == {"MemTotal": 5 * KIB, "": 3 * KIB}


def test_pages_swapped_in_bytes() -> None:
    assert parse_swapped("nr_free 1\npswpin 3\npswpout 4", 4096) == [12288, 16384]
    with pytest.raises(ValueError, match="pswpin"):
        parse_swapped("xpswpin 3\npswpout 4", 4096)


@pytest.mark.parametrize("text", ["", "MemTotal: 5 kB\n", "\0\0"])
def test_a_useless_meminfo_leaves_the_swap_rates(host, text: str) -> None:
    source = host.source(MemorySource)
    (host.proc / "meminfo").write_text(text)
    host.read(source)
    assert host.read(source) == {"swap.in": 0.0, "swap.out": 0.0}
    assert list(source.parts.causes) == ["memory"]


def test_a_missing_vmstat_leaves_the_amounts(host) -> None:
    (host.proc / "vmstat").unlink()
    source = host.source(MemorySource)
    host.read(source)
    assert host.read(source)["total"] == 16_000_000 * KIB
