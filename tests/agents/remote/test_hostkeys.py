# SPDX-License-Identifier: MIT
"""Host keys, against real servers; the commands that errors print are run."""

import subprocess
from pathlib import Path

import asyncssh
import pytest

from agents.remote.hostkeys import HostKeyError, KnownHosts, Verifier
from agents.remote.script import Answer
from agents.remote.target import MonitorTarget
from tests.agents.remote.conftest import sessions
from tests.services.sshd import Sshd, SshHome, program

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl"


async def say_hello(server: Sshd, **options: object) -> str:
    """What a host answers to ``echo hello``."""
    answers: list[Answer] = []
    target = MonitorTarget(server.address, **options)  # type: ignore[arg-type]
    with sessions() as made:
        async with made.session(target) as session:
            await session.ask(["echo hello"], answers)
    return answers[0].output


async def refusal(server: Sshd, **options: object) -> str:
    with pytest.raises(HostKeyError) as caught:
        await say_hello(server, **options)
    return str(caught.value)


def run(command: str) -> None:
    subprocess.run(["sh", "-c", command], check=True, timeout=20, capture_output=True)


async def test_an_unknown_key_is_refused_with_its_fingerprint_and_the_command_that_accepts_it(ssh_home) -> None:
    server = ssh_home.server(known=False)
    said = await refusal(server)
    assert f"the host key of 127.0.0.1:{server.port} is not known: ssh-ed25519 {server.fingerprint}" in said
    assert "ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub" in said
    assert "Accepted" not in server.log
    run(said.partition("accept it with: ")[2])
    assert ssh_home.known_hosts.read_text() == f"[127.0.0.1]:{server.port} {server.public_key}\n"
    assert await say_hello(server) == "hello\n"


async def test_what_was_accepted_is_what_ssh_accepts(ssh_home) -> None:
    server = ssh_home.server(known=False)
    run((await refusal(server)).partition("accept it with: ")[2])
    command = [program("ssh"), "-F", "none", "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=yes"]
    command += ["-o", f"UserKnownHostsFile={ssh_home.known_hosts}", "-i", str(ssh_home.key)]
    command += ["-p", str(server.port), f"{ssh_home.user}@127.0.0.1", "echo hello"]
    assert subprocess.run(command, capture_output=True, timeout=20, check=True).stdout == b"hello\n"


async def test_the_command_makes_the_folder_and_quotes_the_file(ssh_home, tmp_path) -> None:
    server = ssh_home.server(known=False)
    file = tmp_path / "it's new; $(touch pwned)" / "known hosts"
    said = await refusal(server, known_hosts=(str(file),))
    run(said.partition("accept it with: ")[2])
    assert await say_hello(server, known_hosts=(str(file),)) == "hello\n"


async def test_a_changed_key_is_told_apart_and_there_is_no_command_that_accepts_it(ssh_home) -> None:
    server = ssh_home.server()
    old = server.fingerprint
    server.kill9()
    server.new_host_key()
    server.start()
    said = await refusal(server)
    assert f"THE HOST KEY OF 127.0.0.1:{server.port} HAS CHANGED" in said
    assert f"It shows ssh-ed25519 {server.fingerprint}; known is ssh-ed25519 {old}" in said
    assert "echo" not in said
    run(said.partition("remove the old one with: ")[2])
    assert "is not known" in await refusal(server)


async def test_a_key_of_another_kind_than_the_known_one_is_a_changed_key(ssh_home) -> None:
    server = ssh_home.server()
    old = server.fingerprint
    server.kill9()
    server.new_host_key("ecdsa")
    server.start()
    said = await refusal(server)
    assert "HAS CHANGED" in said
    assert f"shows ecdsa-sha2-nistp256 {server.fingerprint}; known is ssh-ed25519 {old}" in said
    assert "Accepted" not in server.log


async def test_a_revoked_key_is_refused(ssh_home) -> None:
    server = ssh_home.server()
    with ssh_home.known_hosts.open("a") as file:
        file.write(f"@revoked * {server.public_key}\n")
    assert "revoked" in await refusal(server)


