# SPDX-License-Identifier: MIT
import socket
import struct
from contextlib import ExitStack

import pytest

from agents.base import tcp

ALL_STATES = 0xFFF | 1 << 12


MANY = 40
"""Connections that a test makes: many more than come and go meanwhile on the machine it runs on."""


def test_lines_of_proc_are_counted_by_state(host) -> None:
    text = (host.proc / "net/tcp").read_text() + (host.proc / "net/tcp6").read_text()
    assert tcp.count_lines(text.splitlines()) == {
        "established": 2,
        "syn_sent": 0,
        "syn_recv": 1,
        "fin_wait1": 0,
        "fin_wait2": 0,
        "time_wait": 1,
        "close": 0,
        "close_wait": 1,
        "last_ack": 0,
        "listen": 3,
        "closing": 0,
    }


def test_lines_that_make_no_sense_are_left_out() -> None:
    lines = ["", "0:", "a b c 0G d", "a b c FF d", "a b c 01 d", "a b c 0C d"]
    counted = tcp.count_lines(lines)
    assert (counted["established"], counted["syn_recv"], sum(counted.values())) == (1, 1, 2)


def test_established_is_what_the_kernel_counts_without_close_wait() -> None:
    others = dict.fromkeys(tcp.STATES, 0) | {"close_wait": 3, "listen": 5}
    snmp = "Tcp: RtoMin CurrEstab InSegs\nTcp: 200 10 9\n"
    found = tcp.with_counters(others, snmp, "sockets: used 9\nTCP: inuse 5 orphan 0 tw 4 alloc 9 mem 4\n")
    assert (found["established"], found["time_wait"], found["listen"]) == (7, 4, 5)


def test_established_is_never_negative() -> None:
    others = dict.fromkeys(tcp.STATES, 0) | {"close_wait": 3}
    assert tcp.with_counters(others, "Tcp: CurrEstab\nTcp: 2\n", "TCP: inuse 5 tw 4\n")["established"] == 0


@pytest.mark.parametrize(("snmp", "sockstat"), [("", "TCP: tw 1"), ("Tcp: A\nTcp: 1", "TCP: tw 1")])
def test_counters_that_are_missing_are_an_error(snmp: str, sockstat: str) -> None:
    with pytest.raises(ValueError):
        tcp.with_counters(dict.fromkeys(tcp.STATES, 0), snmp, sockstat)
    with pytest.raises(ValueError):
        tcp.parse_time_wait("TCP: inuse 5\n")


def test_the_kernel_knows_the_connections_that_this_test_makes() -> None:
    with ExitStack() as opened:
        listener = opened.enter_context(socket.create_server(("127.0.0.1", 0), backlog=MANY))
        before = tcp.dump_states(ALL_STATES)
        clients, servers = [], []
        for _ in range(MANY):
            clients.append(opened.enter_context(socket.create_connection(listener.getsockname())))
            servers.append(opened.enter_context(listener.accept()[0]))
        during = tcp.dump_states(ALL_STATES)
        for client, server in zip(clients, servers, strict=True):
            client.shutdown(socket.SHUT_WR)
            assert server.recv(1) == b""
        after = tcp.dump_states()
    assert before["listen"] >= 1
    assert during["established"] > before["established"] + MANY
    assert after["close_wait"] > before["close_wait"] + MANY / 2
    # The acknowledgement that leads from FIN_WAIT1 to FIN_WAIT2 may be delayed by 40 ms.
    closing = [counted["fin_wait1"] + counted["fin_wait2"] for counted in (before, after)]
    assert closing[1] > closing[0] + MANY / 2
    assert after["established"] == 0  # left to the kernel's own count


def test_both_versions_of_ip_are_counted() -> None:
    if not socket.has_dualstack_ipv6():
        pytest.skip("this machine has no IPv6")
    with ExitStack() as opened:
        before = tcp.dump_states()["listen"]
        for _ in range(MANY):
            opened.enter_context(socket.create_server(("::1", 0), family=socket.AF_INET6))
            opened.enter_context(socket.create_server(("127.0.0.1", 0)))
        assert tcp.dump_states()["listen"] > before + 1.5 * MANY


def test_a_refusal_of_the_kernel_is_an_os_error() -> None:
    message = struct.pack("=IHHIIi", 20, 2, 0, 1, 0, -2)
    with pytest.raises(FileNotFoundError, match="sock_diag"):
        tcp._count_messages(message, [0] * 13)
