# SPDX-License-Identifier: MIT
import pytest

from agents.remote.parsers.network import NetworkParser, state
from tests.agents.remote.shell import FixtureShell


@pytest.fixture
def shell(host) -> FixtureShell:
    return FixtureShell(host)


def test_traffic_is_told_since_the_last_run(shell) -> None:
    parser = NetworkParser()
    assert "eth0.rx_bytes" not in shell.ask(parser)
    shell.host.replace("net/dev", "eth0: 5000000   40000    3    7", "eth0: 5003000   40006    3    9")
    reading = shell.ask(parser, after_s=2.0)
    assert (reading["eth0.rx_bytes"], reading["eth0.rx_packets"], reading["eth0.rx_drops"]) == (1500.0, 3.0, 1.0)
    assert (reading["eth0.rx_errors"], reading["eth0.tx_bytes"]) == (0.0, 0.0)


def test_the_hosts_ends_of_containers_links_are_left_out(shell) -> None:
    parser = NetworkParser()
    shell.ask(parser)
    assert {name.partition(".")[0] for name in shell.ask(parser)} == {"lo", "eth0", "wlan0", "tcp"}


def test_an_interface_that_is_up_has_a_speed_if_there_is_one(shell) -> None:
    reading = shell.ask(NetworkParser())
    assert (reading["eth0.up"], reading["eth0.speed"]) == (1.0, 1e9)
    assert (reading["lo.up"], reading["wlan0.up"]) == (1.0, 0.0)
    assert not {"lo.speed", "wlan0.speed"} & reading.keys()


def test_a_speed_that_the_kernel_does_not_know_is_left_out(shell) -> None:
    (shell.host.sys / "class/net/eth0/speed").write_text("-1\n")
    assert "eth0.speed" not in shell.ask(NetworkParser())


def test_an_interface_that_is_down_has_no_speed(shell) -> None:
    (shell.host.sys / "class/net/eth0/operstate").write_text("down\n")
    reading = shell.ask(NetworkParser())
    assert reading["eth0.up"] == 0.0
    assert "eth0.speed" not in reading


def test_one_interface_with_a_garbled_state_costs_only_its_own(shell, caplog) -> None:
    (shell.host.sys / "class/net/eth0/speed").write_text("fast\n")
    parser = NetworkParser()
    for _ in range(3):
        reading = shell.ask(parser)
    assert {"eth0.rx_bytes", "lo.up"} <= reading.keys()
    assert "eth0.speed" not in reading
    assert [record.message[:33] for record in caplog.records] == ["web1: network: state of eth0 fail"]


def test_an_interface_without_a_state_has_none() -> None:
    assert state("eth0", {}, "eth0") == {}
    assert state("eth0", {"/sys/class/net/eth0/operstate": ["down"]}, "eth0") == {"eth0.up": 0.0}


def test_connections_that_wait_are_those_that_the_kernel_counts(shell) -> None:
    shell.host.replace("net/sockstat", "tw 1", "tw 17")
    assert shell.ask(NetworkParser())["tcp.time_wait"] == 17.0


@pytest.mark.parametrize("text", [None, "TCP: inuse 5\n"])
def test_without_socket_counters_there_is_traffic(text: str | None, shell, caplog) -> None:
    if text is None:
        (shell.host.proc / "net/sockstat").unlink()
    else:
        (shell.host.proc / "net/sockstat").write_text(text)
    reading = shell.ask(NetworkParser())
    assert "eth0.up" in reading
    assert "tcp.time_wait" not in reading
    assert len(caplog.records) == (text is not None)  # a kernel without them is no failure


def test_two_interfaces_never_share_a_name(shell) -> None:
    shell.host.replace("net/dev", "wlan0:", "eth_0: 1 1 0 0 0 0 0 0 1 1 0 0 0 0 0 0\neth@0:")
    parser = NetworkParser()
    shell.ask(parser)
    reading = shell.ask(parser)
    assert {"eth_0.rx_bytes", "eth_0-2.rx_bytes"} <= reading.keys()