def certify(home: SshHome, server: Sshd) -> str:
    """Sign a server's key with a new authority, whose public key is returned."""
    authority = home.new_key("authority")
    host_key = server._host_key
    command = [program("ssh-keygen"), "-q", "-s", str(authority), "-I", "db1", "-h", "-n", "127.0.0.1"]
    subprocess.run([*command, f"{host_key}.pub"], check=True, timeout=20)
    server.kill9()
    server._settings = (f"HostCertificate {host_key}-cert.pub",)
    server.start()
    return " ".join(Path(f"{authority}.pub").read_text().split()[:2])


async def test_an_authority_that_is_known_vouches_for_a_host(ssh_home) -> None:
    server = ssh_home.server(known=False)
    authority = certify(ssh_home, server)
    said = await refusal(server)
    assert "an authority that is not known" in said
    run(said.partition("accept it with: ")[2])
    assert ssh_home.known_hosts.read_text() == f"@cert-authority [127.0.0.1]:{server.port} {authority}\n"
    assert await say_hello(server) == "hello\n"


@pytest.mark.parametrize("setting", ["UserKnownHostsFile none", "UserKnownHostsFile /dev/null"])
async def test_no_configuration_switches_the_check_off(ssh_home, setting: str) -> None:
    server = ssh_home.server()
    (ssh_home.ssh / "config").write_text(f"Host *\n  {setting}\n  StrictHostKeyChecking no\n")
    assert "is not known" in await refusal(server)


async def test_the_files_of_the_configuration_are_read(ssh_home, tmp_path) -> None:
    server = ssh_home.server(known=False)
    (tmp_path / "hosts").write_text(f"[127.0.0.1]:{server.port} {server.public_key}\n")
    (ssh_home.ssh / "config").write_text(f"GlobalKnownHostsFile {tmp_path / 'hosts'}\n")
    assert await say_hello(server) == "hello\n"


async def test_names_may_be_hashed_and_lines_that_make_no_sense_are_left_out(ssh_home, caplog) -> None:
    server = ssh_home.server()
    subprocess.run([program("ssh-keygen"), "-q", "-H", "-f", str(ssh_home.known_hosts)], check=True, timeout=20)
    text = ssh_home.known_hosts.read_text()
    assert text.startswith("|1|")
    ssh_home.known_hosts.write_text(
        f"nonsense\n@odd * ssh-ed25519 AAAA\n# a comment\n\n|1|x|y ssh-ed25519 AAAA\n{text}"
    )
    assert await say_hello(server) == "hello\n"
    assert await say_hello(server) == "hello\n"
    assert caplog.text.count("line 1 is left out") == 1
    assert caplog.text.count("is left out") == 2


def test_files_that_are_missing_or_too_large_count_as_empty(tmp_path, monkeypatch, caplog) -> None:
    monkeypatch.setattr("agents.remote.hostkeys.MAX_FILE_BYTES", 10)
    (tmp_path / "large").write_text("x" * 11)
    known = KnownHosts([str(tmp_path / "missing"), str(tmp_path / "large")])
    assert list(known.keys("db1", "", None)) == []
    assert "large" in caplog.text


def test_what_is_to_be_added_has_a_port_only_if_it_is_not_the_usual_one(tmp_path) -> None:
    key = asyncssh.import_public_key(KEY)
    verifier = Verifier("db1", KnownHosts([str(tmp_path / "hosts")]))
    assert not verifier.validate_host_public_key("DB1", "10.0.0.5", 22, key)
    assert f"echo 'db1 {KEY}' >> {tmp_path / 'hosts'}" in str(verifier.problem)
    assert "the host key of DB1:22 (10.0.0.5) is not known" in str(verifier.problem)
    assert not verifier.validate_host_public_key("::1", "::1", 2222, key)
    assert f"echo '[::1]:2222 {KEY}'" in str(verifier.problem)
    assert "the host key of [::1]:2222 is not known" in str(verifier.problem)


def test_names_are_looked_up_without_regard_to_case(tmp_path) -> None:
    (tmp_path / "hosts").write_text(f"db1.example.org {KEY}\n")
    known = KnownHosts([str(tmp_path / "hosts")])
    assert len(known.keys("DB1.Example.org", "", None)) == 1
    assert len(known.keys("db2.example.org", "", None)) == 0
