# SPDX-License-Identifier: MIT
"""Ways to hosts, through real servers: keys, the agent, OpenSSH's configuration, jump hosts."""

import asyncio
import os
import re
from collections.abc import AsyncIterator
from contextlib import closing

import pytest

from agents.base.worker import Worker
from agents.remote.connecting import CannotConnect, Connector, printable
from agents.remote.hostkeys import HostKeyError
from agents.remote.session import Session
from agents.remote.target import MonitorTarget
from tests.agents.remote.conftest import sessions, until
from tests.services.sshd import Sshd, free_port, silent_listener


@pytest.fixture
async def connector() -> AsyncIterator[Connector]:
    with closing(Worker("test: files")) as worker:
        made = Connector(worker)
        yield made
        assert made._jumps == {}


async def asked(connector: Connector, target: MonitorTarget) -> str:
    """The user that the host knows us as, and the port on which we came."""
    async with asyncio.timeout(20), connector.connection(target) as connection:
        result = await connection.run("echo $USER ${SSH_CONNECTION##* }", check=True)
        return str(result.stdout).strip()


def via(*servers: Sshd) -> tuple[str, ...]:
    return tuple(server.address for server in servers)


async def test_the_users_own_key_opens_the_door(ssh_home, connector) -> None:
    server = ssh_home.server()
    assert await asked(connector, MonitorTarget(server.address)) == f"{ssh_home.user} {server.port}"


async def test_a_key_may_be_given(ssh_home, connector, tmp_path) -> None:
    server = ssh_home.server()
    key = ssh_home.new_key("other", folder=tmp_path)
    server.allow(key)
    with pytest.raises(CannotConnect, match="takes none of the keys that we have for user"):
        await asked(connector, MonitorTarget(server.address))
    assert str(server.port) in await asked(connector, MonitorTarget(server.address, keys=(str(key),)))


async def test_the_agent_has_keys(ssh_home, connector, monkeypatch, tmp_path) -> None:
    server = ssh_home.server()
    key = ssh_home.new_key("other", folder=tmp_path)
    server.allow(key)
    monkeypatch.setenv("SSH_AUTH_SOCK", str(ssh_home.agent(key)))
    assert str(server.port) in await asked(connector, MonitorTarget(server.address))


async def test_a_key_that_is_encrypted_is_taken_from_the_agent_or_the_host_says_no(ssh_home, connector) -> None:
    server = ssh_home.server()
    key = ssh_home.new_key("locked", passphrase="secret words")
    server.allow(key)
    with pytest.raises(CannotConnect, match="takes none of the keys"):
        await asked(connector, MonitorTarget(server.address, keys=(str(key),)))


async def test_a_key_that_is_missing_is_named(ssh_home, connector) -> None:
    server = ssh_home.server()
    with pytest.raises(CannotConnect, match="nokey"):
        await asked(connector, MonitorTarget(server.address, keys=("~/nokey",)))


async def test_a_dead_agent_is_no_harm(ssh_home, connector, monkeypatch, tmp_path) -> None:
    server = ssh_home.server()
    monkeypatch.setenv("SSH_AUTH_SOCK", str(tmp_path / "nothing"))
    assert str(server.port) in await asked(connector, MonitorTarget(server.address))


async def test_an_alias_in_the_configuration_leads_through_its_jump_host(ssh_home, connector) -> None:
    bastion, server = ssh_home.server(), ssh_home.server()
    (ssh_home.ssh / "config").write_text(
        f"Host db1\n  Hostname 127.0.0.1\n  Port {server.port}\n  User {ssh_home.user}\n  ProxyJump bastion\n"
        f"Host bastion\n  Hostname 127.0.0.1\n  Port {bastion.port}\n  RemoteCommand false\n  RequestTTY force\n"
    )
    assert await asked(connector, MonitorTarget("db1")) == f"{ssh_home.user} {server.port}"
    assert "Accepted" in bastion.log


