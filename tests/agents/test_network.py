# SPDX-License-Identifier: MIT
import errno

import pytest

from agents.base import tcp
from agents.network import NetworkSource, is_up, parse_interface


def interfaces_of(reading: dict[str, float]) -> set[str]:
    return {name.removesuffix(".up") for name in reading if name.endswith(".up")}


def test_counters_of_a_line() -> None:
    assert parse_interface(" eth0: 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16") == ("eth0", [1, 2, 3, 4, 9, 10, 11, 12])


def test_an_interface_with_a_colon_in_its_name_and_no_blank_after_it() -> None:
    assert parse_interface("eth0:1:77 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16")[0] == "eth0:1"


@pytest.mark.parametrize("line", ["", "eth0", "eth0: 1 2", "eth0: a 2 3 4 5 6 7 8 9 10 11 12"])
def test_a_line_that_makes_no_sense_is_an_error(line: str) -> None:
    with pytest.raises((ValueError, IndexError)):
        parse_interface(line)


def test_states_in_which_an_interface_carries_traffic() -> None:
    states = ("up\n", "unknown\n", "down\n", "dormant\n", "lowerlayerdown\n", "notpresent\n", "testing\n", "")
    assert [is_up(state) for state in states] == [True, True] + [False] * 6


def test_the_first_reading_has_states_but_no_rates(host) -> None:
    reading = host.read(host.source(NetworkSource, {"tcp": False}))
    assert reading == {"lo.up": 1.0, "eth0.up": 1.0, "eth0.speed": 1e9, "wlan0.up": 0.0}


def test_rates_since_the_last_reading(host) -> None:
    source = host.source(NetworkSource)
    host.read(source)
    host.replace("net/dev", "eth0: 5000000   40000    3    7", "eth0: 5001000   40010    4    9")
    host.replace("net/dev", "2000000   30000    1    2", "2000600   30004    1    3")
    reading = host.read(source, after_s=2.0)
    assert {name.removeprefix("eth0."): value for name, value in reading.items() if name.startswith("eth0.")} == {
        "rx_bytes": 500.0,
        "rx_packets": 5.0,
        "rx_errors": 0.5,
        "rx_drops": 1.0,
        "tx_bytes": 300.0,
        "tx_packets": 2.0,
        "tx_errors": 0.0,
        "tx_drops": 0.5,
        "up": 1.0,
        "speed": 1e9,
    }


def test_counters_that_were_reset_have_no_value_for_one_reading(host) -> None:
    source = host.source(NetworkSource)
    host.read(source)
    host.replace("net/dev", "eth0: 5000000", "eth0: 10")
    reading = host.read(source)
    assert "eth0.rx_bytes" not in reading
    assert "lo.rx_bytes" in reading
    assert host.read(source)["eth0.rx_bytes"] == 0.0


def test_an_interface_that_appears_is_sampled(host) -> None:
    source = host.source(NetworkSource)
    host.read(source)
    host.replace("net/dev", "  eth0:", " tun.0: 1 1 0 0 0 0 0 0 1 1 0 0 0 0 0 0\n  eth0:")
    (host.sys / "class/net/tun.0").mkdir()
    (host.sys / "class/net/tun.0/operstate").write_text("unknown\n")
    assert host.read(source)["tun_0.up"] == 1.0
    assert host.read(source)["tun_0.rx_bytes"] == 0.0


def test_an_interface_that_vanishes_is_forgotten_and_its_file_closed(host) -> None:
    source = host.source(NetworkSource)
    host.read(source)
    open_files = len(source.files._fds)
    lines = (host.proc / "net/dev").read_text().splitlines(keepends=True)
    (host.proc / "net/dev").write_text("".join(line for line in lines if "eth0" not in line))
    assert interfaces_of(host.read(source)) == {"lo", "wlan0"}
    assert len(source.files._fds) == open_files - 1


def test_an_interface_without_a_state_costs_only_itself(host) -> None:
    (host.sys / "class/net/eth0/operstate").unlink()
    source = host.source(NetworkSource)
    host.read(source)
    reading = host.read(source)
    assert interfaces_of(reading) == {"lo", "wlan0"}
    assert reading["eth0.rx_bytes"] == 0.0


def test_the_speed_is_asked_for_again_when_the_link_comes_up(host) -> None:
    source = host.source(NetworkSource)
    host.read(source)
    wlan = host.sys / "class/net/wlan0"
    (wlan / "speed").write_text("866\n")
    assert "wlan0.speed" not in host.read(source)
    (wlan / "operstate").write_text("up\n")
    assert host.read(source)["wlan0.speed"] == 866e6
    (wlan / "operstate").write_text("down\n")
    assert "wlan0.speed" not in host.read(source)


def test_globs_choose_interfaces(host) -> None:
    source = host.source(NetworkSource, {"include": ["e*", "veth*"], "exclude": []})
    assert interfaces_of(host.read(source)) == {"eth0", "veth1a2b3c"}


def test_connections_are_counted_every_10_s_where_they_are_listed_one_by_one(host) -> None:
    source = host.source(NetworkSource)
    assert host.read(source)["tcp.listen"] == 3
    assert "tcp.listen" not in host.read(source)
    assert host.read(source, after_s=10.0)["tcp.listen"] == 3


def test_a_kernel_without_ipv6_has_the_connections_of_ipv4(host) -> None:
    (host.proc / "net/tcp6").unlink()
    assert host.read(host.source(NetworkSource))["tcp.listen"] == 2


def test_without_sock_diag_the_lines_are_counted(host, monkeypatch) -> None:
    def refused() -> dict[str, int]:
        raise OSError(errno.EPROTONOSUPPORT, "no sock_diag")

    monkeypatch.setattr(tcp, "dump_states", refused)
    source = host.source(NetworkSource)
    source._netlink = True
    assert host.read(source)["tcp.established"] == 2


def test_with_sock_diag_the_counters_are_added_to_its_answer(host, monkeypatch) -> None:
    monkeypatch.setattr(tcp, "dump_states", lambda: dict.fromkeys(tcp.STATES, 0) | {"close_wait": 1, "listen": 9})
    source = host.source(NetworkSource)
    source._netlink = True
    for _ in range(2):
        reading = host.read(source)
        assert (reading["tcp.established"], reading["tcp.time_wait"], reading["tcp.listen"]) == (2, 1, 9)


@pytest.mark.parametrize("text", ["", "one\ntwo\nnonsense\n"])
def test_a_useless_list_of_interfaces_leaves_the_connections(host, text: str) -> None:
    (host.proc / "net/dev").write_text(text)
    assert host.read(host.source(NetworkSource))["tcp.listen"] == 3


def test_without_lists_of_connections_the_interfaces_are_sampled(host) -> None:
    (host.proc / "net/tcp").unlink()
    reading = host.read(host.source(NetworkSource))
    assert interfaces_of(reading) == {"lo", "eth0", "wlan0"}
    assert "tcp.listen" not in reading


async def test_globs_take_effect_at_once(host) -> None:
    source = host.source(NetworkSource)
    host.read(source)
    await source.reconfigure(NetworkSource.Config.load({"prefix": "web1", "exclude": ["lo", "w*"], "tcp": False}))
    assert host.read(source).keys() >= {"eth0.rx_bytes", "veth1a2b3c.up"}
    assert "lo.up" not in host.read(source)