async def test_the_direct_way_may_be_asked_for(ssh_home, connector) -> None:
    bastion, server = ssh_home.server(), ssh_home.server()
    (ssh_home.ssh / "config").write_text(f"Host *\n  ProxyJump 127.0.0.1:{bastion.port}\n")
    await asked(connector, MonitorTarget(server.address, jump=("none",)))
    assert "Accepted" not in bastion.log


async def test_another_configuration_may_be_given(ssh_home, connector, tmp_path) -> None:
    server = ssh_home.server()
    (ssh_home.ssh / "config").write_text("Host *\n  Port 1\n")
    (tmp_path / "config").write_text(f"Host *\n  Hostname 127.0.0.1\n  Port {server.port}\n")
    assert str(server.port) in await asked(connector, MonitorTarget("db1", ssh_config=str(tmp_path / "config")))


@pytest.mark.parametrize("text", [None, "Host 'db1\n", "Port many\n"])
async def test_a_configuration_that_cannot_be_read_is_named(ssh_home, connector, tmp_path, text) -> None:
    path = tmp_path / "config"
    if text is not None:
        path.write_text(text)
    with pytest.raises(CannotConnect, match=str(path)):
        await asked(connector, MonitorTarget("127.0.0.1", ssh_config=str(path)))


async def test_several_jump_hosts_are_passed_in_their_order(ssh_home, connector) -> None:
    first, second, server = ssh_home.server(), ssh_home.server(), ssh_home.server()
    await asked(connector, MonitorTarget(server.address, jump=via(first, second)))
    assert f"port {second.port}" in first.log or "direct-tcpip" in first.log or "Accepted" in first.log
    assert all("Accepted" in one.log for one in (first, second))
    first.kill9()
    with pytest.raises(CannotConnect, match="on the way"):
        await asked(connector, MonitorTarget(server.address, jump=via(first, second)))


async def test_hosts_behind_one_jump_host_share_the_connection_to_it(ssh_home, connector) -> None:
    bastion, server = ssh_home.server(), ssh_home.server()
    target = MonitorTarget(server.address, jump=via(bastion))
    async with asyncio.timeout(20), connector.connection(target), connector.connection(target):
        assert len(connector._jumps) == 1
        assert server.log.count("Accepted publickey") == 2
        await asked(connector, target)
    assert bastion.log.count("Accepted publickey") == 1
    assert connector._jumps == {}
    await asked(connector, target)
    assert bastion.log.count("Accepted publickey") == 2


async def test_a_jump_host_that_died_is_connected_to_again(ssh_home, connector) -> None:
    bastion, server = ssh_home.server(), ssh_home.server()
    target = MonitorTarget(server.address, jump=via(bastion))
    async with asyncio.timeout(20), connector.connection(target) as connection:
        bastion.kill9()
        bastion.start()
        await connection.wait_closed()
        await asked(connector, target)


async def test_who_waits_for_a_jump_host_may_give_up_without_harm_to_others(ssh_home, connector) -> None:
    bastion, server = ssh_home.server(), ssh_home.server()
    target = MonitorTarget(server.address, jump=via(bastion))
    bastion.freeze()
    tasks = [asyncio.create_task(asked(connector, target)) for _ in range(2)]
    await until(lambda: any(jump.users == 2 for jump in connector._jumps.values()))
    tasks[0].cancel()
    await asyncio.wait({tasks[0]})
    bastion.thaw()
    assert str(server.port) in await tasks[1]


async def test_nothing_is_left_of_a_jump_host_that_nobody_waits_for_any_more(ssh_home, connector) -> None:
    with silent_listener() as port:
        target = MonitorTarget("127.0.0.1:1", jump=(f"127.0.0.1:{port}",))
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.3), connector.connection(target):
                pass
    assert connector._jumps == {}
    assert not [task for task in asyncio.all_tasks() if "jump host" in task.get_name()]


async def test_the_key_of_a_jump_host_is_checked(ssh_home, connector) -> None:
    bastion, server = ssh_home.server(known=False), ssh_home.server()
    with pytest.raises(CannotConnect, match=f"on the way: .*127.0.0.1:{bastion.port} is not known: ssh-ed25519 SHA256"):
        await asked(connector, MonitorTarget(server.address, jump=via(bastion)))
    assert "Accepted" not in bastion.log


async def test_the_key_of_a_host_behind_a_jump_host_is_checked(ssh_home, connector) -> None:
    bastion, server = ssh_home.server(), ssh_home.server(known=False)
    with pytest.raises(HostKeyError, match=re.escape(server.fingerprint)):
        await asked(connector, MonitorTarget(server.address, jump=via(bastion)))


async def test_a_jump_host_for_all_is_reached_directly(ssh_home, connector) -> None:
    bastion, server = ssh_home.server(), ssh_home.server()
    (ssh_home.ssh / "config").write_text(
        f"Host bastion\n  Hostname 127.0.0.1\n  Port {bastion.port}\nHost *\n  ProxyJump bastion\n"
    )
    await asked(connector, MonitorTarget(server.address))
    assert "Accepted" in bastion.log


async def test_jump_hosts_in_a_circle_are_an_error(ssh_home, connector) -> None:
    (ssh_home.ssh / "config").write_text("Host a\n  ProxyJump b\nHost b\n  ProxyJump a\n")
    with pytest.raises(CannotConnect, match="more than 8 jump hosts"):
        async with asyncio.timeout(20):
            await asked(connector, MonitorTarget("a"))
    assert connector._jumps == {}


async def test_files_that_cannot_be_read_in_time_delay_nobody_else(ssh_home, connector, monkeypatch) -> None:
    """A pipe that nobody writes to is as a file on a server that is dead."""
    monkeypatch.setattr("agents.remote.connecting.FILES_S", 0.1)
    pipe = ssh_home.base / "config"
    os.mkfifo(pipe)
    with pytest.raises(CannotConnect, match=r"db1: .*/config cannot be used: .* did not answer within 0\.1 s"):
        async with asyncio.timeout(20):
            await asked(connector, MonitorTarget("db1", ssh_config=str(pipe)))
    server = ssh_home.server()
    await asked(connector, MonitorTarget(server.address))
    pipe.write_text("")  # lets the thread go


async def test_a_port_where_nobody_listens_is_said(ssh_home, connector) -> None:
    with pytest.raises(CannotConnect, match=r"refused|Connect call failed"):
        await asked(connector, MonitorTarget(f"127.0.0.1:{free_port()}"))


async def opened(target: MonitorTarget) -> Session:
    with sessions() as made:
        async with made.session(target) as session:
            return session


async def test_a_server_that_never_speaks_is_given_up_in_time(ssh_home) -> None:
    with silent_listener() as port, pytest.raises(CannotConnect, match=r"no session within 0\.3 s"):
        await opened(MonitorTarget(f"127.0.0.1:{port}", connect_timeout_s=0.3))


def test_what_a_host_says_is_made_one_short_line() -> None:
    assert printable("a\x1b[31m\nb\u202e" + "x" * 400) == "a?[31m?b?" + "x" * 291


async def test_what_a_server_says_cannot_disturb_a_terminal(ssh_home) -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"SSH-2.0-\x1b[31mred\x07\r\n" + bytes(100))
        await writer.drain()
        await reader.read(1000)
        writer.close()

    listener = await asyncio.start_server(talk, "127.0.0.1", 0)
    port = listener.sockets[0].getsockname()[1]
    with pytest.raises(CannotConnect) as caught:
        await opened(MonitorTarget(f"127.0.0.1:{port}", connect_timeout_s=5))
    assert str(caught.value).isprintable()
    listener.close()
    await listener.wait_closed()
